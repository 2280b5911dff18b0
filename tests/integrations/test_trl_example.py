"""The example for TRL: short enough to be read, and its smoke run trains on a CPU without a network."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "trl_gsm8k.py"


def test_the_example_is_short_and_its_smoke_run_trains(tmp_path):
    assert len(EXAMPLE.read_text().splitlines()) <= 60
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--smoke"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "entropy_target" in done.stdout and "train_loss" in done.stdout
