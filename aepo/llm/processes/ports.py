"""Ports for processes that bind them only seconds later, as a run does that is still importing torch.

A port that the system hands out is one that it may hand out again meanwhile, to any connection of any process: every
rank opens dozens. These are of the range from which it never does, and each process takes them from a part of its own.
"""

import itertools
import os
import random
import socket
from pathlib import Path

LOWEST = 20_000
PARTS = 64
# The default of launchers, so that somebody else's run takes it.
TAKEN = {29_500}
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_turns = itertools.count(random.SystemRandom().randrange(2**16))


def free_port() -> int:
    """A free port of this machine; this process gets it again only after all of its others.

    Raises:
        OSError: none is free.
    """
    part = (_first_handed_out() - LOWEST) // PARTS
    first = LOWEST + os.getpid() % PARTS * part
    for turn in itertools.islice(_turns, part):
        port = first + turn % part
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in TAKEN:
            return port
    raise OSError(f"no port from {first} to {first + part - 1} is free")


def _first_handed_out() -> int:
    """The lowest port that the system hands out by itself; Linux's default elsewhere, or where it is below ours."""
    try:
        first = int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 0
    return first if first >= LOWEST + 10 * PARTS else 32_768
