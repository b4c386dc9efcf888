"""What an attempt that never got to its work died of, from what its pod says and what it printed last."""

import re
from dataclasses import dataclass
from enum import StrEnum

from run_cycle_loop.agentrun.looking.objects import Object, condition, entries, mapping, number, text


class FaultKind(StrEnum):
    """Where the fault lies; none of these is the agent's or the prompt's."""

    IMAGE = "image"  #: the runner's image cannot be had, or lacks what it needs to start
    CONFIGURATION = "configuration"  #: a Secret, a ConfigMap or a key that is not there
    SCHEDULING = "scheduling"  #: no node takes the pod
    VOLUME = "volume"  #: a volume that cannot be mounted
    MEMORY = "memory"  #: killed for its memory
    NODE = "node"  #: evicted, or its node went away


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A fault of the runtime."""

    kind: FaultKind
    reason: str  #: Kubernetes' own word, or the words that were matched
    message: str
    cure: str


_WAITING = {
    "ErrImagePull": FaultKind.IMAGE,
    "ImagePullBackOff": FaultKind.IMAGE,
    "InvalidImageName": FaultKind.IMAGE,
    "ErrImageNeverPull": FaultKind.IMAGE,
    "ImageInspectError": FaultKind.IMAGE,
    "CreateContainerError": FaultKind.IMAGE,
    "RunContainerError": FaultKind.IMAGE,
    "CreateContainerConfigError": FaultKind.CONFIGURATION,
}
_TERMINATED = {
    "StartError": FaultKind.IMAGE,
    "ContainerCannotRun": FaultKind.IMAGE,
    "OOMKilled": FaultKind.MEMORY,
}
_CURES = {
    FaultKind.IMAGE: "check the image (spec.workload.image, or the controller's runner image) and what is in it",
    FaultKind.CONFIGURATION: "make the Secret, ConfigMap or key that the message names: the pod then starts by itself",
    FaultKind.SCHEDULING: "check the requests, the node selector and the tolerations against the nodes there are",
    FaultKind.VOLUME: "check the claim and whether another node holds it",
    FaultKind.MEMORY: "raise workload.resources.limits.memory",
    FaultKind.NODE: "nothing is wrong with the run; retries get another node",
}
_NOT_RUNNABLE = (126, 127)  #: exit codes of a shell that cannot start, or cannot find, a command
_EARLY = 30.0  #: seconds; a container that lived longer had begun its work
#: What the runner and Node print where a part of the image is missing.
_PRINTED = re.compile(
    r"executable file not found in \$PATH|posix_spawn[^\n]{0,200}|spawn \S{1,200} ENOENT|ENOENT[^\n]{0,200}"
    r"|exec format error|Cannot find module[^\n]{0,200}|MODULE_NOT_FOUND|command not found"
    r"|not a git repository[^\n]{0,200}",
    re.IGNORECASE,
)


def pod_fault(pod: Object) -> Fault | None:
    """What a pod's own status says."""
    return _waiting_fault(pod) or _ended_fault(pod) or _placing_fault(pod)


def printed_fault(printed: str, *, seconds: float | None) -> Fault | None:
    """What the last lines of an early exit say about the image.

    Args:
        printed: The end of the container's output, or its termination message.
        seconds: How long it lived; None where that is unknown.
    """
    if seconds is not None and seconds > _EARLY:
        return None
    found = _PRINTED.search(printed)
    return None if found is None else _fault(FaultKind.IMAGE, "EarlyExit", " ".join(found[0].split()))


def _statuses(pod: Object) -> tuple[Object, ...]:
    return (*entries(pod, "status", "initContainerStatuses"), *entries(pod, "status", "containerStatuses"))


def _waiting_fault(pod: Object) -> Fault | None:
    for one in _statuses(pod):
        waiting = mapping(one, "state", "waiting")
        kind = _WAITING.get(text(waiting, "reason"))
        if kind is not None:
            return _fault(kind, text(waiting, "reason"), text(waiting, "message"))
    return None


def _ended_fault(pod: Object) -> Fault | None:
    if text(pod, "status", "reason") in {"Evicted", "NodeLost", "Preempting", "Terminated"}:
        return _fault(FaultKind.NODE, text(pod, "status", "reason"), text(pod, "status", "message"))
    for one in _statuses(pod):
        ended = mapping(one, "state", "terminated")
        kind = _TERMINATED.get(text(ended, "reason"))
        if kind is not None:
            return _fault(kind, text(ended, "reason"), text(ended, "message"))
        if number(ended, "exitCode") in _NOT_RUNNABLE:
            return _fault(FaultKind.IMAGE, f"exit code {number(ended, 'exitCode')}", text(ended, "message"))
    return None


def _placing_fault(pod: Object) -> Fault | None:
    if text(pod, "status", "phase") != "Pending":
        return None
    for one in entries(pod, "status", "conditions"):
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return _fault(_placing_kind(text(one, "message")), text(one, "reason"), text(one, "message"))
    ready = condition(pod, "PodReadyToStartContainers")
    mounting = text(ready, "reason") in {"FailedMount", "FailedAttachVolume"}
    return _fault(FaultKind.VOLUME, text(ready, "reason"), text(ready, "message")) if mounting else None


def _placing_kind(message: str) -> FaultKind:
    return FaultKind.VOLUME if "persistentvolumeclaim" in message.lower() else FaultKind.SCHEDULING


def _fault(kind: FaultKind, reason: str, message: str) -> Fault:
    return Fault(kind=kind, reason=reason, message=" ".join(message.split()), cure=_CURES[kind])
