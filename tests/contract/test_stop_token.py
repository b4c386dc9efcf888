"""What every stop token promises. Whoever asks does so before the wait or from within it: no test here sleeps."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.controls.stop import StopControl
from run_cycle_loop.controls.stop_file import StopFile
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.enums import StopReason, Urgency
from run_cycle_loop.model.ports import StopToken, Waited
from run_cycle_loop.testing import FakeClock, FakeStop

LONG = 10**6  #: seconds that no wait here takes


@dataclass(frozen=True, kw_only=True, slots=True)
class Driven:
    """A token, and how its operator speaks to it."""

    token: StopToken
    ask: Callable[[], object]
    trigger: Callable[[], object]
    reload: Callable[[], object]


@pytest.fixture(params=["real", "fake"])
def driven(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driven]:
    if request.param == "fake":
        stop = FakeStop(FakeClock())
        urgencies = iter(Urgency)
        yield Driven(token=stop, ask=lambda: stop.ask(next(urgencies)), trigger=stop.trigger, reload=stop.reload)
        return
    inbox: SignalInbox = request.getfixturevalue("inbox")
    control = StopControl(inbox, StopFile(tmp_path / "stop"), SystemClock())
    yield Driven(
        token=control,
        ask=lambda: signal.raise_signal(signal.SIGTERM),
        trigger=lambda: signal.raise_signal(signal.SIGUSR1),
        reload=lambda: signal.raise_signal(signal.SIGHUP),
    )
    control.close()


def test_nothing_is_asked_at_first(driven: Driven) -> None:
    assert driven.token.requested() is None
    assert not driven.token.reload_requested()


@pytest.mark.parametrize("seconds", [0.0, 0.001])
def test_a_wait_that_nobody_cuts_short_elapses(driven: Driven, seconds: float) -> None:
    assert driven.token.wait(seconds) is Waited.ELAPSED


def test_each_asking_raises_the_urgency_to_the_last_and_never_lowers_it(driven: Driven) -> None:
    urgencies = []
    for _ in Urgency:
        driven.ask()
        request = driven.token.requested()
        assert request is not None
        urgencies.append(request.urgency)
        assert (request.reason, request.detail) == (StopReason.SIGNAL, "stopped by SIGTERM")
    assert urgencies == [Urgency.AFTER_CYCLE, Urgency.NOW, Urgency.KILL]


def test_a_stop_ends_every_wait_from_then_on(driven: Driven) -> None:
    driven.ask()
    assert [driven.token.wait(LONG) for _ in range(3)] == [Waited.STOP] * 3


def test_a_trigger_ends_one_wait(driven: Driven) -> None:
    driven.trigger()
    assert driven.token.wait(LONG) is Waited.TRIGGERED
    assert driven.token.wait(0.0) is Waited.ELAPSED


def test_two_triggers_are_one(driven: Driven) -> None:
    driven.trigger()
    driven.trigger()
    assert [driven.token.wait(0.0), driven.token.wait(0.0)] == [Waited.TRIGGERED, Waited.ELAPSED]


def test_a_stop_comes_before_a_trigger(driven: Driven) -> None:
    driven.trigger()
    driven.ask()
    assert driven.token.wait(LONG) is Waited.STOP


def test_a_reload_is_told_once_and_ends_no_wait(driven: Driven) -> None:
    driven.reload()
    assert driven.token.wait(0.0) is Waited.ELAPSED
    assert [driven.token.reload_requested(), driven.token.reload_requested()] == [True, False]
    assert driven.token.requested() is None


def test_what_comes_during_a_fake_wait_cuts_it_short_at_its_moment() -> None:
    clock = FakeClock()
    stop = FakeStop(clock)
    began = clock.monotonic()
    stop.after(30.0, stop.ask)
    stop.after(10.0, stop.trigger)
    assert [stop.wait(5.0), stop.wait(LONG), stop.wait(LONG)] == [Waited.ELAPSED, Waited.TRIGGERED, Waited.STOP]
    assert clock.monotonic() - began == 30.0
    assert stop.waits == [5.0, LONG, LONG]
