"""The task of `data.train`, with the tokenizer that fits it."""

import logging

from aepo.llm.questions import small_tokenizers as vocabulary
from aepo.llm.questions.end_tokens import published_ends
from aepo.llm.questions.task import DataError, Task, math_task
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import Settings

log = logging.getLogger("aepo")


def load_task(settings: Settings) -> Task:
    """The task of `data.train`, with the tokenizer that fits it: the model's own, or one built on the spot.

    Raises:
        DataError: data that cannot be used.
    """
    if settings.data.train == "walk":
        if settings.model.path is not None and not _is_walk_model(settings.model.path):
            raise DataError(
                f"model.path={settings.model.path}: its tokenizer is not the walk task's; "
                "give data.train a file of questions, or leave model.path out"
            )
        return walk_task()
    if settings.model.path is None:
        tokenizer = vocabulary.byte_tokenizer()
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(settings.model.path)
        if tokenizer.eos_token_id is None:
            raise DataError(f"model.path={settings.model.path}: its tokenizer has no end token")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    published = () if settings.model.path is None else published_ends(settings.model.path)
    task, left_out = math_task(settings.data, settings.reward, tokenizer, seed=settings.seed, published_ends=published)
    if left_out:
        log.info("data: %d prompts over %d tokens left out", left_out, settings.data.max_prompt_tokens)
    return task


def _is_walk_model(path: str) -> bool:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path).get_vocab() == walk_task().tokenizer.get_vocab()
