"""The process of one stage: python -m aepo.llm.gpu_check.one_stage MODULE FINDINGS SECONDS

Exit code 0: the stage came to its end, whatever its checks found.
"""

import importlib
import sys
import time
from pathlib import Path

from aepo.llm.gpu_check.findings import Findings, obstacle

WHOLE = "the whole stage"
"""Name of the check that says why a stage is left out."""


def main(arguments: list[str] | None = None) -> int:
    """Run the stage; an error that is not about this machine goes on to the interpreter, which prints it."""
    module, path, seconds = sys.argv[1:] if arguments is None else arguments
    began = time.monotonic()
    findings = Findings(Path(path), seconds=float(seconds))
    try:
        importlib.import_module(module).run(findings)
    except Exception as error:
        why_not = obstacle(error)
        if why_not is None:
            raise
        findings.left_out(WHOLE, why_not)
    print(f"--- came to its end after {time.monotonic() - began:.1f} s", flush=True)
    findings.ended()
    return 0


if __name__ == "__main__":
    sys.exit(main())
