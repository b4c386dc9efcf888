"""What only shows when several objects are looked at together: order, names used twice, branches and claims shared."""

from collections.abc import Iterable, Iterator

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.subject import items, mapping, shown, text
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.agentrun.names import object_name
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.metadata import event_of

Pair = tuple[Document, Finding]
_SINGLE = ("ReadWriteOnce", "ReadWriteOncePod")


def bundle_lints(bundle: Bundle, profile: Profile) -> Iterator[Pair]:
    """Findings with the documents they belong to."""
    runs = [(document, read_run(document.body)) for document in bundle.runs]
    yield from _twice(bundle.documents)
    yield from _order(bundle, runs)
    yield from _shared_branches(runs, profile)
    yield from _shared_claims(bundle, runs)
    yield from _same_jobs(runs)


def _twice(documents: Iterable[Document]) -> Iterator[Pair]:
    seen: dict[tuple[str, str, str, str], Document] = {}
    for document in documents:
        same = (document.group, document.kind, document.namespace, document.name)
        if document.name and same in seen:
            first = seen[same]
            message = f"{document.where} stands already in {first.file}:{first.line}; the last one stands"
            yield (
                document,
                _finding(document, Severity.WARNING, "ObjectTwice", "metadata.name", message, "remove or rename one"),
            )
        seen[same] = document


def _order(bundle: Bundle, runs: list[tuple[Document, AgentRun]]) -> Iterator[Pair]:
    """Applied in this order, a run that comes first is refused for good; in another namespace, always."""
    places = {id(document): number for number, document in enumerate(bundle.documents)}
    for document, run in runs:
        for kind, name, path in (
            ("Agent", run.agent, "spec.agentRef.name"),
            ("ImplementationSpec", run.implementation_ref, "spec.implementationSpecRef.name"),
        ):
            found = bundle.find(kind, name, document.namespace) if name else None
            if found is not None and places[id(found)] > places[id(document)]:
                message = (
                    f"{found.where} comes after the run: applied in this order, the run fails at once and for good"
                )
                cure = "move the run to the end"
                yield document, _finding(document, Severity.WARNING, "RunBeforeItsObjects", path, message, cure)
            elsewhere = [one for one in bundle.documents if (one.kind, one.name) == (kind, name)]
            if name and found is None and elsewhere:
                message = f"{kind} {name} is in namespace {elsewhere[0].namespace}, and the run in {document.namespace}"
                cure = "put both into one namespace"
                yield document, _finding(document, Severity.ERROR, "OtherNamespace", path, message, cure)


def _shared_branches(runs: list[tuple[Document, AgentRun]], profile: Profile) -> Iterator[Pair]:
    seen: dict[tuple[str, str, str], Document] = {}
    for document, run in runs:
        metadata = event_of({}, run.parameters, profile).metadata
        repository, head = metadata.get("repository", "").lower(), metadata.get("head", "")
        if not repository or not head or run.vcs_mode != "read-write":
            continue
        first = seen.setdefault((document.namespace, repository, head), document)
        if first is not document and first.name != document.name:
            message = (
                f"{first.where} writes to {shown(head)} of {repository} as well: workflows share it without a word"
            )
            path = "spec.parameters.head"
            yield (
                document,
                _finding(document, Severity.WARNING, "HeadShared", path, message, "name a branch of its own"),
            )


def _shared_claims(bundle: Bundle, runs: list[tuple[Document, AgentRun]]) -> Iterator[Pair]:
    seen: dict[tuple[str, str], Document] = {}
    for document, run in runs:
        workloads = [one for one in (run.workload, *(step.workload for step in run.steps)) if one is not None]
        claims = dict.fromkeys(volume.claim_name for one in workloads for volume in one.volumes if volume.is_persistent)
        for claim in claims:
            first = seen.setdefault((document.namespace, claim), document)
            if first is document or first.name == document.name or not _is_single(bundle, claim, document.namespace):
                continue
            message = f"{first.where} mounts the claim {claim} as well, which one node can mount at a time"
            cure = "give each run a claim of its own, or start them one after the other"
            yield document, _finding(document, Severity.WARNING, "ClaimShared", "spec.workload.volumes", message, cure)


def _is_single(bundle: Bundle, claim: str, namespace: str) -> bool:
    found = bundle.find("PersistentVolumeClaim", claim, namespace)
    modes = items(mapping(found.body.get("spec")).get("accessModes")) if found is not None else []
    return bool(modes) and all(text(mode) in _SINGLE for mode in modes)


def _same_jobs(runs: list[tuple[Document, AgentRun]]) -> Iterator[Pair]:
    seen: dict[tuple[str, str], Document] = {}
    for document, run in runs:
        if not run.name:
            continue
        first = seen.setdefault((document.namespace, object_name(run.name)), document)
        if first.name != document.name:
            message = f"{first.where} and {document.where} would have Jobs of the same names"
            yield (
                document,
                _finding(document, Severity.ERROR, "JobNamesCollide", "metadata.name", message, "rename one of them"),
            )


def _finding(document: Document, severity: Severity, reason: str, path: str, message: str, cure: str) -> Finding:
    return Finding(
        severity=severity,
        source=Source.LINT,
        reason=reason,
        where=document.where,
        path=path,
        message=message,
        cure=cure,
    )
