"""The state machine of a run without steps, runtime ``job``: one attempt, and the run's phase follows from its end."""

from dataclasses import replace
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.lifecycle.actions import Reconciled, StartAttempt
from run_cycle_loop.agentrun.lifecycle.observed import JobState, Observed
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus, stamp
from run_cycle_loop.agentrun.model import AgentRun, Step

STEP = Step(index=0, name="job")  #: what stands for a step where there is none


def job_of(run: AgentRun) -> str:
    """The name of its one Job."""
    return names.object_name(f"{run.name}-job")


def reconcile_job(run: AgentRun, status: RunStatus, observed: Observed, *, cancelled: bool = False) -> Reconciled:
    """One pass; ``cancelled`` is whether the runner says that it was ended from outside."""
    if status.is_final:
        return Reconciled(actions=(), status=status)
    at, name = stamp(observed.now), job_of(run)
    seen = observed.jobs.get(name)
    if seen is None:
        reference = {"type": "job", "name": name, "namespace": run.namespace}
        started = replace(
            status, observed_generation=run.generation, started_at=status.started_at or at, runtime_ref=reference
        )
        action = StartAttempt(step=STEP, iteration=None, attempt=1, name=name)
        return Reconciled(actions=(action,), status=_in(started, Phase.RUNNING, at))
    if seen.state is JobState.ACTIVE:
        return Reconciled(actions=(), status=_in(status, Phase.RUNNING, at))
    if seen.state is JobState.SUCCEEDED:
        return Reconciled(actions=(), status=_ended(status, Phase.SUCCEEDED, seen.finished_at or at, "Completed"))
    phase, reason = (Phase.CANCELLED, "RunnerCancelled") if cancelled else (Phase.FAILED, seen.reason)
    ended = replace(status, reason=reason, message=seen.message)
    return Reconciled(actions=(), status=_ended(ended, phase, seen.finished_at or at, reason, seen.message))


def _in(status: RunStatus, phase: Phase, at: str) -> RunStatus:
    status = replace(status, phase=str(phase))
    status = status.with_condition("Accepted", holds=True, reason="Submitted", at=at)
    status = status.with_condition("InProgress", holds=True, reason="Running", at=at)
    return _derived(status, at, "Running")


def _ended(status: RunStatus, phase: Phase, at: str, reason: str, message: str = "") -> RunStatus:
    status = replace(status, phase=str(phase), finished_at=at)
    condition: dict[str, Any] = {"holds": True, "reason": reason, "message": message, "at": at}
    return _derived(status.with_condition(str(phase), **condition), at, reason)


def _derived(status: RunStatus, at: str, reason: str) -> RunStatus:
    """The conditions that follow from the phase."""
    well, badly = status.phase == Phase.SUCCEEDED, status.phase in (Phase.FAILED, Phase.CANCELLED)
    status = status.with_condition("Ready", holds=well, reason=reason, at=at)
    status = status.with_condition("Progressing", holds=status.phase == Phase.RUNNING, reason="Running", at=at)
    status = status.with_condition("Degraded", holds=badly, reason=reason if badly else "Degraded", at=at)
    return status.with_condition("Blocked", holds=False, reason="NotBlocked", at=at)
