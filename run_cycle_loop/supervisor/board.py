"""What the loop shows of itself: ``latest.json`` and the observers, told of every change, trusted with nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from run_cycle_loop.model.enums import LoopState
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.ports import Clock, Observer, SnapshotStore
from run_cycle_loop.model.records import CycleRecord, timestamp
from run_cycle_loop.model.snapshots import LoopSnapshot


class Board:
    """Holds the current snapshot; no failure of a store or an observer gets past it."""

    def __init__(
        self,
        snapshot: LoopSnapshot,
        store: SnapshotStore,
        observers: Sequence[Observer],
        clock: Clock,
        warn: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self.snapshot = snapshot
        self._store = store
        self._observers = observers
        self._clock = clock
        self._warn = warn  #: told, in one sentence, when an observer fails for the first time
        self._failed: set[int] = set()

    def enter(self, state: LoopState, *, write: bool = True, **changes: Any) -> None:
        """Show a new state.

        Args:
            state: the new one.
            write: whether to rewrite ``latest.json``; not for a state that is over before anybody could look.
            changes: what else is new in the snapshot.
        """
        self._set(state=state, **changes)
        if write:
            self._publish()
        self._tell(lambda observer: observer.state_changed(self.snapshot))

    def count(self, record: CycleRecord, state: LoopState, **changes: Any) -> None:
        """Show one more recorded cycle, together with the state that follows it."""
        self.snapshot = self.snapshot.counting(record)
        self._set(state=state, cycle=None, **changes)
        self._publish()
        self._tell(lambda observer: observer.cycle_finished(record, self.snapshot))
        self._tell(lambda observer: observer.state_changed(self.snapshot))

    def blame_state(self) -> None:
        """Count a failed attempt to write state."""
        self._set(state_errors=self.snapshot.state_errors + 1)

    def beat(self) -> None:
        """Pass on that the loop is alive."""
        self._tell(lambda observer: observer.beat())

    def _set(self, **changes: Any) -> None:
        self.snapshot = replace(self.snapshot, updated_at=timestamp(self._clock.now()), **changes)

    def _publish(self) -> None:
        try:
            self._store.replace(self.snapshot)
        except StateError:
            self.blame_state()  # derived data: the history is the truth, and the next change tries again

    def _tell(self, word: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                word(observer)
            except Exception as error:  # noqa: BLE001 - an observer may fail in any way without harm
                if id(observer) not in self._failed:
                    self._failed.add(id(observer))
                    self._warn(f"{type(observer).__name__} failed and is tried again each time: {error}")
                self._set(observer_errors=self.snapshot.observer_errors + 1)
