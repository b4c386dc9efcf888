"""What every observer promises: it takes every state and every outcome, and the beat between them."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.ports import Observer
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.observers.lines import LineWriter
from run_cycle_loop.observers.logs import LogObserver, configure
from run_cycle_loop.observers.metrics import LoopCollector, TextfileMetrics
from run_cycle_loop.observers.stdout import JsonLines
from run_cycle_loop.testing import RecordingObserver, make_identity, make_record, make_running

OBSERVERS: dict[str, Callable[[Path], Observer]] = {
    "log": lambda _path: LogObserver(configure(stream=io.StringIO())("run"), stale_after=1),
    "stdout": lambda _path: JsonLines(LineWriter(io.StringIO())),
    "textfile": lambda path: TextfileMetrics(path / "loop.prom", LoopCollector("0")),
    "recording": lambda _path: RecordingObserver(),
}
EMPTY = LoopSnapshot(state=LoopState.STARTING, updated_at="")


@pytest.fixture(params=OBSERVERS)
def observer(request: pytest.FixtureRequest, tmp_path: Path) -> Observer:
    make = OBSERVERS[request.param]
    return make(tmp_path)


def test_it_takes_every_state(observer: Observer) -> None:
    for state in LoopState:
        observer.state_changed(
            LoopSnapshot(state=state, updated_at="", supervisor=make_identity(), cycle=make_running())
        )
        observer.beat()


def test_it_takes_every_outcome(observer: Observer) -> None:
    snapshot = EMPTY
    for number, outcome in enumerate(Outcome, 1):
        record = make_record(number, outcome, usage={"tokens": 1}, archive_created=False, stale_cycles=1)
        snapshot = snapshot.counting(record)
        observer.cycle_finished(record, snapshot)
