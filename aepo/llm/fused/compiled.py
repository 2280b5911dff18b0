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

from aepo.llm.fused.triton_backend import CONFIGS, PRECISION
from aepo.llm.fused.triton_kernels import gradient_kernel, statistics_kernel

SHARED_LIMITS = {80: 163 * 1024, 90: 227 * 1024}
"""Compute capability -> bytes of shared memory that one block may use."""

ALLOWED_SPILLS = {(80, "gradient", "logp, logp_t, entropy, entropy_tempered, bias, cap"): 8}
"""(capability, kernel, what is asked) -> bytes: everything at once, which no model and no method asks for."""

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
        """Whether it spills no more than is allowed and its shared memory is there."""
        allowed = ALLOWED_SPILLS.get((self.capability, self.kernel, self.flags), 0)
        return self.spilled_bytes <= allowed and self.shared_bytes <= SHARED_LIMITS[self.capability]


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


def compiled(kernel: Any, name: str, flags: Flags, capability: int, *, extras: bool, dtype: str = "bf16") -> Compiled:
    """One kernel under one configuration; `extras` turns bias and soft cap on."""
    config = CONFIGS[capability].of(name, wide=dtype == "fp32")
    constants = flags | {
        "HAS_BIAS": extras,
        "HAS_CAP": extras,
        "UPCAST": False,
        "PRECISION": PRECISION,
        "BLOCK_N": config.rows,
        "BLOCK_V": config.columns,
        "BLOCK_D": config.width,
    }
    names = kernel.arg_names
    divisible = ("hidden", "weight", "bias", "out", "row_stride", "column_stride", "out_stride", "width")
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else _type(name, dtype) for name in names},
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in divisible},
    )
    made = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": config.warps, "num_stages": config.stages},
    )
    registers, stack = _resources(made.asm["cubin"])
    on = [flag.removeprefix("HAS_").lower() for flag, value in flags.items() if value] + ["bias, cap"] * extras
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
    if name in ("label", "temperature", "partial") or name.startswith(("log_mass", "entropy", "by_")):
        return "*i64" if name == "label" else "*fp32"
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
        for kernel, name, flags in questions():
            whole = sum(flags.values()) == len(flags) - (name == "gradient" and not flags["ENTROPY_TEMPERED"])
            for extras, dtype in ((False, "bf16"), (True, "bf16"), (False, "fp32")):
                if few and not (whole and not extras and dtype == "bf16"):
                    continue
                rows.append(compiled(kernel, name, flags, capability, extras=extras, dtype=dtype))
                one = rows[-1]
                print(
                    f"sm_{one.capability} {one.kernel:10} {one.dtype:5} {one.registers:3} registers, "
                    f"{one.spilled_bytes} bytes spilled, {one.shared_bytes:6} bytes shared, "
                    f"{'wgmma' if one.wgmma else 'mma  '}  {one.flags}"
                )
    bad = [one for one in rows if not one.fits or (one.capability >= 90 and one.dtype == "bf16" and not one.wgmma)]
    print(f"{len(rows)} kernels, {len(bad)} that spill, do not fit or miss wgmma")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
