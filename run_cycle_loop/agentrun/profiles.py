"""Which generation of the controller a manifest is meant for: what the guides describe, or what came after them."""

from dataclasses import dataclass
from enum import StrEnum


class Profile(StrEnum):
    """The two generations. ``auto`` on the command line asks the cluster and ends in one of these."""

    GUIDE = "guide"  #: as both guides describe it: ``parameters.prompt`` wins, ``${key}`` stays as written
    CURRENT = "current"  #: newer controllers: ``parameters.prompt`` is refused, both kinds of placeholder are expanded

    @property
    def traits(self) -> "Traits":
        """What the rest of the code asks instead of comparing names."""
        return _TRAITS[self]


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """Where the two generations differ."""

    env_prefix: str  #: of the controller's own variables, ``JANGAR_AGENTS_`` or ``AGENTS_``
    controller_prefix: str  #: of its loop, queue and policy flags
    prompt_parameter: bool  #: whether ``parameters.prompt`` is allowed, and then wins
    renders_text: bool  #: whether ``${key}`` and ``{{ path }}`` in an implementation's text are expanded
    run_system_prompt: bool  #: whether a run may bring its own system prompt, which then wins
    system_prompt_needed: bool  #: whether a run without any system prompt fails
    provider_image: bool  #: whether ``AgentProvider.spec.workload.image`` counts
    image_variables: tuple[str, ...]  #: the controller's variables that name a runner image, first match wins
    codex_prompt: bool  #: whether the prompt also stands in ``agent-runner.json`` as ``adapter.codex.prompt``
    termination_message: bool  #: whether a pod's termination message holds the runner's status
    provider_failures_final: bool  #: whether quota and login failures seen in the logs end the retries
    adopts_jobs: bool  #: whether a leftover Job of the same name is taken for the new one


_TRAITS = {
    Profile.GUIDE: Traits(
        env_prefix="JANGAR_",
        controller_prefix="JANGAR_AGENTS_CONTROLLER_",
        prompt_parameter=True,
        renders_text=False,
        run_system_prompt=True,
        system_prompt_needed=False,
        provider_image=False,
        image_variables=("JANGAR_AGENT_RUNNER_IMAGE", "JANGAR_AGENT_IMAGE"),
        codex_prompt=False,
        termination_message=False,
        provider_failures_final=False,
        adopts_jobs=False,
    ),
    Profile.CURRENT: Traits(
        env_prefix="AGENTS_",
        controller_prefix="AGENTS_CONTROLLER_",
        prompt_parameter=False,
        renders_text=True,
        run_system_prompt=False,
        system_prompt_needed=True,
        provider_image=True,
        image_variables=("AGENTS_AGENT_RUNNER_IMAGE",),
        codex_prompt=True,
        termination_message=True,
        provider_failures_final=True,
        adopts_jobs=True,
    ),
}
