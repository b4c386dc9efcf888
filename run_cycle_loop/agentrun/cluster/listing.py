"""All runs of a namespace, one row each."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from run_cycle_loop.agentrun.cluster.objects import Object, created_at, is_being_deleted, name_of, seconds_between, text
from run_cycle_loop.agentrun.cluster.outcomes import Result
from run_cycle_loop.agentrun.cluster.progress import Waiting, progress
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.model.ports import Clock


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


def runs(cluster: Cluster, namespace: str, *, clock: Clock) -> tuple[RunRow, ...]:
    """The runs of a namespace, the newest first; ``*`` stands for all namespaces.

    Raises:
        KubernetesError: The cluster refuses, or does not answer.
    """
    items = cluster.list(kinds.AGENT_RUN, namespace).items
    ordered = sorted(items, key=lambda one: (created_at(one), name_of(one)), reverse=True)
    return tuple(_row(one, clock.now()) for one in ordered)


def _row(body: Object, now: datetime) -> RunRow:
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
