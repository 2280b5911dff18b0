"""Runs of `trl_world` on one rank of a launched group: what test_trl_equality.py compares.

The cases come as JSON on the command line, and the file named after them holds the weights that each left, and the
entropy that its first step measured.
"""

import json
import os
import sys

import torch
import trl_world as world

from aepo.llm.processes.leaving import leave

if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = json.loads(sys.argv[1])
    found = []
    for case in cases:
        run = world.run(world=int(os.environ["WORLD_SIZE"]), **case)
        left = {name.removeprefix("module."): weights for name, weights in run.after.items()}
        found.append(left | {world.FIRST_ENTROPY: torch.tensor(run.history[0]["entropy"])})
    torch.save(found, sys.argv[2])
    torch.distributed.destroy_process_group()
    leave(0)
