"""What a wheel holds, and presets by name: from any working directory, in a checkout and in an installed package."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from aepo.llm.settings import SettingsError, load, presets

ROOT = Path(__file__).parents[1]
PACKED = (".py", ".cu", ".typed", ".yaml", ".csv")
CONFIGS = ROOT / "configs"
PRESETS = sorted(path.stem if path.suffix == ".yaml" else path.name for path in CONFIGS.glob("*.yaml"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_names_are_those_of_the_folder():
    assert presets.FOLDER == CONFIGS and presets.names() == PRESETS and "aepo_qwen2.5_7b" in PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_by_its_name_from_any_folder(elsewhere, name):
    for typed in (name, f"{name}.yaml", f"configs/{name}.yaml", f"configs/{name}", f"./configs/{name}.yaml"):
        assert presets.find(typed) == CONFIGS / f"{name}.yaml"
        # With what it extends.
        assert load(typed) == load(CONFIGS / f"{name}.yaml")


def test_a_file_of_the_path_that_was_typed_wins(elsewhere):
    (elsewhere / "configs").mkdir()
    for typed in ("demo_cpu.yaml", "configs/demo_cpu.yaml", "demo_cpu"):
        (elsewhere / typed).write_text("seed: 123\n")
        assert presets.find(typed) == Path(typed) and load(typed).seed == 123
        assert presets.find(str(elsewhere / typed)) == elsewhere / typed


def test_a_folder_of_a_presets_name_is_no_preset(elsewhere):
    (elsewhere / "demo_cpu").mkdir()
    assert presets.find("demo_cpu") == CONFIGS / "demo_cpu.yaml"


def test_ones_own_file_extends_a_preset_by_its_name_and_a_file_beside_it_first(elsewhere):
    (elsewhere / "own.yaml").write_text("extends: demo_cpu\nseed: 5\n")
    own, demo = load("own.yaml"), load("demo_cpu")
    assert own.seed == 5 and own.model_copy(update={"seed": demo.seed}) == demo
    (elsewhere / "demo_cpu.yaml").write_text("extends: configs/demo_cpu.yaml\nout: mine\n")
    assert load("demo_cpu.yaml").out == "mine"
    (elsewhere / "own.yaml").write_text("extends: demo_cpu.yaml\n")
    assert load("own.yaml").out == "mine"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("demo_cp", r", did you mean 'demo_cpu'\? Presets: "),
        ("configs/experiment_gpus.yaml", r", did you mean 'experiment_gpu'\? Presets: "),
        ("xyz", r"\. Presets: "),
        # A path elsewhere that does not exist is not answered by another file.
        ("/nowhere/configs/demo_cpu.yaml", r", did you mean 'demo_cpu'\? Presets: "),
        ("../configs/demo_cpu.yaml", r", did you mean 'demo_cpu'\? Presets: "),
        ("other/demo_cpu.yaml", r", did you mean 'demo_cpu'\? Presets: "),
        ("", r"\. Presets: "),
    ],
)
def test_what_is_neither_a_file_nor_a_preset_is_refused_with_the_names(elsewhere, typed, hint):
    with pytest.raises(SettingsError, match=rf"^--config {typed}: no such file or preset{hint}{', '.join(PRESETS)}$"):
        load(typed)
    (elsewhere / "mine.yaml").write_text("seed: 1\n")
    with pytest.raises(SettingsError, match=r"Presets: .*; files beside it: mine\.yaml$"):
        load("demo_cp")


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("needs setuptools 77, for the licence as an expression")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    # A copy: building leaves a folder behind, which would be packed by the next build.
    for name in ("aepo", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(out), str(source)], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("aepo_rl-*.whl")
    return path


@pytest.mark.slow
def test_a_wheel_holds_presets_kernels_types_licence_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        sources = [path for path in (ROOT / "aepo").rglob("*") if path.suffix in PACKED]
        assert {str(path.relative_to(ROOT)) for path in sources} <= set(names)
        for path in CONFIGS.rglob("*.yaml"):
            assert packed.read(f"aepo/{path.relative_to(ROOT)}") == path.read_bytes()
        (info,) = {name.partition("/")[0] for name in names} - {"aepo"}
        assert packed.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert "aepo = aepo.command:main" in packed.read(f"{info}/entry_points.txt").decode()
        metadata = packed.read(f"{info}/METADATA").decode().splitlines()
    base = {
        line.split(": ")[1].split(">")[0] for line in metadata if line.startswith("Requires-Dist") and ";" not in line
    }
    assert base == {"numpy", "scipy", "torch"}
    assert "Name: aepo-rl" in metadata and "License-Expression: Apache-2.0" in metadata


@pytest.mark.slow
def test_an_installed_package_finds_its_presets_and_the_files_that_it_starts(wheel, elsewhere):
    site = elsewhere / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    code = (
        "import aepo\nfrom aepo.llm.processes import launch\nfrom aepo.llm.settings import load, presets\n"
        "print(aepo.__file__, presets.find('configs/demo_cpu.yaml'), launch.TRAIN, sep='\\n')\n"
        "print(load('experiment_gpu').out)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    package = site / "aepo"
    found = [package / "__init__.py", package / "configs" / "demo_cpu.yaml", package / "llm" / "train.py"]
    assert done.stdout.splitlines() == [*map(str, found), load("experiment_gpu").out]
    assert all(path.is_file() for path in found)


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    import aepo

    assert cited["version"] == aepo.__version__ and cited["license"] == "Apache-2.0"
    assert f"## [{aepo.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
