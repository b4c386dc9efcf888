"""What every clock promises."""

from datetime import timedelta

import pytest

from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.ports import Clock
from run_cycle_loop.testing import FakeClock


@pytest.fixture(params=[SystemClock, FakeClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_the_wall_clock_is_in_utc(clock: Clock) -> None:
    assert clock.now().utcoffset() == timedelta(0)


def test_the_other_clock_never_goes_back(clock: Clock) -> None:
    looks = [clock.monotonic() for _ in range(100)]
    assert looks == sorted(looks)


def test_a_fake_clock_moves_when_it_is_moved_and_only_then() -> None:
    clock = FakeClock()
    then, before = clock.now(), clock.monotonic()
    clock.move(1.5)
    assert (clock.now() - then, clock.monotonic() - before) == (timedelta(seconds=1.5), 1.5)


def test_a_fake_wall_clock_steps_alone() -> None:
    clock = FakeClock()
    then, before = clock.now(), clock.monotonic()
    clock.step_wall(-3600)
    assert (clock.now() - then, clock.monotonic()) == (timedelta(hours=-1), before)


def test_time_does_not_pass_backwards() -> None:
    with pytest.raises(ValueError, match="use step_wall"):
        FakeClock().move(-1)
