"""What the controller says about the objects that runs refer to, in their own status."""

from collections.abc import Iterator, Mapping
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.subject import items, mapping, shown, text
from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.agentrun.resources import Resources

_LIMITS = (
    ("text", 131072, "TextTooLarge"),
    ("summary", 256, "SummaryTooLong"),
    ("description", 131072, "DescriptionTooLarge"),
)
_MOST_CRITERIA = 50


def object_findings(body: Mapping[str, Any], resources: Resources) -> Iterator[Finding]:
    """Of an ImplementationSpec, an Agent or an AgentProvider; nothing for other kinds."""
    spec = mapping(body.get("spec"))
    where = f"{body.get('kind')}/{mapping(body.get('metadata')).get('name') or ''}"
    match body.get("kind"):
        case "ImplementationSpec":
            yield from _implementation(spec, where)
        case "Agent":
            yield from _agent(spec, where, resources)
        case "AgentProvider":
            if not text(spec.get("binary")).strip():
                cure = "name the program that runs the agent"
                yield _refusal(where, "MissingBinary", "spec.binary", "spec.binary is missing or blank", cure)
        case _:
            pass


def _implementation(spec: Mapping[str, Any], where: str) -> Iterator[Finding]:
    if not text(spec.get("text")).strip():
        cure = "write what the agent shall do"
        yield _refusal(where, "MissingText", "spec.text", "spec.text is missing or blank", cure)
    for field, limit, reason in _LIMITS:
        size = len(text(spec.get(field)))
        if size > limit:
            message = f"spec.{field} has {size} characters, more than {limit}"
            yield _refusal(where, reason, f"spec.{field}", message, "shorten it")
    criteria = items(spec.get("acceptanceCriteria"))
    if len(criteria) > _MOST_CRITERIA:
        message = f"spec.acceptanceCriteria has {len(criteria)} entries, more than {_MOST_CRITERIA}"
        yield _refusal(where, "AcceptanceCriteriaTooLong", "spec.acceptanceCriteria", message, "remove some")
    yield from _contract(mapping(spec.get("contract")), where)


def _contract(contract: Mapping[str, Any], where: str) -> Iterator[Finding]:
    reason, path = "InvalidContract", "spec.contract"
    for number, key in enumerate(items(contract.get("requiredKeys"))):
        if not text(key).strip():
            at = child(f"{path}.requiredKeys", number)
            yield _refusal(where, reason, at, f"{at} is {shown(key)}, no name of a key", "name a key, or remove it")
    for number, one in enumerate(items(contract.get("mappings"))):
        for end in ("from", "to"):
            if not text(mapping(one).get(end)).strip():
                at = child(child(f"{path}.mappings", number), end)
                yield _refusal(where, reason, at, f"{at} is missing or blank", "name a key")


def _agent(spec: Mapping[str, Any], where: str, resources: Resources) -> Iterator[Finding]:
    provider = text(mapping(spec.get("providerRef")).get("name")).strip()
    if not provider:
        cure = "name an AgentProvider"
        yield _refusal(where, "MissingProviderRef", "spec.providerRef.name", "spec.providerRef.name is missing", cure)
    elif resources.complete and resources.get("AgentProvider", provider) is None:
        message, cure = f"AgentProvider {shown(provider)} not found", "apply it, or correct the name"
        yield _refusal(where, "MissingProvider", "spec.providerRef.name", message, cure)
    memory = text(mapping(spec.get("memoryRef")).get("name"))
    if memory and resources.complete and resources.get("Memory", memory) is None:
        message, cure = f"Memory {shown(memory)} not found", "apply it, or correct the name"
        yield _refusal(where, "MissingMemory", "spec.memoryRef.name", message, cure)


def _refusal(where: str, reason: str, path: str, message: str, cure: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        source=Source.CONTROLLER,
        reason=reason,
        where=where,
        path=path,
        message=message,
        cure=cure,
    )
