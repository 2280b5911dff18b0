"""Stage about: the device, its driver and toolkit, and which of torch's newer parts are there."""

import os
import platform
import subprocess
from pathlib import Path

from aepo.llm.gpu_check import packages
from aepo.llm.gpu_check.findings import Facts, Findings, LeftOut

GIB = 2**30


def run(findings: Findings) -> None:
    """The device comes last: torch's first call to it may end the process."""
    findings.check("machine", machine)
    findings.check("driver", driver)
    findings.check("nvcc", nvcc)
    findings.check("torch", built)
    findings.check("attention over rows of several lengths", varlen)
    findings.check("device", device)


def machine() -> Facts:
    """Processor, cores and Python."""
    return {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}


def processor() -> str:
    """The processor's name, as Linux knows it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def driver() -> Facts:
    """What nvidia-smi says."""
    if (tool := packages.tool("nvidia-smi")) is None:
        raise LeftOut("nvidia-smi is not installed")
    subprocess.run([tool], check=False)
    query = [tool, "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
    said = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20).stdout
    return {f"gpu {i}": line for i, line in enumerate(said.splitlines())}


def nvcc() -> Facts:
    """The release of CUDA's compiler, which builds the row kernel."""
    if (tool := packages.tool("nvcc")) is None:
        raise LeftOut("nvcc is not installed")
    said = subprocess.run([tool, "--version"], check=True, capture_output=True, text=True, timeout=20).stdout
    return {"release": said.strip().splitlines()[-1]}


def built() -> Facts:
    """What torch was built for."""
    import torch

    return {"version": torch.__version__, "cuda": torch.version.cuda, "for": " ".join(torch.cuda.get_arch_list())}


def varlen() -> Facts:
    """The arguments of torch's own attention for packed rows."""
    import inspect

    from torch.nn.attention import varlen

    return {"arguments": " ".join(inspect.signature(varlen.varlen_attn).parameters)}


def device() -> Facts:
    """The first CUDA device, or the processor where there is none."""
    import torch

    if not torch.cuda.is_available():
        return {"kind": "cpu", "name": f"no CUDA device; {processor()}"}
    found = torch.cuda.get_device_properties(0)
    print(found)
    return {
        "kind": "cuda",
        "name": found.name,
        "count": torch.cuda.device_count(),
        "capability": f"{found.major}.{found.minor}",
        "memory_gib": round(found.total_memory / GIB, 1),
        "multiprocessors": found.multi_processor_count,
        "l2_mb": round(getattr(found, "L2_cache_size", 0) / 1e6, 1),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }
