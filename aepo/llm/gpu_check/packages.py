"""Which packages and tools the stages use, which of them are here, and what is left out without the others."""

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

PACKAGES = {
    "torch": "everything but stage about",
    "triton": "the Triton kernels in stages kernels, speed and sanitizer",
    "transformers": "stages train and sizes",
    "pytest": "the GPU tests of a checkout in stage kernels",
    "hypothesis": "the GPU tests of a checkout in stage kernels",
    "deepspeed": "stage train",
    "pydantic": "stage train",
}
"""Name -> what is left out without it."""
TOOLS = {
    "nvidia-smi": "the driver's version in stage about",
    "nvcc": "the row kernel in stages kernels, speed and sanitizer",
    "compute-sanitizer": "stage sanitizer",
}
"""The same for programs."""


def versions() -> dict[str, str]:
    """Name -> version of each package that is here; none of them is imported."""
    return {name: _version(name) for name in PACKAGES if installed(name)}


def missing() -> dict[str, str]:
    """Name -> what is left out, of each package and tool that is not here."""
    tools = {name: use for name, use in TOOLS.items() if tool(name) is None}
    return {name: use for name, use in PACKAGES.items() if not installed(name)} | tools


def installed(name: str) -> bool:
    """Whether a package could be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def tool(name: str) -> str | None:
    """A program's path: that of CUDA_HOME, or the one on the path, or None."""
    home = os.environ.get("CUDA_HOME")
    own = Path(home) / "bin" / name if home else None
    return str(own) if own is not None and own.exists() else shutil.which(name)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
