"""Counted randomness: every draw is a hash of (run seed, step, branch, slot, sample, position), never a stream.

A response's noise therefore depends neither on the rows beside it, nor on the rank that samples it, nor on what was
drawn before: resuming at step k, or splitting over ranks, gives what one uninterrupted process gives.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]


def number(*parts: object) -> int:
    """A 63-bit number from any parts, for seeding a generator.

    >>> number(0, "order", 1) == number(0, "order", 1) != number(0, "order", 2)
    True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def row_seeds(run_seed: int, step: int, branch: str, slots: NDArray[np.int64], n: int) -> UInt64:
    """One seed per response: slots x n, sample after sample within each slot.

    Args:
        run_seed, step, branch: whose draws these are.
        slots: (P,) positions of the prompts in the step's global batch.
        n: responses per prompt.

    Returns:
        (P x n,) uint64.
    """
    base = np.uint64(number(run_seed, step, branch))
    slot = np.repeat(slots.astype(np.uint64), n)
    sample = np.tile(np.arange(n, dtype=np.uint64), len(slots))
    return _mixed(_mixed(base ^ _mixed(slot)) ^ sample)


def uniforms(seeds: UInt64, position: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one per row, for the response's token at `position`.

    >>> u = uniforms(row_seeds(0, 0, "main", np.arange(20000), 1), 0)
    >>> bool(abs(u.mean() - 0.5) < 0.01 and 0 <= u.min() and u.max() < 1)
    True
    """
    # 53 high bits, the precision of a float64 below 1.
    return (_mixed(seeds ^ _mixed(np.uint64(position))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(value: UInt64 | np.uint64) -> UInt64:
    # SplitMix64's step and finaliser (Steele, Lea, Flood 2014): wrap-around is meant.
    with np.errstate(over="ignore"):
        value = np.asarray(value, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def order(run_seed: int, start: int, count: int, *, size: int) -> NDArray[np.int64]:
    """Which prompts stand at positions start .. start + count of an endless stream of reshuffled epochs.

    Args:
        run_seed: shuffles.
        start: first position, >= 0.
        count: how many.
        size: number of prompts.

    Returns:
        (count,) indices in [0, size).

    >>> sorted(order(0, 0, 5, size=5).tolist())
    [0, 1, 2, 3, 4]
    """
    position = np.arange(start, start + count)
    epochs = {
        int(epoch): np.random.default_rng(number(run_seed, "order", int(epoch))).permutation(size)
        for epoch in np.unique(position // size)
    }
    return np.array([epochs[int(p // size)][p % size] for p in position], dtype=np.int64)
