"""Whether the agent of a run of this machine can start, before anything does: a failed run uses its name up."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime

from run_cycle_loop.agentrun.manifests.documents import Bundle
from run_cycle_loop.agentrun.model import AgentRun
from run_cycle_loop.agentrun.rendering.prompts import is_codex, provider_of
from run_cycle_loop.agents import registry
from run_cycle_loop.config.agents import check_agent
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.guards.attempts import require_consent
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.policies import consent
from run_cycle_loop.stores.audit import FILE_NAME, AuditChain


def agent_warning(asked: AgentRun, bundle: Bundle, settings: Settings) -> str:
    """What is to be said of the agent that a Codex provider would be given here; empty where that is nothing.

    Raises:
        ConfigError: it cannot start: it takes no prompt, its options are wrong, it is not installed, or nobody has
            consented to it.
    """
    if not is_codex(provider_of(asked, bundle.resources(asked.namespace))[1]):
        return ""
    name = "codex" if settings.agent == "auto" else settings.agent
    if name == registry.PLANNER:
        raise ConfigError("--agent planner takes no prompt of an AgentRun; name a coding agent, command or scripted")
    check_agent(replace(settings, agent=name))
    found = registry.find(name)
    program = registry.program_of(name)
    if program and shutil.which(program) is None:
        raise ConfigError(
            f"the agent {name} is not installed: {program!r} is not on PATH; install it, or name another with --agent"
        )
    if not found.capabilities.is_real:
        return ""
    now = datetime.now(UTC)
    audit = AuditChain(settings.state_dir / FILE_NAME, lambda: now)
    return require_consent(
        name, guard=GuardMode(settings.consent_guard), standing=lambda: consent.fold(audit.entries()), now=now
    )
