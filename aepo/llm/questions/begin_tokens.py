"""Prompts as tokens: the tokenizer's own begin token stands first, once, under every template; no end token is put."""

from collections.abc import Sequence
from typing import Any

from aepo.llm.questions.files import DataError, shown

PromptTokens = tuple[int, ...]


def begin_ids(tokenizer: Any, text: str) -> PromptTokens:
    """What the tokenizer puts before every text, such as <s> (Llama, Gemma, Mistral); () if it puts nothing there.

    Args:
        tokenizer: a transformers one.
        text: any that it can encode, not empty.

    >>> from aepo.llm.questions.small_tokenizers import byte_tokenizer
    >>> begin_ids(byte_tokenizer(), "A")
    ()
    """
    alone, whole = (tokenizer.encode(text, add_special_tokens=special) for special in (False, True))
    # Behind the text it may put an end token, which would end the answer before it begins.
    for start in range(len(whole) - len(alone) + 1):
        if whole[start : start + len(alone)] == alone:
            return tuple(whole[:start])
    raise DataError(
        f"model.path: its tokenizer makes other tokens of {shown(text)!r} with special tokens than without them; give "
        "one that only puts some before or behind"
    )


def encoded(tokenizer: Any, texts: Sequence[str], *, places: Sequence[str]) -> list[PromptTokens]:
    """Prompts as tokens, with what the tokenizer puts before a text, unless the template has written it there.

    Args:
        tokenizer: a transformers one.
        texts: the prompts, special tokens written out; none empty.
        places: of each, for messages: file and row.

    Raises:
        DataError: a text that the tokenizer cannot encode.
    """
    found = []
    begin: PromptTokens = ()
    for at, (text, place) in enumerate(zip(texts, places, strict=True)):
        try:
            if at == 0:
                begin = begin_ids(tokenizer, text)
            tokens = tuple(tokenizer.encode(text, add_special_tokens=False))
        except DataError:
            raise
        # A closed vocabulary says so by the plain Exception of the tokenizer's Rust part.
        except Exception as problem:
            raise DataError(
                f"{place}: the tokenizer of the model cannot encode the question ({shown(str(problem))}); remove the "
                "row, or take a model of text"
            ) from problem
        if not tokens:
            raise DataError(
                f"{place}: the tokenizer of the model makes no tokens of {shown(text)!r}; give model.path one that is "
                "whole"
            )
        # Templates written over several lines may start with a line's end.
        written = bool(begin) and text.lstrip().startswith("".join(tokenizer.convert_ids_to_tokens(list(begin))))
        found.append(tokens if written or tokens[: len(begin)] == begin else begin + tokens)
    return found
