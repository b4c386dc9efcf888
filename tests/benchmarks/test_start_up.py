"""Start-up: the one-shot command and its help beside bare interpreters, and beside itself with a long history."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.stores.history import JsonlHistory
from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target
from tests.benchmarks.processes import COMMAND, ENVIRONMENT, Loop

pytestmark = pytest.mark.benchmark

ROUNDS = 15
PAIRS = 21  #: where milliseconds of a difference count
APPENDS = 200
LINES = 1_000_000
ONE_SHOT = ("run", "--iterations", "1", "--", "true")


def test_one_shot_and_help(bench: Bench) -> None:
    loop = bench.loop()
    python, click, once, help_, run_help = bench.alternate(
        ROUNDS,
        lambda: bench.seconds(sys.executable, "-c", "pass") * 1000,
        lambda: bench.seconds(sys.executable, "-c", "import click") * 1000,
        lambda: loop.seconds(*ONE_SHOT) * 1000,
        lambda: loop.seconds("--help") * 1000,
        lambda: loop.seconds("run", "--help") * 1000,
    )
    for reference, samples in (("python -c pass", python), ("python -c 'import click'", click)):
        bench.compare("one-shot run of true", "ms", once, reference, samples, Target(of="value", most=250))
        bench.compare("--help", "ms", help_, reference, samples, Target(of="value", most=120))
        bench.compare("run --help", "ms", run_help, reference, samples, Target(of="value", most=120))

    assert loop.outcomes() == ["success"] * ROUNDS
    assert "Usage: run-cycle-loop run" in printed(loop, "run", "--help")


@pytest.fixture(scope="module")
def two_loops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, Loop]]:
    """A loop with a million cycles behind it, and one with none."""
    folders = [tmp_path_factory.mktemp(name) for name in ("long", "empty")]
    long, empty = (Loop(folder=folder) for folder in folders)
    lengthen(long)
    yield long, empty
    shutil.rmtree(long.folder)  # a gigabyte


def lengthen(loop: Loop) -> None:
    """Let one real cycle run, and repeat its line a million times in all."""
    loop.seconds(*ONE_SHOT)
    before, after = loop.history.read_bytes().split(b'"number":1,')
    with loop.history.open("wb") as file:
        for number in range(1, LINES + 1):
            file.write(b'%b"number":%d,%b' % (before, number, after))
        os.fsync(file.fileno())
    shown = {**loop.latest, "seq": LINES, "counts": {"success": LINES}, "success_count": LINES}
    loop.latest_path.write_text(json.dumps(shown))


def test_start_up_with_a_long_history(bench: Bench, two_loops: tuple[Loop, Loop]) -> None:
    long, empty = two_loops
    ours, others = bench.alternate(PAIRS, *(one_shot(loop) for loop in two_loops))
    bench.compare("one-shot, 10^6 lines", "ms", ours, "empty history", others, Target(of="excess", most=5))

    assert long.latest["seq"] == LINES + PAIRS
    assert empty.outcomes() == ["success"] * PAIRS


def one_shot(loop: Loop) -> Callable[[], float]:
    return lambda: loop.seconds(*ONE_SHOT) * 1000


def test_status_with_a_long_history(bench: Bench, two_loops: tuple[Loop, Loop]) -> None:
    ours, others = bench.alternate(PAIRS, *(status(loop) for loop in two_loops))
    bench.compare("status --json, 10^6 lines", "ms", ours, "empty history", others, Target(of="excess", most=5))

    assert json.loads(printed(two_loops[0], "status", "--json"))


def status(loop: Loop) -> Callable[[], float]:
    return lambda: loop.seconds("status", "--json") * 1000


def printed(loop: Loop, *arguments: str) -> str:
    return subprocess.run(
        [COMMAND, *arguments], cwd=loop.folder, env=ENVIRONMENT, check=True, capture_output=True, text=True
    ).stdout


def test_append_to_a_long_history(bench: Bench, two_loops: tuple[Loop, Loop]) -> None:
    long, empty = (JsonlHistory(loop.history) for loop in two_loops)
    record = long.last()
    assert record is not None
    line = json.dumps(record.as_dict()).encode() + b"\n"
    floor = os.open(bench.folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ours, others, bare = bench.alternate(
        APPENDS, lambda: append(long, record), lambda: append(empty, record), lambda: bare_append(floor, line)
    )
    bench.compare("append a record, 10^6 lines", "us", ours, "empty history", others)
    bench.compare("append a record, 10^6 lines", "us", ours, "write and fdatasync", bare)

    assert long.last() == empty.last() == record
    long.close()
    empty.close()
    os.close(floor)


def append(history: JsonlHistory, record: CycleRecord) -> float:
    began = time.perf_counter()
    history.append(record)
    return (time.perf_counter() - began) * 1e6


def bare_append(descriptor: int, line: bytes) -> float:
    began = time.perf_counter()
    os.write(descriptor, line)
    os.fdatasync(descriptor)
    return (time.perf_counter() - began) * 1e6
