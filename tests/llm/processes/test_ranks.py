"""Which errors mean that another rank was lost; real gloo processes of which one dies, falls silent or never comes."""

import os
import socket
import subprocess
import sys

import pytest
import torch.distributed as dist

from aepo.llm.policy.deepspeed_stepper import init_distributed
from aepo.llm.processes import ranks
from aepo.llm.processes.ports import free_port
from aepo.llm.settings import SettingsError

PAIR = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] "
NCCL = "NCCL error in: ProcessGroupNCCL.cpp:3690, "


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(PAIR + "Connection closed by peer [127.0.0.1]:2731. This is typically"), "Connection closed"),
        (RuntimeError(PAIR + "Read error [127.0.0.1]:9434: Connection reset by peer."), "Read error"),
        (dist.DistBackendError(NCCL + "remote process exited or there was a network error"), "remote process exited"),
        (dist.DistBackendError(NCCL + "ncclRemoteError: A call failed possibly due to"), "ncclRemoteError"),
        (
            dist.DistNetworkError("Failed to recv, got 0 bytes. Did the remote server crash?\nframe #0"),
            "Failed to recv",
        ),
        (dist.DistStoreError("wait timeout after 600000ms, keys: /barrier"), "wait timeout"),
    ],
)
def test_a_lost_peer_is_told_in_its_own_words(error, said):
    told = ranks.lost_peer(error)
    assert told is not None and told.startswith(said) and "\n" not in told


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        # The words of a lost peer from something that is none: a download, a pipe to a worker.
        RuntimeError("Connection closed by peer"),
        RuntimeError("Broken pipe"),
        RuntimeError("ncclRemoteError"),
        RuntimeError("[enforce fail at gloo/math.cc] Read error"),
        dist.DistBackendError(NCCL + "ncclInvalidUsage: Duplicate GPU detected : rank 0 and rank 1"),
        dist.DistBackendError(NCCL + "ncclUnhandledCudaError: Cuda failure 2 'out of memory'"),
    ],
    ids=repr,
)
def test_no_other_error_is_taken_for_a_lost_peer(error):
    assert ranks.lost_peer(error) is None


RANK = """
import datetime, os, sys, time
import torch
import torch.distributed as dist
from aepo.llm.processes import ranks

fate, rank = sys.argv[1], int(os.environ["RANK"])
try:
    # Patience until both are there: on a busy machine one comes seconds after the other.
    patience, short = (datetime.timedelta(seconds=s) for s in (3 if fate == "never comes" else 120, 3))
    dist.init_process_group("gloo", timeout=patience)
    group = dist.new_group(timeout=short)
    dist.all_reduce(torch.ones(1), group=group)
    if rank == 1:
        time.sleep(8 if fate == "falls silent" else 0)
        os._exit(0)
    for _ in range(3):
        dist.all_reduce(torch.ones(1), group=group)
except RuntimeError as error:
    print(ranks.lost_peer(error))
    sys.exit(7)
finally:
    if dist.is_initialized():
        dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fate", "said"), [("dies", "Connection"), ("falls silent", "Timed out waiting 3000ms"), ("never comes", "Timed")]
)
def test_gloo_really_says_so(fate, said):
    port = free_port()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, fate], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port)},
        )
        for rank in range(1 if fate == "never comes" else 2)
    ]  # fmt: skip
    told, trouble = running[0].communicate(timeout=300)
    assert running[0].returncode == 7, trouble
    assert told.startswith((said, "Read error", "Broken pipe")), told
    for other in running[1:]:
        other.communicate(timeout=300)


def test_alone_anywhere_is_what_this_rank_says():
    assert ranks.anywhere(True) is True and ranks.anywhere(False) is False


ANYWHERE = """
import os
import torch.distributed as dist
from aepo.llm.processes import ranks

dist.init_process_group("gloo")
rank = ranks.rank()
print([ranks.anywhere(flag) for flag in (False, rank == 0, rank == 1, True)])
dist.destroy_process_group()
"""


def test_every_rank_learns_whether_any_says_yes():
    port = free_port()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", ANYWHERE], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port)},
        )
        for rank in range(2)
    ]  # fmt: skip
    for one in running:
        printed, trouble = one.communicate(timeout=300)
        assert printed.split("\n")[-2:] == ["[False, True, True, True]", ""], trouble


@pytest.mark.parametrize(
    "port, why",
    [("31999", "EADDRINUSE, message: address already in use"), ("80", "EACCES, message: permission denied")],
)
def test_a_port_that_cannot_be_opened_is_told_with_the_cure(monkeypatch, port, why):
    monkeypatch.setenv("MASTER_PORT", port)
    text = f"The server socket has failed to listen on any local network address. port: {port}, code: -98, name: {why}"
    told = ranks.not_opened(dist.DistNetworkError(text))
    assert told.startswith(f"port {port}, ") and why.split(": ")[1] in told and "--master_port" in told


@pytest.mark.parametrize(
    "error",
    [
        dist.DistNetworkError("Failed to recv, got 0 bytes. Did the remote server crash?"),
        dist.DistNetworkError("The client socket has timed out after 1800000ms while trying to connect to (a, 29500)."),
    ],
)
def test_a_rank_that_waits_for_others_has_not_failed_to_open_a_port(error):
    assert ranks.not_opened(error) is None and ranks.lost_peer(error) is not None


def test_a_port_that_is_held_is_really_told(monkeypatch):
    with socket.socket(socket.AF_INET6) as held:
        held.bind(("::", 0))
        held.listen()
        port = held.getsockname()[1]
        rank = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in rank.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError, match=f"port {port}, where the ranks of this run are to meet"):
            init_distributed(1.0)


@pytest.mark.parametrize("port", ["abc", "99999", "-5", ""])
def test_a_meeting_place_that_is_none_is_refused(monkeypatch, port):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"MASTER_PORT.*aepo train"):
        ranks.check_meeting_place()


def test_without_a_launcher_a_process_is_the_only_rank_and_half_a_launcher_is_refused(monkeypatch):
    for name in (*ranks.LAUNCHED, "LOCAL_RANK"):
        # Set first, so that what is set in its place goes with the test.
        monkeypatch.setenv(name, "")
    ranks.check_meeting_place()
    found = {name: os.environ[name] for name in (*ranks.LAUNCHED, "LOCAL_RANK")}
    port = found.pop("MASTER_PORT")
    assert found == {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    assert port.isdecimal()
    monkeypatch.setenv("MASTER_PORT", "")
    with pytest.raises(SettingsError, match=r"MASTER_PORT not set, and others of RANK.*aepo train"):
        ranks.check_meeting_place()
