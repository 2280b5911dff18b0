"""Which attention a model is computed with: the one that was asked for, or the first that machine and model can."""

from dataclasses import dataclass

import torch
from torch import nn

from aepo.llm.policy import agreement, attention_interface
from aepo.llm.policy.attention import KERNELS, missing, unfit
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.settings import SettingsError

FIELD = "model.attention"
AUTO, OWN = "auto", "transformers"
"""The two words that name no kernel: choose, and the attention that transformers gives the model."""
KEPT = (
    "padded rows on a CPU, which stay as they are to the bit; "
    f"{FIELD}=sdpa computes them without a mask, and shares prompts under train.gradient_checkpointing=true"
)
"""Why a CPU's choice is none of ours where nothing is packed: rounding steers a run, and figures are compared."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The attention that runs, and why."""

    kernel: str | None
    """None: transformers' own."""
    why: str

    def __str__(self) -> str:
        return f"{self.kernel or OWN}: {self.why}"


def check_machine(asked: str, device: torch.device) -> None:
    """That the machine can run what was asked for, before any model is there.

    Raises:
        SettingsError: it cannot.
    """
    if asked in KERNELS and (why := missing(asked, device)):
        raise _refused(asked, why)


def check_model(asked: str, model: nn.Module) -> None:
    """That transformers lets the model have what was asked for, before an engine starts.

    Raises:
        SettingsError: it does not.
    """
    if asked in KERNELS and (why := attention_interface.closed(model)):
        raise _refused(asked, why)


def choose(module: ResponseStats, asked: str, *, packing: bool) -> Chosen:
    """Give the model its attention. Every rank must call it together where a forward pass needs all of them.

    Args:
        module: the model, on the device where it computes.
        asked: a word of `model.attention`.
        packing: whether rows are to be packed, for which transformers' own makes a mask of N x N.

    Raises:
        SettingsError: the machine or the model cannot do what was asked for.
    """
    if (asked, packing) not in module.choices:
        module.choices = {(asked, packing): _chosen(module, asked, packing=packing)}
    return module.choices[asked, packing]


def _chosen(module: ResponseStats, asked: str, *, packing: bool) -> Chosen:
    module.attend(None)
    if asked == OWN:
        return Chosen(kernel=None, why=f"{FIELD}={OWN}")
    device = next(module.parameters()).device
    if asked != AUTO:
        if why := _broken_because(module, asked, device):
            raise _refused(asked, why)
        return Chosen(kernel=asked, why=f"{KERNELS[asked].means}, by {FIELD}={asked}")
    candidates = [*KERNELS] if device.type == "cuda" else ["sdpa"] if packing else []
    reasons = []
    for kernel in candidates:
        why = _broken_because(module, kernel, device)
        if why is None:
            means = KERNELS[kernel].means
            return Chosen(kernel=kernel, why="; ".join([f"{means}, without masks", *reasons]))
        reasons.append(f"not {kernel}: {why}")
    return Chosen(kernel=None, why="; ".join(reasons) or KEPT)


def _broken_because(module: ResponseStats, kernel: str, device: torch.device) -> str | None:
    """Why the model cannot be computed by a kernel, which it has from now on where it can."""
    dtypes = {p.dtype for p in module.model.parameters() if p.is_floating_point()}
    why = missing(kernel, device) or unfit(kernel, dtypes) or module.attend(kernel)
    why = why or agreement.broken_because(module, agreement.side_by_side, "without a mask", "cannot do without masks")
    if why is not None:
        module.attend(None)
    return why


def _refused(asked: str, why: str) -> SettingsError:
    return SettingsError(f"{FIELD}={asked}: {why}; set {FIELD}={AUTO}, which takes what can run")
