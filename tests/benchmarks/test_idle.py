"""What a loop costs while it waits: wake-ups and processor time, beside the plainest poll of the same kind."""

import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target
from tests.benchmarks.processes import Running, running, wait_for

pytestmark = pytest.mark.benchmark

SECONDS = 5.0
WAITING = ("run", "--continuous", "--sleep", "300", "--log-level", "error", "--", "true")
POLL = """
import os, time
open("ready", "w").close()
while not os.path.lexists("stop"):
    time.sleep(0.25)
"""


def wakeups(process: Running) -> int:
    """How often a thread of it has gone to sleep so far, and so was woken."""
    statuses = Path(f"/proc/{process.pid}/task").glob("*/status")
    lines = [line for status in statuses for line in status.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def processor_ms(process: Running) -> float:
    """Milliseconds that its threads have run so far."""
    schedules = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(schedule.read_text().split()[0]) for schedule in schedules) / 1e6


def test_an_idle_loop(bench: Bench) -> None:
    loop = bench.loop()
    with loop.running(*WAITING) as ours, bench.running(sys.executable, "-c", POLL) as poll:
        loop.wait_for_state("waiting")
        wait_for((bench.folder / "ready").exists, "the poll")
        both = (ours, poll)
        before = [(wakeups(process), processor_ms(process)) for process in both]
        time.sleep(SECONDS)
        after = [(wakeups(process), processor_ms(process)) for process in both]
        assert loop.latest["state"] == "waiting"
    rates = [
        [(now - then) / SECONDS for now, then in zip(*pair, strict=True)] for pair in zip(after, before, strict=True)
    ]
    against = "python polling every 250 ms"
    bench.compare("idle: wake-ups of all threads", "/s", [rates[0][0]], against, [rates[1][0]])
    bench.compare("idle: processor time", "ms/s", [rates[0][1]], against, [rates[1][1]])
    assert loop.outcomes() == ["success"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_rounds_of_an_idle_loop(bench: Bench) -> None:
    loop, trace = bench.loop(), bench.folder / "trace"
    with loop.running(*WAITING) as ours:
        loop.wait_for_state("waiting")
        strace = ("strace", "-f", "-ttt", "-e", "trace=epoll_wait,epoll_pwait", "-o", str(trace), "-p", str(ours.pid))
        with running(strace, bench.folder) as tracer:
            time.sleep(SECONDS)
            tracer.process.terminate()
            tracer.process.wait()
        assert loop.latest["state"] == "waiting"
    moments = [float(line.split()[1]) for line in trace.read_text().splitlines() if "epoll_" in line]
    gap = (moments[-1] - moments[0]) / (len(moments) - 1) * 1000
    bench.row("idle: from one look to the next", "ms", [gap], Target(of="value", least=250))
