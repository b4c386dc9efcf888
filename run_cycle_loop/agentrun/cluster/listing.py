"""All runs of a namespace."""

from run_cycle_loop.agentrun.looking.objects import created_at, name_of
from run_cycle_loop.agentrun.looking.rows import RunRow, row
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.model.ports import Clock


def runs(cluster: Cluster, namespace: str, *, clock: Clock) -> tuple[RunRow, ...]:
    """The runs of a namespace, the newest first; ``*`` stands for all namespaces.

    Raises:
        KubernetesError: The cluster refuses, or does not answer.
    """
    items = cluster.list(kinds.AGENT_RUN, namespace).items
    ordered = sorted(items, key=lambda one: (created_at(one), name_of(one)), reverse=True)
    return tuple(row(one, clock.now()) for one in ordered)
