"""Whether the claims of a run can be mounted: bound, or bound as soon as a pod asks, and not another run's."""

from collections.abc import Iterable, Iterator

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.cluster.gathering import Gathered
from run_cycle_loop.agentrun.cluster.references import claims
from run_cycle_loop.agentrun.looking.objects import Object, is_being_deleted, name_of, part, text, uid_of
from run_cycle_loop.agentrun.looking.outcomes import result_of
from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Forbidden
from run_cycle_loop.clients.kubernetes.kinds import Kind

STORAGE_CLASS = Kind("storage.k8s.io", "v1", "StorageClass", "storageclasses", namespaced=False)
_CLAIM = "PersistentVolumeClaim"
_SHARED = "ReadWriteMany"
_ALONE = ("ReadWriteOnce", "ReadWriteOncePod")


def claim_findings(cluster: Cluster, run: AgentRun, gathered: Gathered, others: Iterable[Object]) -> Iterator[Finding]:
    """What stands in the way of each claim.

    Args:
        cluster: For the storage classes.
        run: The run.
        gathered: Its objects.
        others: The runs of its namespace.

    Raises:
        KubernetesError: The cluster does not answer.
    """
    active = [one for one in others if result_of(one) is None and uid_of(one) != run.uid and name_of(one) != run.name]
    told: set[str] = set()
    for claim, volume, path in claims(run):
        if volume.type != "pvc" or not claim or claim in told:
            continue
        told.add(claim)
        found = gathered.resources.get(_CLAIM, claim)
        if found is None:
            continue
        if (_CLAIM, claim) not in gathered.in_bundle and (finding := _binding(cluster, found, path)):
            yield finding
        modes = part(found, "spec", "accessModes")
        yield from _shared(run, claim, path, modes if isinstance(modes, list) else [], active)


def _binding(cluster: Cluster, claim: Object, path: str) -> Finding | None:
    name, phase = name_of(claim), text(claim, "status", "phase")
    if is_being_deleted(claim):
        message, cure = f"claim {name} is being deleted", "wait until it is gone, and make it anew"
        return _finding(Severity.ERROR, "ClaimDeleted", name, path, message, cure)
    if phase == "Bound":
        return None
    if phase == "Lost":
        message, cure = f"claim {name} has lost its volume", "restore the volume, or name another claim"
        return _finding(Severity.ERROR, "ClaimLost", name, path, message, cure)
    mode = _mode(cluster, text(claim, "spec", "storageClassName"))
    if mode == "WaitForFirstConsumer":
        return None
    why = f"its storage class binds {mode}" if mode else "how its storage class binds is not known"
    message = f"claim {name} is {phase or 'not looked at yet'} and not bound, {why}: the pod waits for it"
    return _finding(Severity.WARNING, "ClaimNotBound", name, path, message, f"kubectl describe pvc {name} says why")


def _mode(cluster: Cluster, storage_class: str) -> str:
    if not storage_class:
        return ""
    try:
        found = cluster.get(STORAGE_CLASS, storage_class)
    except Forbidden:
        return ""
    return text(found, "volumeBindingMode") or ("Immediate" if found is not None else "")


def _shared(run: AgentRun, claim: str, path: str, modes: list[object], active: Iterable[Object]) -> Iterator[Finding]:
    for other in active:
        theirs = read_run(other)
        if claim not in {name for name, volume, _ in claims(theirs) if volume.type == "pvc"}:
            continue
        alone = any(mode in _ALONE for mode in modes) and _SHARED not in modes
        how = "which one node at a time may write to" if alone else "which both would write to"
        message = f"claim {claim}, {how}, is in use by AgentRun {theirs.name}, which is not over"
        cure = f"wait for {theirs.name}, or give {run.name} a claim of its own"
        severity = Severity.ERROR if alone else Severity.WARNING
        yield _finding(severity, "ClaimInUse", claim, path, message, cure)


def _finding(severity: Severity, reason: str, claim: str, path: str, message: str, cure: str) -> Finding:
    return Finding(
        severity=severity,
        source=Source.LINT,
        reason=reason,
        where=f"{_CLAIM}/{claim}",
        path=path,
        message=message,
        cure=cure,
    )
