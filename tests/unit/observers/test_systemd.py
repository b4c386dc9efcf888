import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from run_cycle_loop.model.enums import LoopState, StopReason
from run_cycle_loop.model.records import RunningCycle
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.observers.systemd import SystemdNotifier, status_line

Snapshots = Callable[..., LoopSnapshot]


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.name)

    def received(self) -> list[str]:
        """The assignments of all the messages so far, in order; STATUS lines left out."""
        return [item for item in self.everything() if not item.startswith("STATUS=")]

    def everything(self) -> list[str]:
        return [item for message in self.messages() for item in message.split("\n")]

    def messages(self) -> list[str]:
        found: list[str] = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    end = Manager(tmp_path / "notify")
    yield end
    end.socket.close()


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def notifier(manager: Manager, time: Time) -> Iterator[SystemdNotifier]:
    notify = SystemdNotifier({"NOTIFY_SOCKET": manager.name}, monotonic=time)
    yield notify
    notify.close()


def test_ready_is_said_once_when_starting_is_over(
    notifier: SystemdNotifier, manager: Manager, snapshot: Snapshots
) -> None:
    notifier.state_changed(snapshot(LoopState.STARTING))
    assert manager.received() == []
    for state in (LoopState.CHECKING, LoopState.RUNNING, LoopState.WAITING):
        notifier.state_changed(snapshot(state))
    assert manager.received() == ["READY=1"]


def test_a_loop_that_stops_before_its_first_cycle_says_ready_and_stopping_in_two_messages(
    notifier: SystemdNotifier, manager: Manager, snapshot: Snapshots
) -> None:
    notifier.state_changed(snapshot(LoopState.STARTING))
    notifier.state_changed(snapshot(LoopState.STOPPED))
    assert manager.messages() == ["STATUS=starting", "STATUS=stopped\nREADY=1", "STOPPING=1"]


def test_every_state_has_its_status(notifier: SystemdNotifier, manager: Manager, snapshot: Snapshots) -> None:
    for state in LoopState:
        notifier.state_changed(snapshot(state))
    statuses = [item for item in manager.everything() if item.startswith("STATUS=")]
    assert statuses == [f"STATUS={state}" for state in LoopState]


def test_draining_asks_for_thirty_seconds_more_every_ten(
    notifier: SystemdNotifier, manager: Manager, time: Time, snapshot: Snapshots, in_flight: RunningCycle
) -> None:
    notifier.state_changed(snapshot(LoopState.RUNNING))
    manager.received()
    notifier.state_changed(snapshot(LoopState.STOPPING, cycle=in_flight))
    for _ in range(84):
        time.now += 0.25
        notifier.beat()
    assert manager.received() == ["STOPPING=1", *["EXTEND_TIMEOUT_USEC=30000000"] * 3]


def test_after_draining_no_more_time_is_asked_for(
    notifier: SystemdNotifier, manager: Manager, time: Time, snapshot: Snapshots
) -> None:
    notifier.state_changed(snapshot(LoopState.STOPPING))
    notifier.state_changed(snapshot(LoopState.STOPPED))
    manager.received()
    time.now += 60
    notifier.beat()
    assert manager.received() == []


def _watched(manager: Manager, time: Time, **environ: str) -> SystemdNotifier:
    return SystemdNotifier({"NOTIFY_SOCKET": manager.name, **environ}, monotonic=time, pid=7)


def _beat_for_a_minute(notify: SystemdNotifier, time: Time) -> None:
    for _ in range(240):
        time.now += 0.25
        notify.beat()
    notify.close()


@pytest.mark.parametrize("environ", [{"WATCHDOG_PID": "7"}, {}])
def test_the_watchdog_is_fed_three_times_in_its_interval(manager: Manager, time: Time, environ: dict[str, str]) -> None:
    _beat_for_a_minute(_watched(manager, time, WATCHDOG_USEC="30000000", **environ), time)
    assert manager.received() == ["WATCHDOG=1"] * 6


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(manager: Manager, time: Time, environ: dict[str, str]) -> None:
    _beat_for_a_minute(_watched(manager, time, **environ), time)
    assert manager.received() == []


def test_an_abstract_socket_is_reached(time: Time, snapshot: Snapshots, tmp_path: Path) -> None:
    name = str(tmp_path)[-80:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
        end.bind(f"\0{name}")
        notify = SystemdNotifier({"NOTIFY_SOCKET": f"@{name}"}, monotonic=time)
        notify.state_changed(snapshot())
        notify.close()
        assert end.recv(4096) == b"STATUS=waiting\nREADY=1"


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1234"])
def test_without_a_socket_that_we_speak_nothing_is_sent(name: str, time: Time, snapshot: Snapshots) -> None:
    notify = SystemdNotifier({"NOTIFY_SOCKET": name}, monotonic=time)
    notify.state_changed(snapshot())
    notify.close()
    assert notify.dropped == 0


def test_an_absent_manager_costs_a_count(tmp_path: Path, time: Time, snapshot: Snapshots) -> None:
    notify = SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, monotonic=time)
    notify.state_changed(snapshot())
    notify.close()
    assert notify.dropped == 1


def test_a_manager_that_does_not_read_never_blocks_the_loop(
    notifier: SystemdNotifier, manager: Manager, snapshot: Snapshots
) -> None:
    for _ in range(2000):
        notifier.state_changed(snapshot())
    assert notifier.dropped > 0
    assert len(manager.everything()) + notifier.dropped == 2001


def test_a_status_says_what_runs_what_was_and_what_is_wrong(snapshot: Snapshots, in_flight: RunningCycle) -> None:
    last = {"number": 3, "status": "failed", "duration_seconds": 12.4}
    full = snapshot(LoopState.RUNNING, cycle=in_flight, last_cycle=last, consecutive_failures=2, note="disk\nfull")
    assert status_line(full) == (
        "running cycle #4 since 2026-01-02T12:05:00.000Z; last: #3 failed in 12s; failures in a row: 2; disk full"
    )


def test_a_status_says_when_it_goes_on_and_why_it_stopped(snapshot: Snapshots) -> None:
    soon = snapshot(LoopState.BACKOFF, next_run_at="2026-01-02T12:01:00.000Z")
    assert status_line(soon) == "backoff, next cycle at 2026-01-02T12:01:00.000Z"
    assert status_line(snapshot(LoopState.STOPPED, stop_reason=StopReason.STOP_FILE)) == "stopped: stop_file"


def test_a_status_holds_no_terminal_escape(snapshot: Snapshots) -> None:
    assert status_line(snapshot(LoopState.HELD, note="\x1b[31mred")) == "held; red"
