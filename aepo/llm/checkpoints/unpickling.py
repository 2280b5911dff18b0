"""Which classes a checkpoint may hold: a pickle can run any code of whoever wrote it, so all others are refused.

torch's own unpickler makes tensors, plain values and the classes that it is told of by name, and calls nothing else.
DeepSpeed does without it, but torch lets the environment decide for every load of a process.
"""

import contextlib
import copyreg
import enum
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from aepo.llm.settings import SettingsError

ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""With it, torch.load takes torch's own unpickler, whatever its caller asks for; processes started here inherit it."""
REASON = (
    "a checkpoint is a pickle, which can run any code of whoever wrote it, so nothing of it was loaded; if you know "
    "who wrote it, and that nobody else could change it, add --trust-checkpoint"
)
# How torch names what it does not make.
_REFUSED = re.compile(r"GLOBAL (\S+) (?:was not an allowed global|whose module)")


def allow_deepspeed() -> contextlib.AbstractContextManager:
    """As long as this is open, torch's unpickler also makes what DeepSpeed's state under ZeRO 1 to 3 holds beside
    tensors: numbers with a name."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address])


def write_enums_by_value() -> None:
    """From now on the numbers with a name in DeepSpeed's state are pickled as their class and value.

    Python 3.11.0 to 3.11.3 pickle an enum as a call of getattr, which no checkpoint may ask for.
    """
    from deepspeed.runtime.zero.config import ZeroStageEnum

    copyreg.pickle(ZeroStageEnum, _by_value)


def _by_value(number: enum.Enum) -> tuple[type[enum.Enum], tuple[object]]:
    return type(number), (number.value,)


@contextlib.contextmanager
def only_tensors(folder: Path, *, option: str, trusted: bool = False) -> Iterator[None]:
    """As long as this is open, no load makes anything but tensors, plain values and DeepSpeed's own state.

    Args:
        folder: what is loaded, for the message.
        option: as a person names it.
        trusted: leave everything as it is: what is loaded may run code.

    Raises:
        SettingsError: something else was asked for.
    """
    if trusted:
        yield
        return
    before = os.environ.get(ONLY_WEIGHTS)
    os.environ[ONLY_WEIGHTS] = "1"
    try:
        with allow_deepspeed():
            yield
    except pickle.UnpicklingError as error:
        found = _REFUSED.search(str(error))
        what = f"asks for {found[1]}" if found else f"is no file of tensors ({str(error).splitlines()[0]})"
        raise SettingsError(f"{option}: {folder} {what}: {REASON}") from error
    finally:
        if before is None:
            del os.environ[ONLY_WEIGHTS]
        else:
            os.environ[ONLY_WEIGHTS] = before


def check(folder: Path, *, option: str) -> None:
    """That no file of a checkpoint asks for another class; tensors are not read, and what is damaged is passed over.

    Raises:
        SettingsError: the file, the class that it asks for, the reason and the cure.
    """
    for path in sorted(folder.rglob("*.pt")):
        name = _refused(path)
        if name is not None:
            raise SettingsError(f"{option}: {path} asks for {name}, which is no part of DeepSpeed's state: {REASON}")


def _refused(path: Path) -> str | None:
    """The first class or function that a file asks for and does not get."""
    try:
        with allow_deepspeed():
            # Mapped, so that tensors are not read; files of torch's old form cannot be.
            torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = _REFUSED.search(str(error))
        return None if found is None else found[1]
    # Whoever loads a damaged file says so.
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, EOFError):
        return None
    return None
