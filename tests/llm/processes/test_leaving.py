"""The end of a rank's process: everything that Python does at exit, and none of C++'s."""

import subprocess
import sys

SCRIPT = """
import atexit, ctypes, sys, threading, time
from aepo.llm.processes.leaving import leave

library = ctypes.CDLL(None)
library.__cxa_atexit(library.abort, None, None)
atexit.register(lambda: print("exit function"))
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
print("before", end=" ")
print("told", end="", file=sys.stderr)
END
"""


def ended(how):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("END", how)], capture_output=True, text=True, timeout=120, check=False
    )


def test_threads_and_exit_functions_end_and_what_was_said_arrives():
    found = ended("leave(3)")
    assert (found.returncode, found.stdout, found.stderr) == (3, "before thread\nexit function\n", "told")


def test_destructors_that_would_end_the_process_do_not_run():
    # The same by Python's own end: SIGABRT after all work is done.
    assert ended("sys.exit(0)").returncode == -6
    assert ended("leave(0)").returncode == 0
