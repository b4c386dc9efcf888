"""What every snapshot store promises."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from run_cycle_loop.model.enums import LoopState, Outcome, StopReason
from run_cycle_loop.model.ports import SnapshotStore
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.stores.snapshot import LatestJson
from run_cycle_loop.testing import InMemoryHistory, InMemorySnapshots, make_identity, make_record, make_running

STORES: dict[str, Callable[[Path], SnapshotStore]] = {
    "latest.json": lambda folder: LatestJson(folder / "logs" / "latest.json"),
    "memory": lambda _folder: InMemorySnapshots(),
}
EMPTY = LoopSnapshot(state=LoopState.STARTING, updated_at="")
RECORDS = [make_record(1), make_record(2, Outcome.FAILED), make_record(3, Outcome.DEGRADED)]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SnapshotStore:
    make = STORES[request.param]
    return make(tmp_path)


def counted(count: int) -> LoopSnapshot:
    snapshot = EMPTY
    for record in RECORDS[:count]:
        snapshot = snapshot.counting(record)
    return snapshot


@pytest.mark.parametrize("count", range(4))
def test_without_a_snapshot_it_is_made_from_the_history(store: SnapshotStore, count: int) -> None:
    assert store.load(InMemoryHistory(RECORDS[:count])) == counted(count)


@pytest.mark.parametrize("known", range(4))
def test_a_snapshot_is_caught_up_with_the_history(store: SnapshotStore, known: int) -> None:
    store.replace(counted(known))
    assert store.load(InMemoryHistory(RECORDS)) == counted(3)


def test_what_the_history_does_not_know_is_kept(store: SnapshotStore) -> None:
    shown = replace(
        counted(3),
        state=LoopState.RUNNING,
        updated_at="then",
        supervisor=make_identity(),
        cycle=make_running(4),
        stop_reason=StopReason.SIGNAL,
        next_run_at="soon",
    )
    store.replace(shown)
    assert store.load(InMemoryHistory(RECORDS)) == shown


def test_what_concerned_the_last_run_alone_is_over(store: SnapshotStore) -> None:
    store.replace(replace(counted(3), note="held", state_errors=4, observer_errors=5))
    assert store.load(InMemoryHistory(RECORDS)) == counted(3)


def test_the_counts_of_a_lost_history_are_not_kept(store: SnapshotStore) -> None:
    store.replace(counted(3))
    loaded = store.load(InMemoryHistory(RECORDS[:1]))
    assert (loaded.counts, loaded.seq) == ({Outcome.SUCCESS: 1}, 1)


@pytest.mark.parametrize("left", [0, 1])
def test_the_last_cycle_of_a_lost_history_is_remembered(store: SnapshotStore, left: int) -> None:
    store.replace(counted(3))
    assert store.load(InMemoryHistory(RECORDS[:left])).last_cycle == counted(3).last_cycle
