"""What an attempt left, read as a cluster's controller would see its Job."""

import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.lifecycle import failures
from run_cycle_loop.agentrun.lifecycle.control import MISSING, Control
from run_cycle_loop.agentrun.lifecycle.observed import JobState, ObservedJob
from run_cycle_loop.agentrun.lifecycle.status import moment
from run_cycle_loop.kit import files
from run_cycle_loop.model.runs import AttemptRecord

LOST = "AttemptLost"
NOT_STARTED = "AttemptNotStarted"
FAILED = "BackoffLimitExceeded"  #: a Job's own word for an attempt that failed
JOB_MESSAGE = "Job has reached the specified backoff limit"
CANCELLED = "cancelled"  #: a runner's word for an attempt that was ended from outside

_STATUS = 1 << 20  #: bytes of a runner's status
_TAIL = 256 << 10  #: bytes of a log's end in which lines are looked at
_ERROR = 500  #: characters of a runner's sentence


def runner_status(folder: Path) -> Mapping[str, Any] | None:
    """What the runner said at its end; None where it said nothing that can be read."""
    try:
        value = json.loads(files.read_bounded(folder / ".agent" / "status.json", _STATUS))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("status"), str) else None


def exit_code_in(status: Mapping[str, Any]) -> int:
    """The exit code that a runner told; a status without one is a failure."""
    code = status.get("exitCode")
    return code if isinstance(code, int) and not isinstance(code, bool) else 1


def finished(
    record: AttemptRecord, code: int, status: Mapping[str, Any] | None, at: str, *, provider_failures: bool
) -> AttemptRecord:
    """The attempt with its end: its exit code decides, and what was printed says why."""
    told = status or {}
    ended_at = told.get("finishedAt")
    record = replace(
        record, exit_code=code, finished_at=ended_at if isinstance(ended_at, str) and moment(ended_at) else at
    )
    if code == 0:
        return record
    if provider_failures:
        found = failures.provider_failure(_last_lines(Path(record.folder)))
        if found is not None:
            return replace(record, reason=found.reason, message=found.message)
    error = told.get("error")
    words = " ".join(error.split())[:_ERROR] if isinstance(error, str) else ""
    return replace(record, reason=FAILED, message=words or f"attempt {record.name} ended with exit code {code}")


def observed(record: AttemptRecord, control: Control = MISSING, *, strict: bool = False) -> ObservedJob:
    """The attempt as ``reconcile`` takes it."""
    if not record.finished_at:
        return ObservedJob(state=JobState.ACTIVE)
    if record.exit_code == 0:
        return ObservedJob(
            state=JobState.SUCCEEDED, started_at=record.started_at, finished_at=record.finished_at, control=control
        )
    own = strict and record.reason == FAILED
    return ObservedJob(
        state=JobState.FAILED,
        started_at=record.started_at,
        finished_at=record.finished_at,
        reason=record.reason,
        message=JOB_MESSAGE if own else record.message,
        is_retryable=record.reason not in (failures.AUTH, failures.CAPACITY, LOST),
    )


def _last_lines(folder: Path) -> list[str]:
    """The ends of both logs of an attempt: what its workload printed, and what the runner did."""
    lines: deque[str] = deque(maxlen=failures.LINES)
    for name in (folder / "attempt.log", folder / ".agent" / "runner.log"):
        lines.extend(_tail(name))
    return list(lines)


def _tail(path: Path) -> list[str]:
    try:
        descriptor = files.open_regular(path, os.O_RDONLY)
    except OSError:
        return []
    try:
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    finally:
        os.close(descriptor)
    return data.decode("utf-8", "replace").splitlines()[-failures.LINES :]
