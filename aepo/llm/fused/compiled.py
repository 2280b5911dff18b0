"""Compile every kernel for the GPUs that it ships for, without one: registers, spills, shared memory, instructions.

python -m aepo.llm.fused.compiled   # prints a table; exit code 1 if a kernel spills or does not fit
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from aepo.llm.fused import cuda_backend, triton_rows
from aepo.llm.fused.triton_backend import CONFIGS, GROUP, PRECISION
from aepo.llm.fused.triton_kernels import gradient_kernel, statistics_kernel
from aepo.llm.fused.triton_row_kernels import row_gradient_kernel, row_sums_kernel

SHARED_LIMITS = {80: 163 * 1024, 90: 227 * 1024}
"""Compute capability -> bytes of shared memory that one block may use."""

MOST_ROW_REGISTERS = 40
"""Of a thread of a row kernel: three blocks of 512 threads then share a multiprocessor's 65,536."""

Flags = dict[str, bool]


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One kernel for one GPU."""

    kernel: str
    capability: int
    flags: str
    dtype: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    wgmma: bool
    """Whether it multiplies with Hopper's warp-group instructions."""

    @property
    def fits(self) -> bool:
        """Whether nothing spills and its shared memory is there."""
        return self.spilled_bytes == 0 and self.shared_bytes <= SHARED_LIMITS[self.capability]

    @property
    def good(self) -> bool:
        """Whether it fits and, where it multiplies half precision on Hopper, does so with Hopper's instructions; a row
        kernel, which multiplies nothing, must leave room for others."""
        if self.kernel.startswith("row"):
            return self.fits and self.registers <= MOST_ROW_REGISTERS
        return self.fits and (self.wgmma or self.capability < 90 or self.dtype != "bf16")


def questions() -> Iterator[tuple[Any, str, Flags]]:
    """Every kernel with everything that may be asked of it, but for bias and cap."""
    for tempered, entropy, entropy_tempered in itertools.product((False, True), repeat=3):
        if entropy_tempered <= (tempered and entropy):
            flags = {"TEMPERED": tempered, "ENTROPY": entropy, "ENTROPY_TEMPERED": entropy_tempered}
            yield statistics_kernel, "statistics", flags
    for logp, logp_t, entropy, entropy_tempered in itertools.product((False, True), repeat=4):
        if (logp or logp_t or entropy) and entropy_tempered <= entropy:
            flags = {
                "HAS_LOGP": logp,
                "HAS_LOGP_T": logp_t,
                "HAS_ENTROPY": entropy,
                "ENTROPY_TEMPERED": entropy_tempered,
            }
            yield gradient_kernel, "gradient", flags


def row_questions() -> Iterator[tuple[Any, str, Flags]]:
    """The row kernels with everything that may be asked of them."""
    for _, name, flags in questions():
        if name == "statistics":
            yield row_sums_kernel, "row sums", flags
        else:
            for index, cap in itertools.product((False, True), repeat=2):
                yield row_gradient_kernel, "row gradient", flags | {"HAS_INDEX": index, "HAS_CAP": cap}


def compiled(kernel: Any, name: str, flags: Flags, capability: int, *, extras: bool, dtype: str = "bf16") -> Compiled:
    """One kernel under one configuration; `extras` turns bias and soft cap on."""
    config = CONFIGS[capability].of(name, wide=dtype == "fp32", extras=extras)
    constants = flags | {
        "HAS_BIAS": extras,
        "HAS_CAP": extras,
        "UPCAST": False,
        "PRECISION": PRECISION,
        "BLOCK_N": config.rows,
        "BLOCK_V": config.columns,
        "BLOCK_D": config.width,
        "GROUP": GROUP,
    }
    options = {"num_warps": config.warps, "num_stages": config.stages}
    extra = ["bias, cap"] * extras
    return _made(kernel, name, constants, options, capability, dtype, on=_named(flags) + extra)


def compiled_row_kernel(kernel: Any, name: str, flags: Flags, capability: int, *, dtype: str) -> Compiled:
    """One of the kernels that read float32 logits; `dtype` is that of the gradient."""
    constants = flags | {"BLOCK": triton_rows.BLOCK}
    return _made(kernel, name, constants, {"num_warps": triton_rows.WARPS}, capability, dtype, on=_named(flags))


def _named(flags: Flags) -> list[str]:
    return [flag.removeprefix("HAS_").lower() for flag, value in flags.items() if value]


def _made(
    kernel: Any, name: str, constants: dict[str, Any], options: dict[str, int], capability: int, dtype: str, *,
    on: list[str],
) -> Compiled:  # fmt: skip
    names = kernel.arg_names
    divisible = ("hidden", "weight", "bias", "out", "logits", "row_stride", "column_stride", "out_stride", "width")
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else _type(name, dtype) for name in names},
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in divisible},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, stack = _resources(made.asm["cubin"])
    return Compiled(
        kernel=name,
        capability=capability,
        flags=", ".join(on) or "logp",
        dtype=dtype,
        registers=registers,
        spilled_bytes=stack,
        shared_bytes=made.metadata.shared,
        wgmma="wgmma" in made.asm["ptx"],
    )


def _type(name: str, dtype: str) -> str:
    if name in ("hidden", "weight", "bias", "out"):
        return f"*{dtype}"
    if name in ("label", "index"):
        return "*i64"
    if name in ("temperature", "partial", "logits") or name.startswith(("log_mass", "entropy", "by_")):
        return "*fp32"
    return "fp32" if name == "softcap" else "i32"


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread and bytes of its stack, where spilled registers go."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        dumped = subprocess.run([tool, "--dump-resource-usage", file.name], check=True, capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", dumped.stdout)
    if found is None:
        raise ValueError(f"cuobjdump named no registers: {dumped.stdout[:500]!r}")
    return int(found[1]), int(found[2])


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if something spills or does not fit."""
    parser = argparse.ArgumentParser(
        prog="python -m aepo.llm.fused.compiled",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--few", action="store_true", help="only the kernels that hold most, in bfloat16")
    few = parser.parse_args(arguments).few
    rows = []
    for capability in CONFIGS:
        for one in _all(capability, few=few):
            rows.append(one)
            print(
                f"sm_{one.capability} {one.kernel:12} {one.dtype:5} {one.registers:3} registers, "
                f"{one.spilled_bytes} bytes spilled, {one.shared_bytes:6} bytes shared, "
                f"{'wgmma' if one.wgmma else 'mma  '}  {one.flags}"
            )
    bad = [one for one in rows if not one.good]
    by_nvcc = _by_nvcc()
    bad += [one for one in by_nvcc if one.spilled_bytes or one.registers > MOST_ROW_REGISTERS]
    print(f"{len(rows) + len(by_nvcc)} kernels, {len(bad)} that spill, do not fit, miss wgmma or crowd out others")
    return 1 if bad else 0


def _all(capability: int, *, few: bool) -> Iterator[Compiled]:
    """Triton's kernels for a GPU, or those that hold most."""
    for kernel, name, flags in questions():
        for extras, dtype in ((False, "bf16"), (True, "bf16"), (False, "fp32")):
            if not few or (_whole(flags) and not extras and dtype == "bf16"):
                yield compiled(kernel, name, flags, capability, extras=extras, dtype=dtype)
    for kernel, name, flags in row_questions():
        for dtype in ("bf16", "fp32")[: 1 if name == "row sums" else 2]:
            if not few or (_whole(flags) and dtype == "bf16"):
                yield compiled_row_kernel(kernel, name, flags, capability, dtype=dtype)


def _whole(flags: Flags) -> bool:
    """Whether everything is asked for that can be at once; the entropy is of one distribution or the other."""
    return all(flags[name] for name in flags if name not in ("ENTROPY_TEMPERED",)) and (
        "HAS_LOGP" in flags or flags["ENTROPY_TEMPERED"]
    )


def _by_nvcc() -> list[cuda_backend.Resources]:
    """The row kernel in CUDA C++ for every GPU, printed, where nvcc is there."""
    if cuda_backend.compiler() is None:
        print("row_kernel.cu is left out: nvcc was not found")
        return []
    found = []
    for capability in CONFIGS:
        with tempfile.TemporaryDirectory() as folder:
            for one in cuda_backend.resources(capability, Path(folder)):
                found.append(one)
                print(
                    f"sm_{capability} {one.kernel:43} {one.registers:3} registers, {one.spilled_bytes} bytes spilled, "
                    f"{one.shared_bytes:6} bytes shared"
                )
    return found


if __name__ == "__main__":
    sys.exit(main())
