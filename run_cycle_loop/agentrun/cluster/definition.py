"""The definition of AgentRun that a cluster really has, and which of its validation rules are in force."""

from run_cycle_loop.agentrun.checks.crds import crds
from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.cluster.detect import CRD, schema_of
from run_cycle_loop.agentrun.looking.objects import Object, condition, mapping, text
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Forbidden

_WHERE = f"CustomResourceDefinition/{CRD}"
_RULES = "x-kubernetes-validations"


def definition_findings(cluster: Cluster, profile: Profile) -> tuple[Finding, ...]:
    """What is wrong with the definition, and which rules are not installed that the profile knows.

    Raises:
        KubernetesError: The cluster does not answer.
    """
    try:
        found = cluster.get(kinds.CUSTOM_RESOURCE_DEFINITION, CRD)
    except Forbidden as error:
        cure = "nothing has to be done: the API server applies what is there, and the controller looks as well"
        return (_finding(Severity.NOTE, "DefinitionUnknown", f"its rules cannot be seen: {error}", cure),)
    if found is None or not schema_of(found):
        message = f"this cluster serves no {kinds.AGENT_RUN.api_version} {kinds.AGENT_RUN.kind}"
        return (
            _finding(Severity.ERROR, "MissingDefinition", message, "install the agents chart, or ask another cluster"),
        )
    if not condition(found, "Established"):
        message = "it is not established yet"
        return (_finding(Severity.ERROR, "DefinitionNotEstablished", message, "wait until its Established is True"),)
    return tuple(_missing(found, profile))


def installed_rules(definition: Object) -> tuple[tuple[str, str], ...]:
    """Every validation rule in force: the path in a run and the message."""
    return tuple(sorted(_rules(schema_of(definition), "")))


def _missing(found: Object, profile: Profile) -> list[Finding]:
    """Worded otherwise counts as there: what matters is that something stands at the same place."""
    there = installed_rules(found)
    known = next(one for one in crds(str(profile)) if text(one, "metadata", "name") == CRD)
    findings = []
    for path, message in installed_rules(known):
        if any(_same(path, message, *one) for one in there):
            continue
        told = f'its rule "{message}" at {path} is not installed: such a run is not refused at once, but fails later'
        cure = "nothing has to be done: it is checked here, before the run is sent"
        findings.append(_finding(Severity.NOTE, "RuleNotInstalled", told, cure))
    return findings


def _same(path: str, message: str, other_path: str, other: str) -> bool:
    return path == other_path and _plain(message) == _plain(other)


def _plain(message: str) -> str:
    return "".join(character for character in message.lower() if character.isalnum())


def _rules(schema: Object, path: str) -> set[tuple[str, str]]:
    rules = schema.get(_RULES)
    found = {(path, text(one, "message") or text(one, "rule")) for one in rules} if isinstance(rules, list) else set()
    for name, inner in mapping(schema, "properties").items():
        if isinstance(inner, dict):
            found |= _rules(inner, f"{path}.{name}".lstrip("."))
    items = mapping(schema, "items")
    return found | _rules(items, f"{path}[]") if items else found


def _finding(severity: Severity, reason: str, message: str, cure: str) -> Finding:
    return Finding(
        severity=severity, source=Source.API_SERVER, reason=reason, where=_WHERE, path="", message=message, cure=cure
    )
