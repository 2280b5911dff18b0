"""Stage sanitizer: a few cases of each kernel under NVIDIA's compute-sanitizer."""

import sys

from aepo.llm.gpu_check import aloud, packages
from aepo.llm.gpu_check.findings import Facts, Findings, LeftOut, Wrong

FOUND = 9
"""Exit code of the sanitizer when it found something, told from those of the cases."""


def run(findings: Findings) -> None:
    """One run for all kernels: most of its time is torch's start."""
    import torch

    if (tool := packages.tool("compute-sanitizer")) is None:
        raise LeftOut("compute-sanitizer is not installed")
    if not torch.cuda.is_available():
        raise LeftOut("no CUDA device")
    findings.check("few cases of each kernel", lambda: watched(tool, seconds=findings.left - 3))


def watched(tool: str, *, seconds: float) -> Facts:
    """What the sanitizer says of `correctness`'s few cases."""
    # Errors that a library asks for and handles, such as "no context yet", are no errors of a kernel.
    command = [tool, "--report-api-errors", "no", f"--error-exitcode={FOUND}", sys.executable, "-m"]
    try:
        done = aloud.run(
            [*command, "aepo.llm.gpu_check.correctness"],
            # Every tensor is then an allocation of its own, and reading beyond it is seen.
            environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            seconds=seconds,
        )
    except aloud.TooLong as error:
        raise LeftOut(f"{error}, which says nothing of the kernels") from error
    if "Device not supported" in done.text:
        raise LeftOut("compute-sanitizer says: Device not supported")
    if done.code:
        signs = ("Invalid", "WRONG", "Error")
        first = next((one for one in done.text.splitlines() if any(sign in one for sign in signs)), done.last_line)
        raise Wrong(f"exit code {done.code}: {first.strip('= ')[:300]}")
    return {"said": done.last_line.strip("= ")}
