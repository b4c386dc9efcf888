"""The system's clocks behind one object, so that time is a parameter everywhere else."""

import time
from datetime import UTC, datetime


class SystemClock:
    """The real clocks."""

    def now(self) -> datetime:
        """The wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC: never steps, stands still in suspend."""
        return time.monotonic()
