"""Ports that nobody else is given before they are bound."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor

from aepo.llm.processes import ports
from aepo.llm.processes.ports import LOWEST, PARTS, free_port


def test_a_process_gets_each_port_once_before_any_again_also_from_threads():
    part = (ports._first_handed_out() - LOWEST) // PARTS
    count = min(100, part // 2)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: free_port(), range(count)))
    assert len(set(found)) == count


def test_ports_are_below_those_that_the_system_hands_out_and_in_the_processs_own_part(monkeypatch):
    for first, expected in ((32_768, 32_768), (49_152, 49_152), (1024, 32_768)):
        monkeypatch.setattr(ports, "_first_handed_out", lambda e=expected: e)
        part = (expected - LOWEST) // PARTS
        for pid in (1, PARTS, PARTS + 63):
            monkeypatch.setattr(os, "getpid", lambda p=pid: p)
            begins = LOWEST + pid % PARTS * part
            assert begins <= free_port() < begins + part <= expected, first


def test_the_systems_range_is_read_and_an_unusable_one_is_not_taken(monkeypatch, tmp_path):
    file = tmp_path / "range"
    monkeypatch.setattr(ports, "_RANGE", file)
    assert ports._first_handed_out() == 32_768
    for text, expected in (("49152 65535\n", 49_152), ("1024\t60999\n", 32_768), ("", 32_768)):
        file.write_text(text)
        assert ports._first_handed_out() == expected


def test_a_port_in_use_is_passed_over(monkeypatch):
    taken = [socket.socket() for _ in range(3)]
    part = (ports._first_handed_out() - LOWEST) // PARTS
    first = LOWEST + os.getpid() % PARTS * part
    try:
        bound = []
        for number, one in enumerate(taken):
            one.bind(("127.0.0.1", first + 50 + number))
            one.listen()
            bound.append(first + 50 + number)
        monkeypatch.setattr(ports, "_turns", iter(range(50, 10_000)))
        assert free_port() not in bound
    finally:
        for one in taken:
            one.close()
