"""The state machine of a workflow run: what it is asked to do next, given what is known and what was seen.

Pure: the same arguments give the same answer. The engine on this machine executes its actions as processes, a
controller on a cluster as Jobs. One call is one pass over the steps in their order, and starts at most one attempt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.control import MISSING, Control
from run_cycle_loop.agentrun.model import AgentRun, Loop, LoopCondition, Step
from run_cycle_loop.agentrun.status import (
    IterationStatus,
    JobRef,
    LoopStatus,
    LoopStop,
    Phase,
    RunStatus,
    StepStatus,
    moment,
    stamp,
)
from run_cycle_loop.policies.expressions import Expression, ExpressionError, SyntaxFault

HISTORY_LIMIT = 50  #: iterations that a status keeps for each step
CONTINUING = "Loop continuing"


class JobState(StrEnum):
    """What a Job, or an attempt on this machine, is doing."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservedJob:
    """What was seen of one attempt."""

    state: JobState
    uid: str = ""
    started_at: str = ""  #: the Job's own times; empty where it has none
    finished_at: str = ""
    reason: str = ""  #: why it failed, in the Job's words
    message: str = ""
    is_retryable: bool = True  #: false where another attempt would meet the same: a login refused, a quota used up
    control: Control = MISSING  #: what it left for the loop's condition
    missing_config_maps: tuple[str, ...] = ()  #: what it mounts and is not there


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a step's next attempt cannot be made."""

    reason: str
    message: str
    condition: str = "Failed"  #: the type of the condition that says so


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What is known when a pass begins."""

    now: datetime
    jobs: Mapping[str, ObservedJob] = field(default_factory=dict)  #: by name; what is not here does not exist
    refusals: Mapping[int, Refusal] = field(default_factory=dict)  #: by a step's index


@dataclass(frozen=True, kw_only=True, slots=True)
class StartAttempt:
    """Make the attempt of that name, unless it is there already."""

    step: Step
    iteration: int | None  #: None outside of loops
    attempt: int
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StopAttempt:
    """End an attempt that its successor must not run beside. A cluster's controller does not do this."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LookAgain:
    """Nothing happens by itself before this moment, but something does then."""

    at: datetime
    why: str


Action = StartAttempt | StopAttempt | LookAgain


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciled:
    """What a pass came to."""

    actions: tuple[Action, ...]
    status: RunStatus


def reconcile(
    run: AgentRun, status: RunStatus, observed: Observed, *, history_limit: int = HISTORY_LIMIT
) -> Reconciled:
    """One pass: the next status, and what is to be done for it.

    A status that is final is returned as it is. ``StartAttempt`` may be executed before or after the status is written:
    names are deterministic, and an attempt that is there already is taken as it is.
    """
    if status.is_final:
        return Reconciled(actions=(), status=status)
    return _Pass(run, observed, history_limit).over(_prepared(run, status, stamp(observed.now)))


def refuse(run: AgentRun, status: RunStatus, refusal: Refusal, now: datetime) -> RunStatus:
    """The status of a run that is rejected before anything starts: the reason stands in its condition alone."""
    at = stamp(now)
    failed = replace(
        status,
        phase=str(Phase.FAILED),
        observed_generation=run.generation,
        finished_at=at if run.runtime == "workflow" else status.finished_at,
        updated_at=at,
    )
    return _derived(
        failed.with_condition(refusal.condition, holds=True, reason=refusal.reason, message=refusal.message, at=at),
        at,
        refusal.reason,
    )


def cancel(status: RunStatus, now: datetime, *, reason: str, message: str) -> RunStatus:
    """The status of a run that somebody ended: the step and the iteration that were on their way say so as well."""
    if status.is_final:
        return status
    at = stamp(now)
    steps = tuple(_cancelled(step, at, message) for step in status.steps)
    ended = replace(
        status,
        phase=str(Phase.CANCELLED),
        reason=reason,
        message=message,
        finished_at=at,
        updated_at=at,
        workflow_phase=str(Phase.FAILED) if status.workflow_phase else "",
        workflow_transition_at=at if status.workflow_phase else "",
        steps=steps,
    )
    return _derived(ended.with_condition("Cancelled", holds=True, reason=reason, message=message, at=at), at, reason)


def _cancelled(step: StepStatus, at: str, message: str) -> StepStatus:
    """A step that was not over; a loop that had begun ends with LoopCancelled."""
    if step.phase.is_final:
        return step
    loop = step.loop
    if loop is not None and loop.iterations:
        iterations = tuple(
            one if one.phase.is_final else replace(one, phase=Phase.CANCELLED, finished_at=at, message=message)
            for one in loop.iterations
        )
        loop = replace(loop, stop=str(LoopStop.CANCELLED), iterations=iterations)
    if step.phase is Phase.PENDING and not (loop and loop.iterations):
        return step
    return replace(
        step, phase=Phase.FAILED, finished_at=at, transition_at=at, message=message, next_retry_at="", loop=loop
    )


def _prepared(run: AgentRun, status: RunStatus, at: str) -> RunStatus:
    """The status with one entry for each step of the spec, found by name, and the loops' limits as specified."""
    known = {one.name: one for one in status.steps}
    steps = tuple(_with_loop(step, known.get(step.name) or StepStatus(name=step.name)) for step in run.steps)
    status = replace(status, steps=steps, observed_generation=run.generation)
    if not status.started_at:
        status = replace(status, started_at=at)
    if not status.workflow_phase:
        status = replace(status, workflow_phase=str(Phase.PENDING), workflow_transition_at=at)
    return status


def _with_loop(step: Step, status: StepStatus) -> StepStatus:
    if step.loop is None:
        return status
    loop = status.loop or LoopStatus()
    return replace(status, loop=replace(loop, maximum=step.loop.max_iterations, retained=len(loop.iterations)))


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What became of one step in this pass."""

    step: StepStatus
    actions: tuple[Action, ...] = ()
    failure: Refusal | None = None  #: ends the run
    warning: Refusal | None = None
    references: Mapping[str, str] | None = None  #: the attempt that the run's runtimeRef shall name

    @property
    def lets_next_begin(self) -> bool:
        return self.step.phase is Phase.SUCCEEDED


class _Pass:
    """One pass over the steps."""

    def __init__(self, run: AgentRun, observed: Observed, history_limit: int) -> None:
        self._run = run
        self._seen = observed
        self._at = stamp(observed.now)
        self._history_limit = history_limit

    def over(self, status: RunStatus) -> Reconciled:
        actions: list[Action] = []
        for place, step in enumerate(self._run.steps):
            before = status.steps[place]
            verdict = self._step(step, before)
            actions += verdict.actions
            after = verdict.step
            if after.phase is not before.phase:
                after = replace(after, transition_at=self._at)
            status = self._with_verdict(status.with_step(place, after), verdict)
            if verdict.failure is not None:
                return Reconciled(actions=tuple(actions), status=self._failed(status, verdict.failure))
            if not verdict.lets_next_begin:
                return Reconciled(actions=tuple(actions), status=self._running(status))
        return Reconciled(actions=tuple(actions), status=self._succeeded(status))

    def _with_verdict(self, status: RunStatus, verdict: _Verdict) -> RunStatus:
        if verdict.references is not None:
            status = replace(status, runtime_ref=verdict.references)
        if verdict.warning is not None:
            status = status.with_condition(
                "Warning", holds=True, reason=verdict.warning.reason, message=verdict.warning.message, at=self._at
            )
        return status

    # One step: each phase is decided on purpose.

    def _step(self, step: Step, status: StepStatus) -> _Verdict:
        match status.phase:
            case Phase.SUCCEEDED:
                return _Verdict(status)
            case Phase.FAILED | Phase.CANCELLED:
                return self._was_failed(step, status)
            case Phase.RETRYING if (due := moment(status.next_retry_at)) is not None and self._seen.now < due:
                return _Verdict(status, (LookAgain(at=due, why=f"step {step.name} is tried again"),))
            case Phase.RUNNING:
                return self._running_step(step, status)
            case _:
                return self._launch(step, status)

    def _was_failed(self, step: Step, status: StepStatus) -> _Verdict:
        loop = status.loop
        if loop is not None and not loop.stop:
            status = replace(status, loop=replace(loop, stop=str(LoopStop.ITERATION_FAILED)))
        message = status.message or f"workflow step {step.name} failed"
        return _Verdict(status, failure=Refusal(reason="WorkflowStepFailed", message=message))

    def _launch(self, step: Step, status: StepStatus) -> _Verdict:
        attempt = status.attempt + 1
        if attempt > step.attempts:
            return self._fail(
                step, status, "WorkflowStepRetriesExhausted", f"workflow step {step.name}: no attempt is left"
            )
        refusal = self._seen.refusals.get(step.index)
        if refusal is not None:  # nothing of it has begun: the loop has neither an iteration nor a reason to stop
            failed = replace(status, phase=Phase.FAILED, finished_at=self._at, message=refusal.message)
            return _Verdict(failed, failure=refusal)
        iteration = step.iteration(status.loop.current if status.loop else 1)
        name = names.job_name(self._run.name, step.index, iteration, attempt)
        seen = self._seen.jobs.get(name)
        job = JobRef(name=name, namespace=self._run.namespace, uid=seen.uid if seen else "")
        started = replace(
            status,
            phase=Phase.RUNNING,
            attempt=attempt,
            started_at=self._at,
            finished_at="",
            next_retry_at="",
            job_observed_at="",
            job=job,
        )
        if started.loop is not None:
            started = replace(started, loop=self._begun(started.loop, attempt, job))
        action = StartAttempt(step=step, iteration=iteration, attempt=attempt, name=name)
        due = self._look_at_deadline(step, started)
        return _Verdict(started, (action, *due), references=self._reference(step, job))

    def _begun(self, loop: LoopStatus, attempt: int, job: JobRef) -> LoopStatus:
        old = loop.iteration(loop.current)
        iteration = replace(
            old or IterationStatus(index=loop.current),
            phase=Phase.RUNNING,
            attempts=attempt,
            started_at=self._at,
            finished_at="",
            message="",
            job=job,
        )
        return self._kept(replace(loop, stop=""), iteration)

    def _reference(self, step: Step, job: JobRef) -> Mapping[str, str]:
        reference = {"type": "workflow", "name": job.name, "namespace": job.namespace, "uid": job.uid}
        reference |= {"runName": self._run.name, "stepName": step.name}
        return {key: value for key, value in reference.items() if value}

    # A step that runs.

    def _running_step(self, step: Step, status: StepStatus) -> _Verdict:
        if status.job is None or not status.job.name:
            return self._fail(step, status, "WorkflowJobMissing", "Job reference missing")
        seen = self._seen.jobs.get(status.job.name)
        if seen is not None:
            status = self._with_uid(status, seen)
        if seen is not None and seen.state is not JobState.ACTIVE:  # a Job that is over has not timed out
            succeeded = seen.state is JobState.SUCCEEDED
            return self._job_succeeded(step, status, seen) if succeeded else self._job_failed(step, status, seen)
        if self._is_overdue(step, status):
            return self._timed_out(step, status, status.job.name if status.job else "")
        return self._job_missing(step, status) if seen is None else self._job_active(step, status, seen)

    def _job_active(self, step: Step, status: StepStatus, seen: ObservedJob) -> _Verdict:
        if not seen.missing_config_maps:
            return _Verdict(status, self._look_at_deadline(step, status))
        message = f"workflow step {step.name}: ConfigMap {seen.missing_config_maps[0]} is missing"
        warning = Refusal(reason="WorkflowConfigMapMissing", message=message)
        return self._retry_or_fail(step, status, "ConfigMap missing", warning)

    def _with_uid(self, status: StepStatus, seen: ObservedJob) -> StepStatus:
        """The uid is known only once the attempt exists."""
        if status.job is None or not seen.uid or status.job.uid == seen.uid:
            return status
        job = replace(status.job, uid=seen.uid)
        loop = status.loop
        iteration = loop.iteration(loop.current) if loop else None
        if loop is not None and iteration is not None and iteration.job and iteration.job.name == job.name:
            loop = self._kept(loop, replace(iteration, job=job))
        return replace(status, job=job, loop=loop)

    def _deadline(self, step: Step, status: StepStatus) -> datetime | None:
        started = moment(status.started_at)
        return started + timedelta(seconds=step.timeout) if step.timeout and started else None

    def _is_overdue(self, step: Step, status: StepStatus) -> bool:
        deadline = self._deadline(step, status)
        return deadline is not None and self._seen.now >= deadline

    def _look_at_deadline(self, step: Step, status: StepStatus) -> tuple[Action, ...]:
        deadline = self._deadline(step, status)
        return () if deadline is None else (LookAgain(at=deadline, why=f"step {step.name} times out"),)

    def _timed_out(self, step: Step, status: StepStatus, job: str) -> _Verdict:
        ended = StopAttempt(name=job, why=f"timed out after {step.timeout} s")
        verdict = self._retry_or_fail(step, status, "Step timed out", None, reason="WorkflowStepTimedOut")
        return replace(verdict, actions=(ended, *verdict.actions))

    def _job_missing(self, step: Step, status: StepStatus) -> _Verdict:
        if not status.job_observed_at:
            waiting = replace(status, job_observed_at=self._at, message="Waiting for job to be created")
            return _Verdict(waiting, self._look_at_deadline(step, status))
        job = status.job.name if status.job else ""
        warning = Refusal(reason="WorkflowJobMissing", message=f"workflow step {step.name}: Job {job} is missing")
        return self._retry_or_fail(step, status, "Job missing", warning)

    def _job_failed(self, step: Step, status: StepStatus, seen: ObservedJob) -> _Verdict:
        reason = seen.reason or "WorkflowStepFailed"
        if seen.is_retryable and status.attempt < step.attempts:
            return self._retry(step, status, f"{seen.message}; retrying" if seen.message else "Step failed; retrying")
        message = seen.message or "Step failed"
        status = self._with_times(status, seen)
        return self._fail(step, status, reason, message, told=f"workflow step {step.name}: {message}")

    def _job_succeeded(self, step: Step, status: StepStatus, seen: ObservedJob) -> _Verdict:
        status = self._with_times(status, seen)
        if step.loop is None or status.loop is None:
            return _Verdict(replace(status, phase=Phase.SUCCEEDED))
        return self._iteration_succeeded(step, step.loop, status, status.loop, seen.control)

    def _with_times(self, status: StepStatus, seen: ObservedJob) -> StepStatus:
        """The Job's own times stand; where it has none, ours."""
        times = {"started_at": seen.started_at or status.started_at, "finished_at": seen.finished_at or self._at}
        loop = status.loop
        iteration = loop.iteration(loop.current) if loop else None
        if loop is not None and iteration is not None:
            loop = self._kept(
                loop, replace(iteration, started_at=times["started_at"], finished_at=times["finished_at"])
            )
        return replace(
            status,
            started_at=times["started_at"],
            finished_at=times["finished_at"],
            next_retry_at="",
            job_observed_at=status.job_observed_at or self._at,
            loop=loop,
        )

    # A loop's iteration that succeeded.

    def _iteration_succeeded(
        self, step: Step, spec: Loop, status: StepStatus, loop: LoopStatus, control: Control
    ) -> _Verdict:
        iteration = loop.iteration(loop.current) or IterationStatus(index=loop.current, attempts=status.attempt)
        loop = replace(loop, completed=max(loop.completed, iteration.index))
        if loop.completed >= spec.max_iterations:  # looked at first: the last iteration's control is never read
            return self._loop_ends(status, loop, iteration, LoopStop.MAX_ITERATIONS)
        if spec.condition is None:
            return self._loop_goes_on(status, loop, iteration)
        if control.payload is None:
            return self._without_payload(step, spec.condition, status, loop, iteration, control)
        loop = replace(loop, last_control=control.payload)
        wanted = _is_wanted(spec.condition, loop.completed, spec.max_iterations, control.payload)
        if isinstance(wanted, str):
            return self._condition_error(step, status, loop, iteration, wanted)
        if wanted:
            return self._loop_goes_on(status, loop, iteration)
        return self._loop_ends(status, loop, iteration, LoopStop.CONDITION_FALSE)

    def _without_payload(
        self,
        step: Step,
        condition: LoopCondition,
        status: StepStatus,
        loop: LoopStatus,
        iteration: IterationStatus,
        control: Control,
    ) -> _Verdict:
        loop = replace(loop, last_control=None)
        policy = condition.on_missing if control.is_missing else condition.on_invalid
        if policy == "fail":
            message = control.fault or f"loop control payload is missing at {condition.path}"
            return self._condition_error(step, status, loop, iteration, message)
        return self._loop_ends(status, loop, iteration, LoopStop.CONDITION_FALSE)

    def _condition_error(
        self, step: Step, status: StepStatus, loop: LoopStatus, iteration: IterationStatus, message: str
    ) -> _Verdict:
        """The iteration counts as failed although its work succeeded, and nothing is tried again."""
        told = f"workflow step {step.name}: {message}"
        loop = self._kept(loop, replace(iteration, phase=Phase.FAILED, message=told))
        failed = replace(
            status, phase=Phase.FAILED, message=told, loop=replace(loop, stop=str(LoopStop.CONDITION_ERROR))
        )
        return _Verdict(failed, failure=Refusal(reason="WorkflowLoopConditionError", message=told))

    def _loop_goes_on(self, status: StepStatus, loop: LoopStatus, iteration: IterationStatus) -> _Verdict:
        loop = self._kept(loop, replace(iteration, phase=Phase.SUCCEEDED, message=""))
        waiting = replace(
            status,
            phase=Phase.PENDING,
            message=CONTINUING,
            attempt=0,
            started_at="",
            finished_at="",
            next_retry_at="",
            job_observed_at="",
            job=None,
            loop=replace(loop, current=loop.completed + 1, stop=""),
        )
        return _Verdict(waiting, (LookAgain(at=self._seen.now, why="the next iteration begins"),))

    def _loop_ends(self, status: StepStatus, loop: LoopStatus, iteration: IterationStatus, stop: LoopStop) -> _Verdict:
        loop = self._kept(loop, replace(iteration, phase=Phase.SUCCEEDED, message=str(stop)))
        return _Verdict(replace(status, phase=Phase.SUCCEEDED, loop=replace(loop, stop=str(stop))))

    def _kept(self, loop: LoopStatus, iteration: IterationStatus) -> LoopStatus:
        """The loop with this iteration in it; of too many the oldest are dropped, but never the last failed one."""
        every = sorted([one for one in loop.iterations if one.index != iteration.index] + [iteration], key=_index)
        surplus = len(every) - self._history_limit
        if surplus <= 0:
            return replace(loop, iterations=tuple(every), retained=len(every))
        dropped, kept = every[:surplus], every[surplus:]
        failed = [one for one in dropped if one.phase in (Phase.FAILED, Phase.CANCELLED)]
        if failed and not any(one.phase in (Phase.FAILED, Phase.CANCELLED) for one in kept):
            kept = sorted([failed[-1], *kept[1:]], key=_index)
        return replace(loop, iterations=tuple(kept), retained=len(kept), pruned=loop.pruned + len(dropped))

    # Endings.

    def _retry_or_fail(
        self, step: Step, status: StepStatus, message: str, warning: Refusal | None, *, reason: str = ""
    ) -> _Verdict:
        if status.attempt < step.attempts:
            verdict = self._retry(step, status, f"{message}; retrying")
        else:
            verdict = self._fail(step, status, reason or (warning.reason if warning else ""), message)
        return replace(verdict, warning=warning)

    def _retry(self, step: Step, status: StepStatus, message: str) -> _Verdict:
        due = self._seen.now + timedelta(seconds=step.retry_backoff)
        waiting = replace(status, phase=Phase.RETRYING, message=message, finished_at=self._at, next_retry_at=stamp(due))
        return _Verdict(waiting, (LookAgain(at=due, why=f"step {step.name} is tried again"),))

    def _fail(self, step: Step, status: StepStatus, reason: str, message: str, *, told: str | None = None) -> _Verdict:
        failed = replace(
            status, phase=Phase.FAILED, message=message, finished_at=status.finished_at or self._at, next_retry_at=""
        )
        if failed.loop is not None:
            iteration = failed.loop.iteration(failed.loop.current)
            loop = failed.loop
            if iteration is not None:
                over = replace(
                    iteration, phase=Phase.FAILED, message=message, finished_at=iteration.finished_at or self._at
                )
                loop = self._kept(loop, over)
            failed = replace(failed, loop=replace(loop, stop=str(LoopStop.ITERATION_FAILED)))
        told = told or (message if message.startswith("workflow step") else f"workflow step {step.name}: {message}")
        return _Verdict(failed, failure=Refusal(reason=reason, message=told))

    def _running(self, status: RunStatus) -> RunStatus:
        status = self._moved(status, Phase.RUNNING)
        status = status.with_condition("Accepted", holds=True, reason="Submitted", at=self._at)
        status = status.with_condition("InProgress", holds=True, reason="Running", at=self._at)
        return _derived(status, self._at, "Running")

    def _succeeded(self, status: RunStatus) -> RunStatus:
        status = replace(self._moved(status, Phase.SUCCEEDED), finished_at=self._at)
        return _derived(
            status.with_condition("Succeeded", holds=True, reason="Completed", at=self._at), self._at, "Completed"
        )

    def _failed(self, status: RunStatus, failure: Refusal) -> RunStatus:
        status = replace(
            self._moved(status, Phase.FAILED), finished_at=self._at, reason=failure.reason, message=failure.message
        )
        status = status.with_condition(
            failure.condition, holds=True, reason=failure.reason, message=failure.message, at=self._at
        )
        return _derived(status, self._at, failure.reason)

    def _moved(self, status: RunStatus, phase: Phase) -> RunStatus:
        moved = status.workflow_phase != phase
        return replace(
            status,
            phase=str(phase),
            workflow_phase=str(phase),
            workflow_transition_at=self._at if moved else status.workflow_transition_at,
        )


def _is_wanted(condition: LoopCondition, completed: int, limit: int, control: Mapping[str, Any]) -> bool | str:
    """Whether the condition wants another iteration; a sentence where it gave an error."""
    last = {"phase": str(Phase.SUCCEEDED), "control": control}
    try:
        expression = Expression(condition.expression, doubles=True)
        return expression.holds({"index": completed, "maxIterations": limit, "last": last})
    except SyntaxFault as fault:
        return f"failed to evaluate loop condition expression: {fault}"
    except ExpressionError as error:
        return f"loop condition {condition.expression!r}: {error}"


def _index(iteration: IterationStatus) -> int:
    return iteration.index


def _derived(status: RunStatus, at: str, reason: str) -> RunStatus:
    """The conditions that follow from the phase."""
    ended_well, ended_badly = status.phase == Phase.SUCCEEDED, status.phase in (Phase.FAILED, Phase.CANCELLED)
    status = status.with_condition("Ready", holds=ended_well, reason="Completed" if ended_well else reason, at=at)
    going = status.phase == Phase.RUNNING
    status = status.with_condition("Progressing", holds=going, reason="Running", at=at)
    status = status.with_condition("Degraded", holds=ended_badly, reason=reason if ended_badly else "Degraded", at=at)
    return status.with_condition("Blocked", holds=False, reason="NotBlocked", at=at)
