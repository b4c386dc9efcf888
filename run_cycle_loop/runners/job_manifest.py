"""The Job that a cycle becomes: made from an image and a command, or from a template of the operator's."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.runners.marks import Marks

CONTAINER = "cycle"  #: the name of the first container, where a template gives none
MESSAGE_PATH = "/dev/termination-log"
KEPT = 3600  #: seconds that a finished Job stays, for who wants to look at it
_LEAST_KEPT = 60  #: seconds; what goes sooner may be gone before its end was seen
_MARGIN = 60.0  #: seconds after the loop's own timeout, when the cluster ends a Job that nobody has ended
_POD_GRACE = 30.0  #: seconds that a cluster gives a pod by itself

#: What a template may not want, with the only value that a cycle can have there.
_FIXED: Mapping[str, Any] = {"backoffLimit": 0, "parallelism": 1, "completions": 1, "suspend": False}
_REFUSED: Mapping[str, str] = {
    "selector": "the cluster chooses it",
    "manualSelector": "the cluster chooses it",
    "podFailurePolicy": "a cycle is tried once",
    "successPolicy": "a cycle is one pod",
    "backoffLimitPerIndex": "a cycle is tried once",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a Job is made of."""

    image: str | None = None  #: None: the template's
    command: Sequence[str] = ()  #: empty: the template's, or the image's own
    template: Mapping[str, Any] | None = None  #: a Job or a Pod
    namespace: str | None = None  #: None: the template's, or the default one
    timeout: float | None = None  #: seconds; None: no end
    grace: float = 10.0  #: seconds between TERM and KILL


def job_manifest(wanted: Wanted, *, marks: Marks, told: Mapping[str, str], default_namespace: str) -> dict[str, Any]:
    """The Job of one cycle.

    Args:
        wanted: what it is made of.
        marks: whose it is.
        told: what the cycle is told, by the names of the variables.
        default_namespace: where neither the operator nor the template names one.

    Raises:
        ConfigError: it lacks something, or the template would break what a cycle promises.
    """
    metadata, spec, pod_meta, pod = _taken_apart(wanted.template)
    _check(spec, pod)
    container = _container(wanted, pod, told)
    grace = pod.get("terminationGracePeriodSeconds", _pod_grace(wanted.grace))
    deadline = {} if wanted.timeout is None else {"activeDeadlineSeconds": math.ceil(wanted.timeout + _MARGIN)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": marks.name(_text(metadata.get("name")) or "cycle"),
            "namespace": wanted.namespace or _text(metadata.get("namespace")) or default_namespace,
            "labels": {**_mapping(metadata.get("labels")), **marks.labels},
            "annotations": dict(_mapping(metadata.get("annotations"))),
        },
        "spec": {
            "ttlSecondsAfterFinished": KEPT,
            **deadline,
            **spec,
            **_FIXED,
            "template": {
                "metadata": {
                    "labels": {**_mapping(pod_meta.get("labels")), **marks.labels},
                    "annotations": dict(_mapping(pod_meta.get("annotations"))),
                },
                "spec": {
                    **pod,
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": grace,
                    "containers": [container, *pod.get("containers", [])[1:]],
                },
            },
        },
    }


def _pod_grace(grace: float) -> int:
    """What the pod gets between TERM and KILL: less than the loop waits for it to be gone."""
    return int(max(1.0, min(_POD_GRACE, grace - max(2.0, grace * 0.3))))


_Parts = tuple[Mapping[str, Any], dict[str, Any], Mapping[str, Any], dict[str, Any]]


def _taken_apart(template: Mapping[str, Any] | None) -> _Parts:
    """Metadata and spec of the Job, metadata and spec of its pod; all of our own."""
    if template is None:
        return {}, {}, {}, {}
    copied = copy.deepcopy(dict(template))
    metadata, spec = _mapping(copied.get("metadata")), dict(_mapping(copied.get("spec")))
    if not spec:
        raise ConfigError("the Job template has no spec; give it one with a container")
    match copied.get("kind"):
        case "Pod":
            return metadata, {}, {"labels": metadata.get("labels"), "annotations": metadata.get("annotations")}, spec
        case "Job":
            pod = _mapping(spec.pop("template", None))
            return metadata, spec, _mapping(pod.get("metadata")), dict(_mapping(pod.get("spec")))
        case other:
            raise ConfigError(f"the Job template is of kind {other!r:.80}; give a Job or a Pod")


def _check(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> None:
    for name, only in _FIXED.items():
        if spec.get(name, only) != only:
            raise ConfigError(
                f"the Job template's spec.{name} is {spec[name]!r:.80}, and a cycle is one pod that is tried once; "
                f"leave it out"
            )
    for name, why in _REFUSED.items():
        if spec.get(name):
            raise ConfigError(f"the Job template has a spec.{name}; leave it out: {why}")
    if spec.get("completionMode", "NonIndexed") != "NonIndexed":
        raise ConfigError(
            f"the Job template's spec.completionMode is {spec['completionMode']!r:.80}, and a cycle is one pod; "
            "leave it out"
        )
    kept = spec.get("ttlSecondsAfterFinished")
    if kept is not None and not (isinstance(kept, int) and kept >= _LEAST_KEPT):
        raise ConfigError(
            f"the Job template's spec.ttlSecondsAfterFinished is {kept!r:.80}: the Job could be gone before its end "
            f"was seen; give at least {_LEAST_KEPT}"
        )
    if pod.get("restartPolicy", "Never") != "Never":
        raise ConfigError(
            f"the Job template's restartPolicy is {pod['restartPolicy']!r:.80}, which would run a cycle twice; "
            "say Never, or leave it out"
        )


def _container(wanted: Wanted, pod: Mapping[str, Any], told: Mapping[str, str]) -> dict[str, Any]:
    """The first container: the template's with image, command and variables put into it."""
    containers = pod.get("containers", [])
    if not isinstance(containers, list) or not all(isinstance(one, dict) for one in containers):
        raise ConfigError("the Job template's containers are no list of objects; give a Job as kubectl takes it")
    first = dict(containers[0]) if containers else {}
    image = wanted.image or first.get("image")
    if not image:
        raise ConfigError("neither --image nor the first container of the Job template names an image; name one")
    path = first.get("terminationMessagePath") or MESSAGE_PATH
    variables = {**told, "RUN_CYCLE_CONTROL_FILE": path}
    others = [one for one in first.get("env") or [] if _mapping(one).get("name") not in variables]
    command = {}
    if wanted.command:
        first.pop("args", None)
        command = {"command": [_literal(word) for word in wanted.command]}
    return {
        "name": CONTAINER,
        **first,
        "image": image,
        **command,
        "env": [*others, *({"name": name, "value": _literal(value)} for name, value in variables.items())],
        "terminationMessagePath": path,
        # A log's end in its place would be taken for the cycle's own words.
        "terminationMessagePolicy": "File",
    }


def _literal(text: str) -> str:
    """So written that a node, which expands ``$(NAME)``, gives the text as it is."""
    return text.replace("$", "$$")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
