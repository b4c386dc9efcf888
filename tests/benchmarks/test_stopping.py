"""From the word to the end: signals and the stop-file while the loop waits."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target
from tests.benchmarks.processes import ENVIRONMENT, Loop, Running, running, wait_for

pytestmark = pytest.mark.benchmark

GROUPS, TOGETHER = 3, 10  #: so many loops wait at a time, and are stopped one after the other
CALM = ("run", "--continuous", "--sleep", "300", "--log-level", "error")
LOOPS = {"waiting": (*CALM, "--", "true"), "backoff": (*CALM, "--max-failures", "0", "--", "false")}

#: Exits as soon as it is told to, by the means that the loop has, too.
FLOOR = {
    "signal": "import signal; open('ready', 'w').close(); signal.sigwait([signal.SIGTERM])",
    "file": """
import os, time
open("ready", "w").close()
while not os.path.lexists("stop"):
    time.sleep(0.25)
""",
}


@contextmanager
def waiting(bench: Bench, state: str, kind: str) -> Iterator[list[tuple[Loop, Running, Running]]]:
    """Loops in a state, each with a floor beside it."""
    with ExitStack() as stack:
        found = []
        for _ in range(TOGETHER):
            loop = bench.loop(f"loop-{len(list(bench.folder.iterdir()))}")
            ours = stack.enter_context(loop.running(*LOOPS[state]))
            floor = stack.enter_context(running([sys.executable, "-c", FLOOR[kind]], loop.folder, ENVIRONMENT))
            found.append((loop, ours, floor))
        for loop, _, _ in found:
            loop.wait_for_state(state)
            wait_for((loop.folder / "ready").exists, "a floor")
        yield found


@pytest.mark.parametrize("state", LOOPS)
def test_a_signal_while_idle(bench: Bench, state: str) -> None:
    taken: list[tuple[float, float]] = []
    for _ in range(GROUPS):
        with waiting(bench, state, "signal") as group:
            for loop, ours, floor in group:
                taken.append((stop(ours), stop(floor)))
                assert ours.process.returncode == 0
                assert loop.latest["stop_reason"] == "signal"
    report(bench, f"SIGTERM to exit, {state}", "python in sigwait", taken, 50)


def stop(process: Running) -> float:
    return process.seconds_to_exit(lambda: process.process.send_signal(signal.SIGTERM)) * 1000


def test_the_stop_file_while_idle(bench: Bench) -> None:
    taken: list[tuple[float, float]] = []
    for _ in range(GROUPS):
        with waiting(bench, "waiting", "file") as group:
            for loop, ours, floor in group:
                switch, other = loop.folder / "state" / "run_cycle.stop", loop.folder / "stop"
                taken.append((touched(ours, switch.touch), touched(floor, other.touch)))
                assert ours.process.returncode == 10
                assert loop.latest["stop_reason"] == "stop_file"
    report(bench, "stop-file to exit, waiting", "python polling every 250 ms", taken, 250)


def touched(process: Running, touch: Callable[[], None]) -> float:
    return process.seconds_to_exit(touch) * 1000


def report(bench: Bench, what: str, against: str, taken: list[tuple[float, float]], most: float) -> None:
    ours, floor = ([pair[side] for pair in taken] for side in (0, 1))
    bench.compare(what, "ms", ours, against, floor, Target(of="value", most=most))
    # Of so few the 99th percentile is the slowest.
    bench.compare(f"{what}, p99", "ms", [max(ours)], against, [max(floor)], Target(of="value", most=most))
