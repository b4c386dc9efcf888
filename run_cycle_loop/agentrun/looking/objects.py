"""Careful looks into objects of a cluster: whatever is missing, or of another type, counts as empty."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from run_cycle_loop.agentrun.lifecycle.status import moment

Object = Mapping[str, Any]


def part(value: Any, *path: str) -> Any:
    """What stands at a path of keys; None where nothing does."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def mapping(value: Any, *path: str) -> Mapping[str, Any]:
    """The mapping at a path."""
    found = part(value, *path)
    return found if isinstance(found, Mapping) else {}


def entries(value: Any, *path: str) -> tuple[Mapping[str, Any], ...]:
    """The mappings in the list at a path."""
    found = part(value, *path)
    return tuple(one for one in found if isinstance(one, Mapping)) if isinstance(found, list) else ()


def text(value: Any, *path: str) -> str:
    """The text at a path."""
    found = part(value, *path)
    return found if isinstance(found, str) else ""


def number(value: Any, *path: str) -> int:
    """The whole number at a path; 0 where there is none."""
    found = part(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def name_of(value: Object) -> str:
    """``metadata.name``."""
    return text(value, "metadata", "name")


def uid_of(value: Object) -> str:
    """``metadata.uid``."""
    return text(value, "metadata", "uid")


def labels_of(value: Object) -> Mapping[str, Any]:
    """``metadata.labels``."""
    return mapping(value, "metadata", "labels")


def annotations_of(value: Object) -> Mapping[str, Any]:
    """``metadata.annotations``."""
    return mapping(value, "metadata", "annotations")


def created_at(value: Object) -> str:
    """``metadata.creationTimestamp``."""
    return text(value, "metadata", "creationTimestamp")


def is_being_deleted(value: Object) -> bool:
    """Whether its deletion was asked for, and something still holds it."""
    return bool(text(value, "metadata", "deletionTimestamp"))


def owners_of(value: Object) -> tuple[Mapping[str, Any], ...]:
    """Who owns it."""
    return entries(value, "metadata", "ownerReferences")


def condition(value: Object, kind: str) -> Mapping[str, Any]:
    """The condition of that type, where it is True."""
    return next(
        (
            one
            for one in entries(value, "status", "conditions")
            if one.get("type") == kind and one.get("status") == "True"
        ),
        {},
    )


def pod_spec(value: Object) -> Mapping[str, Any]:
    """The pod's spec: of a Pod its own, of a Job or a Deployment the one in its template."""
    template = mapping(value, "spec", "template", "spec")
    return template or mapping(value, "spec")


def container(value: Object) -> Mapping[str, Any]:
    """The first container."""
    return next(iter(entries(pod_spec(value), "containers")), {})


def environment(value: Object) -> Mapping[str, str]:
    """The variables of the first container that have a plain value; of two with one name the later stands."""
    return {text(one, "name"): text(one, "value") for one in entries(container(value), "env") if "valueFrom" not in one}


def mounts(value: Object) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """What the first container mounts: each mount with the volume that it names."""
    volumes = {text(one, "name"): one for one in entries(pod_spec(value), "volumes")}
    for one in entries(container(value), "volumeMounts"):
        yield one, volumes.get(text(one, "name"), {})


def seconds_between(begin: str, end: str | datetime) -> float | None:
    """How long it was from one moment to another; None where either cannot be read."""
    first, last = moment(begin), moment(end) if isinstance(end, str) else end
    return None if first is None or last is None else max(0.0, round((last - first).total_seconds(), 3))
