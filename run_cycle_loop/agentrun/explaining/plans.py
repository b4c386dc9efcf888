"""How a step will go: how often it is done, what may end it sooner, and what its Jobs are called."""

from dataclasses import dataclass
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.model import AgentRun, Step

_SHOWN = 3  #: names that are written out


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of one step."""

    kind: str  #: ``once``, ``fixed loop``, ``conditional loop``, or ``none`` where the runtime makes no Job
    iterations: int  #: at most
    attempts: int  #: at most, of each iteration
    backoff: int  #: seconds before each further attempt, at least
    timeout: int  #: seconds of each attempt; 0 for none
    expression: str = ""  #: of a conditional loop
    path: str = ""  #: of its control file
    on_missing: str = ""
    on_invalid: str = ""
    state_required: bool = False
    state_volumes: tuple[str, ...] = ()
    first_jobs: tuple[str, ...] = ()  #: of the first iterations, or of the first attempts
    pattern: str = ""  #: what the other Jobs are called
    hashed: bool = False  #: whether at least one name is too long, and ends in digits of its hash

    @property
    def jobs(self) -> int:
        """The most Jobs that it can come to."""
        return self.iterations * self.attempts

    @property
    def longest(self) -> int | None:
        """Seconds that it can take at most, if whoever watches the clock is on time; None without a timeout."""
        if not self.timeout:
            return None
        return self.iterations * (self.attempts * self.timeout + (self.attempts - 1) * self.backoff)

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        condition = {
            "expression": self.expression,
            "path": self.path,
            "onMissing": self.on_missing,
            "onInvalid": self.on_invalid,
        }
        return {
            "kind": self.kind,
            "iterations": self.iterations,
            "attemptsPerIteration": self.attempts,
            "retryBackoffSeconds": self.backoff,
            "timeoutSeconds": self.timeout or None,
            "condition": condition if self.kind == "conditional loop" else None,
            "stateRequired": self.state_required,
            "stateVolumes": list(self.state_volumes),
            "worstCase": {"jobs": self.jobs, "seconds": self.longest},
            "firstJobs": list(self.first_jobs),
            "jobNamePattern": self.pattern,
            "hashedJobNames": self.hashed,
        }


def plan_of(run: AgentRun, step: Step | None) -> Plan:
    """The plan of a step; ``step`` is None for the one Job of a run without steps, which is never tried again."""
    if step is None and run.runtime != "job":
        return Plan(kind="none", iterations=0, attempts=0, backoff=0, timeout=0)
    if step is None:
        name = names.object_name(f"{run.name}-job")
        hashed = name != f"{run.name}-job"
        return Plan(
            kind="once", iterations=1, attempts=1, backoff=0, timeout=0, first_jobs=(name,), pattern=name, hashed=hashed
        )
    loop, condition = step.loop, step.loop.condition if step.loop else None
    most = loop.max_iterations if loop else 1
    longest = f"{run.name}-{names.attempt_suffix(step.index, step.iteration(most), step.attempts)}"
    middle = "iter-<iteration>-" if loop else ""
    return Plan(
        kind="once" if loop is None else "fixed loop" if condition is None else "conditional loop",
        iterations=most,
        attempts=step.attempts,
        backoff=step.retry_backoff,
        timeout=step.timeout,
        expression=condition.expression if condition else "",
        path=condition.path if condition else "",
        on_missing=condition.on_missing if condition else "",
        on_invalid=condition.on_invalid if condition else "",
        state_required=loop.state_required if loop else False,
        state_volumes=loop.state_volumes if loop else (),
        first_jobs=_first_jobs(run, step),
        pattern=f"{run.name}-step-{step.index}-{middle}attempt-<attempt>",
        hashed=len(longest) > names.NAME_LIMIT,
    )


def _first_jobs(run: AgentRun, step: Step) -> tuple[str, ...]:
    if step.loop is None:
        attempts = range(1, min(step.attempts, _SHOWN) + 1)
        return tuple(names.job_name(run.name, step.index, None, attempt) for attempt in attempts)
    iterations = range(1, min(step.loop.max_iterations, _SHOWN) + 1)
    return tuple(names.job_name(run.name, step.index, iteration, 1) for iteration in iterations)
