"""A loop that follows a moving target, against `aepo.theory`'s bounds: for the simulator's runs and the trainer's.

Letters: S steps. Entropies and targets are in nats.
"""

import numpy as np

from aepo.theory import moving_target_bound, moving_target_hitting_time, noise_error_bound

Array = np.ndarray


def towards(entropy: Array, target: Array) -> Array:
    """(seeds, S - 1): by how much each step moved the entropy towards the target of that step."""
    up = np.where(entropy < target, 1.0, -1.0)[:, :-1]
    return up * np.diff(entropy, axis=1)


def by_error(entropy: Array, target: Array, step: Array) -> tuple[float, float]:
    """The least mean and the largest root mean square of a step, over ten bins of the error that it started from."""
    error = (entropy - target)[:, :-1].ravel()
    edges = np.quantile(error, np.linspace(0, 1, 11)[1:-1])
    parts = [step.ravel()[np.searchsorted(edges, error) == i] for i in range(10)]
    return min(float(part.mean()) for part in parts), max(float(np.sqrt((part**2).mean())) for part in parts)


def judged(
    calibration: Array, entropy: Array, goal: Array, *, jumps: bool, pace: float | None = None
) -> dict[str, object]:
    """What was measured of a loop's steps, what the theory of moving targets makes of it, and what other seeds did.

    Args:
        calibration: entropies (seeds, S), whose steps give eps and B.
        entropy: entropies of other seeds (seeds, S), which are judged.
        goal: the target (S,).
        jumps: whether it stands still but for jumps, after each of which the loop starts anew.
        pace: nats a step at which the loop approaches a target that is far away, by its own setting; None where it has
            no such setting. Where the steps' quantiles give no hitting time, the distance over the pace is it.

    Returns:
        eps, B and delta; whether the theorem's hypotheses hold, and its bounds there; the share of the steps that are
        within B + delta: past the hitting time, and from the step on at which a run first was.
    """
    step = towards(calibration, goal)
    eps, largest = (float(q) for q in np.quantile(step, [0.05, 0.95]))
    mean, root = by_error(calibration, goal, step)
    moved = np.abs(np.diff(goal))
    starts = [0, *(np.flatnonzero(moved > 1e-9) + 1)] if jumps else [0]
    delta = 0.0 if jumps else float(moved.max())
    error = np.abs(entropy - goal)
    ends = [*starts[1:], len(goal)]
    counted, arrived, bounded, total, predicted = [], [], [], [], []
    for start, end in zip(starts, ends, strict=True):
        part = error[:, start:end]
        if eps > delta:
            after = moving_target_hitting_time(part[:, 0], authority=eps, step=largest, speed=delta)
        else:
            after = 0.0 if pace is None else np.ceil(part[:, 0] / pace)
        past = np.arange(end - start) >= np.broadcast_to(after, len(part))[:, None]
        inside = part <= largest + delta
        counted.append(inside[past])
        arrived.append(inside[np.maximum.accumulate(inside, axis=1)])
        bound = moving_target_bound(
            part[:, :1], np.arange(end - start), authority=max(eps, 1e-12), step=largest, speed=delta
        )
        bounded.append((part <= bound).ravel() if eps > delta else np.empty(0))
        total.append(part.mean(1))
        predicted.append(
            noise_error_bound(part[:, 0], end - start, authority=max(mean, 1e-12), step=root, speed=delta)
            if mean > delta
            else np.full(len(part), np.nan)
        )
    within, since, steps = (np.concatenate(parts) for parts in (counted, arrived, bounded))
    return {
        "eps": eps, "B": largest, "delta": delta, "mean_step": mean, "root_mean_square_step": root,
        "moving_hypothesis": eps > delta, "within_B_plus_delta": float(within.mean()),
        "within_since_it_first_was": float(since.mean()) if len(since) else None,
        "below_moving_bound": float(steps.mean()) if len(steps) else None,
        "noise_hypothesis": mean > delta, "mean_error": float(np.mean(total)),
        "noise_bound": None if mean <= delta else float(np.mean(predicted)),
    }  # fmt: skip
