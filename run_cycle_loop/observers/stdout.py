"""One JSON object a cycle on standard output, for whoever pipes the loop into ``jq`` or a log shipper."""

import json
from typing import Any

from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.observers.lines import LineWriter

_KEYS = (
    "timestamp",
    "status",
    "number",
    "cycle_id",
    "mode",
    "reason",
    "return_code",
    "signal",
    "duration_seconds",
    "prerequisites_ok",
    "archive_created",
    "archive_path",
    "consecutive_failures",
    "stale_cycles",
    "output_bytes",
    "usage",
    "next_delay_seconds",
    "log_path",
)


class JsonLines:
    """Prints the facts of each finished cycle; texts of the cycle's own (goal, output) stay in the history."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def state_changed(self, snapshot: LoopSnapshot) -> None:
        """States are not cycles."""

    def cycle_finished(self, record: CycleRecord, snapshot: LoopSnapshot) -> None:
        """Print the record's line.

        Raises:
            OSError: standard output did not take it.
        """
        self._writer.write(json.dumps(_line_of(record, snapshot)))

    def beat(self) -> None:
        """Nothing to print."""


def _line_of(record: CycleRecord, snapshot: LoopSnapshot) -> dict[str, Any]:
    whole = record.as_dict()
    return {key: whole[key] for key in _KEYS} | {
        "success_count": snapshot.success_count,
        "failure_count": snapshot.failure_count,
    }
