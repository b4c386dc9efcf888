"""What an attempt's pod is made from, image, account and time, and why an attempt cannot be made."""

from collections.abc import Mapping
from typing import Any

from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import AgentRun, Step, whole
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.metadata import contract_of
from run_cycle_loop.agentrun.rendering.prompts import implementation_of, provider_of
from run_cycle_loop.agentrun.rendering.vcs import version_control
from run_cycle_loop.agentrun.resources import Resources

_TTL_RANGE = (30, 7 * 86400)  #: seconds that a finished Job may be kept


def effective_image(
    run: AgentRun, step: Step | None, resources: Resources, profile: Profile, flags: ControllerFlags
) -> tuple[str, str]:
    """The image of a step's pod and what names it; both empty where nothing does."""
    own = step.workload if step else None
    if own is not None and own.image:
        return own.image, f"spec.workflow.steps[{step.index - 1 if step else 0}].workload.image"
    if own is None and run.workload is not None and run.workload.image:
        return run.workload.image, "spec.workload.image"
    name, provider = provider_of(run, resources)
    image = _text(_map(provider.get("workload")).get("image"))
    if image and profile.traits.provider_image:
        return image, f"AgentProvider/{name} spec.workload.image"
    return flags.runner_image, flags.runner_image_variable if flags.runner_image else ""


def service_account(run: AgentRun, resources: Resources, profile: Profile, flags: ControllerFlags) -> tuple[str, str]:
    """The service account of the pods and what names it; empty where nothing does, and it is ``default``."""
    for key in ("serviceAccount", "serviceAccountName"):
        if own := _text(run.runtime_config.get(key)):
            return own, f"spec.runtime.config.{key}"
    name, provider = provider_of(run, resources)
    own = _text(_map(provider.get("workload")).get("serviceAccountName"))
    if own and profile.traits.provider_image:
        return own, f"AgentProvider/{name} spec.workload.serviceAccountName"
    if flags.runner_service_account:
        return flags.runner_service_account, flags.variables(profile)["runner_service_account"]
    return "default", ""


def job_ttl(run: AgentRun, flags: ControllerFlags) -> int | None:
    """Seconds that a Job is kept, counted from its run's end and set only then; None for ever."""
    own = run.runtime_config.get("ttlSecondsAfterFinished")
    wanted = flags.job_ttl if own is None else whole(own)
    return min(max(wanted, _TTL_RANGE[0]), _TTL_RANGE[1]) if wanted else None


def launch_refusals(
    run: AgentRun, resources: Resources, profile: Profile, flags: ControllerFlags
) -> Mapping[int, Refusal]:
    """Why the next attempt of a step cannot be made, by the step's index; 0 for the one pod of a run without steps.

    What is not among incomplete resources, and an image that an unknown controller may name, is no reason to refuse.
    """
    steps: tuple[Step | None, ...] = run.steps if run.runtime == "workflow" else (None,)
    found = {step.index if step else 0: _launch_refusal(run, step, resources, profile, flags) for step in steps}
    return {index: refusal for index, refusal in found.items() if refusal is not None}


def _launch_refusal(
    run: AgentRun, step: Step | None, resources: Resources, profile: Profile, flags: ControllerFlags
) -> Refusal | None:
    where = f"workflow step {step.name}: " if step else ""
    found = implementation_of(run, step, resources, profile)
    if found is None or (found.spec is None and resources.complete):
        said = f"ImplementationSpec {found.ref} not found" if found else "nothing names an implementation"
        return Refusal(reason="MissingImplementation", message=f"{where}{said}")
    if found.spec is not None and (refusal := _source_refusal(run, found.spec, resources, where)):
        return refusal
    image, _ = effective_image(run, step, resources, profile, flags)
    if not image and flags.known:
        said = "nothing names an image: spec.workload.image does not, and neither does the controller"
        return Refusal(reason="MissingWorkloadImage", message=f"{where}{said}")
    parameters = run.parameters_of(step) if step else run.parameters
    contract = contract_of(found.spec or {}, parameters, profile).refusal if found.spec is not None else None
    if contract is not None:
        return Refusal(reason=contract.reason, message=f"{where}{contract.message}", condition=contract.condition)
    refusal = version_control(run, step, resources, profile, flags).refusal
    return None if refusal is None else Refusal(reason=refusal.reason, message=f"{where}{refusal.message}")


def _source_refusal(
    run: AgentRun, implementation: Mapping[str, Any], resources: Resources, where: str
) -> Refusal | None:
    security = _map(resources.spec("Agent", run.agent).get("security"))
    allowed = [one.lower() for one in _list(security.get("allowedImplementationSourceProviders")) if _text(one)]
    provider = _text(_map(implementation.get("source")).get("provider")).lower()
    if not allowed or provider in allowed:
        return None
    said = f"implementation source provider {provider or 'none'} is not among {', '.join(allowed)}"
    return Refusal(reason="ImplementationSourceProviderNotAllowed", message=f"{where}{said}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
