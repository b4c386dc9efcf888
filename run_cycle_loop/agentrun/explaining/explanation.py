"""What will become of a run, worked out before anything starts: prompts, pods, loop plan and names, and why."""

from collections.abc import Iterator, Mapping, Sequence

from run_cycle_loop.agentrun.explaining.explained import Difference, Explanation, StepExplanation, other_of, sha, short
from run_cycle_loop.agentrun.explaining.plans import plan_of
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import AgentRun, Step
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.jobs import (
    attempt_objects,
    effective_image,
    job_ttl,
    launch_refusals,
    service_account,
)
from run_cycle_loop.agentrun.rendering.payloads import payloads
from run_cycle_loop.agentrun.rendering.prompts import implementation_of, is_codex, provider_of
from run_cycle_loop.agentrun.rendering.system_prompts import SystemPrompt
from run_cycle_loop.agentrun.rendering.templates import placeholders
from run_cycle_loop.agentrun.resources import Resources

__all__ = ["Difference", "Explanation", "StepExplanation", "explain"]


def explain(run: AgentRun, resources: Resources, profile: Profile, flags: ControllerFlags) -> Explanation:
    """What will become of a run, as far as the objects at hand say it."""
    name, provider = provider_of(run, resources)
    steps: Sequence[Step | None] = run.steps if run.runtime == "workflow" else (None,)
    explained, there = (
        tuple(_step(run, step, resources, one, flags, launch_refusals(run, resources, one, flags)) for step in steps)
        for one in (profile, other_of(profile))
    )
    return Explanation(
        run=run,
        profile=profile,
        provider=name,
        adapter=("codex-app-server" if is_codex(provider) else "exec") if provider else "",
        system_prompt=_system(explained, run, resources, profile, flags),
        service_account=service_account(run, resources, profile, flags),
        job_ttl=job_ttl(run, flags),
        steps=explained,
        differences=tuple(_differences(explained, there)),
    )


def _system(
    steps: Sequence[StepExplanation], run: AgentRun, resources: Resources, profile: Profile, flags: ControllerFlags
) -> SystemPrompt:
    """One for all steps."""
    return steps[0].paid.system_prompt if steps else payloads(run, None, resources, profile, flags).system_prompt


def _step(
    run: AgentRun,
    step: Step | None,
    resources: Resources,
    profile: Profile,
    flags: ControllerFlags,
    refusals: Mapping[int, Refusal],
) -> StepExplanation:
    paid = payloads(run, step, resources, profile, flags)
    found = implementation_of(run, step, resources, profile)
    image, source = effective_image(run, step, resources, profile, flags)
    workload = run.workload_of(step) if step else run.workload
    first = attempt_objects(
        run,
        step,
        iteration=step.iteration(1) if step else None,
        attempt=1,
        resources=resources,
        profile=profile,
        flags=flags,
    )
    index = step.index if step else 0
    return StepExplanation(
        index=index,
        name=step.name if step else "",
        implementation=found.place if found else "",
        paid=paid,
        literal=() if profile.traits.renders_text else placeholders(paid.prompt.text or ""),
        image=image,
        image_source=source,
        volumes=workload.volumes if workload else (),
        labels=first.job["metadata"]["labels"],
        plan=plan_of(run, step),
        refusal=refusals.get(index),
    )


def _differences(here: Sequence[StepExplanation], there: Sequence[StepExplanation]) -> Iterator[Difference]:
    """What differs between two profiles, step by step, and once what holds for all."""
    for number, (one, other) in enumerate(zip(here, there, strict=True)):
        if not number and one.paid.system_prompt != other.paid.system_prompt:
            yield Difference(
                what="system prompt",
                here=_system_word(one.paid.system_prompt),
                there=_system_word(other.paid.system_prompt),
            )
        where = f", step {one.name}" if one.index else ""
        if (one.paid.prompt.text, one.paid.prompt.source) != (other.paid.prompt.text, other.paid.prompt.source):
            yield Difference(what=f"prompt{where}", here=_prompt_word(one), there=_prompt_word(other))
        if one.image != other.image:
            yield Difference(what=f"image{where}", here=one.image or "none", there=other.image or "none")


def _system_word(system: SystemPrompt) -> str:
    if system.refusal is not None:
        return f"refused, {system.refusal.reason}"
    return f"{system.source}, sha256 {short(system.hash)}" if system.source else "none"


def _prompt_word(step: StepExplanation) -> str:
    prompt = step.paid.prompt
    refused = any(one.why.startswith("refused") for one in prompt.candidates)
    if refused:
        return "refused, ForbiddenParameterKey"
    if prompt.text is None or prompt.winner is None:
        return prompt.note or "none"
    put = [one for one in prompt.replacements if one.value is not None or one.is_braces]
    filled = f"{len(put)} of {len(prompt.replacements)} placeholders replaced" if put else "as written"
    return f"{prompt.winner.place}, {filled}, sha256 {short(sha(prompt.text))}"
