"""What other libraries say of themselves while they load and save: none of it stands between a run's own lines."""

import logging

OF_NO_USE = ("Setting accelerator to CPU",)
"""How notices begin that a person can do nothing about; warnings that matter stay."""


def quieted() -> None:
    """Leave out transformers' progress bars (they last a second, where a model is on this machine) and DeepSpeed's
    notice that there is no GPU. What is downloaded from a hub still shows how far it is."""
    # A filter, as DeepSpeed sets its logger's level again when it is imported.
    deepspeed = logging.getLogger("DeepSpeed")
    if _is_of_use not in deepspeed.filters:
        deepspeed.addFilter(_is_of_use)
    from transformers.utils import logging as of_transformers

    of_transformers.disable_progress_bar()


def _is_of_use(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(OF_NO_USE)
