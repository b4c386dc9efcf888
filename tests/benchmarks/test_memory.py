"""Resident memory over ten thousand cycles."""

import signal
import sys

import pytest

from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target
from tests.benchmarks.processes import Loop, Running, wait_for

pytestmark = pytest.mark.benchmark

EARLY, MIDDLE, LATE = 100, 1000, 10_000
FAST = ("run", "--continuous", "--sleep", "0", "--log-level", "error", "--", "true")
IDLE_CLICK = "import click, signal; open('ready', 'w').close(); signal.pause()"


def test_ten_thousand_cycles(bench: Bench) -> None:
    loop = bench.loop()
    with loop.running(*FAST) as ours:
        resident = {number: memory_at(loop, ours, number) for number in (EARLY, MIDDLE, LATE)}
        peak = ours.memory("VmHWM")
        ours.seconds_to_exit(lambda: ours.process.send_signal(signal.SIGTERM))
    with bench.running(sys.executable, "-c", IDLE_CLICK) as floor:
        wait_for((bench.folder / "ready").exists, "an idle interpreter")
        idle = [floor.memory()]

    against = "idle python with click"
    bench.compare("resident, cycle 10 000", "MiB", [resident[LATE]], against, idle, Target(of="value", most=40))
    bench.compare("peak of 10 000 cycles", "MiB", [peak], against, idle, Target(of="value", most=40))
    for number in (EARLY, MIDDLE):
        growth = [resident[LATE] - resident[number]]
        bench.row(f"growth from cycle {number} to 10 000", "MiB", growth, Target(of="value", most=1))

    outcomes = loop.outcomes()
    assert len(outcomes) >= LATE
    assert set(outcomes) == {"success"}


def memory_at(loop: Loop, running: Running, number: int) -> float:
    wait_for(lambda: loop.latest.get("seq", 0) >= number, f"cycle {number}", seconds=240)
    return running.memory()
