"""The state machine of a workflow run: what it is asked to do next, given what is known and what was seen.

Pure: the same arguments give the same answer. The engine on this machine executes its actions as processes, a
controller on a cluster as Jobs. One call is one pass over the steps in their order, and starts at most one attempt.
"""

from dataclasses import replace
from datetime import datetime

from run_cycle_loop.agentrun.lifecycle.actions import Action, Reconciled, Verdict
from run_cycle_loop.agentrun.lifecycle.observed import Observed, Refusal
from run_cycle_loop.agentrun.lifecycle.status import LoopStatus, LoopStop, Phase, RunStatus, StepStatus, stamp
from run_cycle_loop.agentrun.lifecycle.steps import Steps
from run_cycle_loop.agentrun.model import AgentRun, Step

HISTORY_LIMIT = 50  #: iterations that a status keeps for each step


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


class _Pass:
    """One pass over the steps."""

    def __init__(self, run: AgentRun, observed: Observed, history_limit: int) -> None:
        self._run = run
        self._at = stamp(observed.now)
        self._steps = Steps(run, observed, history_limit)

    def over(self, status: RunStatus) -> Reconciled:
        actions: list[Action] = []
        for place, step in enumerate(self._run.steps):
            before = status.steps[place]
            verdict = self._steps.look(step, before)
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

    def _with_verdict(self, status: RunStatus, verdict: Verdict) -> RunStatus:
        if verdict.references is not None:
            status = replace(status, runtime_ref=verdict.references)
        if verdict.warning is not None:
            status = status.with_condition(
                "Warning", holds=True, reason=verdict.warning.reason, message=verdict.warning.message, at=self._at
            )
        return status

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


def _derived(status: RunStatus, at: str, reason: str) -> RunStatus:
    """The conditions that follow from the phase."""
    ended_well, ended_badly = status.phase == Phase.SUCCEEDED, status.phase in (Phase.FAILED, Phase.CANCELLED)
    status = status.with_condition("Ready", holds=ended_well, reason="Completed" if ended_well else reason, at=at)
    going = status.phase == Phase.RUNNING
    status = status.with_condition("Progressing", holds=going, reason="Running", at=at)
    status = status.with_condition("Degraded", holds=ended_badly, reason=reason if ended_badly else "Degraded", at=at)
    return status.with_condition("Blocked", holds=False, reason="NotBlocked", at=at)
