import io
import json
from collections.abc import Callable

from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.observers.lines import LineWriter
from run_cycle_loop.observers.stdout import JsonLines


def test_each_cycle_is_one_object_that_begins_with_time_and_status(
    record: Callable[..., CycleRecord], snapshot: Callable[..., LoopSnapshot]
) -> None:
    stream = io.StringIO()
    observer = JsonLines(LineWriter(stream))
    observer.state_changed(snapshot(LoopState.RUNNING))
    observer.beat()
    observer.cycle_finished(record(), snapshot(success_count=3))
    observer.cycle_finished(record(Outcome.FAILED, number=4, reason="exit\ncode 1"), snapshot(failure_count=1))
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert list(first)[:2] == ["timestamp", "status"]
    assert (first["status"], first["number"], first["success_count"]) == ("success", 3, 3)
    assert (second["status"], second["reason"], second["failure_count"]) == ("failed", "exit\ncode 1", 1)


def test_texts_of_the_cycle_stay_in_the_history(
    record: Callable[..., CycleRecord], snapshot: Callable[..., LoopSnapshot]
) -> None:
    stream = io.StringIO()
    JsonLines(LineWriter(stream)).cycle_finished(record(stderr_tail="Traceback", goal="a long goal"), snapshot())
    assert not {"stderr_tail", "goal", "control"} & set(json.loads(stream.getvalue()))
