"""Where the float32 weights of bfloat16 training start: anywhere among the numbers that round to the weights.

A master that is made from its rounded weight lies in the middle of the weight's rounding interval, so that no update
smaller than half of it reaches the weights that sample and score: at the paper's learning rate of 1e-6 none does for
many steps. Spread over the interval, an update of a tenth of it moves every tenth weight.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aepo.llm import seeds

# A bfloat16 is a float32 whose lower 16 bits are 0: it rounds what is less than half a step of these away.
HALF_STEP = 1 << 15
BLOCK = 1 << 24
"""Numbers drawn at once, which bounds what is held beside a weight."""
WORN = 0.01
"""Share of a file's numbers that lie on a weight or on a tie between two, above which they serve no better than the
weights: dequantised ones, or those that were bfloat16 or float16 once."""

OwnValues = Callable[[str], Tensor | None]
"""A weight's name -> its values in the model's file; None where the file has none that are float32."""


def dithered(weight: Tensor, *, seed: int, name: str) -> Tensor:
    """float32 of the weight's shape: each uniform among the numbers that round to its bfloat16 weight.

    A function of the seed, the name and the place in the weight, whichever device, rank or part asks. 0 and numbers
    beside it, whose interval is nothing an update would meet, stay.

    Args:
        weight: (...) bfloat16, whole.
        seed: of the run.
        name: of the weight in the model.

    >>> weight = torch.full((4000,), 0.75, dtype=torch.bfloat16)
    >>> master = dithered(weight, seed=0, name="w")
    >>> bool((master.bfloat16() == weight).all()), round(float(master.mean()), 4), 0.748 < float(master.min()) < 0.7481
    (True, 0.75, True)
    """
    draws = np.random.Generator(np.random.Philox(seeds.number(seed, "dither", name)))
    master = weight.to(torch.float32, copy=True).contiguous()
    for block in master.view(-1).split(BLOCK):
        uniform = torch.from_numpy(draws.random(block.numel(), dtype=np.float32)).to(block.device)
        bits = block.view(torch.int32)
        exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
        # Places of float32 from the weight, towards 0 if negative.
        place = (uniform * (2 * HALF_STEP - 1)).floor() - (HALF_STEP - 1)
        # Below a power of two numbers lie twice as close: its interval reaches half as far there as above.
        side = 1.5 * uniform - 0.5
        beside_power = (torch.where(side < 0, 2 * side, side) * (HALF_STEP - 1)).round()
        place = torch.where(fraction == 0, beside_power, place).to(torch.int32)
        bits += torch.where((exponent > 1) & (exponent < 0xFF), place, 0)
    return master


def start(weight: Tensor, *, seed: int, name: str, own: Tensor | None = None) -> Tensor:
    """float32: the master that a weight starts from: its file's values where they serve, else `dithered`.

    Args:
        weight: (...) bfloat16.
        seed, name: as for `dithered`.
        own: (...) what the model's file holds of it.
    """
    if own is not None and serves(own, weight):
        return own.to(weight.device, torch.float32)
    return dithered(weight, seed=seed, name=name)


def serves(own: Tensor, weight: Tensor) -> bool:
    """Whether a file's values are float32, round to the weight, and lie about the rounding intervals.

    >>> weight = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    >>> serves(torch.tensor([1.001, 1.999]), weight), serves(torch.tensor([1.0, 2.0]), weight)
    (True, False)
    """
    if own.dtype != torch.float32 or own.shape != weight.shape:
        return False
    if not torch.equal(own.to(weight.dtype), weight.to(own.device)):
        return False
    numbers = own[own != 0]
    lower = numbers.view(torch.int32) & 0xFFFF
    return bool(numbers.numel()) and all(int((lower == spot).sum()) < WORN * numbers.numel() for spot in (0, HALF_STEP))


def own_values(model: nn.Module) -> OwnValues:
    """The values in the files that a model was loaded from, read one weight at a time; nothing for one that was not."""
    names = _files(model)

    def value(name: str) -> Tensor | None:
        from safetensors import safe_open

        if name not in names:
            return None
        with safe_open(names[name], framework="pt") as file:
            return file.get_tensor(name) if file.get_slice(name).get_dtype() == "F32" else None

    return value


def _files(model: nn.Module) -> Mapping[str, Path]:
    """The safetensors file of every weight, by the name that model and file have in common."""
    from safetensors import safe_open
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

    source = getattr(model, "name_or_path", "")
    if not source:
        return {}
    found: dict[str, Path] = {}
    for listed in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        # What was just loaded is on this machine.
        path = cached_file(source, listed, local_files_only=True, _raise_exceptions_for_missing_entries=False)
        if path is None:
            continue
        folder = Path(path).parent
        for file in [Path(path)] if listed == SAFE_WEIGHTS_NAME else sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                found |= dict.fromkeys(opened.keys(), file)
        return found
    return found
