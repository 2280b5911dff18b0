"""Who may import whom, read from the sources; and what importing the package must not load."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "aepo"
WORLDS = ("aepo.theory", "aepo.tabular", "aepo.llm")
# Names that some version of a dependency owns even where this environment lacks it.
FOREIGN = {"kernels", "evaluate", "datasets", "types", "tokenize", "queue", "tokenizers", "vllm"}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function; relative ones by their full name."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(above + ([base] if base else []))
            # `from aepo import llm` imports aepo.llm: the names count as modules too.
            found |= {base} | {f"{base}.{name.name}" for name in node.names}
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def offences(paths: list[Path], forbidden: tuple[str, ...], *, allowed: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{path.relative_to(PACKAGE.parent)} imports {module}"
        for path in paths
        for module in sorted(imports(path))
        if any(within(module, name) for name in forbidden) and not any(within(module, name) for name in allowed)
    ]


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py"))]


def root_sources() -> list[Path]:
    return sorted(PACKAGE.glob("*.py")) + sources("zoo")


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "aepo")
    inner = tmp_path / "aepo" / "llm" / "x.py"
    inner.parent.mkdir(parents=True)
    inner.write_text("import a.b\nfrom aepo import theory\nfrom . import y\ndef f():\n    from ..tabular import z\n")
    assert imports(inner) >= {"a.b", "aepo.theory", "aepo.llm.y", "aepo.tabular", "aepo.tabular.z"}
    assert offences([inner], ("aepo.tabular",)) == [
        "aepo/llm/x.py imports aepo.tabular",
        "aepo/llm/x.py imports aepo.tabular.z",
    ]


def test_the_root_never_imports_a_world():
    assert len(root_sources()) > 10
    assert offences(root_sources(), WORLDS) == []


def test_theory_imports_nothing_of_aepo_and_no_torch():
    assert sources("theory")
    assert offences(sources("theory"), ("aepo", "torch"), allowed=("aepo.theory",)) == []


def test_tabular_and_llm_never_import_each_other():
    assert offences(sources("tabular"), ("aepo.llm",)) == []
    assert offences(sources("llm"), ("aepo.tabular",)) == []


def test_only_the_tabular_report_compares_with_theory():
    paths = [path for path in sources("tabular", "llm") if path not in (PACKAGE / "tabular").rglob("report.py")]
    assert offences(paths, ("aepo.theory",)) == []


@pytest.mark.skipif(not (PACKAGE / "llm" / "fused").exists(), reason="aepo/llm/fused does not exist")
def test_the_fused_kernels_import_nothing_of_aepo_but_themselves():
    assert offences(sources("llm/fused"), ("aepo",), allowed=("aepo.llm.fused",)) == []


def test_nothing_directly_in_llm_shadows_a_package_or_a_standard_module():
    # `deepspeed aepo/llm/train.py` puts that folder first on the path, before everything that is installed.
    taken = FOREIGN | set(sys.stdlib_module_names) | set(packages_distributions()) - {"aepo"}
    names = {path.stem for path in (PACKAGE / "llm").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in names if not name.startswith("_")} & taken == set()


@pytest.mark.parametrize(
    "module, unwanted",
    [
        ("aepo", {"torch", "numpy", "transformers", "deepspeed", "vllm"}),
        ("aepo.theory", {"torch", "transformers", "deepspeed", "vllm", "matplotlib", "pandas"}),
    ],
)
def test_importing_the_package_loads_no_heavy_dependency(module, unwanted):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert module in loaded
    assert unwanted & set(loaded) == set()


def test_importing_the_shared_core_loads_no_trainer():
    code = "import sys, aepo.zoo, aepo.tracking, aepo.passk; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"transformers", "deepspeed", "vllm", "triton", "matplotlib"} & set(loaded) == set()
