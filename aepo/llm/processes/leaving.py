"""The end of a rank's process, whose exit code says whether its work was done."""

import atexit
import os
import sys
import threading
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process as Python does, its threads and exit functions included, but without C++'s destructors.

    Threads of gloo may still run when these begin, and one of some hundred runs of two ranks then ended with "terminate
    called without an active exception" and SIGABRT after all its work was done, which a queue takes for a failure.

    Args:
        code: of the process.
    """
    # In Python's own order, as its multiprocessing ends a child.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)
