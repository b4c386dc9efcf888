"""A snapshot and a record to start from."""

from collections.abc import Callable
from typing import Any

import pytest

from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.records import CycleRecord, RunningCycle
from run_cycle_loop.model.snapshots import LoopSnapshot


@pytest.fixture
def snapshot() -> Callable[..., LoopSnapshot]:
    def make(state: LoopState = LoopState.WAITING, **changes: Any) -> LoopSnapshot:
        return LoopSnapshot(state=state, updated_at="2026-01-02T12:00:00.000Z", **changes)

    return make


@pytest.fixture
def record() -> Callable[..., CycleRecord]:
    def make(status: Outcome = Outcome.SUCCESS, **changes: Any) -> CycleRecord:
        known: dict[str, Any] = {
            "timestamp": "2026-01-02T12:00:03.000Z",
            "mode": "experimental",
            "goal": "plan",
            "status": status,
            "prerequisites_ok": True,
            "return_code": 0,
            "duration_seconds": 0.2,
            "archive_created": None,
            "archive_path": None,
            "log_path": "/logs/3.log",
            "number": 3,
            "cycle_id": "c3",
            "started_at": "2026-01-02T12:00:00.000Z",
            "finished_at": "2026-01-02T12:00:02.000Z",
            "output_bytes": 512,
        }
        return CycleRecord(**known | changes)

    return make


@pytest.fixture
def in_flight() -> RunningCycle:
    return RunningCycle(
        cycle_id="c4",
        number=4,
        mode="experimental",
        goal="plan",
        started_at="2026-01-02T12:05:00.000Z",
        boot_id="boot",
        log_path=None,
        supervisor_pid=1,
    )
