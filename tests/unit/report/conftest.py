from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.records import CycleRecord, timestamp

NOW = datetime(2026, 5, 17, 12, 0, 0, tzinfo=UTC)


class Recorded:
    """A history in memory that counts how many of its records were read."""

    def __init__(self, *records: CycleRecord) -> None:
        self._records = list(records)
        self.read = 0

    def append(self, record: CycleRecord) -> None:
        self._records.append(record)

    def last(self) -> CycleRecord | None:
        return next(self.newest_first(), None)

    def records(self) -> Iterator[CycleRecord]:
        return self._counted(iter(self._records))

    def outcomes(self) -> Counter[Outcome]:
        return Counter(record.status for record in self.records())

    def newest_first(self) -> Iterator[CycleRecord]:
        return self._counted(reversed(self._records))

    def _counted(self, records: Iterator[CycleRecord]) -> Iterator[CycleRecord]:
        for record in records:
            self.read += 1
            yield record


def made_record(number: int, status: Outcome = Outcome.SUCCESS, *, minutes_ago: float = 3, **more: Any) -> CycleRecord:
    finished_at = timestamp(NOW - timedelta(minutes=minutes_ago))
    known: dict[str, Any] = {
        "timestamp": finished_at,
        "mode": "experimental",
        "goal": "recap and plan",
        "status": status,
        "prerequisites_ok": True,
        "return_code": 0 if status is Outcome.SUCCESS else 1,
        "duration_seconds": 12.0,
        "archive_created": None,
        "archive_path": None,
        "log_path": None,
        "cycle_id": f"id-{number}",
        "number": number,
        "finished_at": finished_at,
    }
    return CycleRecord(**{**known, **more})


@pytest.fixture
def record() -> Callable[..., CycleRecord]:
    return made_record


@pytest.fixture
def recorded() -> type[Recorded]:
    return Recorded


@pytest.fixture
def now() -> datetime:
    return NOW
