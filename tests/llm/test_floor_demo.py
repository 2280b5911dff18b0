"""The floor of the demo's noise: it is measured beside a run that goes on as if nothing were measured."""

import json
import os
import subprocess
import sys

import pytest
from running import ROOT, SMALL, trained

from aepo.theory import estimated_floor

STEPS = ("--train.steps=5", "--checkpoint.every=1")


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--method.name=e3", "--controller.sees=previous")], ids=["aepo", "e3"])
def test_the_run_is_the_real_commands_and_every_resample_has_noise_of_its_own(tmp_path, options):
    small = [argument for argument in SMALL if not (options and argument.startswith("--method"))]
    preset = ("--method.vocabulary=16",) if options else ()
    plain = trained(tmp_path / "plain", *STEPS, *options, *preset, small=small)
    command = [sys.executable, str(ROOT / "benchmarks" / "floor_demo.py"), "--states=2", "--resamples=3"]
    done = subprocess.run(
        [*command, f"--result={tmp_path / 'floor.json'}", *small, *STEPS, *options, *preset],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads((tmp_path / "floor.json").read_text())
    assert found["entropy"] == pytest.approx([row["entropy"] for row in plain], abs=1e-5)
    # The last half is steps 2 to 4; the states that they were reached from are 1 and 3.
    assert [state["step"] for state in found["states"]] == [1, 3]
    assert found["tracking_error"] == pytest.approx(sum(row["error"] for row in plain[2:]) / 3, abs=1e-6)
    assert found["error_over_floor"] == pytest.approx(found["tracking_error"] / found["floor"])
    for state in found["states"]:
        assert len(state["entropies"]) == len(found["controls"])
        for values in state["entropies"]:
            assert len(set(values)) == 3, "three resamples, three noises"
        assert (state["floor_low"], state["floor"]) == pytest.approx(estimated_floor(state["entropies"]), abs=2e-5)
