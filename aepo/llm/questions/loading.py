"""The task of `data.train`, with the tokenizer that fits it."""

import logging

from aepo.llm.questions.built_in import BUILT_IN, is_of, tokenizer_from_scratch
from aepo.llm.questions.end_tokens import published_ends
from aepo.llm.questions.task import DataError, Task, math_task
from aepo.llm.settings import Settings
from aepo.llm.settings.model_source import of_run

log = logging.getLogger("aepo")


def load_task(settings: Settings) -> Task:
    """The task of `data.train`, with the tokenizer that fits it: the model's own, or one built on the spot.

    Raises:
        DataError: data that cannot be used.
        SettingsError: a tokenizer or a reward function that cannot be had.
    """
    if settings.data.built_in:
        built_in = BUILT_IN[settings.data.train]()
        if settings.model.path is not None and not is_of(of_run(settings.model.path).tokenizer(), built_in):
            raise DataError(
                f"model.path={settings.model.path}: its tokenizer is not the {settings.data.train} task's; "
                "give data.train a file of questions, or leave model.path out"
            )
        return built_in
    if settings.model.path is None:
        tokenizer = tokenizer_from_scratch(settings.data.train)
        published: tuple[int, ...] = ()
    else:
        source = of_run(settings.model.path)
        tokenizer, published = source.tokenizer(), published_ends(source.place)
    task, left_out = math_task(
        settings.data,
        settings.reward,
        tokenizer,
        seed=settings.seed,
        published_ends=published,
        stop=settings.rollout.stop,
    )
    if left_out:
        log.info("data: %d prompts over %d tokens left out", left_out, settings.data.max_prompt_tokens)
    return task
