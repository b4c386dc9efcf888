import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from run_cycle_loop.model.enums import LoopState, Outcome, StopReason
from run_cycle_loop.model.records import CycleRecord, RunningCycle, SupervisorIdentity, timestamp
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.report.status import RECENT, Status, render, status
from run_cycle_loop.report.text import Style, columns

if TYPE_CHECKING:
    from tests.unit.report.conftest import Recorded

Make = Callable[..., CycleRecord]
Look = Callable[..., Status]


@pytest.fixture
def snapshot(now: datetime) -> LoopSnapshot:
    """A loop that waits after six cycles."""
    return LoopSnapshot(
        state=LoopState.WAITING,
        updated_at=timestamp(now - timedelta(minutes=1)),
        seq=6,
        supervisor=SupervisorIdentity(
            pid=4242,
            start_ticks=99,
            boot_id="boot",
            host="box",
            version="0.1.0",
            started_at=timestamp(now - timedelta(hours=2)),
        ),
        counts={"success": 4, "failed": 2},
        next_run_at=timestamp(now + timedelta(minutes=4)),
    )


@pytest.fixture
def running(snapshot: LoopSnapshot, now: datetime) -> LoopSnapshot:
    cycle = RunningCycle(
        cycle_id="id-7",
        number=7,
        mode="experimental",
        goal="recap and plan",
        started_at=timestamp(now - timedelta(seconds=130)),
        boot_id="boot",
        log_path=None,
        supervisor_pid=4242,
    )
    return replace(snapshot, state=LoopState.RUNNING, cycle=cycle, next_run_at=None)


@pytest.fixture
def look(recorded: "type[Recorded]", now: datetime) -> Look:
    def see(
        snapshot: LoopSnapshot | None, *records: CycleRecord, alive: bool = True, stop_file: bool = False
    ) -> Status:
        history = recorded(*records)
        return status(snapshot, history, is_alive=lambda _: alive, stop_file_present=stop_file, now=now)

    return see


def shown(found: Status, **style: bool) -> str:
    return render(found, width=100, style=Style(**style))


def first_line(found: Status) -> str:
    return shown(found).splitlines()[0]


# The first line


def test_a_running_cycle_and_how_long(look: Look, running: LoopSnapshot) -> None:
    assert first_line(look(running)) == "* running cycle 7 for 2m10s"


def test_a_wait_and_when_it_ends(look: Look, snapshot: LoopSnapshot) -> None:
    assert first_line(look(snapshot)) == "* waiting, next cycle in 4m (at 12:04:00)"


def test_a_backoff(look: Look, snapshot: LoopSnapshot) -> None:
    backoff = replace(snapshot, state=LoopState.BACKOFF, consecutive_failures=3)
    assert first_line(look(backoff)) == "* backing off, next cycle in 4m (at 12:04:00)"
    assert "3 failures in a row" in shown(look(backoff))


def test_a_supervisor_that_died_in_a_cycle_is_not_running(look: Look, running: LoopSnapshot) -> None:
    found = look(running, alive=False)
    assert first_line(found) == "* not running (died while running cycle 7); start it again, it mends what is left"
    assert found.died
    assert found.cycle_seconds is None
    assert "pid 4242" not in shown(found)


def test_a_supervisor_that_died_while_waiting_has_no_next_cycle(look: Look, snapshot: LoopSnapshot) -> None:
    found = look(snapshot, alive=False)
    assert first_line(found) == "* not running (died while waiting); start it again, it mends what is left"
    assert found.next_run_in is None


def test_whether_it_lives_is_asked_of_the_identity_in_the_snapshot(
    recorded: "type[Recorded]", snapshot: LoopSnapshot, now: datetime
) -> None:
    asked: list[SupervisorIdentity] = []

    def is_alive(who: SupervisorIdentity) -> bool:
        asked.append(who)
        return True

    assert status(snapshot, recorded(), is_alive=is_alive, stop_file_present=False, now=now).is_alive
    assert asked == [snapshot.supervisor]


@pytest.mark.parametrize("alive", [True, False])
def test_a_loop_that_stopped_says_why_and_did_not_die(look: Look, snapshot: LoopSnapshot, alive: bool) -> None:
    stopped = replace(snapshot, state=LoopState.STOPPED, stop_reason=StopReason.STOP_FILE)
    found = look(stopped, alive=alive)
    assert first_line(found) == "* stopped (stop file) since 11:59:00 (1m ago)"
    assert not found.died


def test_a_loop_that_never_ran(look: Look) -> None:
    found = look(None)
    assert shown(found) == "* never run here\n"
    assert not found.died


@pytest.mark.parametrize("state", LoopState)
def test_every_state_has_a_first_line(look: Look, running: LoopSnapshot, state: LoopState) -> None:
    assert len(first_line(look(replace(running, state=state)))) > 8


# The rest of the screen


def test_the_screen_of_a_loop_in_trouble(look: Look, snapshot: LoopSnapshot, record: Make) -> None:
    last = record(7, Outcome.TIMEOUT, reason="no end after 5m", log_path="logs/7.log", consecutive_failures=1)
    snapshot = replace(
        snapshot,
        note="state was mended",
        stale_cycles=1,
        last_archive="state/a.jsonl.gz",
        last_success_at=timestamp(datetime.fromisoformat("2026-05-16T12:00:00Z")),
    )
    found = look(snapshot, record(6), replace(last, stale_cycles=1), stop_file=True)
    assert shown(found).splitlines()[1:] == [
        "recent        .T  T timeout",
        "stop-file     present: no cycle starts until `run-cycle-loop resume`",
        "note          state was mended",
        "last cycle    7  timeout in 12s, 3m ago",
        "              no end after 5m",
        "              logs/7.log",
        "last success  1d ago (2026-05-16 12:00:00)",
        "last archive  state/a.jsonl.gz",
        "stale         no fresh archive for 1 cycle",
        "cycles        7: 4 success, 2 failed, 1 timeout",
        "streak        1 failure in a row",
        "supervisor    pid 4242 on box, version 0.1.0, up 2h",
    ]


def test_the_cycle_in_flight_is_described(look: Look, running: LoopSnapshot) -> None:
    assert "cycle         7  experimental  recap and plan" in shown(look(running)).splitlines()


def test_a_record_that_the_snapshot_does_not_know_yet_counts(look: Look, running: LoopSnapshot, record: Make) -> None:
    """The supervisor died between the two writes: the cycle is over, whatever ``latest.json`` says."""
    found = look(running, record(7, Outcome.FAILED), alive=False)
    assert found.snapshot
    assert found.snapshot.cycle is None
    assert found.snapshot.counts == {"success": 4, "failed": 3}


def test_without_a_snapshot_the_history_still_speaks(look: Look, record: Make) -> None:
    screen = shown(look(None, record(1), record(2, Outcome.FAILED, consecutive_failures=1)))
    assert "last cycle    2  failed in 12s, 3m ago" in screen
    assert "cycles" not in screen


@pytest.mark.parametrize(("unicode", "bar"), [(False, ".dFTPEILRs"), (True, "▇▅FTPEILRs")])
def test_the_bar_has_a_sign_for_every_outcome(look: Look, record: Make, unicode: bool, bar: str) -> None:
    found = look(None, *(record(number, outcome) for number, outcome in enumerate(Outcome)))
    line = shown(found, unicode=unicode).splitlines()[1]
    assert set(line.split()[1]) == set(bar)


def test_the_bar_shows_the_newest_and_reads_no_more(recorded: "type[Recorded]", record: Make, now: datetime) -> None:
    history = recorded(*(record(number, Outcome.FAILED) for number in range(500)), record(500))
    found = status(None, history, is_alive=lambda _: False, stop_file_present=False, now=now)
    assert history.read == RECENT
    assert shown(found).splitlines()[1].split()[1] == "F" * (RECENT - 1) + "."


@pytest.mark.parametrize("width", [20, 40, 80])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(
    look: Look, running: LoopSnapshot, record: Make, width: int, unicode: bool
) -> None:
    assert running.cycle
    running = replace(running, note="文" * 300, cycle=replace(running.cycle, goal="long " * 100))
    found = look(running, *(record(number, Outcome.FAILED, reason="x" * 500) for number in range(40)))
    screen = render(found, width=width, style=Style(unicode=unicode))
    assert max(map(columns, screen.splitlines())) <= width


def test_nothing_foreign_can_drive_the_terminal(look: Look, running: LoopSnapshot, record: Make) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\x08\u202e"
    assert running.cycle
    running = replace(running, note=evil, last_archive=evil, cycle=replace(running.cycle, goal=evil, mode=evil))
    screen = shown(look(running, record(7, reason=evil, log_path=evil), record(6)), unicode=True)
    assert not set(screen) & set("\x1b\x07\r\x08\u202e")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), "soon", None])
def test_a_duration_that_is_none_is_left_out(look: Look, running: LoopSnapshot, seconds: object) -> None:
    screen = shown(look(replace(running, last_cycle={"number": 6, "status": "success", "duration_seconds": seconds})))
    assert "last cycle    6  success\n" in screen


def test_colours_change_nothing_but_colours(look: Look, running: LoopSnapshot, record: Make) -> None:
    import click  # noqa: PLC0415 - loaded by the colours alone

    found = look(running, record(6, Outcome.FAILED))
    coloured = shown(found, colour=True)
    assert coloured != shown(found)
    assert click.unstyle(coloured) == shown(found)


# The JSON object


def test_the_json_object_is_the_snapshot_and_what_was_looked_at(
    look: Look, running: LoopSnapshot, record: Make, now: datetime
) -> None:
    value: dict[str, Any] = json.loads(json.dumps(look(running, record(6), stop_file=True).as_dict()))
    assert value["state"] == "running"
    assert value["checked_at"] == timestamp(now)
    assert value["cycle"]["number"] == 7
    assert value["cycle_seconds"] == 130.0
    assert value["next_run_in_seconds"] is None
    assert (value["alive"], value["died"], value["stop_file_present"]) == (True, False, True)
    assert value["recent"] == [{"number": 6, "status": "success", "duration_seconds": 12.0}]


def test_the_json_object_of_a_loop_that_never_ran(look: Look) -> None:
    value = look(None).as_dict()
    assert value["state"] is None
    assert value["recent"] == []
