"""The lower bounds of pyproject.toml promise features: each is in the installed library, and none is promised lower."""

import importlib
import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def products_in_float32() -> bool:
    return "dtype" in importlib.import_module("torch").ops.aten.mm.overloads()


def weights_dtype() -> bool:
    # Older ones take any name without a word, and load in float32.
    return 'kwargs.pop("dtype"' in inspect.getsource(
        importlib.import_module("transformers").PreTrainedModel.from_pretrained
    )


def cache_of_a_config() -> bool:
    return "config" in inspect.signature(importlib.import_module("transformers").DynamicCache).parameters


def checkpointed_layers() -> bool:
    return hasattr(importlib.import_module("transformers.modeling_layers"), "GradientCheckpointingLayer")


def gradient_buckets() -> bool:
    source = inspect.getsource(importlib.import_module("deepspeed.runtime.zero.stage3"))
    return "self.ipg_buckets" in source and "self.grad_partitions_flat_buffer" in source


def import_without_a_toolkit() -> bool:
    return hasattr(importlib.import_module("deepspeed.ops.op_builder.builder"), "probe_is_compatible")


FEATURES: list[tuple[str, str, str, Callable[[], bool]]] = [
    ("torch", "2.8", "mm(out_dtype=), the head's products in float32 on a GPU", products_in_float32),
    ("transformers", "4.56", "from_pretrained(dtype=)", weights_dtype),
    ("transformers", "4.56", "DynamicCache(config=)", cache_of_a_config),
    ("transformers", "4.56", "layers that can be checkpointed one by one", checkpointed_layers),
    ("deepspeed", "0.19.8", "ipg_buckets, which train.release_buffers gives back", gradient_buckets),
    ("deepspeed", "0.19.8", "importing it on a GPU without CUDA's toolkit", import_without_a_toolkit),
]


def floors() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {found[1]: found[2] for line in lines if (found := re.match(r"([\w-]+)>=([\d.]+)", line))}


@pytest.mark.parametrize(("package", "floor", "feature", "there"), FEATURES, ids=lambda value: str(value)[:40])
def test_the_installed_library_has_what_its_lower_bound_promises(package, floor, feature, there):
    pytest.importorskip(package, reason=f"{package} is not installed")
    assert floors()[package] == floor, f"pyproject.toml promises {feature} from {package} {floors()[package]} on"
    assert there(), f"{package} has no {feature}: install {package}>={floor}"
