"""The stages, in their order: another one is a module with `run(findings)` and a line here."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of the check, which runs in a process of its own."""

    name: str
    module: str
    """Its function `run` takes the stage's `Findings`."""
    seconds: float
    """After so many, and those that earlier stages left over, its process is ended and with it whatever it started."""
    answers: str
    """The question that it answers."""


HERE = "aepo.llm.gpu_check"
ABOUT = Stage(name="about", module=f"{HERE}.about", seconds=40, answers="Which device and toolkit is this?")
STAGES = (
    ABOUT,
    Stage(
        name="kernels",
        module=f"{HERE}.kernels",
        seconds=150,
        answers="Does the fused operation agree with float64, and with itself?",
    ),
    Stage(
        name="speed",
        module=f"{HERE}.speed",
        seconds=110,
        answers="How many matrix products of the library does the fused operation cost?",
    ),
    Stage(
        name="train",
        module=f"{HERE}.training",
        seconds=150,
        answers="Does the trainer's command run, resume and export on one rank?",
    ),
    Stage(
        name="sizes",
        module=f"{HERE}.sizes",
        seconds=80,
        answers="What do scoring and a gradient cost at a real size, padded and packed?",
    ),
    Stage(
        name="sanitizer",
        module=f"{HERE}.sanitizer",
        seconds=50,
        answers="Does a kernel touch memory that is not its own?",
    ),
)
"""Together under ten minutes, which is what a lent machine often gives a command."""
