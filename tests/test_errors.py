"""Every error of the project has one root and an exit code of the one table."""

import importlib
import pkgutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

import aepo
from aepo.errors import EXIT_CODES, AepoError

# Each needs what only some machines have.
NOT_IMPORTED = {"aepo.llm.fused.triton_kernels", "aepo.llm.fused.triton_backend"}


def test_the_codes_are_those_a_shell_can_tell_apart_and_none_is_pythons_own():
    assert sorted(EXIT_CODES) == [0, 2, 3, 4, 5, 6, 7, 8]
    assert all(EXIT_CODES.values()) and len(set(EXIT_CODES.values())) == len(EXIT_CODES)


def test_importing_the_errors_loads_nothing_but_the_standard_library():
    code = "import sys, aepo.errors; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "aepo.errors" in loaded
    assert {"numpy", "torch", "pydantic", "scipy"} & set(loaded) == set()


def every_error() -> list[type[Exception]]:
    """The exceptions that the package defines for its callers."""
    pytest.importorskip("deepspeed", reason="aepo.llm needs its extra")
    integrations = {f"aepo.integrations.{host}" for host in ("trl", "verl") if find_spec(host) is None}
    for module in pkgutil.walk_packages(aepo.__path__, "aepo."):
        without_host = any(f"{module.name}.".startswith(f"{one}.") for one in integrations)
        if not without_host and module.name not in NOT_IMPORTED and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = [], [Exception]
    while left:
        for kind in left.pop().__subclasses__():
            left.append(kind)
            found += [kind] if kind.__module__.startswith("aepo.") else []
    return found


def test_every_error_has_the_one_root_and_a_code_that_says_something_went_wrong():
    found = every_error()
    names = {kind.__name__ for kind in found}
    assert names >= {"SettingsError", "DataError", "EngineError", "StaleWeightsError", "CheckpointError", "ReportError"}
    for kind in found:
        assert issubclass(kind, AepoError), kind
        assert kind.exit_code in EXIT_CODES and kind.exit_code != 0, kind


@pytest.mark.parametrize(
    ("module", "name", "code", "of_one_rank"),
    [
        ("aepo.llm.settings", "SettingsError", 2, False),
        ("aepo.llm.questions.files", "DataError", 2, False),
        ("aepo.llm.evaluation.reporting.tables", "ReportError", 2, False),
        ("aepo.llm.engines.engine", "EngineError", 2, True),
        ("aepo.llm.checkpoints.checkpoint", "CheckpointError", 3, True),
        ("aepo.llm.checkpoints.reshard", "ConversionError", 3, True),
        ("aepo.llm.engines.canary", "StaleWeightsError", 5, True),
        ("aepo.llm.train", "NotJudgedError", 8, False),
    ],
)
def test_what_each_says_to_the_shell_and_who_says_it(module, name, code, of_one_rank):
    pytest.importorskip("deepspeed", reason="aepo.llm needs its extra")
    kind = getattr(importlib.import_module(module), name)
    assert (kind.exit_code, kind.of_one_rank) == (code, of_one_rank)
    # Whoever checks values catches these, and pydantic puts its field's name before them.
    assert issubclass(kind, ValueError) == (name in ("SettingsError", "DataError", "ReportError"))


def raising(error: Exception):
    def run(*_, **__):
        raise error

    return run


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(
    ("error", "code", "said", "by_all"),
    [
        (("aepo.llm.settings", "SettingsError", "a\nb"), 2, "error: a\nb\n", False),
        (("aepo.llm.questions.files", "DataError", "row 3"), 2, "error: row 3\n", False),
        (("aepo.llm.engines.engine", "EngineError", "no vLLM"), 2, "error: rank 0: no vLLM\n", True),
        (("aepo.llm.engines.canary", "StaleWeightsError", "old"), 5, "error: rank 0: old\n", True),
        (("aepo.llm.train", "NotJudgedError", "step 3"), 8, "error: step 3\n", False),
        (("aepo.llm.checkpoints.checkpoint", "CheckpointError", "full"), 3, "error: rank 0: full\n", True),
        (("builtins", "FloatingPointError", "nan"), 6, "error: rank 0: nan\n", True),
        (("builtins", "OSError", 28, "No space left"), 3, "No space left: make room under out=", True),
        (
            ("builtins", "RuntimeError", "gloo/transport/tcp/pair.cc Connection closed by peer [::]"),
            7,
            "error: rank 0: another rank was lost or does not answer (Connection closed by peer): see what it said",
            True,
        ),
    ],
)
def test_the_trainer_ends_with_the_code_of_the_error_and_its_message(
    monkeypatch, capsys, tmp_path, rank, error, code, said, by_all
):
    pytest.importorskip("deepspeed", reason="aepo.llm needs its extra")
    from aepo.llm import train

    module, name, *arguments = error
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(train, "run", raising(getattr(importlib.import_module(module), name)(*arguments)))
    assert train.main(["--config", "configs/demo_cpu.yaml", f"--out={tmp_path}"]) == code
    printed = capsys.readouterr().err
    assert said in printed if by_all or rank == "0" else printed == ""


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes cannot be multiplied"), OSError(2, "no such file"), KeyError("x")], ids=repr
)
def test_an_error_that_nobody_foresaw_keeps_its_traceback(monkeypatch, tmp_path, error):
    pytest.importorskip("deepspeed", reason="aepo.llm needs its extra")
    from aepo.llm import train

    monkeypatch.setattr(train, "run", raising(error))
    with pytest.raises(type(error)):
        train.main(["--config", "configs/demo_cpu.yaml", f"--out={tmp_path}"])
