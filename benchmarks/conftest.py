"""What a benchmark's JSON says of the machine: enough to compare two files, and no name of a computer."""

import os

import numpy
import torch


def pytest_benchmark_update_machine_info(config, machine_info):
    for name in ("node", "release"):
        machine_info.pop(name, None)
    machine_info.get("cpu", {}).pop("flags", None)
    machine_info.update(torch=torch.__version__, numpy=numpy.__version__, cores=os.cpu_count(), threads=1)
    machine_info["command"] = " ".join(["pytest", *config.invocation_params.args])


def pytest_benchmark_update_json(config, benchmarks, output_json):
    # Which commit this is stands in the history of the file; a path or a branch's name helps nobody.
    output_json.pop("commit_info", None)
    for one in output_json["benchmarks"]:
        one["stats"].pop("data", None)
