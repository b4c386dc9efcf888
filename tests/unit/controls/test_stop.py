import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.controls.stop import StopControl
from run_cycle_loop.controls.stop_file import Sight, StopFile, now_path
from run_cycle_loop.kit.processes import Demand
from run_cycle_loop.model.decisions import StopRequest
from run_cycle_loop.model.enums import StopReason, Urgency
from run_cycle_loop.model.ports import Waited
from run_cycle_loop.testing import FakeClock

TERM, INT, QUIT = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run_cycle.stop"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def control(inbox: SignalInbox, path: Path, clock: FakeClock) -> Iterator[StopControl]:
    control = StopControl(inbox, StopFile(path), clock)
    yield control
    control.close()


@pytest.mark.parametrize(
    ("numbers", "urgency", "detail", "demand"),
    [
        ([TERM], Urgency.AFTER_CYCLE, "stopped by SIGTERM", Demand.NOTHING),
        ([INT], Urgency.AFTER_CYCLE, "stopped by SIGINT", Demand.NOTHING),
        ([TERM, TERM], Urgency.NOW, "stopped by SIGTERM", Demand.TERMINATE),
        ([INT, TERM], Urgency.NOW, "stopped by SIGINT", Demand.TERMINATE),
        ([QUIT], Urgency.NOW, "stopped by SIGQUIT", Demand.TERMINATE),
        ([TERM, QUIT], Urgency.NOW, "stopped by SIGTERM", Demand.TERMINATE),
        ([TERM, INT, TERM], Urgency.KILL, "stopped by SIGTERM", Demand.KILL),
        ([TERM] * 9, Urgency.KILL, "stopped by SIGTERM", Demand.KILL),
    ],
)
def test_each_signal_raises_the_urgency(
    control: StopControl, numbers: list[signal.Signals], urgency: Urgency, detail: str, demand: Demand
) -> None:
    for number in numbers:
        signal.raise_signal(number)
    assert control.requested() == StopRequest(reason=StopReason.SIGNAL, urgency=urgency, detail=detail)
    assert control.beat() is demand


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_other_signals_stop_nothing(control: StopControl, number: signal.Signals) -> None:
    signal.raise_signal(number)
    assert control.requested() is None
    assert control.beat() is Demand.NOTHING


def test_the_kill_switch_stops_after_the_cycle(control: StopControl, path: Path) -> None:
    path.touch()
    request = control.requested()
    assert request is not None
    assert (request.reason, request.urgency) == (StopReason.STOP_FILE, Urgency.AFTER_CYCLE)
    assert control.beat() is Demand.NOTHING


def test_its_companion_ends_the_cycle(control: StopControl, path: Path) -> None:
    now_path(path).touch()
    control.requested()
    assert control.beat() is Demand.TERMINATE


def test_a_request_outlives_its_kill_switch(control: StopControl, path: Path) -> None:
    path.touch()
    first = control.requested()
    path.unlink()
    assert first is not None
    assert control.requested() == first


def test_the_first_reason_stands_when_another_raises_the_urgency(control: StopControl, path: Path) -> None:
    signal.raise_signal(TERM)
    control.requested()
    now_path(path).touch()
    request = control.requested()
    assert request is not None
    assert (request.reason, request.urgency) == (StopReason.SIGNAL, Urgency.NOW)


def test_a_beat_sees_a_new_kill_switch_at_once_by_its_watch(control: StopControl, path: Path) -> None:
    control.beat()
    now_path(path).touch()
    assert control.beat() is Demand.TERMINATE


def test_where_nothing_hints_a_beat_looks_every_quarter_of_a_second(
    inbox: SignalInbox, tmp_path: Path, clock: FakeClock
) -> None:
    folder = tmp_path / "not yet"
    control = StopControl(inbox, StopFile(folder / "stop"), clock)
    control.beat()
    folder.mkdir()
    now_path(folder / "stop").touch()
    clock.move(0.24)
    assert control.beat() is Demand.NOTHING
    clock.move(0.02)
    assert control.beat() is Demand.TERMINATE
    control.close()


def test_where_nothing_hints_who_asks_has_it_looked_at_afresh(
    inbox: SignalInbox, tmp_path: Path, clock: FakeClock
) -> None:
    folder = tmp_path / "not yet"
    control = StopControl(inbox, StopFile(folder / "stop"), clock)
    assert control.requested() is None
    folder.mkdir()
    (folder / "stop").touch()
    assert control.requested() is not None
    control.close()


def test_everyone_who_listens_hears_each_rise_once(control: StopControl) -> None:
    heard: list[Urgency] = []
    beats: list[None] = []
    control.listen(beat=lambda: beats.append(None), request=lambda request: heard.append(request.urgency))
    for number in (TERM, signal.SIGUSR2, TERM, TERM, TERM):
        signal.raise_signal(number)
        control.beat()
    assert heard == [Urgency.AFTER_CYCLE, Urgency.NOW, Urgency.KILL]
    assert len(beats) == 5


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (lambda _path: signal.raise_signal(TERM), Waited.STOP),
        (lambda path: path.touch(), Waited.STOP),
        (lambda _path: signal.raise_signal(signal.SIGUSR1), Waited.TRIGGERED),
    ],
    ids=["signal", "kill switch", "trigger"],
)
def test_what_came_before_a_wait_ends_it_at_once(
    control: StopControl, path: Path, event: Callable[[Path], object], expected: Waited
) -> None:
    control.beat()
    event(path)
    assert control.wait(10**6) is expected


def test_its_descriptor_turns_readable_for_a_signal(control: StopControl) -> None:
    signal.raise_signal(signal.SIGUSR2)
    assert select.select([control.fileno()], [], [], 10)[0]


def test_its_descriptor_turns_readable_for_a_kill_switch(control: StopControl, path: Path) -> None:
    path.touch()
    assert select.select([control.fileno()], [], [], 10)[0]


class HastyClock(FakeClock):
    """Ten seconds pass between any two looks at it."""

    def monotonic(self) -> float:
        self.move(10)
        return super().monotonic()


class SilentStopFile(StopFile):
    """A kill switch on a file system that does not answer."""

    def look(self, patience: float) -> Sight:  # noqa: ARG002 - the signature of the real one
        return Sight.UNKNOWN


def test_half_a_minute_of_doubt_means_stop(inbox: SignalInbox, path: Path) -> None:
    control = StopControl(inbox, SilentStopFile(path), HastyClock())
    request = control.requested()
    control.close()
    assert request is not None
    assert (request.reason, request.detail) == (StopReason.STOP_FILE, f"stop-file {path} cannot be seen")


def test_in_doubt_a_running_cycle_goes_on(inbox: SignalInbox, path: Path, clock: FakeClock) -> None:
    control = StopControl(inbox, SilentStopFile(path), clock)
    clock.move(29)
    assert control.beat() is Demand.NOTHING
    control.close()


def test_a_signal_is_heard_while_the_kill_switch_cannot_be_seen(inbox: SignalInbox, path: Path) -> None:
    control = StopControl(inbox, SilentStopFile(path), FakeClock())
    signal.raise_signal(TERM)
    request = control.requested()
    control.close()
    assert request is not None
    assert request.reason is StopReason.SIGNAL
