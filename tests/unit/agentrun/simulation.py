"""A cluster in a few lines: attempts come to the ends that a test has written down, time moves when it is told to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from run_cycle_loop.agentrun.lifecycle.actions import Action, LookAgain, StartAttempt, StopAttempt
from run_cycle_loop.agentrun.lifecycle.control import Control
from run_cycle_loop.agentrun.lifecycle.observed import JobState, Observed, ObservedJob, Refusal
from run_cycle_loop.agentrun.lifecycle.reconcile import HISTORY_LIMIT, reconcile
from run_cycle_loop.agentrun.lifecycle.status import RunStatus, read_status, write_status
from run_cycle_loop.agentrun.model import AgentRun, read_run

START = datetime(2026, 3, 1, 10, tzinfo=UTC)

Ending = ObservedJob | None  #: None: it stays active


def run_with(*steps: Mapping[str, Any], **spec: Any) -> AgentRun:
    """A workflow run called ``demo`` with these steps."""
    return read_run(
        {
            "metadata": {"name": "demo", "namespace": "agents", "generation": 1},
            "spec": {
                "agentRef": {"name": "coder"},
                "runtime": {"type": "workflow"},
                "workflow": {"steps": list(steps)},
                **spec,
            },
        }
    )


def step(name: str = "implement", *, loop: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {"name": name, **settings, **({"loop": loop} if loop else {})}


def succeeded(control: Control | Mapping[str, Any] | None = None) -> ObservedJob:
    found = Control(payload=control) if isinstance(control, Mapping) else control or Control()
    return ObservedJob(state=JobState.SUCCEEDED, control=found)


def failed(
    reason: str = "BackoffLimitExceeded", message: str = "Job has failed", *, retryable: bool = True
) -> ObservedJob:
    return ObservedJob(state=JobState.FAILED, reason=reason, message=message, is_retryable=retryable)


ACTIVE = ObservedJob(state=JobState.ACTIVE, uid="u")


@dataclass
class Simulation:
    """Reconciles a run against attempts that end as ``script`` says, by their number among all started ones, from 0."""

    run: AgentRun
    script: Callable[[int, StartAttempt], Ending]
    now: datetime = START
    status: RunStatus = field(default_factory=RunStatus)
    jobs: dict[str, ObservedJob] = field(default_factory=dict)
    started: list[StartAttempt] = field(default_factory=list)
    stopped: list[StopAttempt] = field(default_factory=list)
    refusals: dict[int, Refusal] = field(default_factory=dict)
    history_limit: int = HISTORY_LIMIT

    def pass_once(self) -> tuple[Action, ...]:
        """One pass; the status goes through JSON as it does in the product."""
        seen = Observed(now=self.now, jobs=dict(self.jobs), refusals=self.refusals)
        result = reconcile(self.run, self.status, seen, history_limit=self.history_limit)
        self.status = read_status(write_status(result.status))
        for action in result.actions:
            match action:
                case StartAttempt():
                    self.jobs[action.name] = self.script(len(self.started), action) or ACTIVE
                    self.started.append(action)
                case StopAttempt():
                    self.stopped.append(action)
                case LookAgain():
                    pass
        return result.actions

    def to_the_end(self, *, passes: int = 400) -> RunStatus:
        """Passes until the run is over; where nothing but time can help, time moves to the next moment named."""
        for _ in range(passes):
            actions = self.pass_once()
            if self.status.is_final:
                return self.status
            moments = [one.at for one in actions if isinstance(one, LookAgain)]
            if not any(isinstance(one, StartAttempt) for one in actions) and moments:
                self.now = max(self.now, min(moments))
            self.now += timedelta(milliseconds=1)
        raise AssertionError(f"the run did not end: {write_status(self.status)}")
