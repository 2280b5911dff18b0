"""Stage kernels: the fused operation's backends against float64, then the GPU tests of a checkout, file by file.

Without a CUDA device the torch backend and, at small sizes, the Triton kernels in their interpreter.
"""

import os
import re
import sys
from pathlib import Path

from aepo.llm.gpu_check import aloud, packages
from aepo.llm.gpu_check.findings import Facts, Findings, LeftOut, Wrong
from aepo.llm.gpu_check.running import checkout


def run(findings: Findings) -> None:
    """Correctness comes before the tests, which may take long."""
    import torch

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        # Triton asks for it when a kernel is defined.
        os.environ["TRITON_INTERPRET"] = "1"
    from aepo.llm.gpu_check import correctness

    device = "cuda" if on_gpu else "cpu"
    for backend, sizes in (
        ("triton", correctness.GPU if on_gpu else correctness.INTERPRETED),
        ("cuda", correctness.GPU),
        ("torch", correctness.GPU if on_gpu else correctness.CPU),
    ):
        if backend == "cuda" and not on_gpu:
            findings.left_out("cuda", "no CUDA device")
            continue
        for name, check in correctness.cases(backend, sizes, device):
            findings.check(name, check)
    root = checkout()
    files = sorted((root / "tests").rglob("test_*_gpu.py")) if root is not None else []
    if not files:
        findings.left_out("GPU tests", "this is no checkout: there are no tests beside the package")
    for file in files:
        findings.check(file.name, lambda file=file: tested(file, on_gpu=on_gpu, seconds=findings.left - 5))


def tested(file: Path, *, on_gpu: bool, seconds: float) -> Facts:
    """One file of tests alone: collecting the others needs packages that a bare machine lacks."""
    if not on_gpu:
        raise LeftOut("no CUDA device")
    for package in ("pytest", "hypothesis"):
        if not packages.installed(package):
            raise LeftOut(f"{package} is not installed")
    # The sanitizer is a stage of its own.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "-rfEs",
        "--durations=6",
        "-o",
        "addopts=",
    ]
    try:
        done = aloud.run([*command, str(file), "-k", "not sanitizer"], folder=checkout(), seconds=seconds)
    except aloud.TooLong as error:
        raise Wrong(str(error)) from error
    if done.code:
        failed = re.findall(r"^(?:FAILED|ERROR) .*?(?:::(\S+)|$)", done.text, re.MULTILINE)
        raise Wrong(f"exit code {done.code}: {' '.join(failed)[:300]} {done.last_line}")
    return {"pytest": done.last_line.strip("= ")}
