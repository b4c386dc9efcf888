"""What we may do on a cluster, asked before it is needed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.kinds import Kind


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that has to be allowed, and for what."""

    verb: str
    kind: Kind
    purpose: str
    subresource: str = ""
    is_needed: bool = True  #: whether nothing goes without it

    @property
    def resource(self) -> str:
        """As RBAC rules name it."""
        plural, _, group = self.kind.resource.partition(".")
        return plural + (f"/{self.subresource}" if self.subresource else "") + (f".{group}" if group else "")


_ALWAYS = (
    Right("create", kinds.AGENT_RUN, "submit"),
    Right("get", kinds.AGENT_RUN, "submit"),
    Right("list", kinds.AGENT_RUN, "see what else runs", is_needed=False),
    Right("watch", kinds.AGENT_RUN, "watch", is_needed=False),
    Right("list", kinds.JOB, "see leftovers, and watch", is_needed=False),
    Right("watch", kinds.JOB, "watch", is_needed=False),
    Right("list", kinds.POD, "watch", is_needed=False),
    Right("watch", kinds.POD, "watch", is_needed=False),
    Right("get", kinds.POD, "logs", "log", is_needed=False),
    Right("patch", kinds.AGENT_RUN, "cancel", "status", is_needed=False),
    Right("delete", kinds.JOB, "cancel", is_needed=False),
)


def rights(dependencies: Iterable[Kind]) -> tuple[Right, ...]:
    """What submitting, and what follows it, takes."""
    made = tuple(
        Right(verb, kind, f"apply the {kind.kind} of the bundle")
        for kind in dict.fromkeys(dependencies)
        for verb in ("get", "create", "patch")
    )
    return (*_ALWAYS, *made)


def permission_findings(cluster: Cluster, namespace: str, dependencies: Iterable[Kind]) -> Iterator[Finding]:
    """What is not allowed; what is needed and missing is an error, what only comes later a warning.

    Raises:
        KubernetesError: The cluster does not answer.
    """
    unknown = []
    for right in rights(dependencies):
        answer = cluster.allowed(right.verb, right.kind, namespace, subresource=right.subresource)
        if answer is None:
            unknown.append(right)
        elif not answer:
            yield _finding(
                Severity.ERROR if right.is_needed else Severity.WARNING,
                "NotAllowed",
                right,
                f"{right.verb} {right.resource} is not allowed in namespace {namespace}; to {right.purpose} takes it",
                f'let a Role allow the verb "{right.verb}" on "{right.resource}" in namespace {namespace}',
            )
    if unknown:
        told = f"whether we may {unknown[0].verb} {unknown[0].resource} the server does not say"
        more = f", and {len(unknown) - 1} others" if len(unknown) > 1 else ""
        yield _finding(
            Severity.WARNING, "PermissionUnknown", unknown[0], f"{told}{more}", "go on: a refusal leaves nothing behind"
        )


def _finding(severity: Severity, reason: str, right: Right, message: str, cure: str) -> Finding:
    return Finding(
        severity=severity,
        source=Source.API_SERVER,
        reason=reason,
        where=right.resource,
        path="",
        message=message,
        cure=cure,
    )
