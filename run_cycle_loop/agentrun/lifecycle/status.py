"""A run's status document: what the controller writes, and what the engine here writes in the same shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun.model import whole


class Phase(StrEnum):
    """Phases of runs, workflows, steps and iterations; not each of them knows all."""

    PENDING = "Pending"
    RUNNING = "Running"
    RETRYING = "Retrying"  #: steps alone
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"  #: runs and iterations
    TEMPLATE = "Template"  #: runs alone: kept to be copied

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self in _FINAL


_FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})


class LoopStop(StrEnum):
    """Why a loop ended."""

    MAX_ITERATIONS = "LoopMaxIterationsReached"
    CONDITION_FALSE = "LoopConditionFalse"
    CONDITION_ERROR = "LoopConditionError"
    ITERATION_FAILED = "LoopIterationFailed"
    CANCELLED = "LoopCancelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRef:
    """The Job of an attempt. On this machine the name stands for the attempt, and nothing else has it."""

    name: str
    namespace: str
    uid: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class IterationStatus:
    """What became of one iteration; of several attempts the last one's Job is kept."""

    index: int  #: 1-based
    phase: Phase = Phase.PENDING
    attempts: int = 0
    started_at: str = ""
    finished_at: str = ""
    message: str = ""
    job: JobRef | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopStatus:
    """How far a loop is."""

    current: int = 1
    completed: int = 0
    maximum: int = 0
    stop: str = ""  #: a LoopStop, or empty
    retained: int = 0
    pruned: int = 0
    last_control: Mapping[str, Any] | None = None
    iterations: tuple[IterationStatus, ...] = ()

    def iteration(self, index: int) -> IterationStatus | None:
        """The iteration of that number, where it is still kept."""
        return next((one for one in self.iterations if one.index == index), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepStatus:
    """How far a step is. ``message`` is sticky: a step that succeeded may still say why it once had to be retried."""

    name: str
    phase: Phase = Phase.PENDING
    attempt: int = 0
    started_at: str = ""
    finished_at: str = ""
    transition_at: str = ""
    message: str = ""
    job: JobRef | None = None
    job_observed_at: str = ""  #: when a Job that was not there was first missed
    next_retry_at: str = ""
    loop: LoopStatus | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """The whole document. What other writers put there is kept in ``rest`` and written back."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    started_at: str = ""
    finished_at: str = ""
    updated_at: str = ""
    runtime_ref: Mapping[str, Any] | None = None
    workflow_phase: str = ""
    workflow_transition_at: str = ""
    steps: tuple[StepStatus, ...] = ()
    conditions: tuple[Mapping[str, Any], ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether the run is over."""
        return self.phase in _FINAL

    @property
    def cause(self) -> tuple[str, str]:
        """The reason and the message that a person should read, looked up where different endings leave theirs."""
        if self.reason or self.message:
            return self.reason, self.message
        for kind in ("Failed", "InvalidSpec", "Duplicate", "Cancelled", "Blocked", "Warning"):
            for one in self.conditions:
                if one.get("type") == kind and one.get("status") == "True":
                    return str(one.get("reason") or ""), str(one.get("message") or "")
        return "", ""

    def condition(self, kind: str) -> Mapping[str, Any] | None:
        """The condition of that type."""
        return next((one for one in self.conditions if one.get("type") == kind), None)

    def with_condition(self, kind: str, *, holds: bool, reason: str, message: str = "", at: str) -> "RunStatus":
        """With that condition set; its time changes only where its truth does."""
        old, value = self.condition(kind), "True" if holds else "False"
        moment = old.get("lastTransitionTime") if old and old.get("status") == value else at
        new = {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": moment or at}
        others = [new if one.get("type") == kind else one for one in self.conditions]
        return replace(self, conditions=tuple(others if old else [*others, new]))

    def with_step(self, index: int, step: StepStatus) -> "RunStatus":
        """With the step of that place (from 0) replaced."""
        return replace(self, steps=(*self.steps[:index], step, *self.steps[index + 1 :]))


_RUN_KEYS = frozenset(
    ("phase", "reason", "message", "observedGeneration", "startedAt", "finishedAt", "updatedAt", "runtimeRef")
) | {"workflow", "conditions"}


def read_status(value: Any) -> RunStatus:
    """From a ``status`` object; what is of the wrong type counts as missing."""
    status = _map(value)
    workflow = _map(status.get("workflow"))
    reference = status.get("runtimeRef")
    return RunStatus(
        phase=_text(status.get("phase")),
        reason=_text(status.get("reason")),
        message=_text(status.get("message")),
        observed_generation=whole(status.get("observedGeneration")),
        started_at=_text(status.get("startedAt")),
        finished_at=_text(status.get("finishedAt")),
        updated_at=_text(status.get("updatedAt")),
        runtime_ref=reference if isinstance(reference, Mapping) else None,
        workflow_phase=_text(workflow.get("phase")),
        workflow_transition_at=_text(workflow.get("lastTransitionTime")),
        steps=tuple(_read_step(one) for one in _list(workflow.get("steps"))),
        conditions=tuple(one for one in _list(status.get("conditions")) if isinstance(one, Mapping)),
        rest={key: item for key, item in status.items() if key not in _RUN_KEYS},
    )


def write_status(status: RunStatus) -> dict[str, Any]:
    """As a ``status`` object."""
    workflow: dict[str, Any] = {}
    if status.workflow_phase or status.steps:
        workflow = _without_blanks(
            {
                "phase": status.workflow_phase,
                "lastTransitionTime": status.workflow_transition_at,
                "steps": [_write_step(one) for one in status.steps],
            }
        )
    return _without_blanks(
        {
            "phase": status.phase,
            "reason": status.reason,
            "message": status.message,
            "observedGeneration": status.observed_generation or None,
            "startedAt": status.started_at,
            "finishedAt": status.finished_at,
            "updatedAt": status.updated_at,
            "runtimeRef": dict(status.runtime_ref) if status.runtime_ref else None,
            **status.rest,
            "workflow": workflow or None,
            "conditions": [dict(one) for one in status.conditions],
        }
    )


def stamp(moment: datetime) -> str:
    """A moment as the controller writes it: UTC, milliseconds, ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime | None:
    """A moment from a status; None where there is none, or nothing that can be read as one."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _read_step(value: Any) -> StepStatus:
    one = _map(value)
    return StepStatus(
        name=_text(one.get("name")),
        phase=_phase(one.get("phase")),
        attempt=whole(one.get("attempt")),
        started_at=_text(one.get("startedAt")),
        finished_at=_text(one.get("finishedAt")),
        transition_at=_text(one.get("lastTransitionTime")),
        message=_text(one.get("message")),
        job=_read_job(one.get("jobRef")),
        job_observed_at=_text(one.get("jobObservedAt")),
        next_retry_at=_text(one.get("nextRetryAt")),
        loop=_read_loop(one.get("loop")),
    )


def _read_loop(value: Any) -> LoopStatus | None:
    if not isinstance(value, Mapping):
        return None
    control = value.get("lastControl")
    return LoopStatus(
        current=whole(value.get("currentIteration")) or 1,
        completed=whole(value.get("completedIterations")),
        maximum=whole(value.get("maxIterations")),
        stop=_text(value.get("stopReason")),
        retained=whole(value.get("retainedIterations")),
        pruned=whole(value.get("prunedIterations")),
        last_control=control if isinstance(control, Mapping) else None,
        iterations=tuple(_read_iteration(one) for one in _list(value.get("iterations"))),
    )


def _read_iteration(value: Any) -> IterationStatus:
    one = _map(value)
    return IterationStatus(
        index=whole(one.get("index")),
        phase=_phase(one.get("phase")),
        attempts=whole(one.get("attempts")),
        started_at=_text(one.get("startedAt")),
        finished_at=_text(one.get("finishedAt")),
        message=_text(one.get("message")),
        job=_read_job(one.get("jobRef")),
    )


def _read_job(value: Any) -> JobRef | None:
    one = _map(value)
    name = _text(one.get("name"))
    return JobRef(name=name, namespace=_text(one.get("namespace")), uid=_text(one.get("uid"))) if name else None


def _write_step(step: StepStatus) -> dict[str, Any]:
    return _without_blanks(
        {
            "name": step.name,
            "phase": str(step.phase),
            "attempt": step.attempt,
            "startedAt": step.started_at,
            "finishedAt": step.finished_at,
            "lastTransitionTime": step.transition_at,
            "message": step.message,
            "jobRef": _write_job(step.job),
            "jobObservedAt": step.job_observed_at,
            "nextRetryAt": step.next_retry_at,
            "loop": _write_loop(step.loop),
        }
    )


def _write_loop(loop: LoopStatus | None) -> dict[str, Any] | None:
    if loop is None:
        return None
    iterations = [
        _without_blanks(
            {
                "index": one.index,
                "phase": str(one.phase),
                "attempts": one.attempts,
                "startedAt": one.started_at,
                "finishedAt": one.finished_at,
                "message": one.message,
                "jobRef": _write_job(one.job),
            }
        )
        for one in loop.iterations
    ]
    return {
        "currentIteration": loop.current,
        "completedIterations": loop.completed,
        "maxIterations": loop.maximum,
        **({"stopReason": loop.stop} if loop.stop else {}),
        "retainedIterations": loop.retained,
        "prunedIterations": loop.pruned,
        **({"lastControl": dict(loop.last_control)} if loop.last_control is not None else {}),
        "iterations": iterations,
    }


def _write_job(job: JobRef | None) -> dict[str, Any] | None:
    return None if job is None else _without_blanks({"name": job.name, "namespace": job.namespace, "uid": job.uid})


def _without_blanks(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item is not None and item not in ("", [])}


def _phase(value: Any) -> Phase:
    try:
        return Phase(value)
    except ValueError:
        return Phase.PENDING


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []
