import io
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.model.enums import LoopState, Outcome, StopReason
from run_cycle_loop.model.records import CycleRecord, RunningCycle
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.observers.lines import ERASE
from run_cycle_loop.observers.logs import LogObserver, configure

NOON = datetime(2026, 1, 2, 12, 0, 3, tzinfo=UTC)
LOCAL = NOON.astimezone().strftime("%H:%M:%S")

Snapshots = Callable[..., LoopSnapshot]
Records = Callable[..., CycleRecord]


class Log:
    """A log into memory."""

    def __init__(self, *, format: str = "json", level: str = "debug", **options: Any) -> None:  # noqa: A002
        self.stream = io.StringIO()
        self.logger = configure(level=level, format=format, stream=self.stream, now=lambda: NOON, **options)("run")

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def test_a_json_line_holds_time_event_level_speaker_and_facts() -> None:
    log = Log()
    log.logger.info("cycle.finished", number=3)
    assert log.objects == [
        {
            "timestamp": "2026-01-02T12:00:03.000Z",
            "event": "cycle.finished",
            "logger": "run",
            "number": 3,
            "level": "info",
        }
    ]
    assert list(log.objects[0])[:2] == ["timestamp", "event"]


def test_a_text_line_is_time_event_and_facts() -> None:
    log = Log(format="text")
    log.logger.info("cycle.finished", number=3, outcome="success", reason="exit code 0", absent=None)
    assert log.lines == [f'{LOCAL} cycle.finished  number=3 outcome=success reason="exit code 0"']


def test_a_text_line_says_where_something_is_wrong() -> None:
    log = Log(format="text")
    log.logger.warning("artifact.stale")
    log.logger.error("state.unwritable", paths=["/a"])
    assert log.lines == [f"{LOCAL} WARNING artifact.stale", f'{LOCAL} ERROR state.unwritable  paths=["/a"]']


@pytest.mark.parametrize("value", ["\x1b[2Jgone", "two\nlines", "bell\x07"])
def test_no_control_character_reaches_a_terminal(value: str) -> None:
    log = Log(format="text")
    log.logger.info("cycle.finished", reason=value)
    assert len(log.lines) == 1
    assert log.lines[0].isprintable()


def test_an_exception_is_shown_with_its_trace() -> None:
    log = Log(format="text")
    try:
        int("x")
    except ValueError:
        log.logger.exception("observer.failed")
    assert log.lines[0] == f"{LOCAL} ERROR observer.failed"
    assert log.lines[-1].startswith("ValueError: invalid literal")


def test_below_the_level_nothing_is_written() -> None:
    log = Log(level="warning")
    log.logger.info("loop.state")
    assert log.lines == []


def test_auto_is_text_on_a_terminal_and_json_elsewhere(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen, os.fdopen(follower, "w") as terminal:
        configure(stream=terminal, now=lambda: NOON)("run").info("loop.state")
        assert screen.read(100).decode().strip() == f"{ERASE}{LOCAL} loop.state".lstrip()
    with (tmp_path / "log").open("w") as file:
        configure(stream=file, now=lambda: NOON)("run").info("loop.state")
    assert json.loads((tmp_path / "log").read_text())["event"] == "loop.state"


def test_every_value_passes_the_redaction_traces_too() -> None:
    log = Log(redact=lambda value: value.replace("s3cret", "***") if isinstance(value, str) else value)
    try:
        int("s3cret")
    except ValueError:
        log.logger.exception("runner.s3cret", argv="--key=s3cret")
    assert "s3cret" not in log.stream.getvalue()
    assert log.objects[0]["argv"] == "--key=***"


def test_a_gone_reader_loses_lines_and_nothing_else() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        configure(stream=stream)("run").info("cycle.finished")


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    with Path("/dev/full").open("w") as stream:
        configure(stream=stream)("run").info("cycle.finished")


def test_a_closed_stream_loses_lines_and_nothing_else() -> None:
    log = Log()
    log.stream.close()
    log.logger.info("cycle.finished")


@pytest.mark.parametrize(
    ("state", "event", "level"),
    [
        (LoopState.STARTING, "loop.started", "info"),
        (LoopState.CHECKING, "loop.state", "debug"),
        (LoopState.WAITING, "loop.state", "debug"),
        (LoopState.BACKOFF, "loop.backoff", "info"),
        (LoopState.STOPPING, "loop.state", "debug"),
        (LoopState.HELD, "loop.held", "warning"),
    ],
)
def test_a_state_is_as_loud_as_the_question_it_raises(
    state: LoopState, event: str, level: str, snapshot: Snapshots
) -> None:
    log = Log()
    LogObserver(log.logger).state_changed(snapshot(state, stop_reason=StopReason.SIGNAL))
    assert [(line["event"], line["level"]) for line in log.objects] == [(event, level)]


@pytest.mark.parametrize(
    ("state", "event"), [(LoopState.RUNNING, "cycle.started"), (LoopState.STOPPING, "loop.stopping")]
)
def test_a_cycle_in_flight_is_announced_when_it_starts_and_when_it_is_the_last(
    state: LoopState, event: str, snapshot: Snapshots, in_flight: RunningCycle
) -> None:
    log = Log()
    LogObserver(log.logger).state_changed(snapshot(state, cycle=in_flight))
    assert [(line["event"], line["level"]) for line in log.objects] == [(event, "info")]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_finished_cycle_warns_unless_it_ended_as_meant(
    outcome: Outcome, record: Records, snapshot: Snapshots
) -> None:
    log = Log()
    LogObserver(log.logger).cycle_finished(record(outcome, next_delay_seconds=300.0), snapshot())
    calm = outcome in {Outcome.SUCCESS, Outcome.INTERRUPTED, Outcome.SKIPPED}
    (line,) = log.objects
    assert line["level"] == ("info" if calm else "warning")
    assert (line["event"], line["number"], line["outcome"], line["next"]) == ("cycle.finished", 3, outcome, "5m")


def test_a_stale_archive_alerts_once_however_long_it_lasts(record: Records, snapshot: Snapshots) -> None:
    log = Log()
    observer = LogObserver(log.logger, stale_after=3)
    for stale in range(1, 7):
        observer.cycle_finished(record(Outcome.DEGRADED, archive_created=False), snapshot(stale_cycles=stale))
    assert [line["cycles"] for line in log.objects if line["event"] == "artifact.stale"] == [3]


def test_a_cycle_without_an_expected_archive_does_not_repeat_the_alert(record: Records, snapshot: Snapshots) -> None:
    log = Log()
    observer = LogObserver(log.logger, stale_after=3)
    observer.cycle_finished(record(Outcome.PREREQ_FAILED, archive_created=None), snapshot(stale_cycles=3))
    assert [line["event"] for line in log.objects] == ["cycle.finished"]


def test_without_a_limit_no_archive_is_stale(record: Records, snapshot: Snapshots) -> None:
    log = Log()
    LogObserver(log.logger).cycle_finished(record(archive_created=False), snapshot(stale_cycles=0))
    assert [line["event"] for line in log.objects] == ["cycle.finished"]
