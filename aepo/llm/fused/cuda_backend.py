"""The CUDA row kernel, row_kernel.cu, built by nvcc at its first use and kept.

It is the CUDA backend of `token_stats_from_logits`, and reads and writes the logits of `gemm_backend`.

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
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aepo.llm.fused.chunked import Question, Running, Stats, Upstream
from aepo.llm.fused.rows import Rows

SOURCE = Path(__file__).with_name("row_kernel.cu")
ARITHMETIC = Path(__file__).with_name("row_arithmetic.cuh")
FLAGS = ("-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC")
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def logits_statistics(logits: Tensor, rows: Rows) -> Stats:
    """Of the rows, from logits (N, V) float32, bfloat16 or float16."""
    running = Running(rows.question, torch.empty((rows.count, 0), dtype=torch.float32, device=logits.device))
    if rows.count:
        running.join(row_sums(logits, rows.index, rows.label, rows.question))
    return running.stats()


def row_sums(logits: Tensor, index: Tensor | None, label: Tensor, question: Question) -> Tensor:
    """(5, 1, n) float32: what `Running.join` takes of some rows of logits (N, V), at least one.

    Args:
        logits: float32, bfloat16 or float16, rows whose numbers lie side by side.
        index: (n,) int64, which rows; None for all in order.
        label: (n,) int64; one outside [0, V) is another process's.
        question: about each of the n rows.
    """
    partial = torch.empty(5, 1, len(label), dtype=torch.float32, device=logits.device)
    kept = [_packed(index), _packed(label), _flat(question.temperature)]
    _call(
        "aepo_statistics", logits, len(label), logits.shape[1], logits.stride(0), *kept, partial, question.entropy,
        question.entropy_tempered,
    )  # fmt: skip
    return partial


def logits_gradient(logits: Tensor, rows: Rows, stats: Stats, upstream: Upstream, out: Tensor) -> None:
    """The rows' gradient by the logits into out (N, V) of their dtype, which may be the logits themselves."""
    if not rows.count:
        return
    kept = _slopes(rows.index, rows.label, rows.question, stats, upstream)
    _call(
        "aepo_gradient", logits, out, rows.count, logits.shape[1], logits.stride(0), out.stride(0), *kept,
        rows.question.entropy_tempered,
    )  # fmt: skip


def row_gradient(
    logits: Tensor, index: Tensor | None, label: Tensor, question: Question, stats: Stats, upstream: Upstream,
    out: Tensor, *, softcap: float | None,
) -> None:  # fmt: skip
    """The gradient by some rows of float32 logits (N, V), at least one, into the first n rows of out, in its dtype.

    Args:
        logits, index, label, question: as for `row_sums`; logits after a soft cap, the gradient is of those before it.
        stats, upstream: of the n rows, (n,) each.
        out: (n, V) float32, bfloat16 or float16; without an index each row may begin where its logits do.
        softcap: c of the logits c tanh(z / c); None for none.
    """
    kept = _slopes(index, label, question, stats, upstream)
    _call(
        "aepo_narrowed_gradient", out, len(label), logits.shape[1], logits.stride(0), out.stride(0), *kept,
        question.entropy_tempered, softcap or 0.0, before=logits,
    )  # fmt: skip


def _slopes(
    index: Tensor | None, label: Tensor, question: Question, stats: Stats, upstream: Upstream
) -> list[Tensor | None]:
    """What both gradients read of each row."""
    return [
        _packed(index), _packed(label),
        *map(_flat, (question.temperature, stats.log_mass, stats.log_mass_t, stats.entropy)),
        *map(_flat, (upstream.logp, upstream.logp_t, upstream.entropy)),
    ]  # fmt: skip


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
    sources = [SOURCE.read_text(), ARITHMETIC.read_text()]
    key = hashlib.sha256("\0".join([*sources, version, *arguments]).encode()).hexdigest()[:16]
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
    gradient = [word, pointer, pointer, *[number] * 4, *[pointer] * 9, word]
    found.aepo_gradient.argtypes = [*gradient, pointer]
    found.aepo_narrowed_gradient.argtypes = [*gradient, ctypes.c_float, pointer]
    return found


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a kernel takes of a multiprocessor."""

    kernel: str
    registers: int
    """Of a thread."""
    spilled_bytes: int
    """Of a thread, in stores."""
    shared_bytes: int
    """Of a block."""


def resources(capability: int, folder: Path) -> list[Resources]:
    """Compile for a GPU that need not be there, and say what each kernel takes.

    Raises:
        RuntimeError: nvcc is missing or refuses.
    """
    nvcc = compiler()
    if nvcc is None:
        raise RuntimeError("nvcc was not found: install the CUDA toolkit or set CUDA_HOME")
    printed = build(folder / "checked.so", nvcc, *FLAGS, f"-arch=sm_{capability}", "--ptxas-options=-v")
    pattern = (
        r"Compiling entry function '\w*?\d+([a-z_]+_kernel)I(\w+?)E+v\w*'.*?(\d+) bytes spill stores"
        r".*?Used (\d+) registers([^\n]*)"
    )
    return [
        Resources(
            kernel=f"{m[1]}<{m[2]}>",
            registers=int(m[4]),
            spilled_bytes=int(m[3]),
            shared_bytes=int(shared[1]) if (shared := re.search(r"(\d+) bytes smem", m[5])) else 0,
        )
        for m in re.finditer(pattern, printed, re.DOTALL)
    ]


def _call(name: str, typed: Tensor, *arguments: Tensor | float | None, before: Tensor | None = None) -> None:
    """Launch a function of the library: the type of `typed`, then `before`, `typed` and the arguments."""
    given = [
        x.data_ptr() if isinstance(x, Tensor) else x
        for x in (*(() if before is None else (before,)), typed, *arguments)
    ]
    function = getattr(_library_of(typed.device), name)
    with torch.cuda.device_of(typed):
        code = function(TYPES[typed.dtype], *given, _stream(typed.device))
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
