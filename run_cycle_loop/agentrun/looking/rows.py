"""A run as one line of a list."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from run_cycle_loop.agentrun.looking.objects import Object, created_at, is_being_deleted, seconds_between, text
from run_cycle_loop.agentrun.looking.outcomes import Result
from run_cycle_loop.agentrun.looking.progress import Waiting, progress


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """One run."""

    name: str
    namespace: str
    phase: str  #: empty while nobody has touched it
    step: str
    iteration: str  #: ``3/5``; empty outside of loops
    stop_reason: str
    reason: str  #: of what a person should read first
    message: str
    agent: str
    runtime: str
    age: float | None  #: seconds
    seconds: float | None  #: it ran, or has been running
    overdue: tuple[Waiting, ...]
    result: Result | None
    is_being_deleted: bool

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def row(body: Object, now: datetime) -> RunRow:
    """The line of a run, as far as the run itself tells."""
    seen = progress(body, (), (), now)
    step = next((one for one in seen.steps if one.name == seen.step), None)
    return RunRow(
        name=seen.name,
        namespace=text(body, "metadata", "namespace"),
        phase=seen.phase,
        step=seen.step,
        iteration=seen.iteration,
        stop_reason=step.stop_reason if step else "",
        reason=seen.reason,
        message=seen.message,
        agent=seen.agent,
        runtime=seen.runtime,
        age=seconds_between(created_at(body), now),
        seconds=seen.seconds,
        overdue=tuple(one.what for one in seen.overdue),
        result=seen.result,
        is_being_deleted=is_being_deleted(body),
    )
