"""What every in-flight slot promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from run_cycle_loop.model.ports import InFlight
from run_cycle_loop.stores.in_flight import InFlightSlot
from run_cycle_loop.testing import InMemoryInFlight, make_running

SLOTS: dict[str, Callable[[Path], InFlight]] = {
    "file": lambda folder: InFlightSlot(folder / "state" / "in_flight.json"),
    "memory": lambda _folder: InMemoryInFlight(),
}


@pytest.fixture(params=SLOTS)
def slot(request: pytest.FixtureRequest, tmp_path: Path) -> InFlight:
    make = SLOTS[request.param]
    return make(tmp_path)


def test_a_new_slot_is_empty(slot: InFlight) -> None:
    assert slot.read() is None


def test_the_last_cycle_that_was_begun_is_read(slot: InFlight) -> None:
    for number in (1, 2):
        slot.begin(make_running(number, goal="g" * (100 // number)))
    assert slot.read() == make_running(2, goal="g" * 50)


def test_what_was_launched_is_added(slot: InFlight) -> None:
    slot.begin(make_running())
    slot.launched(77, 12345, (8, 9))
    assert slot.read() == make_running(leader_pid=77, leader_start_ticks=12345, output_inodes=(8, 9))


def test_a_new_cycle_carries_nothing_of_the_last_launch(slot: InFlight) -> None:
    slot.begin(make_running(1))
    slot.launched(77, None, ())
    slot.begin(make_running(2))
    assert slot.read() == make_running(2)


def test_a_launch_that_was_never_begun_names_nothing(slot: InFlight) -> None:
    slot.launched(77, None, ())
    assert slot.read() is None
