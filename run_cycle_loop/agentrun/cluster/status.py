"""One look at a run."""

from dataclasses import replace

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.existing import existing_run
from run_cycle_loop.agentrun.looking.objects import Object
from run_cycle_loop.agentrun.looking.progress import Hint, Progress, progress
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Forbidden
from run_cycle_loop.model.ports import Clock


def look(cluster: Cluster, name: str, namespace: str, *, clock: Clock) -> Progress:
    """How far a run is now. What may not be read of its Jobs and pods is said in a hint.

    Raises:
        NotFound: There is no such run.
        KubernetesError: The cluster refuses, or does not answer.
    """
    body = existing_run(cluster, name, namespace)
    hints: list[Hint] = []
    jobs = _listed(cluster, kinds.JOB, name, namespace, hints)
    pods = _listed(cluster, kinds.POD, name, namespace, hints)
    seen = progress(body, jobs, pods, clock.now())
    return replace(seen, hints=(*seen.hints, *hints))


def _listed(cluster: Cluster, kind: kinds.Kind, name: str, namespace: str, hints: list[Hint]) -> tuple[Object, ...]:
    try:
        return tuple(cluster.list(kind, namespace, {names.LABEL_RUN: name}).items)
    except Forbidden as error:
        hints.append(Hint(reason="NotAllowed", message=str(error)))
        return ()
