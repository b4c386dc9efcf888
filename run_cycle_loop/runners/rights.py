"""What must be allowed before a cycle makes anything on a cluster: nothing is started that could not be ended."""

from dataclasses import dataclass

from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.kinds import Kind
from run_cycle_loop.model.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that has to be allowed."""

    verb: str
    kind: Kind
    subresource: str = ""

    def __str__(self) -> str:
        plural, _, group = self.kind.resource.partition(".")
        resource = f"{plural}/{self.subresource}" if self.subresource else plural
        return f'"{self.verb}" on "{resource}{f".{group}" if group else ""}"'


FOR_JOBS = (
    Right("create", kinds.JOB),
    Right("list", kinds.JOB),
    Right("watch", kinds.JOB),
    Right("delete", kinds.JOB),
    Right("list", kinds.POD),
    Right("watch", kinds.POD),
)
FOR_RUNS = (
    Right("create", kinds.AGENT_RUN),
    Right("watch", kinds.AGENT_RUN),
    Right("patch", kinds.AGENT_RUN, "status"),
    Right("list", kinds.JOB),
    Right("delete", kinds.JOB),
    Right("list", kinds.POD),
)


def require(cluster: Cluster, namespace: str, rights: tuple[Right, ...]) -> None:
    """See that all of it is allowed; where the server does not say, it is taken for allowed.

    Raises:
        ConfigError: something is not.
        KubernetesError: the cluster does not answer.
    """
    for right in rights:
        if cluster.allowed(right.verb, right.kind, namespace, subresource=right.subresource) is False:
            raise ConfigError(
                f"a cycle may not be started that could not be followed and ended: let a Role allow {right} "
                f"in namespace {namespace}"
            )
