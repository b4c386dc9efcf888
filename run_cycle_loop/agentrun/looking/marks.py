"""What tells a submission from any other run of that name: a key, a label made of it, and a digest of the manifest."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from run_cycle_loop.agentrun.looking.objects import Object, annotations_of, labels_of, mapping, text
from run_cycle_loop.agentrun.names import NAME_LIMIT
from run_cycle_loop.model.errors import ConfigError

LABEL = "run-cycle-loop/submission"
DIGEST = "run-cycle-loop/digest"
SPEC_DIGEST = "run-cycle-loop/spec-digest"  #: of the spec as the server keeps it
MARKS = (LABEL, DIGEST)  #: for ``PatientCluster``
_NUMBERED = re.compile(r"-([0-9]{1,6})$")


def digest_of(body: Object) -> str:
    """The digest of what a manifest asks for: its name, its spec, and what its metadata carries."""
    metadata = mapping(body, "metadata")
    meant = {
        "name": metadata.get("name"),
        "labels": metadata.get("labels") or {},
        "annotations": metadata.get("annotations") or {},
        "spec": body.get("spec"),
    }
    return _digest(meant)


def spec_digest(body: Object) -> str:
    """The digest of the spec alone."""
    return _digest(body.get("spec"))


def with_spec_digest(run: Mapping[str, Any], accepted: Object) -> dict[str, Any]:
    """The run with the digest of its spec as the server would keep it, so that a later change shows.

    The controller lets parameters and workload be changed while a loop runs, and the next iteration uses them.
    """
    metadata = mapping(run, "metadata")
    annotations = {**mapping(metadata, "annotations"), SPEC_DIGEST: spec_digest(accepted)}
    return {**run, "metadata": {**metadata, "annotations": annotations}}


def was_edited(found: Object) -> bool:
    """Whether a run's spec was changed after it was submitted; what was not submitted here cannot be told."""
    first = annotations_of(found).get(SPEC_DIGEST)
    return isinstance(first, str) and first != spec_digest(found)


def key_of(body: Object, given: str = "") -> str:
    """The idempotency key: the one that was given, else the manifest's own, else one made of its content.

    Raises:
        ConfigError: The manifest has another one than was given.
    """
    own = text(body, "spec", "idempotencyKey").strip()
    if given and own and own != given:
        raise ConfigError(f"spec.idempotencyKey is {own!r}, and {given!r} was given: leave one of them out")
    return given or own or f"{text(body, 'metadata', 'name')}-{digest_of(body)[:16]}"


def mark_of(key: str) -> str:
    """The label's value for a key, which may have any characters."""
    return hashlib.sha256(key.encode()).hexdigest()[:40]


def marked(body: Object, namespace: str, key: str) -> dict[str, Any]:
    """The run as it is submitted."""
    metadata = dict(mapping(body, "metadata"))
    metadata["namespace"] = namespace
    metadata["labels"] = {**mapping(metadata, "labels"), LABEL: mark_of(key)}
    metadata["annotations"] = {**mapping(metadata, "annotations"), DIGEST: digest_of(body)}
    spec = {**mapping(body, "spec"), "idempotencyKey": key}
    return {**{name: value for name, value in body.items() if name != "status"}, "metadata": metadata, "spec": spec}


def bears(found: Mapping[str, Any], key: str) -> bool:
    """Whether a run is the submission of that key."""
    return labels_of(found).get(LABEL) == mark_of(key)


def was_changed(found: Mapping[str, Any], body: Object) -> bool:
    """Whether it was submitted from another manifest than this one."""
    return annotations_of(found).get(DIGEST) != digest_of(body)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def free_name(name: str, taken: Collection[str]) -> str:
    """A name like this one that is not taken, within the limit of labels."""
    found = _NUMBERED.search(name)
    stem, number = (name[: found.start()], int(found[1])) if found else (name, 1)
    while True:
        number += 1
        ending = f"-{number}"
        candidate = stem[: NAME_LIMIT - len(ending)].rstrip("-.") + ending
        if candidate not in taken:
            return candidate
