"""What every work tree promises."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.ports import WorkTree
from run_cycle_loop.stores.work_tree import Caps, MeasuredTree
from run_cycle_loop.testing import FakeClock, ScriptedWorkTree, make_spec

CAP = 3


@dataclass(frozen=True, kw_only=True)
class Place:
    """A tree, and how a cycle writes so many files to it and time passes."""

    tree: WorkTree
    write: Callable[[int], object]
    move: Callable[[float], object]


def _measured(folder: Path) -> Place:
    root, clock = folder / "tree", FakeClock()
    root.mkdir()
    (root / "before").write_text("before")

    def write(files: int) -> None:
        for _ in range(files):
            (root / f"new-{len(list(root.iterdir()))}").write_text("new")

    tree = MeasuredTree(root, folder / "state", mode=GuardMode.ENFORCE, caps=Caps(files=CAP), clock=clock)
    return Place(tree=tree, write=write, move=clock.move)


def _scripted(_folder: Path) -> Place:
    tree = ScriptedWorkTree(cap_files=CAP)
    return Place(tree=tree, write=tree.write, move=lambda _seconds: None)


PLACES = {"measured": _measured, "scripted": _scripted}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return PLACES[request.param](tmp_path)


def look(place: Place) -> str | None:
    place.move(5)
    return place.tree.look()


def test_a_cycle_that_does_nothing_is_found_to_have_done_nothing(place: Place) -> None:
    place.tree.mark(make_spec())
    assert look(place) is None
    verdict = place.tree.settle(make_spec())
    assert (verdict.files, verdict.bytes, verdict.finding, verdict.quarantine) == (0, 0, None, None)


def test_what_is_within_the_cap_is_counted_and_stays(place: Place) -> None:
    place.tree.mark(make_spec())
    place.write(CAP)
    assert look(place) is None
    verdict = place.tree.settle(make_spec())
    assert (verdict.files, verdict.finding) == (CAP, None)


def test_what_is_over_the_cap_is_said_while_it_happens_and_parked_afterwards(place: Place) -> None:
    place.tree.mark(make_spec())
    place.write(CAP + 1)
    assert look(place)
    verdict = place.tree.settle(make_spec())
    assert verdict.files == CAP + 1
    assert verdict.finding is not None
    assert (verdict.finding.guard, verdict.finding.ok) == ("write_cap", False)
    assert verdict.quarantine is not None


def test_the_next_cycle_begins_with_nothing(place: Place) -> None:
    for number in range(2):
        spec = make_spec(cycle_id=f"cycle-{number}")
        place.tree.mark(spec)
        assert look(place) is None
        place.write(CAP + 1)
        assert place.tree.settle(spec).files == CAP + 1


def test_trees_that_differ_have_different_fingerprints(place: Place) -> None:
    prints = []
    for files in (0, 1):
        place.tree.mark(make_spec())
        place.write(files)
        prints.append(place.tree.settle(make_spec()).fingerprint)
    assert None not in prints
    assert prints[0] != prints[1]


def test_a_cycle_that_was_settled_is_not_lost(place: Place) -> None:
    assert place.tree.recover() is None
    place.tree.mark(make_spec())
    place.tree.settle(make_spec())
    assert place.tree.recover() is None


def test_a_lost_cycle_is_judged_once(place: Place) -> None:
    place.tree.mark(make_spec())
    place.write(CAP + 1)
    verdict = place.tree.recover()
    assert verdict is not None
    assert (verdict.files, verdict.finding is None) == (CAP + 1, False)
    assert place.tree.recover() is None
