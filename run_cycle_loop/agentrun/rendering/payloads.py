"""The two files that tell a runner what to do, ``run.json`` and ``agent-runner.json``, as a controller writes them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.model import AgentRun, Step, whole
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.metadata import event_of
from run_cycle_loop.agentrun.rendering.prompts import (
    SystemPrompt,
    UserPrompt,
    codex_context,
    implementation_of,
    is_codex,
    provider_of,
    system_prompt,
    user_prompt,
)
from run_cycle_loop.agentrun.rendering.system_prompts import MOUNT_PATH
from run_cycle_loop.agentrun.rendering.templates import fill_braces
from run_cycle_loop.agentrun.rendering.vcs import VersionControl, version_control
from run_cycle_loop.agentrun.resources import Object, Resources

RUN_PATH = "/workspace/run.json"
AGENT_RUNNER_PATH = "/workspace/agent-runner.json"
STATUS_PATH = "/workspace/.agent/status.json"
LOG_PATH = "/workspace/.agent/runner.log"
SCHEMA = "agents.proompteng.ai/runner/v1"

_BASE_NAMES = ("base", "baseBranch", "base_ref", "baseRef")
_HEAD_NAMES = ("head", "headBranch", "head_ref", "headRef", "branch")
_CODEX_DEFAULTS = {
    "model": "gpt-5.6-sol",
    "effort": "high",
    "sandbox": "danger-full-access",
    "approval": "never",
}
_CODEX_THREAD = {"mcp_servers": {}, "web_search": "live"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Payloads:
    """What one attempt of a step is given. No value of a Secret is in it; neither is the iteration's number."""

    run: dict[str, Any]  #: ``run.json``
    agent_runner: dict[str, Any]  #: ``agent-runner.json``
    prompt: UserPrompt
    system_prompt: SystemPrompt
    version_control: VersionControl
    context: Mapping[str, Any]  #: what placeholders in a provider's arguments, variables and artifacts can name


def payloads(
    run: AgentRun, step: Step | None, resources: Resources, profile: Profile, flags: ControllerFlags
) -> Payloads:
    """The files for a step; ``step`` is None for runtimes without steps."""
    control = version_control(run, step, resources, profile, flags)
    if step is None:  # without steps the provider's branches count as parameters
        run = replace(run, parameters=_with_branches(run.parameters, control))
    parameters = run.parameters_of(step) if step else run.parameters
    found = implementation_of(run, step, resources, profile)
    implementation = dict(found.spec) if found and found.spec is not None else {}
    system = system_prompt(run, resources, profile)
    name, provider = provider_of(run, resources)
    memory = memory_of(run, resources)
    context = _context(run, resources, implementation, parameters, memory, control)
    artifacts = _artifacts(provider, context)
    goal = _goal(run)
    payload: dict[str, Any] = {
        "provider": name,
        "agentRun": context["agentRun"],
        "implementation": implementation,
        "parameters": dict(parameters),
        "memory": _memory(memory),
        "artifacts": artifacts,
        **({"vcs": dict(control.context)} if control.context else {}),
        **({"goal": goal} if goal else {}),
        **({"systemPrompt": system.text} if system.kind == "inline" and system.text else {}),
        **event_of(implementation, parameters, profile).payload,
    }
    prompt = user_prompt(run, step, resources, profile, payload=payload)
    runner = _agent_runner(run, payload, provider, prompt, system, profile, flags)
    return Payloads(
        run=payload,
        agent_runner=runner,
        prompt=prompt,
        system_prompt=system,
        version_control=control,
        context=context,
    )


def memory_of(run: AgentRun, resources: Resources) -> Object | None:
    """The Memory that counts: the run's, the agent's, else the one that is marked as the default."""
    own = run.memory_ref or _text(_map(resources.spec("Agent", run.agent).get("memoryRef")).get("name"))
    if own:
        return resources.get("Memory", own)
    return next((one for one in resources.all("Memory") if _map(one.get("spec")).get("default") is True), None)


def log_retention(run: AgentRun, flags: ControllerFlags) -> int:
    """Seconds for which a runner's log shall be kept."""
    own = run.runtime_config.get("logRetentionSeconds")
    return flags.log_retention if own is None else whole(own)


def _with_branches(parameters: Mapping[str, str], control: VersionControl) -> Mapping[str, str]:
    if not control.is_given:
        return parameters
    branches = (("base", control.base, _BASE_NAMES), ("head", control.head, _HEAD_NAMES))
    missing = {
        key: branch
        for key, branch, known in branches
        if branch and not any(parameters.get(one, "").strip() for one in known)
    }
    return {**parameters, **missing}


def _context(
    run: AgentRun,
    resources: Resources,
    implementation: Mapping[str, Any],
    parameters: Mapping[str, str],
    memory: Object | None,
    control: VersionControl,
) -> dict[str, Any]:
    spec = resources.spec("Agent", run.agent)
    env = spec.get("env")
    return {
        "agentRun": {"name": run.name, "uid": run.uid, "namespace": run.namespace},
        "agent": {"name": run.agent, "config": _map(spec.get("config")), "env": env if isinstance(env, list) else []},
        "implementation": implementation,
        "parameters": parameters,
        "inputs": parameters,
        "memory": memory or {},
        "vcs": control.context or {},
    }


def _artifacts(provider: Mapping[str, Any], context: Mapping[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for one in _list(provider.get("outputArtifacts")):
        name = _text(_map(one).get("name")).strip()
        if name:
            rest = {key: _text(_map(one).get(key)) for key in ("path", "key", "url")}
            found.append({"name": name, **{key: fill_braces(text, context).text for key, text in rest.items() if text}})
    return found


def _goal(run: AgentRun) -> dict[str, Any]:
    goal = run.goal or {}
    objective, budget = _text(goal.get("objective")).strip(), whole(goal.get("tokenBudget"))
    return {} if not objective else {"objective": objective, **({"tokenBudget": budget} if budget else {})}


def _memory(memory: Object | None) -> dict[str, str] | None:
    if memory is None:
        return None
    spec = _map(memory.get("spec"))
    secret = _map(_map(spec.get("connection")).get("secretRef"))
    return {"type": _text(spec.get("type")) or "custom", "connectionRef": _text(secret.get("name"))}


def _agent_runner(
    run: AgentRun,
    payload: Mapping[str, Any],
    provider: Mapping[str, Any],
    prompt: UserPrompt,
    system: SystemPrompt,
    profile: Profile,
    flags: ControllerFlags,
) -> dict[str, Any]:
    outputs = _list(provider.get("outputArtifacts"))
    told = prompt.text if profile.traits.codex_prompt else None
    adapter = _codex(payload, provider, told, system) if is_codex(provider) else _exec(provider)
    return {
        "schemaVersion": SCHEMA,
        "provider": payload["provider"],
        "inputs": dict(payload["parameters"]),
        **({"goal": payload["goal"]} if "goal" in payload else {}),
        "payloads": {"eventFilePath": RUN_PATH},
        "artifacts": {
            "statusPath": STATUS_PATH,
            "logPath": LOG_PATH,
            "logRetentionSeconds": log_retention(run, flags),
        },
        **({"providerSpec": {"outputArtifacts": outputs}} if outputs else {}),
        "adapter": adapter,
    }


def _codex(
    payload: Mapping[str, Any], provider: Mapping[str, Any], prompt: str | None, system: SystemPrompt
) -> dict[str, Any]:
    """What the runner is to start the Codex app server with; keys without a value are left out."""
    given = _map(_map(provider.get("adapter")).get("codex"))
    context = codex_context(payload, payload["parameters"])

    def filled(key: str) -> str | None:
        value = given.get(key)
        return fill_braces(value, context).text if isinstance(value, str) else _CODEX_DEFAULTS.get(key)

    overrides, thread, timeout = given.get("cliConfigOverrides"), given.get("threadConfig"), "bootstrapTimeoutMs"
    found: dict[str, Any] = {
        "binaryPath": filled("binaryPath"),
        "cliConfigOverrides": [fill_braces(str(one), context).text for one in overrides]
        if isinstance(overrides, list)
        else None,
        **{key: filled(key) for key in ("cwd", "model", "effort", "sandbox", "approval", "threadId")},
        "threadConfig": thread if isinstance(thread, Mapping) else dict(_CODEX_THREAD),
        **{key: given[key] for key in _CODEX_SWITCHES if isinstance(given.get(key), bool)},
        timeout: whole(given[timeout]) if given.get(timeout) is not None else None,
        "baseInstructions": filled("baseInstructions"),
        "developerInstructions": filled("developerInstructions"),
        "prompt": prompt,
        "goal": given.get("goal") if isinstance(given.get("goal"), Mapping) else None,
        "systemPromptPath": MOUNT_PATH if system.is_mounted else None,
        "systemPromptExpectedHash": system.hash,
    }
    kept = {key: value for key, value in found.items() if value is not None}
    if "threadConfig" in given and thread is None:  # null is a wish of its own: no configuration at all
        kept["threadConfig"] = None
    return {"type": "codex-app-server", "codex": kept}


_CODEX_SWITCHES = ("experimentalRawEvents", "persistExtendedHistory")


def _exec(provider: Mapping[str, Any]) -> dict[str, Any]:
    """What the runner is to start any other program with: templates as they are, for it fills them in itself."""
    adapter = provider.get("adapter")
    if isinstance(adapter, Mapping):
        bare = {key: value for key, value in adapter.items() if key != "secretEnv"}
        if isinstance(bare.get("codex"), Mapping):
            bare["codex"] = {key: value for key, value in bare["codex"].items() if key != "secretEnv"}
        return bare
    kinds = {"argsTemplate": list, "envTemplate": Mapping, "inputFiles": list, "outputArtifacts": list}
    given = {key: provider[key] for key, kind in kinds.items() if isinstance(provider.get(key), kind)}
    return {"type": "exec", "exec": {"binary": provider.get("binary"), **given}}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
