"""What is said of a response and its tokens, in a terminal as on a page."""

from aepo.llm.records.kept_samples import Forking, Response


def facts(response: Response) -> str:
    """How it was sampled, its reward, its length and its mean entropy, in a line."""
    mean = response.mean_entropy
    known = [
        f"step {response.step}",
        response.branch,
        None if response.temperature is None else f"T {response.temperature:.2f}",
        None if response.reward is None else f"reward {response.reward:g}",
        None if response.length is None else f"{response.length} tokens",
        "cut off" if response.ended is False else None,
        "no entropies were kept" if mean is None else f"mean H {mean:.3f} nats",
    ]
    return ", ".join(one for one in known if one is not None)


def verdict(response: Response) -> str:
    """What was asked for, what was found and why it was judged so, in a line."""
    found = "no answer" if response.extracted is None else response.extracted
    wanted = "" if response.answer is None else f"answer {response.answer}, "
    return f"{wanted}found {found}" + ("" if response.reason is None else f" ({response.reason})")


def legend(forks: Forking, share: float) -> tuple[str, list[str]]:
    """What the colours are of, and the range of each level's entropy.

    >>> legend(Forking(bounds=(1.2, 1.55), highest=2.0, tokens=1234), 0.2)[1]
    ['1.200 to 1.550', '1.550 to 2.000']
    """
    ranges = [f"{low:.3f} to {high:.3f}" for low, high in forks.ranges()]
    if not ranges:
        return f"no token of the {forks.tokens:,} shown has an entropy above 0", []
    return f"forking tokens, the {share:.0%} of highest entropy among the {forks.tokens:,} shown, in nats:", ranges
