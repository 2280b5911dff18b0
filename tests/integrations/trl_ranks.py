"""Runs of `trl_world` on one rank of a launched group: what test_trl_equality.py compares.

The cases come as JSON on the command line, and the file named after them holds the weights that each left.
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
    found = [world.run(world=int(os.environ["WORLD_SIZE"]), **case).after for case in cases]
    torch.save([{name.removeprefix("module."): w for name, w in one.items()} for one in found], sys.argv[2])
    torch.distributed.destroy_process_group()
    leave(0)
