"""The run that somebody names, as the cluster has it."""

from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster, Object
from run_cycle_loop.clients.kubernetes.errors import NotFound


def existing_run(cluster: Cluster, name: str, namespace: str) -> Object:
    """The AgentRun of that name.

    Raises:
        NotFound: There is none; it says where to look.
        KubernetesError: The cluster refuses, or does not answer.
    """
    body = cluster.get(kinds.AGENT_RUN, name, namespace)
    if body is None:
        raise NotFound(
            f"there is no AgentRun {name} in namespace {namespace}: "
            "run-cycle-loop agentrun list --where cluster shows those that are there"
        )
    return body
