"""A touch that wakes the controller: it has no timers, and looks at a run when the run, or a Job of it, changes."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from run_cycle_loop.agentrun.cluster.existing import existing_run
from run_cycle_loop.agentrun.lifecycle.status import moment, stamp
from run_cycle_loop.agentrun.looking.objects import annotations_of, uid_of
from run_cycle_loop.agentrun.looking.outcomes import result_of
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.model.ports import Clock

ANNOTATION = "run-cycle-loop/nudged-at"
APART = 30.0  #: seconds between two touches of one run, whoever makes them


@dataclass(frozen=True, kw_only=True, slots=True)
class Nudge:
    """What came of it."""

    is_done: bool
    message: str
    next_at: str = ""  #: before which another one is not made

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def nudge(cluster: Cluster, name: str, namespace: str, *, clock: Clock, apart: float = APART) -> Nudge:
    """Change one annotation of a run, unless that was done a moment ago.

    The time stands in the annotation itself, so that several who watch one run keep the same pace.

    Raises:
        NotFound: There is no such run.
        KubernetesError: It may not be changed, or the cluster does not answer.
    """
    body = existing_run(cluster, name, namespace)
    if result_of(body) is not None:
        return Nudge(is_done=False, message="it is over, nothing is left to wake")
    now, last = clock.now(), moment(str(annotations_of(body).get(ANNOTATION) or ""))
    if last is not None and timedelta(0) <= now - last < timedelta(seconds=apart):
        due = stamp(last + timedelta(seconds=apart))
        return Nudge(is_done=False, message=f"it was nudged at {stamp(last)}", next_at=due)
    # The uid, so that another run of that name is not touched; no version, since nothing else is changed.
    patch = {"metadata": {"uid": uid_of(body), "annotations": {ANNOTATION: stamp(now)}}}
    cluster.patch(kinds.AGENT_RUN, name, patch, namespace)
    return Nudge(is_done=True, message="nudged", next_at=stamp(now + timedelta(seconds=apart)))
