"""The root of the project's errors, and the exit codes of its commands."""

ENDED = 0
UNUSABLE = 2
NOT_WRITTEN = 3
HUNG = 4
STALE_WEIGHTS = 5
NOT_FINITE = 6
RANK_LOST = 7
NOT_JUDGED = 8

EXIT_CODES: dict[int, str] = {
    ENDED: "the run ended, or was saved at SIGTERM",
    UNUSABLE: "the settings, the data, the model or the engine cannot be used",
    NOT_WRITTEN: "the disk is full, or results or a checkpoint could not be written or converted",
    HUNG: "a phase of a step took longer than its deadline: the watchdog ended the run",
    STALE_WEIGHTS: "the engine does not sample from the trainer's weights",
    NOT_FINITE: "losses or gradients are not finite",
    RANK_LOST: "another rank was lost or does not answer",
    NOT_JUDGED: "no response could be judged, three steps in a row",
}
"""Exit code -> what it says of a run. 1 is Python's own: an error that nobody foresaw, with its traceback."""


class AepoError(Exception):
    """What ends a command with a message for a person, and with the code of `EXIT_CODES` that its class carries.

    >>> class FullError(AepoError):
    ...     exit_code = NOT_WRITTEN
    >>> EXIT_CODES[FullError("no room").exit_code]
    'the disk is full, or results or a checkpoint could not be written or converted'
    """

    exit_code: int = UNUSABLE
    of_one_rank: bool = False
    """Whether it may be of one rank alone, which then says so and names itself; else the first rank says it for all."""
