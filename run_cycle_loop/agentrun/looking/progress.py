"""How far a run is: one fold over the run, its Jobs, its pods and the time, without asking anybody."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.lifecycle.failures import AUTH, CAPACITY, provider_failure
from run_cycle_loop.agentrun.lifecycle.status import LoopStop, Phase, RunStatus, StepStatus, moment, read_status
from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState, attempts
from run_cycle_loop.agentrun.looking.marks import was_edited
from run_cycle_loop.agentrun.looking.objects import (
    Object,
    annotations_of,
    created_at,
    environment,
    is_being_deleted,
    name_of,
    part,
    seconds_between,
    text,
    uid_of,
)
from run_cycle_loop.agentrun.looking.outcomes import Result, result_in
from run_cycle_loop.agentrun.model import AgentRun, read_run

UNTOUCHED_AFTER = 120.0  #: seconds; the controller's own limit for its warning
_EXPECTED_HASH = "CODEX_SYSTEM_PROMPT_EXPECTED_HASH"


class Waiting(StrEnum):
    """What is late, and that nothing on the cluster will notice by itself."""

    RETRY = "retry"
    TIMEOUT = "timeout"
    BLOCKED = "blocked"
    UNTOUCHED = "untouched"


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """Something that should have happened by now."""

    what: Waiting
    step: str = ""  #: empty: the run as a whole
    due_at: str = ""
    seconds: float  #: by which it is late
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """Something that a person should know, although nobody complains."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepProgress:
    """How far a step is."""

    name: str
    phase: str
    attempt: int
    attempts: int  #: how many one iteration may have; 0 where the spec has no such step
    message: str
    iteration: int | None  #: the current one; None outside of loops
    completed: int | None
    maximum: int | None
    stop_reason: str
    stop_detail: str  #: which of the three cases LoopConditionFalse is
    pruned: int  #: iterations that the status has dropped
    next_retry_at: str
    control: Mapping[str, Any] | None  #: the last payload that was read


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is at one moment."""

    name: str
    namespace: str
    uid: str
    at: str
    phase: str  #: empty while nobody has touched it
    workflow_phase: str
    reason: str  #: of what a person should read first
    message: str
    blocked: str  #: why it is not let in; empty where it is
    runtime: str
    agent: str
    age: float | None  #: seconds since it was made
    started_at: str
    finished_at: str
    seconds: float | None  #: it ran, or has been running
    step: str  #: the name of the step it is at
    steps: tuple[StepProgress, ...]
    attempts: tuple[Attempt, ...]
    overdue: tuple[Overdue, ...]
    hints: tuple[Hint, ...]
    result: Result | None  #: None while it is on its way
    is_being_deleted: bool

    @property
    def iteration(self) -> str:
        """``3/5`` for the loop it is in, or was last; empty without one."""
        step = next((one for one in self.steps if one.name == self.step and one.maximum), None)
        return f"{step.iteration}/{step.maximum}" if step else ""

    @property
    def active(self) -> tuple[Attempt, ...]:
        """The attempts whose Jobs still run."""
        return tuple(one for one in self.attempts if one.state in (AttemptState.ACTIVE, AttemptState.DELETING))

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "exit_code": None if self.result is None else self.result.exit_code}


def progress(
    body: Object,
    jobs: Iterable[Object],
    pods: Sequence[Object],
    now: datetime,
    *,
    printed: Mapping[str, str] | None = None,
) -> Progress:
    """How far a run is.

    Args:
        body: The AgentRun.
        jobs: The Jobs that carry its label.
        pods: The pods that carry its label.
        now: The moment.
        printed: By pod, the last lines that it printed, where somebody asked for them.
    """
    run, status, jobs = read_run(body), read_status(body.get("status")), tuple(jobs)
    rows = attempts(run, status, jobs, pods, now, printed=printed)
    reason, message = status.cause
    blocked = _blocked(status)
    if blocked is not None:
        reason, message = blocked
    return Progress(
        name=name_of(body),
        namespace=run.namespace,
        uid=uid_of(body),
        at=now.isoformat(timespec="seconds"),
        phase=status.phase,
        workflow_phase=status.workflow_phase,
        reason=reason,
        message=message,
        blocked=blocked[0] if blocked else "",
        runtime=run.runtime,
        agent=run.agent,
        age=seconds_between(created_at(body), now),
        started_at=status.started_at,
        finished_at=status.finished_at,
        seconds=seconds_between(status.started_at, status.finished_at or now),
        step=_current(status),
        steps=tuple(_step(run, one) for one in status.steps),
        attempts=rows,
        overdue=overdue(body, now),
        hints=(*_hints(body, run, status, jobs, rows), *_provider_hints(status, printed or {})),
        result=result_in(status),
        is_being_deleted=is_being_deleted(body),
    )


def ended(seen: Progress, result: Result) -> Progress:
    """The same with a result that is not the run's own: it was deleted, or nobody looks any longer."""
    return replace(seen, result=result)


def overdue(body: Object, now: datetime) -> tuple[Overdue, ...]:
    """What should have happened by now; nothing of a run that is over."""
    run, status = read_run(body), read_status(body.get("status"))
    if result_in(status) is not None or is_being_deleted(body):
        return ()
    late = [*_untouched(body, run, now), *_waiting_for_room(body, status, now)]
    known = {one.name: one for one in run.steps}
    for step in status.steps:
        spec = known.get(step.name)
        late += _late_retry(step, now)
        late += _late_timeout(step, spec.timeout if spec else 0, now)
    return tuple(late)


def is_untouched(body: Object) -> bool:
    """Whether no controller has taken it up yet."""
    status = read_status(body.get("status"))
    held = part(body, "metadata", "finalizers")
    finalizers = held if isinstance(held, list) else []
    if read_run(body).is_template or is_being_deleted(body):
        return False
    return not status.phase or not status.observed_generation or names.FINALIZER not in finalizers


def _blocked(status: RunStatus) -> tuple[str, str] | None:
    found = status.condition("Blocked")
    if status.phase != Phase.PENDING or found is None or found.get("status") != "True":
        return None
    return text(found, "reason"), text(found, "message")


def _current(status: RunStatus) -> str:
    """The first step that is not over, else the last one."""
    going = next((one.name for one in status.steps if one.phase is not Phase.SUCCEEDED), None)
    return going if going is not None else (status.steps[-1].name if status.steps else "")


def _step(run: AgentRun, step: StepStatus) -> StepProgress:
    spec = next((one for one in run.steps if one.name == step.name), None)
    loop = step.loop
    return StepProgress(
        name=step.name,
        phase=str(step.phase),
        attempt=step.attempt,
        attempts=spec.attempts if spec else 0,
        message="" if step.phase is Phase.SUCCEEDED else step.message,  # what it says then is of an earlier iteration
        iteration=loop.current if loop else None,
        completed=loop.completed if loop else None,
        maximum=loop.maximum if loop else None,
        stop_reason=loop.stop if loop else "",
        stop_detail=_stop_detail(step),
        pruned=loop.pruned if loop else 0,
        next_retry_at=step.next_retry_at,
        control=loop.last_control if loop else None,
    )


def _stop_detail(step: StepStatus) -> str:
    if step.loop is None or step.loop.stop != LoopStop.CONDITION_FALSE:
        return ""
    if step.loop.last_control is None:
        return "no control payload was found, or none that could be read"
    return "the expression is false for the last control payload"


def _untouched(body: Object, run: AgentRun, now: datetime) -> list[Overdue]:
    age = seconds_between(created_at(body), now)
    if age is None or age <= UNTOUCHED_AFTER or not is_untouched(body):
        return []
    if not names.is_label_value(run.name):
        why = f"its name has {len(run.name)} characters and is no label value: the controller cannot start it, ever"
    else:
        why = "check that the controller runs, is the leader, and watches this namespace; do not submit it again"
    return [
        Overdue(what=Waiting.UNTOUCHED, seconds=age, message=f"no controller has taken it up in {age:.0f} s: {why}")
    ]


def _waiting_for_room(body: Object, status: RunStatus, now: datetime) -> list[Overdue]:
    blocked = _blocked(status)
    if blocked is None:
        return []
    found = status.condition("Blocked") or {}
    since = text(found, "lastTransitionTime") or created_at(body)
    told = f"{blocked[0]}: nothing wakes it when there is room again, except a change of the run itself"
    return [Overdue(what=Waiting.BLOCKED, due_at=since, seconds=seconds_between(since, now) or 0.0, message=told)]


def _late_retry(step: StepStatus, now: datetime) -> list[Overdue]:
    due = moment(step.next_retry_at) if step.phase is Phase.RETRYING else None
    if due is None or now <= due:
        return []
    by = (now - due).total_seconds()
    told = f"step {step.name}: the next attempt is overdue by {by:.0f} s; the controller looks when something changes"
    return [Overdue(what=Waiting.RETRY, step=step.name, due_at=step.next_retry_at, seconds=by, message=told)]


def _late_timeout(step: StepStatus, timeout: int, now: datetime) -> list[Overdue]:
    started = moment(step.started_at) if step.phase is Phase.RUNNING and timeout else None
    due = started + timedelta(seconds=timeout) if started else None
    if due is None or now <= due:
        return []
    by = (now - due).total_seconds()
    told = f"step {step.name}: its timeout of {timeout} s is over by {by:.0f} s, and nobody has looked"
    return [Overdue(what=Waiting.TIMEOUT, step=step.name, due_at=due.isoformat(), seconds=by, message=told)]


def _hints(
    body: Object, run: AgentRun, status: RunStatus, jobs: Sequence[Object], rows: Sequence[Attempt]
) -> Iterable[Hint]:
    going = [row.job for row in rows if row.state is AttemptState.ACTIVE]
    if len(going) > 1:
        told = f"{len(going)} Jobs run beside each other on the same volumes and branch: {', '.join(going)}"
        yield Hint(reason="AttemptsOverlap", message=told)
    for row in rows:
        if row.is_stale:
            told = (
                f"Job {row.job} belongs to an earlier run of this name; its result may have been taken for this one's"
            )
            yield Hint(reason="StaleJob", message=told)
    yield from _drift(status, jobs)
    if annotations_of(body).get(names.ANNOTATION_TEMPLATE) and run.is_template:
        yield Hint(reason="Template", message="it is marked as a template and never starts")
    if was_edited(body):
        told = "its spec was changed after it was submitted: later iterations use other parameters or another workload"
        yield Hint(reason="SpecChanged", message=told)
    if is_being_deleted(body):
        yield Hint(reason="Deleting", message="its deletion was asked for and waits for the finalizer")


def _drift(status: RunStatus, jobs: Iterable[Object]) -> Iterable[Hint]:
    """The controller writes the hash once, and resolves the prompt anew for each attempt."""
    first = status.rest.get("systemPromptHash")
    for job in jobs:
        expected = environment(job).get(_EXPECTED_HASH)
        if isinstance(first, str) and first and expected and expected != first:
            told = f"Job {name_of(job)} expects system prompt {expected[:12]}, the run began with {first[:12]}"
            yield Hint(reason="PromptDrift", message=f"{told}: somebody changed it meanwhile; see verify")


def _provider_hints(status: RunStatus, printed: Mapping[str, str]) -> Iterable[Hint]:
    """Which line ended the retries: the controller takes any talk of a limit for one that was met."""
    if status.reason not in (AUTH, CAPACITY):
        return
    for pod, words in printed.items():
        found = provider_failure(words.splitlines())
        if found is not None:
            told = f"pod {pod} printed {found.line!r}: for that the controller tried no further attempt"
            yield Hint(reason=found.reason, message=told)
