"""What a look at a run comes to: the next status, and what is to be done for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus, StepStatus
from run_cycle_loop.agentrun.model import Step


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one step in this pass."""

    step: StepStatus
    actions: tuple[Action, ...] = ()
    failure: Refusal | None = None  #: ends the run
    warning: Refusal | None = None
    references: Mapping[str, str] | None = None  #: the attempt that the run's runtimeRef shall name

    @property
    def lets_next_begin(self) -> bool:
        """Whether the next step is looked at in the same pass."""
        return self.step.phase is Phase.SUCCEEDED
