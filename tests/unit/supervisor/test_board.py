from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.supervisor.board import Board
from run_cycle_loop.testing import (
    NOON,
    FakeClock,
    InMemorySnapshots,
    RecordingObserver,
    make_record,
    make_running,
)

EMPTY = LoopSnapshot(state=LoopState.STARTING, updated_at="")


def test_every_change_is_stamped_published_and_told() -> None:
    clock, store, observer = FakeClock(), InMemorySnapshots(), RecordingObserver()
    board = Board(EMPTY, store, [observer], clock)
    clock.move(1.5)
    board.enter(LoopState.CHECKING, note="a note")
    assert store.shown == [board.snapshot]
    assert observer.states == [LoopState.CHECKING]
    assert board.snapshot.updated_at == timestamp(NOON.replace(second=1, microsecond=500_000))
    assert board.snapshot.note == "a note"


def test_one_observers_fault_is_kept_from_the_next_and_from_the_loop() -> None:
    broken, sound = RecordingObserver(OSError("gone")), RecordingObserver()
    board = Board(EMPTY, InMemorySnapshots(), [broken, sound], FakeClock())
    board.enter(LoopState.CHECKING)
    board.count(make_record(), LoopState.WAITING)
    board.beat()
    assert (sound.states, len(sound.records), sound.beats) == ([LoopState.CHECKING, LoopState.WAITING], 1, 1)
    assert board.snapshot.observer_errors == 4


def test_a_counted_cycle_is_in_flight_no_more() -> None:
    store = InMemorySnapshots()
    board = Board(EMPTY, store, [], FakeClock())
    board.enter(LoopState.RUNNING, cycle=make_running())
    board.count(make_record(5, Outcome.FAILED), LoopState.BACKOFF, next_run_at="soon")
    assert [shown.cycle is None for shown in store.shown] == [False, True]
    assert (store.shown[-1].seq, store.shown[-1].failure_count, store.shown[-1].next_run_at) == (5, 1, "soon")


def test_a_store_that_refuses_keeps_the_loop_going_and_is_shown_next_time() -> None:
    store = InMemorySnapshots()
    store.refuse(1)
    board = Board(EMPTY, store, [], FakeClock())
    board.enter(LoopState.CHECKING)
    board.enter(LoopState.RUNNING)
    assert [(shown.state, shown.state_errors) for shown in store.shown] == [(LoopState.RUNNING, 1)]
