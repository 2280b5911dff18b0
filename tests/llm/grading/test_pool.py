"""What a graded text does to its worker is that item's verdict alone, and no worker outlives its pool or its parent."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest

import aepo
from aepo.llm.grading import Verdict, math_reward
from aepo.llm.grading import pool as workers
from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS
from aepo.llm.grading.pool import GradingPool, judged, load_reward, troubles, unhurried_math_reward

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="relies on /proc, prctl and RLIMIT_AS")
DEADLINE = 0.6
ENDLESS = (r"\boxed{\prod_{k=1}^{99999}(k+\sqrt{2})}", "5")


def obedient(response: str, answer: str) -> float | Verdict:
    """Does what the response says; a number is its own reward. Runs in the workers, which import this file."""
    match response.split(" ", 1):
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["hang"]:
            time.sleep(1000)
        case ["tell", path]:  # where its process can be found, then hang
            tell(path, os.getpid())
            time.sleep(1000)
        case ["tell-busy", path]:  # hang where no signal handler and no other thread gets to run
            tell(path, os.getpid())
            ctypes.PyDLL(None).sleep(1000)
        case ["tell-child", path]:
            tell(path, subprocess.Popen(["sleep", "1000"]).pid)
            time.sleep(1000)
        case ["exit", code]:
            os._exit(int(code))
        case ["sys.exit"]:
            sys.exit("leaving")
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["segfault"]:
            ctypes.string_at(0)
        case ["fill"]:
            held = []
            while True:
                held.append(bytearray(10**7))
        case ["raise"]:
            raise LookupError("lost")
        case ["print"]:
            print("x" * 1_000_000, file=sys.stderr)
            print("x" * 1_000_000, flush=True)
        case ["loaded", module]:
            return module in sys.modules
        case ["pid"]:
            return os.getpid()
        case ["number", number]:
            return float(number)
    return 1.0


def tell(path: str, pid: int) -> None:
    Path(path + ".part").write_text(str(pid))
    os.replace(path + ".part", path)


def told(path: Path) -> int:
    """The number that appears in the file."""
    wait_for(path.exists)
    return int(path.read_text())


def wait_for(claim, *, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def pids(pool: GradingPool) -> set[int]:
    return {worker.process.pid for worker in pool._workers}


def numbers(pool: GradingPool, responses: list[str]) -> list[float]:
    return [verdict.reward for verdict in pool.grade([(response, "") for response in responses])]


@pytest.fixture(scope="module")
def pool():
    with GradingPool(obedient, workers=2, deadline_seconds=DEADLINE) as pool:
        yield pool


@pytest.fixture(scope="module")
def math_pool():
    # What sympy loads on its first square root takes a tenth of this, and a whole second on a busy machine.
    with GradingPool(workers=2, deadline_seconds=2.0) as pool:
        yield pool


def test_math_is_judged_as_without_a_pool_and_in_order_whatever_is_between(math_pool):
    plain = [
        ("#### 1,080", "1080"),
        (r"\boxed{2n-2}", "2(n-1)"),
        ("no answer", "1"),
        (r"\boxed{5^5^5^5}", "5"),
        (r"\boxed{" + r"\frac{1}{" * 20_000 + "}", "1"),
        (rf"\boxed{{{'9' * 100_000}}}", "9"),
        (r"\boxed{x^2+1}", "(x+1)^2"),
        ("#### " + "x+" * 50_000, "1"),
        (r"\boxed{\sqrt{3}\sqrt{17}}", r"\sqrt{51}"),
    ]
    items = [*plain[:4], ENDLESS, *plain[4:], ENDLESS]
    expected = [unhurried_math_reward(*item) for item in plain]
    verdicts = math_pool.grade(items)
    late = Verdict(reward=0.0, extracted=None, reason="timeout")
    assert verdicts == [*expected[:4], late, *expected[4:], late]
    assert troubles(verdicts) == {"reward/timeouts": 2, "reward/errors": 0}
    assert math_pool.grade(plain) == expected
    assert troubles(expected) == {"reward/timeouts": 0, "reward/errors": 0}
    assert math_pool.grade([]) == []


def test_four_thousand_items_come_back_in_order(math_pool):
    items = [("so it goes " * 100 + f"#### {i}", str(i - i % 2)) for i in range(4000)]
    math_pool.grade([ENDLESS, *items[:1]])
    math_pool.grade(items[:100])
    verdicts = math_pool.grade(items)
    assert [verdict.reward for verdict in verdicts] == [float(i % 2 == 0) for i in range(4000)]


@LINUX
@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("hang", "timeout"),
        ("kill", "error: the worker ended with SIGKILL"),
        ("segfault", "error: the worker ended with SIGSEGV"),
        ("exit 0", "error: the worker ended with exit code 0"),
        ("exit 3", "error: the worker ended with exit code 3"),
        ("sys.exit", "error: SystemExit: leaving"),
        ("raise", "error: LookupError: lost"),
        ("number nan", "error: the reward must return a finite number or a Verdict, got nan"),
    ],
)
def test_what_an_item_does_to_its_worker_is_its_own_verdict(pool, response, reason):
    responses = [f"number {i}" for i in range(40)]
    responses[17] = response
    start = time.monotonic()
    verdicts = pool.grade([(response, "") for response in responses])
    counts = {"reward/timeouts": int(reason == "timeout"), "reward/errors": int(reason != "timeout")}
    assert troubles(verdicts) == counts
    assert verdicts.pop(17) == Verdict(reward=0.0, extracted=None, reason=reason)
    assert [verdict.reward for verdict in verdicts] == [float(i) for i in range(40) if i != 17]
    # A deadline; the rest is for starting a worker on a busy machine.
    assert time.monotonic() - start < DEADLINE + 3.0
    assert numbers(pool, ["number 1", "number 2"]) == [1.0, 2.0]


def test_several_that_hang_beside_each_other_lose_nothing_else():
    with GradingPool(obedient, workers=1, deadline_seconds=0.3) as pool:
        numbers(pool, ["number 1"])
        # One chunk of the single worker.
        verdicts = pool.grade([(r, "") for r in ["hang", "number 2", "hang", "hang", "exit 1", "number 3"]])
    assert [verdict.reward for verdict in verdicts] == [0.0, 2.0, 0.0, 0.0, 0.0, 3.0]
    assert troubles(verdicts) == {"reward/timeouts": 3, "reward/errors": 1}


def test_the_deadline_is_each_items_own():
    with GradingPool(obedient, workers=1, deadline_seconds=1.0) as pool:
        # Two seconds in all, most of it in chunks of several.
        assert numbers(pool, ["sleep 0.25"] * 8) == [1.0] * 8


def test_a_worker_that_is_killed_from_outside_costs_the_item_it_was_on(tmp_path):
    with GradingPool(obedient, workers=2, deadline_seconds=30.0) as pool:
        killer = threading.Thread(target=lambda: os.kill(told(tmp_path / "pid"), signal.SIGKILL))
        killer.start()
        verdicts = pool.grade([(r, "") for r in ["number 1", f"tell {tmp_path / 'pid'}", "number 2"]])
        killer.join()
        assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, 2.0]
        assert verdicts[1].reason == "error: the worker ended with SIGKILL"


def test_workers_that_are_killed_while_idle_cost_nothing(pool):
    numbers(pool, ["number 1"])
    for pid in pids(pool):
        os.kill(pid, signal.SIGKILL)
    responses = [f"number {i}" for i in range(20)]
    assert numbers(pool, responses) == list(range(20))


def test_a_worker_that_stops_reading_is_replaced(monkeypatch):
    monkeypatch.setattr(workers, "START_SECONDS", 2.0)
    with GradingPool(obedient, workers=1, deadline_seconds=1.0) as pool:
        numbers(pool, ["number 1"])
        for pid in pids(pool):
            os.kill(pid, signal.SIGSTOP)
        # More than a socket holds, so that the write itself blocks.
        assert pool.grade([("number 2", "x" * 3_000_000)])[0].reward == 2.0


@LINUX
def test_what_fills_the_memory_is_an_error_and_leaves_with_its_worker():
    with GradingPool(obedient, workers=1, deadline_seconds=20.0, memory_bytes=2 * 10**8) as pool:
        before = pids(pool)
        verdicts = pool.grade([(r, "") for r in ["number 1", "fill", "number 2"]])
        assert [verdict.reason for verdict in verdicts] == ["custom", "error: MemoryError: ", "custom"]
        assert troubles(verdicts) == {"reward/timeouts": 0, "reward/errors": 1}
        assert not before & pids(pool)


def test_an_interrupted_call_leaves_no_answers_to_the_next(pool):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    numbers(pool, ["number 1"])
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            numbers(pool, ["sleep 0.5", "number 8", "sleep 0.5", "number 9"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert numbers(pool, ["number 5"]) == [5.0]


def test_sigterm_and_sigint_to_a_worker_do_not_end_it(pool):
    def both(number, frame):
        for pid in running:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)

    numbers(pool, ["number 1"] * 40)
    running = pids(pool)
    before = signal.signal(signal.SIGALRM, both)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert numbers(pool, ["sleep 0.4", "sleep 0.4"]) == [1.0, 1.0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pids(pool) == running


@LINUX
def test_the_processes_of_a_reward_that_hangs_are_ended_with_it(pool, tmp_path):
    assert numbers(pool, [f"tell-child {tmp_path / 'pid'}"]) == [0.0]
    wait_for(lambda: gone(told(tmp_path / "pid")))


@LINUX
def test_workers_hold_neither_torch_nor_the_streams_of_their_parent(pool, capfd):
    assert "torch" in sys.modules
    assert numbers(pool, ["loaded torch", f"loaded {workers.__name__}", "print"]) == [0.0, 1.0, 1.0]
    for pid in map(int, numbers(pool, ["pid"] * 8)):
        assert [os.readlink(f"/proc/{pid}/fd/{stream}") for stream in (0, 1, 2)] == ["/dev/null"] * 3
    assert capfd.readouterr() == ("", "")


@LINUX
def test_close_leaves_no_process_even_of_one_that_has_just_started_or_hangs(tmp_path):
    pool = GradingPool(obedient, workers=2, deadline_seconds=0.5)
    numbers(pool, ["hang"])
    running = pids(pool)
    assert len(running) == 2 and not any(map(gone, running))
    pool.close()
    pool.close()
    assert not [pid for pid in running if Path(f"/proc/{pid}").exists()]
    with pytest.raises(RuntimeError, match="the grading pool is closed"):
        pool.grade([("number 1", "")])


def started(script: str, folder: Path, **environment: str) -> subprocess.Popen:
    """A parent of its own."""
    (folder / "parent.py").write_text(script)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(aepo.__file__).parents[1])])
    return subprocess.Popen(
        [sys.executable, "parent.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@LINUX
@pytest.mark.parametrize("order", ["tell", "tell-busy"])
def test_workers_end_with_a_parent_that_is_killed(tmp_path, order):
    script = (
        "from test_pool import GradingPool, obedient\n"
        "pool = GradingPool(obedient, workers=2, deadline_seconds=1000)\n"
        "pids = [worker.process.pid for worker in pool._workers]\n"
        f"pool.grade([('{order} first', ''), ('{order} second', '')])\n"
    )
    with started(script, tmp_path) as parent:
        running = [told(tmp_path / "first"), told(tmp_path / "second")]
        assert not any(map(gone, running))
        parent.kill()
        # It ends when nobody holds the pipes of the parent.
        parent.communicate(timeout=10)
    wait_for(lambda: all(map(gone, running)))


def test_the_main_module_of_the_parent_is_not_run_again(tmp_path):
    # No `if __name__ == "__main__"`, and a file that would stand in for a standard module in a careless worker.
    (tmp_path / "json.py").write_text("open('ran', 'a').write('json.py ')\nfrom _json import *")
    script = (
        "import sys; sys.path.remove(sys.path[0])\n"
        "open('ran', 'a').write(f'{__name__} ')\n"
        "from aepo.llm.grading.pool import GradingPool\n"
        "with GradingPool(workers=2, deadline_seconds=20) as pool:\n"
        "    print(*(v.reason for v in pool.grade([('#### 2n-2', '2(n-1)')] * 4)))\n"
        "try:\n"
        "    GradingPool(lambda response, answer: 1.0, workers=1, deadline_seconds=1)\n"
        "except ValueError as problem:\n"
        "    print(problem)\n"
    )
    with started(script, tmp_path) as parent:
        said, complaints = parent.communicate(timeout=60)
    assert (parent.returncode, complaints) == (0, "")
    first, second = said.splitlines()
    assert first.split() == ["algebra"] * 4
    assert "must be in a module that workers can import" in second
    assert (tmp_path / "ran").read_text() == "__main__ "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise OSError('no model here')", "cannot load its reward: OSError: no model here"),
        ("import os; os._exit(7)", "3 grading workers in a row .* the last with exit code 7"),
    ],
)
def test_a_reward_that_loads_here_but_not_in_a_worker_ends_the_call(tmp_path, monkeypatch, body, message):
    name = f"reward_of_{len(body)}"
    (tmp_path / f"{name}.py").write_text("def reward(response, answer): return 1.0")
    monkeypatch.syspath_prepend(tmp_path)
    reward = load_reward(f"{name}:reward")
    (tmp_path / f"{name}.py").write_text(body)
    with GradingPool(reward, workers=2, deadline_seconds=1.0) as pool, pytest.raises(RuntimeError, match=message):
        pool.grade([("a", "b")] * 3)


@pytest.mark.parametrize(
    ("returned", "verdict"),
    [
        (1.0, Verdict(reward=1.0, extracted=None, reason="custom")),
        (True, Verdict(reward=1.0, extracted=None, reason="custom")),
        (0, Verdict(reward=0.0, extracted=None, reason="custom")),
        (-0.5, Verdict(reward=-0.5, extracted=None, reason="custom")),
        (Fraction(1, 4), Verdict(reward=0.25, extracted=None, reason="custom")),
        (Verdict(reward=0.5, extracted="7", reason="rounded"), Verdict(reward=0.5, extracted="7", reason="rounded")),
        (
            Verdict(reward=0.5, extracted="7" * 9999, reason="rounded"),
            Verdict(reward=0.5, extracted="7" * MAX_ANSWER_CHARACTERS, reason="rounded"),
        ),
    ],
)
def test_a_number_or_a_verdict_is_a_verdict(returned, verdict):
    assert judged(lambda response, answer: returned, "", "") == verdict


@pytest.mark.parametrize(
    "returned",
    [None, "1", [1.0], 1j, math.nan, math.inf, 10**400, Verdict(reward=math.nan, extracted=None, reason="exact")],
)
def test_anything_else_is_an_error_of_the_item(returned):
    verdict = judged(lambda response, answer: returned, "", "")
    assert verdict.reward == 0.0 and verdict.reason.startswith("error: ")


def test_a_reward_is_found_by_its_name():
    assert load_reward("aepo.llm.grading:math_reward") is math_reward


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("math_reward", "must be named as 'package.module:function', got 'math_reward'"),
        (":f", "must be named as"),
        ("a:", "must be named as"),
        ("a:b:c", "must be named as"),
        ("no_such_package.x:f", "No module named 'no_such_package'.*PYTHONPATH"),
        ("aepo.llm.no_such_module:f", "No module named 'aepo.llm.no_such_module'"),
        (".grading:f", "importing '.grading' failed"),
        ("reward_that_breaks:f", "importing 'reward_that_breaks' failed with ZeroDivisionError"),
        ("aepo.llm.grading:no_such", "'aepo.llm.grading' has no 'no_such'"),
        ("aepo.llm.grading:REASONS", "must be a function, got tuple"),
    ],
)
def test_a_reward_that_cannot_be_found_is_refused_by_its_name(tmp_path, monkeypatch, name, message):
    (tmp_path / "reward_that_breaks.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_reward(name)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"workers": 0}, "workers must be >= 1, got 0"),
        ({"deadline_seconds": 0.0}, "deadline_seconds must be > 0 and finite"),
        ({"deadline_seconds": math.inf}, "deadline_seconds must be > 0 and finite"),
        ({"memory_bytes": 0}, "memory_bytes must be >= 1, got 0"),
        ({"reward": lambda response, answer: 1.0}, "reward must be a module-level function"),
    ],
)
def test_what_no_pool_can_be_made_of_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        GradingPool(**{"workers": 1, "deadline_seconds": 1.0, **changed})
