"""What submitting a run would do, tried on the server as a dry run of everything, and nothing done yet."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun.looking.marks import bears, digest_of, key_of, marked, with_spec_digest
from run_cycle_loop.agentrun.looking.objects import Object, mapping, part, text
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Conflict
from run_cycle_loop.clients.kubernetes.kinds import Kind
from run_cycle_loop.model.errors import ConfigError

#: What a run may need, in the order in which it has to be there.
ORDER = (
    kinds.PERSISTENT_VOLUME_CLAIM,
    kinds.CONFIG_MAP,
    kinds.SECRET,
    kinds.AGENT_PROVIDER,
    kinds.IMPLEMENTATION_SPEC,
    kinds.AGENT,
    kinds.VERSION_CONTROL_PROVIDER,
    kinds.MEMORY,
)
_HIDDEN = "(hidden)"
_CONTENT = ("labels", "annotations")


class Action(StrEnum):
    """What is to be done with an object."""

    CREATE = "create"
    CHANGE = "change"
    KEEP = "keep"  #: it is there, as the manifest has it


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldChange:
    """One field that becomes another; None where there is none."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What is to be done with one object of the bundle."""

    kind: str
    name: str
    namespace: str
    action: Action
    changes: tuple[FieldChange, ...] = ()  #: of a CHANGE; what is in a Secret is hidden
    file: str = ""
    line: int = 0
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a submission would do; the server has accepted all of it in a dry run."""

    name: str
    namespace: str
    key: str
    is_own_key: bool  #: whether somebody chose it; else it is made of the content
    digest: str
    dependencies: tuple[Planned, ...]
    run: Mapping[str, Any]  #: as it will be sent
    source: Mapping[str, Any]  #: as it was written
    existing: Mapping[str, Any] | None = None  #: the run that has this key already

    def as_json(self) -> dict[str, Any]:
        """As plain JSON, without the bodies."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "idempotency_key": self.key,
            "digest": self.digest,
            "dependencies": [
                {key: value for key, value in asdict(one).items() if key != "body"} for one in self.dependencies
            ],
            "is_submitted_already": self.existing is not None,
        }


def plan(cluster: Cluster, bundle: Bundle, document: Document, *, key: str = "") -> Plan:
    """What submitting a run would do: every object is tried as a dry run, so that a refusal comes before the first.

    Args:
        cluster: Where to.
        bundle: What the run comes with.
        document: The run.
        key: Its idempotency key; empty: the manifest's own, or one made of its content.

    Raises:
        ConfigError: The bundle has something that does not belong to a run.
        KubernetesError: The server refuses one of the objects, or does not answer. Nothing was done.
    """
    wanted = key_of(document.body, key)
    run = marked(document.body, document.namespace, wanted)
    dependencies = tuple(_planned(cluster, one) for one in dependencies_of(bundle))
    existing = cluster.get(kinds.AGENT_RUN, document.name, document.namespace)
    if existing is None:
        run = with_spec_digest(run, cluster.create(kinds.AGENT_RUN, run, dry_run=True))
    return Plan(
        name=document.name,
        namespace=document.namespace,
        key=wanted,
        is_own_key=bool(key or text(document.body, "spec", "idempotencyKey").strip()),
        digest=digest_of(document.body),
        dependencies=dependencies,
        run=run,
        source=document.body,
        existing=existing if existing is not None and bears(existing, wanted) else None,
    )


def dependencies_of(bundle: Bundle) -> tuple[Document, ...]:
    """All that is no run, in the order in which it is applied.

    Raises:
        ConfigError: One is of a kind that no run needs.
    """
    others = [one for one in bundle.documents if not one.is_ours("AgentRun")]
    for one in others:
        if _kind_of(one) is None:
            kinds_known = ", ".join(kind.kind for kind in ORDER)
            raise ConfigError(
                f"{one.file}:{one.line} {one.where} is not applied here: leave it to kubectl; known are {kinds_known}"
            )
    return tuple(sorted(others, key=lambda one: ORDER.index(_kind_of(one) or ORDER[0])))


def _planned(cluster: Cluster, document: Document) -> Planned:
    kind = _kind_of(document) or ORDER[0]
    body = _plain_secret(_placed(document.body, document.namespace))
    live = cluster.get(kind, document.name, document.namespace)
    try:
        tried = cluster.apply(kind, body, dry_run=True)
    except Conflict as error:
        raise error.adding(
            f"somebody else manages {document.where}: leave it out of the files, or change it where it is managed"
        ) from error
    changes = () if live is None else tuple(differences(live, tried, hide=kind == kinds.SECRET))
    action = Action.CREATE if live is None else Action.CHANGE if changes else Action.KEEP
    return Planned(
        kind=kind.kind,
        name=document.name,
        namespace=document.namespace,
        action=action,
        changes=changes,
        file=document.file,
        line=document.line,
        body=body,
    )


def differences(live: Object, wanted: Object, *, hide: bool = False) -> Iterator[FieldChange]:
    """What would change of an object, field by field; lists are one field.

    Args:
        live: As it is.
        wanted: As the server says that it would become.
        hide: Whether values are secret.
    """
    for path, before, after in _different(_content(live), _content(wanted), ""):
        # kubectl keeps the whole of an object in an annotation.
        hidden = hide and path.startswith(("data", "stringData", "metadata.annotations"))
        yield FieldChange(
            path=path,
            before=_HIDDEN if hidden and before is not None else before,
            after=_HIDDEN if hidden and after is not None else after,
        )


def _different(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _different(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        yield path, before, after


def _content(one: Object) -> dict[str, Any]:
    """What somebody may want otherwise: no status, and nothing that the server counts by itself."""
    kept = {key: value for key, value in one.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    metadata = {key: value for key in _CONTENT if (value := mapping(one, "metadata", key))}
    return {**kept, **({"metadata": metadata} if metadata else {})}


def _placed(body: Object, namespace: str) -> dict[str, Any]:
    metadata = {**mapping(body, "metadata"), "namespace": namespace}
    return {**{key: value for key, value in body.items() if key != "status"}, "metadata": metadata}


def _plain_secret(body: dict[str, Any]) -> dict[str, Any]:
    """``stringData`` as the server keeps it, so that it can be compared."""
    written = part(body, "stringData")
    if body.get("kind") != "Secret" or not isinstance(written, Mapping):
        return body
    data = {key: base64.b64encode(str(value).encode()).decode() for key, value in written.items()}
    rest = {key: value for key, value in body.items() if key != "stringData"}
    return {**rest, "data": {**mapping(body, "data"), **data}}


def _kind_of(document: Document) -> Kind | None:
    kind = kinds.BY_NAME.get(document.kind)
    return kind if kind in ORDER and document.body.get("apiVersion") == kind.api_version else None
