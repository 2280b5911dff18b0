"""The C library's memory between two steps: kept, and not handed back to the system."""

import ctypes
import functools

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Let the process keep up to a GiB of freed memory for its next step; whether the C library could be told so.

    A step of some hundred runs makes and drops tensors of a megabyte. By default glibc gives such memory back when a
    step has freed it, and the system clears every page again in the next: up to half of a step's time on a virtual
    machine. Numbers do not depend on it. Where the C library has no `mallopt` (macOS, Windows) nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(M_MMAP_THRESHOLD, KEPT), mallopt(M_TRIM_THRESHOLD, KEPT)])
