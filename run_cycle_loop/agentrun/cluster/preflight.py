"""Everything that can be known before a run is submitted: an error stops it, what cannot be seen is said."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.validation import validate
from run_cycle_loop.agentrun.cluster.capacity import Capacity, capacity_findings, count
from run_cycle_loop.agentrun.cluster.definition import definition_findings
from run_cycle_loop.agentrun.cluster.flags import DEPLOYMENT, FlagReport, Origin, controller_flags, deployed
from run_cycle_loop.agentrun.cluster.gathering import Gathered, gather
from run_cycle_loop.agentrun.cluster.naming import is_submitted, naming_findings, proposed_name
from run_cycle_loop.agentrun.cluster.permissions import permission_findings
from run_cycle_loop.agentrun.cluster.planning import dependencies_of
from run_cycle_loop.agentrun.cluster.references import Reference
from run_cycle_loop.agentrun.cluster.storage import claim_findings
from run_cycle_loop.agentrun.looking.marks import key_of
from run_cycle_loop.agentrun.looking.objects import Object, labels_of, mapping, number
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import ALL_NAMESPACES, Cluster
from run_cycle_loop.clients.kubernetes.errors import Forbidden, KindNotServed
from run_cycle_loop.clients.kubernetes.kinds import Kind
from run_cycle_loop.model.ports import Clock

_OUTSIDE = ("Secret", "ConfigMap", "PersistentVolumeClaim")  #: what validation leaves to the cluster
_NEEDED = ("Agent", "AgentProvider", "ImplementationSpec")  #: without which a run fails at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """What was found."""

    run: str
    namespace: str
    profile: Profile
    findings: tuple[Finding, ...]
    flags: FlagReport
    capacity: Capacity | None  #: None where the runs may not be listed
    proposed_name: str  #: a free one; empty where the run's own is free
    is_submitted: bool  #: whether this very submission is there already

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops it."""
        return tuple(one for one in self.findings if one.severity is Severity.ERROR)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "run": self.run,
            "namespace": self.namespace,
            "profile": str(self.profile),
            "findings": [asdict(one) for one in self.findings],
            "flags": self.flags.as_json(),
            "capacity": self.capacity.as_json() if self.capacity else None,
            "proposed_name": self.proposed_name,
            "is_submitted": self.is_submitted,
        }


def preflight(
    cluster: Cluster,
    bundle: Bundle,
    document: Document,
    *,
    profile: Profile,
    clock: Clock,
    key: str = "",
    controller_namespace: str = "agents",
    deployment: str = DEPLOYMENT,
) -> Preflight:
    """Look at everything that a run will need on this cluster.

    Args:
        cluster: Where the run is to go.
        bundle: What it comes with.
        document: The run.
        profile: The controller's generation.
        clock: For the rates.
        key: The idempotency key; empty: the manifest's own, or one made of its content.
        controller_namespace: Where the controller is.
        deployment: What its Deployment is called.

    Raises:
        ConfigError: Two idempotency keys; a bundle with something that does not belong to a run.
        KubernetesError: The cluster does not answer. That something may not be seen is a finding instead.
    """
    look = _Look(cluster, bundle, document, profile, clock, key_of(document.body, key))
    return look.done(controller_flags(cluster, profile, namespace=controller_namespace, deployment=deployment))


class _Look:
    """One preflight."""

    def __init__(
        self, cluster: Cluster, bundle: Bundle, document: Document, profile: Profile, clock: Clock, key: str
    ) -> None:
        self._cluster, self._bundle, self._document = cluster, bundle, document
        self._profile, self._clock, self._key = profile, clock, key
        body = document.body
        metadata = {**mapping(body, "metadata"), "namespace": document.namespace}
        self._run: AgentRun = read_run({**body, "metadata": metadata})
        self._namespace = document.namespace
        self._found: list[Finding] = []

    def done(self, report: FlagReport) -> Preflight:
        dependencies = [kinds.BY_NAME[one.kind] for one in dependencies_of(self._bundle)]
        self._found += definition_findings(self._cluster, self._profile)
        self._found += permission_findings(self._cluster, self._namespace, dependencies)
        self._found += self._controller(report)
        others, leftovers = self._runs(), self._leftovers()
        gathered = gather(self._cluster, self._run, self._bundle.resources(self._namespace), report.flags)
        self._found += self._validated(report, gathered)
        submitted = others is not None and is_submitted(self._run_as_written(), self._key, others)
        counted = None
        if others is not None:
            self._found += naming_findings(self._run_as_written(), self._key, others, leftovers)
            if not submitted:
                self._found += claim_findings(self._cluster, self._run, gathered, others)
                counted = count(self._run, others, self._everywhere(), report.flags, self._clock.now())
                self._found += capacity_findings(self._run, counted, report.flags)
        taken = any(one.reason in ("NameTaken", "StaleObjects") for one in self._found)
        return Preflight(
            run=self._run.name,
            namespace=self._namespace,
            profile=self._profile,
            findings=tuple(_once(self._placed(one) for one in self._found)),
            flags=report,
            capacity=counted,
            proposed_name=proposed_name(self._run.name, others or (), leftovers) if taken else "",
            is_submitted=submitted,
        )

    def _run_as_written(self) -> AgentRun:
        return replace(self._run, body=self._document.body)

    # The controller.

    def _controller(self, report: FlagReport) -> Iterator[Finding]:
        where = f"Deployment/{report.deployment}"
        if not report.flags.known:
            message = f"the controller's flags are not known: {report.note}"
            cure = "ask who runs it whether loops are on; the run is refused at once where they are not"
            yield _finding(Severity.WARNING, "FlagsUnknown", where, message, cure)
            return
        allowed = report.flags.namespaces
        if "*" not in allowed and self._namespace not in allowed:
            message = f"the controller watches {', '.join(allowed)}, and not {self._namespace}: nobody would take it up"
            yield _finding(Severity.ERROR, "NamespaceNotWatched", where, message, f"submit it to {allowed[0]}")
        for name in ("loops_enabled", "max_iterations", "runner_image"):
            row = report.row(name)
            if row.origin is Origin.REFERENCE:
                message = f"{row.variable} is {row.note}, which was not looked at"
                yield _finding(Severity.WARNING, "FlagsUnknown", where, message, "look there what it says")
        if report.sources:
            message = f"more variables come from {', '.join(report.sources)}, which was not looked at"
            yield _finding(Severity.WARNING, "FlagsUnknown", where, message, "look there what is set")
        yield from self._replicas(report)

    def _replicas(self, report: FlagReport) -> Iterator[Finding]:
        found, _ = deployed(self._cluster, namespace=report.namespace, deployment=report.deployment)
        if found is not None and "status" in found and number(found, "status", "availableReplicas") < 1:
            message = "the controller has no available replica: nobody would take the run up"
            where = f"Deployment/{report.deployment}"
            yield _finding(Severity.WARNING, "ControllerNotRunning", where, message, "see why its pods do not run")

    # The runs that there are.

    def _runs(self) -> tuple[Object, ...] | None:
        try:
            return tuple(self._cluster.list(kinds.AGENT_RUN, self._namespace).items)
        except Forbidden as error:
            message = f"the runs of namespace {self._namespace} may not be seen: {error}"
            cure = "go on where you know that the name is free and that there is room"
            self._found.append(_finding(Severity.WARNING, "RunsUnknown", f"AgentRun/{self._run.name}", message, cure))
        except KindNotServed:
            pass  # said with the definition
        return None

    def _everywhere(self) -> tuple[Object, ...] | None:
        try:
            return tuple(self._cluster.list(kinds.AGENT_RUN, ALL_NAMESPACES).items)
        except Forbidden:
            return None

    def _leftovers(self) -> tuple[Object, ...]:
        """What carries a run's label: Jobs and ConfigMaps outlive a run when their owner was not known."""
        found: list[Object] = []
        for kind in (kinds.JOB, kinds.CONFIG_MAP):
            try:
                items = self._cluster.list(kind, self._namespace).items
            except Forbidden as error:
                message = f"leftovers of an earlier run cannot be seen: {error}"
                where = f"AgentRun/{self._run.name}"
                cure = "take a name that was never used"
                self._found.append(_finding(Severity.WARNING, "LeftoversUnknown", where, message, cure))
                continue
            found += [{"kind": kind.kind, **one} for one in items if names.LABEL_RUN in labels_of(one)]
        return tuple(found)

    # What the run needs.

    def _validated(self, report: FlagReport, gathered: Gathered) -> Iterator[Finding]:
        """The whole of validation, and beside it what only a cluster can tell."""
        mine = Bundle(documents=tuple(one for one in self._bundle.documents if self._is_mine(one)))
        yield from validate(mine, profile=self._profile, flags=report.assumed, resources=gathered.resources)
        for unread in gathered.unread:
            one = unread.reference
            message = f"whether {one.kind.kind} {one.name} is there is not known: {unread.why}"
            cure = "make sure that it is, or let a Role allow us to get it"
            yield _finding(Severity.WARNING, f"{one.kind.kind}Unknown", one.where, message, cure, one.path)
        for one in gathered.missing:
            if not one.is_optional and (one.kind.kind in _OUTSIDE or not gathered.resources.complete):
                yield from _missing(one, self._namespace)
        yield from self._keys(gathered)

    def _is_mine(self, document: Document) -> bool:
        """Other runs of the bundle have their own preflight."""
        return not document.is_ours("AgentRun") or document is self._document

    def _keys(self, gathered: Gathered) -> Iterator[Finding]:
        for one in gathered.keyed:
            data = mapping(gathered.resources.get(one.kind.kind, one.name), "data")
            plain = mapping(gathered.resources.get(one.kind.kind, one.name), "stringData")
            if one.key not in data and one.key not in plain:
                message = f"{one.kind.kind} {one.name} has no key {one.key}: the pod would wait for it for ever"
                yield _finding(Severity.ERROR, "MissingKey", one.where, message, f"add {one.key} to it", one.path)

    def _placed(self, finding: Finding) -> Finding:
        """With file and line, where it is about something that was written."""
        if finding.file or not finding.path:
            return finding
        for one in self._bundle.documents:
            if one.where == finding.where and one.namespace == self._namespace:
                return replace(finding, file=one.file, line=one.line_of(finding.path))
        return finding


def _missing(one: Reference, namespace: str) -> Iterator[Finding]:
    kind = one.kind.kind
    if kind in _OUTSIDE or kind in _NEEDED:
        message = f"there is no {kind} {one.name} in namespace {namespace}, nor in what is submitted"
        what = {
            "Secret": "the pod would wait for it, and no timeout would be looked at",
            "PersistentVolumeClaim": "no pod could be placed",
        }
        message += f": {what[kind]}" if kind in what else ""
        yield _finding(Severity.ERROR, f"Missing{kind}", one.where, message, _cure(one.kind, one.name), one.path)


def _cure(kind: Kind, name: str) -> str:
    return f"make the {kind.kind} {name} first, or add it to what is submitted"


def _finding(severity: Severity, reason: str, where: str, message: str, cure: str, path: str = "") -> Finding:
    return Finding(
        severity=severity, source=Source.LINT, reason=reason, where=where, path=path, message=message, cure=cure
    )


def _once(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Each fault once, as whoever found it first put it."""
    seen: set[tuple[str, str, str, str]] = set()
    for one in findings:
        key = (one.reason, one.where, one.path, "" if one.path else one.message)
        if key not in seen:
            seen.add(key)
            yield one
