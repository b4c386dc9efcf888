"""One step of a workflow at one moment: started, waited for, tried again, or over."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.lifecycle.actions import Action, LookAgain, StartAttempt, StopAttempt, Verdict
from run_cycle_loop.agentrun.lifecycle.loops import after_iteration, kept
from run_cycle_loop.agentrun.lifecycle.observed import JobState, Observed, ObservedJob, Refusal
from run_cycle_loop.agentrun.lifecycle.status import (
    IterationStatus,
    JobRef,
    LoopStatus,
    LoopStop,
    Phase,
    StepStatus,
    moment,
    stamp,
)
from run_cycle_loop.agentrun.model import AgentRun, Step


class Steps:
    """The steps of a run, looked at in one pass.

    Args:
        run: the run.
        observed: what is known.
        history_limit: iterations that a status keeps for each step.
    """

    def __init__(self, run: AgentRun, observed: Observed, history_limit: int) -> None:
        self._run = run
        self._seen = observed
        self._at = stamp(observed.now)
        self._history_limit = history_limit

    def look(self, step: Step, status: StepStatus) -> Verdict:
        """What becomes of a step now; each phase is decided on purpose."""
        match status.phase:
            case Phase.SUCCEEDED:
                return Verdict(status)
            case Phase.FAILED | Phase.CANCELLED:
                return self._was_failed(step, status)
            case Phase.RETRYING if (due := moment(status.next_retry_at)) is not None and self._seen.now < due:
                return Verdict(status, (LookAgain(at=due, why=f"step {step.name} is tried again"),))
            case Phase.RUNNING:
                return self._running_step(step, status)
            case _:
                return self._launch(step, status)

    def _was_failed(self, step: Step, status: StepStatus) -> Verdict:
        loop = status.loop
        if loop is not None and not loop.stop:
            status = replace(status, loop=replace(loop, stop=str(LoopStop.ITERATION_FAILED)))
        message = status.message or f"workflow step {step.name} failed"
        return Verdict(status, failure=Refusal(reason="WorkflowStepFailed", message=message))

    def _launch(self, step: Step, status: StepStatus) -> Verdict:
        attempt = status.attempt + 1
        if attempt > step.attempts:
            return self._fail(
                step, status, "WorkflowStepRetriesExhausted", f"workflow step {step.name}: no attempt is left"
            )
        refusal = self._seen.refusals.get(step.index)
        if refusal is not None:  # nothing of it has begun: the loop has neither an iteration nor a reason to stop
            failed = replace(status, phase=Phase.FAILED, finished_at=self._at, message=refusal.message)
            return Verdict(failed, failure=refusal)
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
        return Verdict(started, (action, *due), references=self._reference(step, job))

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

    def _running_step(self, step: Step, status: StepStatus) -> Verdict:
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

    def _job_active(self, step: Step, status: StepStatus, seen: ObservedJob) -> Verdict:
        if not seen.missing_config_maps:
            return Verdict(status, self._look_at_deadline(step, status))
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

    def _timed_out(self, step: Step, status: StepStatus, job: str) -> Verdict:
        ended = StopAttempt(name=job, why=f"timed out after {step.timeout} s")
        verdict = self._retry_or_fail(step, status, "Step timed out", None, reason="WorkflowStepTimedOut")
        return replace(verdict, actions=(ended, *verdict.actions))

    def _job_missing(self, step: Step, status: StepStatus) -> Verdict:
        if not status.job_observed_at:
            waiting = replace(status, job_observed_at=self._at, message="Waiting for job to be created")
            return Verdict(waiting, self._look_at_deadline(step, status))
        job = status.job.name if status.job else ""
        warning = Refusal(reason="WorkflowJobMissing", message=f"workflow step {step.name}: Job {job} is missing")
        return self._retry_or_fail(step, status, "Job missing", warning)

    def _job_failed(self, step: Step, status: StepStatus, seen: ObservedJob) -> Verdict:
        reason = seen.reason or "WorkflowStepFailed"
        if seen.is_retryable and status.attempt < step.attempts:
            return self._retry(step, status, f"{seen.message}; retrying" if seen.message else "Step failed; retrying")
        message = seen.message or "Step failed"
        status = self._with_times(status, seen)
        return self._fail(step, status, reason, message, told=f"workflow step {step.name}: {message}")

    def _job_succeeded(self, step: Step, status: StepStatus, seen: ObservedJob) -> Verdict:
        status = self._with_times(status, seen)
        return after_iteration(step, status, seen.control, now=self._seen.now, history_limit=self._history_limit)

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

    # Endings.

    def _retry_or_fail(
        self, step: Step, status: StepStatus, message: str, warning: Refusal | None, *, reason: str = ""
    ) -> Verdict:
        if status.attempt < step.attempts:
            verdict = self._retry(step, status, f"{message}; retrying")
        else:
            verdict = self._fail(step, status, reason or (warning.reason if warning else ""), message)
        return replace(verdict, warning=warning)

    def _retry(self, step: Step, status: StepStatus, message: str) -> Verdict:
        due = self._seen.now + timedelta(seconds=step.retry_backoff)
        waiting = replace(status, phase=Phase.RETRYING, message=message, finished_at=self._at, next_retry_at=stamp(due))
        return Verdict(waiting, (LookAgain(at=due, why=f"step {step.name} is tried again"),))

    def _fail(self, step: Step, status: StepStatus, reason: str, message: str, *, told: str | None = None) -> Verdict:
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
        return Verdict(failed, failure=Refusal(reason=reason, message=told))

    def _kept(self, loop: LoopStatus, iteration: IterationStatus) -> LoopStatus:
        return kept(loop, iteration, self._history_limit)
