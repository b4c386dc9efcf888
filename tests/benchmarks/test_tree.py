"""A tree of processes that ignores TERM: from KILL to the last of them gone."""

import os
import signal
import time
from contextlib import suppress

import psutil
import pytest

from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target
from tests.benchmarks.processes import Loop, wait_for

pytestmark = pytest.mark.benchmark

ROUNDS = {100: 9, 1000: 3}

#: Starts $1 processes that are deaf to TERM, and says when it has heard it itself.
TREE = """
trap '' TERM
i=1
while [ $i -lt "$0" ]; do sleep 1000 & i=$((i + 1)); done
trap ': >heard' TERM
: >ready
until wait; do :; done
"""

#: The same tree ended by its group, and reaped: the program TREE and the count are its arguments.
FLOOR = """
import ctypes, os, signal, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
leader = subprocess.Popen(["sh", "-c", *sys.argv[1:]], start_new_session=True)
while not os.path.exists("ready"):
    time.sleep(0.01)
began = time.perf_counter()
os.killpg(leader.pid, signal.SIGKILL)
reaped = 0
try:
    while os.waitpid(-1, 0):
        reaped += 1
except ChildProcessError:
    assert reaped == int(sys.argv[2]), reaped
print(time.perf_counter() - began)
"""


@pytest.mark.parametrize("count", ROUNDS)
def test_a_tree_after_kill(bench: Bench, count: int) -> None:
    loop = bench.loop()
    ours, floor = bench.alternate(
        ROUNDS[count], lambda: killed_by_loop(loop, count) * 1000, lambda: killed_by_group(bench, count) * 1000
    )
    target = Target(of="value", most=100) if count == 100 else None
    bench.compare(f"tree of {count} gone after KILL", "ms", ours, "killpg and waitpid", floor, target)
    assert loop.outcomes() == ["interrupted"] * ROUNDS[count]


def killed_by_group(bench: Bench, count: int) -> float:
    (bench.folder / "ready").unlink(missing_ok=True)
    return bench.python(FLOOR, TREE, str(count))


def killed_by_loop(loop: Loop, count: int) -> float:
    """Seconds from the third signal, which means KILL, until no process of the cycle exists, zombies included."""
    ready, heard = loop.folder / "ready", loop.folder / "heard"
    with loop.running("run", "--timeout", "0", "--log-level", "error", "--", "sh", "-c", TREE, str(count)) as ours:
        wait_for(ready.exists, "the tree")
        tree = [process.pid for process in psutil.Process(ours.pid).children(recursive=True)]
        assert len(tree) == count
        ours.process.send_signal(signal.SIGTERM)
        loop.wait_for_state("stopping")  # the kernel merges a second signal with a first that is still pending
        ours.process.send_signal(signal.SIGTERM)
        wait_for(heard.exists, "TERM in the tree")
        time.sleep(0.2)  # until all have had it
        assert all(map(exists, tree))
        began = time.perf_counter()
        ours.process.send_signal(signal.SIGTERM)
        while tree:
            tree = [pid for pid in tree if exists(pid)]
        took = time.perf_counter() - began
        assert ours.process.wait() == 0
    for mark in (ready, heard):
        mark.unlink()
    return took


def exists(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
