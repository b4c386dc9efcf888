"""What every store of breakers promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, Opened, Reset
from run_cycle_loop.model.ports import BreakerStore
from run_cycle_loop.stores.breakers import BreakerFile
from run_cycle_loop.testing import NOON, InMemoryBreakers

Make = Callable[[Path], BreakerStore]
STORES: dict[str, Make] = {
    "file": lambda folder: BreakerFile(folder / "state" / "breakers.json", lambda: NOON),
    "memory": lambda _folder: InMemoryBreakers(),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BreakerStore:
    make = STORES[request.param]
    return make(tmp_path)


def test_a_new_store_keeps_nothing(store: BreakerStore) -> None:
    assert store.load() == BreakerMarks()


def test_what_is_saved_last_is_what_is_kept(store: BreakerStore) -> None:
    opened = BreakerMarks(opened=Opened(name=BreakerName.STORM, at="now", number=9, why="ten short cycles"))
    for marks in (opened, BreakerMarks(reset=Reset(at="later", by="me", number=9, reason="mended"))):
        store.save(marks)
        assert store.load() == marks
