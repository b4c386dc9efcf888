"""On a terminal: one line, rewritten in place, that says what is going on while it takes its time."""

from collections.abc import Callable
from datetime import datetime

from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.model.enums import LoopState
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.observers.lines import ERASE, LineWriter

_EVERY = 1.0  #: seconds between two drawings


class ProgressLine:
    """Implements the port ``Observer``."""

    def __init__(self, writer: LineWriter, *, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._writer = writer
        self._now = now
        self._monotonic = monotonic
        self._snapshot: LoopSnapshot | None = None
        self._since = monotonic()
        self._drawn_at = monotonic()

    def state_changed(self, snapshot: LoopSnapshot) -> None:
        """Begin to count the time of the new state."""
        self._snapshot = snapshot
        self._since = self._drawn_at = self._monotonic()
        self._writer.draw(ERASE)

    def cycle_finished(self, record: CycleRecord, snapshot: LoopSnapshot) -> None:
        """The log says it."""

    def beat(self) -> None:
        """Draw the line anew, once a second."""
        now = self._monotonic()
        if self._snapshot is None or now - self._drawn_at < _EVERY:
            return
        self._drawn_at = now
        if text := self._text(self._snapshot, now - self._since):
            self._writer.draw(f"{ERASE}{text}")

    def _text(self, snapshot: LoopSnapshot, passed: float) -> str | None:
        if snapshot.cycle is not None:
            word = "finishing" if snapshot.state is LoopState.STOPPING else snapshot.state
            return f"  {word} cycle {snapshot.cycle.number} for {format_duration(round(passed))} ..."
        if snapshot.next_run_at is not None:
            left = (datetime.fromisoformat(snapshot.next_run_at) - self._now()).total_seconds()
            return f"  {snapshot.state}, next cycle in {format_duration(max(0, round(left)))} ..."
        if snapshot.state is LoopState.HELD:
            return f"  held for {format_duration(round(passed))}: state cannot be written ..."
        return None
