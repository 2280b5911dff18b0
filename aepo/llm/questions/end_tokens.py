"""Which tokens end a response: more than one, as a base model's tokenizer ends texts and not the turns of a chat."""

import logging
from collections.abc import Iterable
from typing import Any

from aepo.home_path import at_home
from aepo.llm.questions.files import DataError, shown
from aepo.llm.questions.templates import CHAT, TEMPLATES
from aepo.llm.settings import EndTokens

log = logging.getLogger("aepo")

CLOSES_A_TURN = {name: "<|im_end|>" for name in TEMPLATES if name.startswith("qwen")}
"""Of the named templates, what stands behind each message."""
ANSWER = "An answer."
NO_TURN = "responses end with the model's own end tokens, and not where a turn would close"


def end_ids(tokenizer: Any, template: str, *, ends: EndTokens, published: Iterable[int] = ()) -> tuple[int, ...]:
    """Ids of the tokens that end a response, the tokenizer's own first.

    Args:
        tokenizer: a transformers one with an end token.
        template: a name in `aepo.llm.questions.templates.NAMES`; that of `chat` is asked what closes an answer.
        ends: "model" for the model's own only; "turn" also for the special token that closes a turn in the template,
            if the tokenizer has it as one.
        published: `published_ends` of the model.

    >>> from aepo.llm.questions.small_tokenizers import byte_tokenizer
    >>> end_ids(byte_tokenizer(), "qwen_math", ends="turn", published=(5, 1))
    (1, 5)
    """
    closing = _closing(tokenizer, template) if ends == "turn" else ()
    return tuple(dict.fromkeys((tokenizer.eos_token_id, *published, *closing)))


def _closing(tokenizer: Any, template: str) -> tuple[int, ...]:
    if template == CHAT:
        messages = [{"role": "user", "content": "A question?"}, {"role": "assistant", "content": ANSWER}]
        try:
            _, shown_answer, text = tokenizer.apply_chat_template(messages, tokenize=False).rpartition(ANSWER)
        # The template is a program of the model's publisher: it may raise anything, or show no answers.
        except Exception as problem:
            log.warning("the chat template shows no answer (%s): %s", " ".join(str(problem).split())[:200], NO_TURN)
            return ()
        if not shown_answer:
            log.warning("the chat template shows no answer: %s", NO_TURN)
            return ()
    else:
        text = CLOSES_A_TURN.get(template, "")
    first = tokenizer.encode(text, add_special_tokens=False)[:1]
    # A text that is spelled by several tokens ends nothing.
    return tuple(token for token in first if token in tokenizer.all_special_ids)


def published_ends(model: str) -> tuple[int, ...]:
    """The end tokens in a model's generation_config.json, which its publisher samples with; () without that file.

    Args:
        model: folder or hub id.

    Raises:
        DataError: the file is there and cannot be read.
    """
    from transformers import GenerationConfig

    path = at_home(model) / "generation_config.json"
    try:
        found = GenerationConfig.from_pretrained(model).eos_token_id
    # Of a file that holds something else than its object, any.
    except Exception as error:
        if path.is_file():
            raise DataError(f"{path}: unreadable, and it may name end tokens ({error}); copy it again") from error
        if isinstance(error, OSError):
            return ()
        raise
    if found is None:
        return ()
    ends = tuple(found) if isinstance(found, list | tuple) else (found,)
    # Ids are of 32 bits in every tokenizer.
    if not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**31 for one in ends):
        raise DataError(
            f"{path}: eos_token_id must be the id of a token or a list of such, got {shown(repr(found))}; copy it again"
        )
    return ends


def described(tokenizer: Any, ids: Iterable[int]) -> str:
    """For the log, such as `<eos> (1), <|im_end|> (258)`."""
    return ", ".join(f"{tokenizer.convert_ids_to_tokens(one)} ({one})" for one in ids)
