"""What an API server refuses of any object: its metadata, and the plain form of a few core kinds."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.agentrun.names import is_label_value, is_object_name

ANNOTATIONS_LIMIT = 256 << 10  #: bytes of all keys and values
_KNOWN = frozenset(
    (
        *("name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences"),
        *("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields"),
        *("deletionGracePeriodSeconds", "selfLink"),
    )
)
_KEY = re.compile(r"(?:(?P<prefix>[^/]*)/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_QUANTITY = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
_CORE = ("ConfigMap", "Secret", "PersistentVolumeClaim")


def metadata_findings(body: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Name, namespace, labels and annotations."""
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping):
        yield _finding(
            where, "FieldValueRequired", "metadata.name", "the object has no name", "add metadata with a name"
        )
        return
    yield from _name(metadata, where)
    for field in ("labels", "annotations"):
        yield from _texts(metadata.get(field), f"metadata.{field}", where, is_label=field == "labels")
    for key in metadata:
        if key not in _KNOWN:
            at = child("metadata", key)
            yield _finding(
                where, "UnknownField", at, f"there is no field {at}", "remove it, or move it to where it belongs"
            )


def core_findings(body: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """ConfigMaps, Secrets and PersistentVolumeClaims, as far as a run depends on their form."""
    kind = body.get("kind")
    if kind not in _CORE:
        return
    yield from metadata_findings(body, where)
    if kind == "PersistentVolumeClaim":
        yield from _claim(body, where)
        return
    for field in ("data", "stringData") if kind == "Secret" else ("data",):
        yield from _texts(body.get(field), field, where)
    if kind == "Secret":
        yield from _base64(body.get("data"), where)
    if kind == "ConfigMap" and "stringData" in body:
        message, cure = "a ConfigMap has no stringData", "call it data"
        yield _finding(where, "UnknownField", "stringData", message, cure)


def is_quantity(value: Any) -> bool:
    """Whether it is an amount as resources and sizes have it: ``500m``, ``20Gi``."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) or (isinstance(value, str) and _QUANTITY.fullmatch(value) is not None)


def _name(metadata: Mapping[str, Any], where: str) -> Iterator[Finding]:
    name, prefix = metadata.get("name"), metadata.get("generateName")
    if not name and not prefix:
        yield _finding(where, "FieldValueRequired", "metadata.name", "the object has no name", "add metadata.name")
    elif name is not None and not isinstance(name, str):
        message = f"metadata.name is {name!r:.60}, not a text"
        yield _finding(where, "FieldValueTypeInvalid", "metadata.name", message, "put it into quotes")
    elif name and not is_object_name(name):
        cure = "use small letters, digits, dashes and dots, with a letter or digit at both ends"
        yield _finding(where, "FieldValueInvalid", "metadata.name", f"{name!r:.80} is no name of an object", cure)
    namespace = metadata.get("namespace")
    if namespace is not None and (
        not isinstance(namespace, str) or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", namespace)
    ):
        message = f"{namespace!r:.80} is no name of a namespace"
        yield _finding(
            where, "FieldValueInvalid", "metadata.namespace", message, "use small letters, digits and dashes"
        )


def _texts(value: Any, path: str, where: str, *, is_label: bool = False) -> Iterator[Finding]:
    """A mapping of texts; of labels the form of keys and values as well."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        message = f"{path} is {value!r:.60}, not a mapping"
        yield _finding(where, "FieldValueTypeInvalid", path, message, "write `key: value` below it")
        return
    is_metadata = path.startswith("metadata.")
    for key, item in value.items():
        at = child(path, key)
        if is_metadata and not _is_key(key):
            yield _finding(
                where, "FieldValueInvalid", at, f"{key!r:.80} is no key of {path}", "write it as name or prefix/name"
            )
        elif not isinstance(item, str):
            message = f"{at} is {item!r:.60}, not a text"
            yield _finding(where, "FieldValueTypeInvalid", at, message, "put it into quotes")
        elif is_label and not is_label_value(item):
            cure = "use at most 63 letters, digits, dashes, dots and underscores, with a letter or digit at both ends"
            yield _finding(where, "FieldValueInvalid", at, f"{item!r:.80} is no value of a label", cure)
    size = sum(
        len(str(key).encode("utf-8", "replace")) + len(str(item).encode("utf-8", "replace"))
        for key, item in value.items()
    )
    if path == "metadata.annotations" and size > ANNOTATIONS_LIMIT:
        message = f"the annotations have {size} bytes, more than {ANNOTATIONS_LIMIT}"
        yield _finding(where, "FieldValueTooLong", path, message, "shorten them")


def _is_key(key: str) -> bool:
    found = _KEY.fullmatch(key)
    return found is not None and (found["prefix"] is None or is_object_name(found["prefix"].lower()))


def _base64(data: Any, where: str) -> Iterator[Finding]:
    import base64  # noqa: PLC0415 - only where a bundle holds a Secret

    for key, value in data.items() if isinstance(data, Mapping) else ():
        try:
            base64.b64decode("".join(value.split()) if isinstance(value, str) else "", validate=True)
        except ValueError:
            cure = "encode it with base64, or move it to stringData as plain text"
            at = child("data", key)
            yield _finding(where, "FieldValueInvalid", at, f"the value of {at} is not in base64", cure)


def _claim(body: Mapping[str, Any], where: str) -> Iterator[Finding]:
    spec = body.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    modes, resources = spec.get("accessModes"), spec.get("resources")
    requests = resources.get("requests") if isinstance(resources, Mapping) else None
    size = requests.get("storage") if isinstance(requests, Mapping) else None
    if not isinstance(modes, list) or not modes:
        message, cure = "the claim has no accessModes", "add accessModes with ReadWriteOnce"
        yield _finding(where, "FieldValueRequired", "spec.accessModes", message, cure)
    else:
        for number, mode in enumerate(modes):
            if mode not in _ACCESS_MODES:
                at, cure = child("spec.accessModes", number), f"write one of {', '.join(_ACCESS_MODES)}"
                yield _finding(where, "FieldValueNotSupported", at, f"{at} is {mode!r:.60}", cure)
    at = "spec.resources.requests.storage"
    if size is None:
        yield _finding(
            where, "FieldValueRequired", at, "the claim asks for no storage", f"add {at} with a size as 20Gi"
        )
    elif not is_quantity(size):
        yield _finding(where, "FieldValueInvalid", at, f"{at} is {size!r:.60}, no amount", "write a size as 20Gi")


def _finding(where: str, reason: str, path: str, message: str, cure: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        source=Source.API_SERVER,
        reason=reason,
        where=where,
        path=path,
        message=message,
        cure=cure,
    )
