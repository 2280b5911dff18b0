"""The command `aepo`: what it lists and starts, what it says of a wrong name and of a missing extra, its launcher."""

import base64
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from aepo.command import COMMANDS, Command, main
from aepo.extras import BRINGS, install
from aepo.llm.doctor import __main__ as doctor
from aepo.llm.evaluation import __main__ as evaluation
from aepo.llm.evaluation.reporting import report
from aepo.llm.gpu_check import __main__ as gpu_check
from aepo.llm.processes import launch
from aepo.llm.records import show
from aepo.llm.settings import parse

ROOT = Path(__file__).parents[1]
# The packages of the first argument are not found; then the module of the second runs with the arguments after it.
WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder
gone, module, *arguments = sys.argv[1:]
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in gone.split(",") else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Finder if one is PathFinder else one for one in sys.meta_path]
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__")
"""
MODULES = {
    "aepo.tabular.sweep": "sim",
    "aepo.theory.figures": "sim",
    "aepo.llm.train": "llm",
    **{one.module: one.extra for one in COMMANDS.values() if one.extra},
}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-P", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def in_process(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["aepo", *arguments])
    main()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_that_can_be_run(name):
    module = COMMANDS[name].module
    assert find_spec(module) is not None
    assert find_spec(module).submodule_search_locations is None or find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("typed", [(), ("--help",)])
def test_the_list_names_every_command_with_its_line_and_extra(monkeypatch, capsys, typed):
    if typed:
        with pytest.raises(SystemExit, match=r"^0$"):
            in_process(monkeypatch, *typed)
    else:
        in_process(monkeypatch)
    said = capsys.readouterr().out
    for name, one in COMMANDS.items():
        extra = rf" \[{one.extra}\]" if one.extra else ""
        assert re.search(rf"^  {name} +{re.escape(one.description)}{extra}$", said, re.MULTILINE)
    assert install("NAME") in said


def test_the_list_and_a_refusal_load_no_heavy_package(tmp_path):
    for typed in ([], ["swep"]):
        code = (
            f"import sys, aepo.command\nsys.argv[1:] = {typed}\ntry: aepo.command.main()\nfinally: print(*sys.modules)"
        )
        loaded = run("-c", code, cwd=tmp_path).stdout.split()
        assert "aepo.command" in loaded and not {"torch", "numpy", "typer", "aepo.llm", "aepo.tabular"} & set(loaded)


def test_an_unknown_command_ends_with_2_and_the_nearest(monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        in_process(monkeypatch, "doktor", "--help")
    assert "unknown command 'doktor'; did you mean 'doctor'?" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^2$"):
        in_process(monkeypatch, "xyz")
    assert f"unknown command 'xyz'; there are {', '.join(COMMANDS)}" in capsys.readouterr().err


def test_a_command_gets_its_arguments_untouched_and_its_exit_code_passes(monkeypatch, tmp_path, capsys):
    (tmp_path / "echo_arguments.py").write_text("import sys\nprint(sys.argv)\nsys.exit(7)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(COMMANDS, "echo", Command(module="echo_arguments", description="", before=("a",)))
    with pytest.raises(SystemExit, match=r"^7$"):
        in_process(monkeypatch, "echo", "--help", "--x=1", "--", "-y", "b c")
    assert capsys.readouterr().out == "['aepo echo', 'a', '--help', '--x=1', '--', '-y', 'b c']\n"


@pytest.mark.parametrize(
    ("started", "name", "form"),
    [
        (doctor.main, "doctor", "python -m aepo.llm.doctor"),
        (evaluation.main, "evaluate", "python -m aepo.llm.evaluation"),
        (report.main, "report", "python -m aepo.llm.evaluation report"),
        (show.main, "show", "python -m aepo.llm.records.show"),
        (gpu_check.main, "gpu-check", "python -m aepo.llm.gpu_check"),
        (parse, "train", "deepspeed aepo/llm/train.py"),
    ],
)
def test_help_texts_name_what_was_typed(monkeypatch, capsys, started, name, form):
    for typed, program in ((f"aepo {name}", f"aepo {name}"), ("__main__.py", form), ("aepo nothing", form)):
        monkeypatch.setattr(sys, "argv", [typed])
        with pytest.raises(SystemExit, match=r"^0$"):
            started(["--help"])
        assert " ".join(capsys.readouterr().out.split()).startswith(f"usage: {program} [-h]")


def test_train_help_is_the_launchers_and_the_trainers_and_starts_nothing(tmp_path):
    done = run("-m", "aepo.command", "train", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in (
        "aepo train [--ranks N]",
        "--hostfile FILE",
        "usage: aepo train ",
        "--config CONFIG",
        "train.zero_stage",
    ):
        assert part in done.stdout
    assert "deepspeed.launcher" not in done.stdout + done.stderr


# Extras


def test_the_extras_are_those_of_the_distribution():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {
        extra: {re.split("[>=<;]", line)[0].replace("-", "_") for line in lines if not line.startswith("aepo-rl")}
        for extra, lines in declared["optional-dependencies"].items()
    }
    assert set(BRINGS["sim"]) == packages["sim"] and set(BRINGS["llm"]) == packages["llm"] | packages["sim"]
    assert set(BRINGS["trl"]) == packages["trl"]
    assert {one.extra for one in COMMANDS.values()} - {None} <= set(BRINGS)
    assert f"'{declared['name']}[sim]'" in install("sim")


@pytest.mark.parametrize("form", ["module", "command"])
@pytest.mark.parametrize(("module", "extra"), MODULES.items())
def test_without_its_extra_a_command_ends_with_2_and_one_line_that_names_it(tmp_path, module, extra, form):
    names = [name for name, one in COMMANDS.items() if one.module == module]
    if form == "command" and not names:
        pytest.skip("has no name of its own")
    name = names[0] if form == "command" else ""
    arguments = (",".join(BRINGS[extra]), "aepo.command" if form == "command" else module, *filter(None, [name]))
    done = run("-c", WITHOUT, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this command needs ") and line.endswith(install(extra))


# The launcher


def devices(command: list[str]) -> list:
    (info,) = (one.partition("=")[2] for one in command if one.startswith("--world_info="))
    return json.loads(base64.urlsafe_b64decode(info))["localhost"]


@pytest.mark.parametrize(
    ("gpus", "visible", "ranks", "expected"),
    [
        (0, None, None, [0]),
        (0, "", 3, [0, 1, 2]),
        (8, None, None, [str(gpu) for gpu in range(8)]),
        (8, None, 2, ["0", "1"]),
        # Those that are visible, not the first of the machine.
        (2, "5,3", None, ["5", "3"]),
        (2, "5, 3", 1, ["5"]),
        # CUDA stops at a name that it does not know.
        (1, "5,-1,3", None, ["5"]),
    ],
)
def test_a_rank_starts_on_each_visible_gpu_or_one_on_the_cpu(monkeypatch, gpus, visible, ranks, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    command = launch.command(["--config", "demo_cpu", "--seed=3"], ranks=ranks)
    assert devices(command) == expected
    assert command[-4:] == [str(launch.TRAIN), "--config", "demo_cpu", "--seed=3"]
    assert launch.TRAIN == ROOT / "aepo" / "llm" / "train.py"


@pytest.mark.parametrize(
    ("gpus", "ranks", "said"),
    [(0, 0, "at least 1, got 0"), (2, 3, "at least 1 and at most 2, the visible GPUs, got 3")],
)
def test_a_number_of_ranks_that_cannot_be_is_refused(monkeypatch, capsys, gpus, ranks, said):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert launch.main([f"--ranks={ranks}"]) == 2
    assert capsys.readouterr().err == f"error: --ranks must be {said}\n"


@pytest.mark.parametrize("asked", [[], ["--ranks=1"]])
def test_one_rank_trains_in_this_process_without_the_working_directory_on_the_path(monkeypatch, tmp_path, asked):
    said = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("became a launcher"))
    monkeypatch.setattr("aepo.llm.train.main", lambda argv: said.append((argv, dict(os.environ), list(sys.path))) or 7)
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "5")
    for first, rest in (("", ["/b"]), (str(tmp_path), ["/b"]), ("/a", ["/a", "/b"])):
        monkeypatch.setattr(sys, "path", [first, "/b"])
        assert launch.main([*asked, "--config", "demo_cpu", "--resume"]) == 7
        arguments, environment, path = said.pop()
        assert arguments == ["--config", "demo_cpu", "--resume"] and path == rest
        assert [environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == ["0", "0", "1"]
        assert environment["MASTER_ADDR"] == "127.0.0.1" and environment["MASTER_PORT"] != "5"


def test_train_becomes_the_launcher_with_the_trainers_arguments_as_they_were_typed(monkeypatch):
    became = []
    monkeypatch.setattr(os, "execv", lambda path, command: became.append((path, command)))
    launch.main(["--config", "demo_cpu", "--ranks", "2", "--rank", "--train.steps=3", "--resume"])
    ((path, command),) = became
    assert path == sys.executable and len(devices(command)) == 2
    assert command[command.index(str(launch.TRAIN)) + 1 :] == [
        "--config", "demo_cpu", "--rank", "--train.steps=3", "--resume"
    ]  # fmt: skip
