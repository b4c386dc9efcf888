"""One goal for every cycle: a text of the settings, or what a file holds at that moment."""

from collections.abc import Callable

from run_cycle_loop.model.records import CycleRecord, Goal


class SingleGoal:
    """Implements the port ``Goals``."""

    def __init__(self, read: Callable[[], str], source: str | None = None) -> None:
        self._read = read  #: raises ConfigError where it cannot be read
        self._origin = {} if source is None else {"source": source}

    def next(self, number: int) -> Goal:  # noqa: ARG002 - the port's signature
        """The goal, read afresh.

        Raises:
            ConfigError: it cannot be read.
        """
        return Goal(text=self._read(), origin=self._origin)

    def note(self, record: CycleRecord) -> None:
        """Nothing follows for the next cycle."""
