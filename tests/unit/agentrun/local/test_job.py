"""The runtime without steps: one attempt, and the phase that follows from it."""

from typing import Any

import pytest

from run_cycle_loop.agentrun.lifecycle.actions import StartAttempt
from run_cycle_loop.agentrun.lifecycle.observed import JobState, Observed, ObservedJob
from run_cycle_loop.agentrun.lifecycle.status import RunStatus
from run_cycle_loop.agentrun.local.job import reconcile_job
from run_cycle_loop.agentrun.model import AgentRun
from run_cycle_loop.testing import NOON

RUN = AgentRun(name="demo", namespace="agents", runtime="job", generation=3)
FINISHED = "2026-01-02T12:05:00.000Z"


def conditions(status: RunStatus) -> dict[str, str]:
    return {str(one["type"]): str(one["status"]) for one in status.conditions}


def after(job: ObservedJob | None, status: RunStatus | None = None, **how: Any) -> Any:
    jobs = {} if job is None else {"demo-job": job}
    return reconcile_job(RUN, status or RunStatus(), Observed(now=NOON, jobs=jobs), **how)


def test_its_one_attempt_is_begun_once() -> None:
    first = after(None)
    assert [(type(one), one.name) for one in first.actions] == [(StartAttempt, "demo-job")]
    assert (first.status.phase, first.status.observed_generation) == ("Running", 3)
    assert first.status.runtime_ref == {"type": "job", "name": "demo-job", "namespace": "agents"}
    going = after(ObservedJob(state=JobState.ACTIVE), first.status)
    assert (going.actions, going.status) == ((), first.status)


@pytest.mark.parametrize(
    ("job", "cancelled", "phase", "reason"),
    [
        (ObservedJob(state=JobState.SUCCEEDED, finished_at=FINISHED), False, "Succeeded", ""),
        (ObservedJob(state=JobState.FAILED, finished_at=FINISHED, reason="R", message="M"), False, "Failed", "R"),
        (
            ObservedJob(state=JobState.FAILED, finished_at=FINISHED, reason="R", message="M"),
            True,
            "Cancelled",
            "RunnerCancelled",
        ),
    ],
)
def test_the_run_ends_as_its_attempt_did(job: ObservedJob, cancelled: bool, phase: str, reason: str) -> None:
    status = after(job, after(None).status, cancelled=cancelled).status
    assert (status.phase, status.reason, status.finished_at) == (phase, reason, FINISHED)
    found = conditions(status)
    assert found[phase] == "True"
    assert (found["Ready"], found["Degraded"]) == (("True", "False") if phase == "Succeeded" else ("False", "True"))
    assert after(None, status).status == status
