"""The CUDA backend of `token_stats_from_logits`: row_kernel.cu, built by nvcc at its first use and kept.

Letters: N tokens, n of them that take part, V vocabulary.
"""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from aepo.llm.fused.chunked import Running, Stats, Upstream
from aepo.llm.fused.rows import Rows

SOURCE = Path(__file__).with_name("row_kernel.cu")
FLAGS = ("-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC")
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def logits_statistics(logits: Tensor, rows: Rows) -> Stats:
    """Of the rows, from logits (N, V) float32, bfloat16 or float16."""
    like, question = torch.empty((rows.count, 0), dtype=torch.float32, device=logits.device), rows.question
    running = Running(question, like)
    if rows.count:
        partial = like.new_empty(5, 1, rows.count)
        kept = [_packed(rows.index), _packed(rows.label), _flat(question.temperature)]
        _call(
            "aepo_statistics", logits, rows.count, logits.shape[1], logits.stride(0), *kept, partial, question.entropy,
            question.entropy_tempered,
        )  # fmt: skip
        running.join(partial)
    return running.stats()


def logits_gradient(logits: Tensor, rows: Rows, stats: Stats, upstream: Upstream, out: Tensor) -> None:
    """The rows' gradient by the logits into out (N, V) of their dtype, which may be the logits themselves."""
    if not rows.count:
        return
    question = rows.question
    kept = [
        _packed(rows.index), _packed(rows.label),
        *map(_flat, (question.temperature, stats.log_mass, stats.log_mass_t, stats.entropy)),
        *map(_flat, (upstream.logp, upstream.logp_t, upstream.entropy)),
    ]  # fmt: skip
    _call(
        "aepo_gradient", logits, out, rows.count, logits.shape[1], logits.stride(0), out.stride(0), *kept,
        question.entropy_tempered,
    )  # fmt: skip


def obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernel cannot run, or None."""
    if device.type != "cuda":
        return f"logits are on {device.type}"
    if dtype not in TYPES:
        return f"{str(dtype).removeprefix('torch.')} is not its dtype"
    if compiler() is None:
        return "nvcc was not found, which builds its kernel: install the CUDA toolkit or set CUDA_HOME"
    return None


@functools.cache
def compiler() -> str | None:
    """nvcc of CUDA_HOME or on the path."""
    home = os.environ.get("CUDA_HOME")
    own = Path(home) / "bin" / "nvcc" if home else None
    return str(own) if own is not None and own.exists() else shutil.which("nvcc")


@functools.cache
def library(capability: int) -> ctypes.CDLL:
    """The kernel's library for one compute capability such as 80, built if it is not in the cache yet.

    Raises:
        RuntimeError: nvcc is missing or refuses, with what it said.
    """
    nvcc = compiler()
    if nvcc is None:
        raise RuntimeError("nvcc was not found: install the CUDA toolkit or set CUDA_HOME")
    arguments = (*FLAGS, f"-arch=sm_{capability}")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    key = hashlib.sha256("\0".join([SOURCE.read_text(), version, *arguments]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aepo"
    path = folder / f"row_kernel_sm{capability}_{key}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        build(path, nvcc, *arguments)
    return loaded(path)


def build(path: Path, *command: str) -> str:
    """Compile the kernel into path, beside it first so that several ranks may do so at once; what was said.

    Raises:
        RuntimeError: the compiler failed, with what it said.
    """
    handle, beside = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    done = subprocess.run([*command, str(SOURCE), "-o", beside], capture_output=True, text=True)
    if done.returncode:
        os.unlink(beside)
        raise RuntimeError(f"{' '.join(command)} {SOURCE.name} failed:\n{done.stderr[-4000:]}")
    os.replace(beside, path)
    return done.stdout + done.stderr


def loaded(path: Path) -> ctypes.CDLL:
    """A built library, its functions told their types."""
    found = ctypes.CDLL(str(path))
    pointer, number, word = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    found.aepo_statistics.argtypes = [word, pointer, *[number] * 3, *[pointer] * 4, word, word, pointer]
    found.aepo_gradient.argtypes = [word, pointer, pointer, *[number] * 4, *[pointer] * 9, word, pointer]
    return found


def resources(capability: int, folder: Path) -> list[tuple[str, int, int]]:
    """Compile for a GPU that need not be there: (kernel, registers of a thread, bytes spilled) of each."""
    nvcc = compiler()
    if nvcc is None:
        raise RuntimeError("nvcc was not found: install the CUDA toolkit or set CUDA_HOME")
    printed = build(folder / "checked.so", nvcc, *FLAGS, f"-arch=sm_{capability}", "--ptxas-options=-v")
    pattern = (
        r"Compiling entry function '\w*?\d+(\w+_kernel)I(\w+)E\w*'.*?(\d+) bytes spill stores.*?Used (\d+) registers"
    )
    return [(f"{m[1]}<{m[2]}>", int(m[4]), int(m[3])) for m in re.finditer(pattern, printed, re.DOTALL)]


def _call(name: str, logits: Tensor, *arguments: Tensor | int | bool | None) -> None:
    given = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    function = getattr(_library_of(logits.device), name)
    with torch.cuda.device_of(logits):
        code = function(TYPES[logits.dtype], logits.data_ptr(), *given, _stream(logits.device))
    if code:
        raise RuntimeError(f"{name} of row_kernel.cu could not be launched: cudaError {code}")


def _library_of(device: torch.device) -> ctypes.CDLL:
    major, minor = torch.cuda.get_device_capability(device)
    return library(10 * major + minor)


def _stream(device: torch.device) -> int | None:
    return torch.cuda.current_stream(device).cuda_stream


def _packed(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.contiguous()


def _flat(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.reshape(-1).to(torch.float32).contiguous()
