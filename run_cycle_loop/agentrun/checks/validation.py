"""Everything that can be said of manifests before anything starts, in one call: each cause once, in order."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.lints import bundle_lints, object_lints, run_lints
from run_cycle_loop.agentrun.checks.rules import controller_findings, object_findings
from run_cycle_loop.agentrun.checks.schema import is_ours, schema_findings
from run_cycle_loop.agentrun.checks.schema_metadata import core_findings
from run_cycle_loop.agentrun.checks.subject import Subject
from run_cycle_loop.agentrun.flags import UNKNOWN, ControllerFlags
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.agentrun.manifests.field_paths import parent
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Resources

_CORE = ("ConfigMap", "Secret", "PersistentVolumeClaim")
_QUIET = ("Namespace", "ServiceAccount", "Role", "RoleBinding")  #: kinds that need no word: they are no part of a run
#: API server's reasons after which nothing inside of the field is worth a word.
_WHOLE = ("FieldValueRequired", "FieldValueTypeInvalid", "UnknownField")
#: The controller's reasons about a run that come from an object it refers to, and that object's own reasons.
_FOLLOWS = {
    "InvalidContract": ("InvalidContract",),
    "MissingProvider": ("MissingProvider", "MissingProviderRef"),
    "MissingMemory": ("MissingMemory",),
}
#: Notes that are errors where nobody will look anywhere else: without these the run would be another one.
_NEEDED_HERE = ("AgentNotInBundle", "ProviderNotInBundle", "ImplementationNotInBundle", "SystemPromptNotInBundle")
_WEIGHT = {Source.API_SERVER: 0, Source.CONTROLLER: 1, Source.LINT: 2}


def validate_for_here(bundle: Bundle, *, profile: Profile, flags: ControllerFlags) -> tuple[Finding, ...]:
    """The same for a run on this machine, where what is not among the files does not exist."""

    def judged(one: Finding) -> Finding:
        if one.reason not in _NEEDED_HERE:
            return one
        return replace(one, severity=Severity.ERROR, cure="give its file with -f as well, or correct the name")

    return tuple(map(judged, validate(bundle, profile=profile, flags=flags)))


def validate(
    bundle: Bundle, *, profile: Profile, flags: ControllerFlags = UNKNOWN, resources: Resources | None = None
) -> tuple[Finding, ...]:
    """All findings about a bundle, in order of file and line.

    Args:
        bundle: what was read.
        profile: the generation of the controller.
        flags: of the controller, where somebody asked it.
        resources: of the runs' namespace, where a cluster was asked; the bundle's own are laid over them.

    Raises:
        ConfigError: a library that this takes is not installed.
    """
    found: list[Finding] = []
    for document in bundle.documents:
        known = _known(bundle, document.namespace, resources)
        here = [*_of_document(document, profile, known)]
        if document.is_ours("AgentRun"):
            subject = Subject(run=read_run(document.body), resources=known, profile=profile, flags=flags)
            refused = controller_findings(subject.run, known, profile, flags)
            here += [one for one in refused if not _follows(bundle, subject, one)]
            here += run_lints(subject)
        found += _placed(bundle, document, here)
    for document, one in bundle_lints(bundle, profile):
        found += _placed(bundle, document, [one])
    return _in_order(bundle, _once(found))


def _follows(bundle: Bundle, subject: Subject, finding: Finding) -> bool:
    """Whether the fault is that of an object in the bundle, about which it is said."""
    causes = _FOLLOWS.get(finding.reason)
    if not causes:
        return False
    run = subject.run
    refs = [run.implementation_ref, *(step.implementation_ref for step in run.steps)]
    for kind, name in (("Agent", run.agent), *(("ImplementationSpec", ref) for ref in refs)):
        document = bundle.find(kind, name, run.namespace)
        faults = object_findings(document.body, subject.resources) if document is not None else ()
        if any(one.reason in causes for one in faults):
            return True
    return False


def _known(bundle: Bundle, namespace: str, resources: Resources | None) -> Resources:
    own = bundle.resources(namespace)
    if resources is None:
        return own
    return Resources(objects={**resources.objects, **own.objects}, complete=resources.complete)


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether something would be refused, or would not do what it says."""
    return any(one.severity is Severity.ERROR for one in findings)


def _of_document(document: Document, profile: Profile, resources: Resources) -> Iterator[Finding]:
    if not document.kind or not isinstance(document.body.get("apiVersion"), str):
        missing = "kind" if not document.kind else "apiVersion"
        message = f"the object has no {missing}"
        yield _said(document, Severity.ERROR, "FieldValueRequired", missing, message, f"add {missing}")
    elif is_ours(document.body):
        yield from schema_findings(document.body, profile)
        yield from object_findings(document.body, resources)
        yield from object_lints(document.body, profile)
    elif document.kind in _CORE and not document.group:
        yield from core_findings(document.body, document.where)
    elif document.kind not in _QUIET:
        message = f"objects of kind {document.kind} were not looked at"
        yield _said(document, Severity.NOTE, "UnknownKind", "kind", message, "nothing, unless another kind was meant")


def _said(document: Document, severity: Severity, reason: str, path: str, message: str, cure: str) -> Finding:
    return Finding(
        severity=severity,
        source=Source.API_SERVER,
        reason=reason,
        where=document.where,
        path=path,
        message=message,
        cure=cure,
    )


def _placed(bundle: Bundle, document: Document, findings: Iterable[Finding]) -> Iterator[Finding]:
    """With file and line: of the document, or of another object in the bundle that a finding is about."""
    for one in findings:
        kind, _, name = one.where.partition("/")
        same = (kind, name) == (document.kind, document.name) or not name
        owner = document if same else bundle.find(kind, name, document.namespace)
        yield replace(one, file=owner.file, line=owner.line_of(one.path)) if owner is not None else one


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Each cause once: who comes first hides the others on the same field, and what is missing hides what is in it."""
    kept: list[Finding] = []
    for one in sorted(dict.fromkeys(findings), key=lambda one: _WEIGHT[one.source]):
        if not any(_hides(other, one) for other in kept):
            kept.append(one)
    return kept


def _hides(first: Finding, second: Finding) -> bool:
    if (first.where, first.file) != (second.where, second.file):
        return False
    if first.reason == second.reason and first.path == second.path:
        return first.message == second.message
    if first.source is second.source or first.severity is not Severity.ERROR:
        return False
    if first.source is Source.LINT or second.source is Source.API_SERVER:
        return False
    path = second.path
    while path and path != first.path:
        path = parent(path) if first.reason in _WHOLE else ""
    return bool(path)


def _in_order(bundle: Bundle, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    files = {name: place for place, name in enumerate(dict.fromkeys(one.file for one in bundle.documents))}
    weights = {one: place for place, one in enumerate(Severity)}
    return tuple(
        sorted(findings, key=lambda one: (files.get(one.file, len(files)), one.line, weights[one.severity], one.path))
    )
