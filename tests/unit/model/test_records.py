import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from run_cycle_loop.model.enums import LoopState, Outcome, StopReason
from run_cycle_loop.model.records import CheckResult, CycleRecord, PrerequisiteReport, RunningCycle, timestamp
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.testing import make_identity, make_record, make_running

ANCESTOR = {
    "timestamp": "2025-10-01T08:00:00Z",
    "mode": "experimental",
    "goal": "plan",
    "status": "ok",
    "prerequisites_ok": True,
    "return_code": 0,
    "duration_seconds": 12.5,
    "archive_created": True,
    "archive_path": "state/a.jsonl.gz",
    "log_path": "logs/1.log",
}


def check(name: str, *, ok: bool, required: bool = True) -> CheckResult:
    return CheckResult(name=name, ok=ok, detail="", required=required)


# The prerequisite report


@pytest.mark.parametrize(
    ("checks", "ok", "failures"),
    [
        ((), True, []),
        ((check("a", ok=True),), True, []),
        ((check("a", ok=False),), False, ["a"]),
        ((check("a", ok=False, required=False),), True, []),
        ((check("a", ok=True), check("b", ok=False), check("c", ok=False)), False, ["b", "c"]),
    ],
)
def test_a_report_holds_where_no_required_check_failed(
    checks: tuple[CheckResult, ...], ok: bool, failures: list[str]
) -> None:
    report = PrerequisiteReport(checks=checks)
    assert (report.ok, [failed.name for failed in report.failures]) == (ok, failures)


# One line of the history


def test_a_line_holds_the_ten_keys_of_the_first_implementation_first() -> None:
    assert list(make_record().as_dict())[:10] == list(ANCESTOR)


def test_a_line_holds_what_this_version_adds() -> None:
    added = {
        *("schema_version", "cycle_id", "number", "started_at", "finished_at", "reason", "signal", "usage", "control"),
        *("consecutive_failures", "stderr_tail", "next_delay_seconds", "supervisor"),
    }
    assert added <= set(make_record().as_dict())


@pytest.mark.parametrize(
    "record",
    [
        make_record(),
        make_record(status=Outcome.TIMEOUT, return_code=124, signal=15, reason="ran past its timeout of 1 s"),
        make_record(supervisor=make_identity(), failed_checks=("a: b", "c: d"), stale_cycles=4),
        make_record(control={"continue": False, "outputs": {"x": [1, None]}}, usage={"tokens": 3}),
        make_record(goal="grün \u2028 \U0001f600", stderr_tail="a\nb", next_delay_seconds=None),
    ],
)
def test_a_record_survives_its_line(record: CycleRecord) -> None:
    assert CycleRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record


@pytest.mark.parametrize(
    ("word", "return_code", "outcome"),
    [
        ("ok", 0, Outcome.SUCCESS),
        ("ok", None, Outcome.SUCCESS),
        ("ok", 1, Outcome.FAILED),
        ("success", 1, Outcome.FAILED),
        ("completed", 0, Outcome.SUCCESS),
        ("failure", 1, Outcome.FAILED),
        ("prerequisites_failed", None, Outcome.PREREQ_FAILED),
        ("timeout", 124, Outcome.TIMEOUT),
        ("degraded", 0, Outcome.DEGRADED),
        ("a word of a later version", 0, Outcome.ERROR),
    ],
)
def test_the_words_of_older_and_newer_lines_are_read(word: str, return_code: int | None, outcome: Outcome) -> None:
    line = ANCESTOR | {"status": word, "return_code": return_code}
    assert CycleRecord.from_dict(line).status is outcome


def test_an_ancestors_line_is_read_whole() -> None:
    record = CycleRecord.from_dict(ANCESTOR)
    assert (record.number, record.cycle_id, record.consecutive_failures, record.supervisor) == (0, "", 0, None)
    assert (record.duration_seconds, record.archive_path) == (12.5, "state/a.jsonl.gz")


def test_a_line_may_hold_keys_of_a_later_version() -> None:
    assert CycleRecord.from_dict(make_record().as_dict() | {"invented": 1}) == make_record()


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"status": ""},
        {"status": 3},
        {"status": None},
        {"status": "ok", "number": "many"},
        {"status": "ok", "duration_seconds": [1]},
        {"status": "ok", "consecutive_failures": {"a": 1}},
        {"status": "ok", "stale_cycles": "x"},
    ],
)
def test_what_is_no_record_is_refused(line: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a cycle record"):
        CycleRecord.from_dict(line)


@pytest.mark.parametrize("identity", [None, "me", [], {"pid": 1}])
def test_a_supervisor_that_cannot_be_read_is_none(identity: object) -> None:
    assert CycleRecord.from_dict(ANCESTOR | {"supervisor": identity}).supervisor is None


# The cycle in flight


def test_a_cycle_in_flight_survives_its_slot() -> None:
    cycle = make_running(leader_pid=7, leader_start_ticks=9, output_inodes=(1, 2))
    assert RunningCycle.from_dict(json.loads(json.dumps(cycle.as_dict()))) == cycle


@pytest.mark.parametrize("changes", [{"number": "x"}, {"output_inodes": ["x"]}, {"output_inodes": 5}])
def test_a_damaged_slot_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a cycle in flight"):
        RunningCycle.from_dict(make_running().as_dict() | changes)


def test_an_empty_slot_is_refused() -> None:
    with pytest.raises(ValueError, match="not a cycle in flight"):
        RunningCycle.from_dict({})


# The snapshot


def empty() -> LoopSnapshot:
    return LoopSnapshot(state=LoopState.STARTING, updated_at="")


def test_a_snapshot_survives_its_file() -> None:
    snapshot = LoopSnapshot(
        state=LoopState.BACKOFF,
        updated_at="now",
        seq=3,
        supervisor=make_identity(),
        cycle=make_running(),
        counts={Outcome.SUCCESS: 1, Outcome.FAILED: 2},
        success_count=1,
        failure_count=2,
        stop_reason=StopReason.SIGNAL,
        last_cycle={"number": 3},
        next_run_at="later",
        note="a note",
    )
    assert LoopSnapshot.from_dict(json.loads(json.dumps(snapshot.as_dict()))) == snapshot


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"schema_version": None},
        {"state": "dancing"},
        {"seq": -1},
        {"seq": True},
        {"seq": "3"},
        {"success_count": 1.5},
        {"counts": [1]},
        {"counts": {"invented": 1}},
        {"counts": {"success": "x"}},
        {"cycle": {}},
        {"cycle": 3},
        {"stop_reason": "boredom"},
        {"last_cycle": 3},
    ],
)
def test_a_damaged_or_newer_snapshot_is_refused(changes: dict[str, Any]) -> None:
    value = empty().as_dict() | changes
    with pytest.raises(ValueError, match=r"not a snapshot|schema version"):
        LoopSnapshot.from_dict(value)


@pytest.mark.parametrize(
    ("status", "successes", "failures"),
    [
        (Outcome.SUCCESS, 1, 0),
        (Outcome.DEGRADED, 0, 0),
        (Outcome.FAILED, 0, 1),
        (Outcome.LOST, 0, 1),
        (Outcome.INTERRUPTED, 0, 0),
    ],
)
def test_a_snapshot_counts_by_outcome(status: Outcome, successes: int, failures: int) -> None:
    snapshot = empty().counting(make_record(7, status))
    assert (snapshot.success_count, snapshot.failure_count, snapshot.counts) == (successes, failures, {status: 1})
    assert snapshot.seq == 7


def test_counting_adds_up_and_keeps_the_last_success_and_archive() -> None:
    fresh = make_record(1, archive_created=True, archive_path="a.gz", finished_at="monday")
    stale = make_record(2, Outcome.DEGRADED, archive_created=False, archive_path="a.gz", finished_at="tuesday")
    failed = make_record(3, Outcome.FAILED, consecutive_failures=1, stale_cycles=2)
    snapshot = empty().counting(fresh).counting(stale).counting(failed)
    assert snapshot.counts == {"success": 1, "degraded": 1, "failed": 1}
    assert (snapshot.last_success_at, snapshot.last_archive) == ("monday", "a.gz")
    assert (snapshot.consecutive_failures, snapshot.stale_cycles) == (1, 2)
    assert snapshot.last_cycle is not None
    assert snapshot.last_cycle["number"] == 3


def test_counting_leaves_the_old_snapshot_as_it_was() -> None:
    before = empty()
    before.counting(make_record())
    assert before == empty()


# Outcomes and times


@pytest.mark.parametrize("outcome", Outcome)
def test_only_these_outcomes_are_failures(outcome: Outcome) -> None:
    failures = {Outcome.FAILED, Outcome.TIMEOUT, Outcome.PREREQ_FAILED, Outcome.ERROR, Outcome.LOST}
    assert outcome.is_failure is (outcome in failures)


def test_a_timestamp_is_utc_with_milliseconds() -> None:
    moment = datetime(2026, 1, 2, 14, 0, 0, 5999, timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-01-02T12:00:00.005Z"
    assert datetime.fromisoformat(timestamp(moment)) == datetime(2026, 1, 2, 12, 0, 0, 5000, UTC)
