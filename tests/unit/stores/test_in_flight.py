import json
from pathlib import Path

import pytest

from run_cycle_loop.model.errors import StateError
from run_cycle_loop.stores.in_flight import InFlightSlot
from run_cycle_loop.testing import make_running
from tests.obstacles import OBSTACLES, plant


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in_flight.json"


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def slot(path: Path, warnings: list[str]) -> InFlightSlot:
    return InFlightSlot(path, warnings.append)


def test_another_process_reads_what_was_begun(slot: InFlightSlot, path: Path) -> None:
    slot.begin(make_running())
    slot.launched(5, 6, (7,))
    assert InFlightSlot(path).read() == make_running(leader_pid=5, leader_start_ticks=6, output_inodes=(7,))


def test_a_shorter_cycle_leaves_nothing_of_a_longer_one(slot: InFlightSlot, path: Path) -> None:
    slot.begin(make_running(goal="g" * 2000))
    slot.begin(make_running(goal="short"))
    assert json.loads(path.read_bytes())["goal"] == "short"


def test_a_goal_beyond_all_measure_is_cut(slot: InFlightSlot, path: Path) -> None:
    slot.begin(make_running(goal="\u20ac" * 120_000))
    read = slot.read()
    assert read is not None
    assert read.goal == "\u20ac" * 4096
    assert path.stat().st_size < 1 << 16


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"number": 1}', b"\xff", b"[" * 100_000, b"x" * 2**21]
)
def test_a_damaged_slot_is_set_aside_and_named(
    slot: InFlightSlot, path: Path, warnings: list[str], content: bytes
) -> None:
    path.write_bytes(content)
    assert slot.read() is None
    kept = path.with_name("in_flight.json.corrupt")
    assert (kept.read_bytes(), path.exists()) == (content, False)
    assert len(warnings) == 1
    assert f"was set aside as {kept}" in warnings[0]


def test_a_missing_slot_is_nothing_to_warn_of(slot: InFlightSlot, warnings: list[str]) -> None:
    assert (slot.read(), warnings) == (None, [])


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_regular_file_is_no_slot(slot: InFlightSlot, path: Path, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    plant(kind, path, victim)
    with pytest.raises(StateError, match="the start of a cycle cannot be recorded"):
        slot.begin(make_running())
    assert victim.read_text() == "mine"
    assert slot.read() is None


def test_a_launch_that_cannot_be_added_stops_nothing(slot: InFlightSlot, path: Path) -> None:
    slot.begin(make_running())
    path.unlink()
    path.mkdir()
    slot.launched(5, 6, ())


def test_a_slot_below_a_file_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StateError, match="mend its folder"):
        InFlightSlot(tmp_path / "state" / "in_flight.json").begin(make_running())
