"""Tasks that come with the package, by what `data.train` calls them, and the tokenizer of a model for each."""

from collections.abc import Callable, Mapping
from functools import partial

from transformers import PreTrainedTokenizerFast

from aepo.llm.questions.ladder import ladder_task
from aepo.llm.questions.number_task import NumberTask
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.walk import walk_task

BUILT_IN: Mapping[str, Callable[[], NumberTask]] = {
    "walk": walk_task,
    "ladder": ladder_task,
    # Controls of the ladder: nothing to find, and nothing to choose between.
    "ladder_easy": partial(ladder_task, level_shares=(1.0,)),
    "ladder_single": partial(ladder_task, single=True),
}
"""The names of `aepo.llm.settings.fields.BUILT_IN`, with what builds each."""


def tokenizer_from_scratch(train: str) -> PreTrainedTokenizerFast:
    """That of a model without a folder, for this `data.train`: a built-in task's words, or bytes for any text."""
    return BUILT_IN[train]().tokenizer if train in BUILT_IN else byte_tokenizer()


def is_of(tokenizer: PreTrainedTokenizerFast, task: NumberTask) -> bool:
    """Whether a tokenizer has a built-in task's words, and these alone."""
    return tokenizer.get_vocab() == task.tokenizer.get_vocab()
