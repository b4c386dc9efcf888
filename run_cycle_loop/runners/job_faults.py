"""What keeps a Job's pod from its work, or took it away from it: in Kubernetes' words, with what a person can do."""

from collections.abc import Mapping
from dataclasses import dataclass

from run_cycle_loop.agentrun.looking.faults import FaultKind, pod_fault
from run_cycle_loop.agentrun.looking.objects import Object, condition, text

#: What no waiting heals.
HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})

_CURES: Mapping[FaultKind, str] = {
    FaultKind.IMAGE: "check --image, its pull secret, and that the command is in it",
    FaultKind.CONFIGURATION: "make the Secret, ConfigMap or key that is named: the pod then starts by itself",
    FaultKind.SCHEDULING: "check the template's requests, node selector and tolerations against the nodes there are",
    FaultKind.VOLUME: "check the claim, and whether another node holds it",
    FaultKind.MEMORY: "raise resources.limits.memory in the template",
    FaultKind.NODE: "nothing is wrong with the cycle; the next one gets another node",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFault:
    """A fault that is not the command's own."""

    reason: str
    message: str
    advice: str


def fault_of(pod: Object | None) -> JobFault | None:
    """What a pod's status says; a command that ended by itself, with whichever exit code, has none."""
    if pod is None:
        return None
    lost = condition(pod, "DisruptionTarget")
    if lost:
        return JobFault(reason=text(lost, "reason"), message=text(lost, "message"), advice=_CURES[FaultKind.NODE])
    found = pod_fault(pod)
    if found is None or found.reason.startswith("exit code"):
        return None
    return JobFault(reason=found.reason, message=found.message, advice=_CURES[found.kind])


def no_pod(name: str, namespace: str) -> JobFault:
    """The fault of a Job that nobody makes a pod for."""
    return JobFault(
        reason="NoPod",
        message="the Job has no pod yet",
        advice=f"kubectl describe job {name} -n {namespace} may say why: a quota, or a rule of admission",
    )
