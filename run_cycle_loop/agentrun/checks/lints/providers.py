"""Agents and providers whose settings have no effect, or a surprising one."""

from collections.abc import Iterator, Mapping
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.subject import Subject, mapping, shown, text
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.prompts import is_codex
from run_cycle_loop.agentrun.rendering.system_prompts import system_prompt


def provider_lints(subject: Subject) -> Iterator[Finding]:
    """What the provider makes of the run's system prompt."""
    if not text(subject.provider.get("binary")).strip():
        return
    prompt = system_prompt(subject.run, subject.resources, subject.profile)
    if prompt.refusal is not None or not prompt.source:
        return
    name, path = subject.provider_name, "spec.agentRef.name"
    codex = mapping(mapping(subject.provider.get("adapter")).get("codex"))
    if not is_codex(subject.provider):
        message = f"AgentProvider {name} starts any program: nobody checks that it follows the system prompt"
        yield subject.note(
            "SystemPromptNotEnforced", path, message, "have the program read CODEX_SYSTEM_PROMPT_PATH itself"
        )
    elif text(codex.get("baseInstructions")).strip():
        message = f"AgentProvider {name} sets baseInstructions, which never match the system prompt: attempts fail"
        yield subject.error(
            "BaseInstructionsConflict", path, message, "remove adapter.codex.baseInstructions from the provider"
        )


def object_lints(body: Mapping[str, Any], profile: Profile) -> Iterator[Finding]:
    """Of an Agent or an AgentProvider; nothing for other kinds."""
    spec = mapping(body.get("spec"))
    where = f"{body.get('kind')}/{mapping(body.get('metadata')).get('name') or ''}"
    if body.get("kind") == "Agent":
        yield from _agent(spec, where)
    elif body.get("kind") == "AgentProvider":
        yield from _provider(spec, where, profile)


def _agent(spec: Mapping[str, Any], where: str) -> Iterator[Finding]:
    defaults = mapping(spec.get("defaults"))
    for field, instead in (("timeoutSeconds", "timeoutSeconds"), ("retryLimit", "retries")):
        if defaults.get(field) is not None:
            message = f"spec.defaults.{field} is {shown(defaults[field])}, and no controller reads it"
            cure = f"set {instead} of the steps of each run"
            yield _finding(where, Severity.WARNING, "AgentDefaultsIgnored", f"spec.defaults.{field}", message, cure)
    if spec.get("env"):
        message = "spec.env fills placeholders of the provider, and is no environment of the container"
        cure = "name what the container needs in the provider's envTemplate"
        yield _finding(where, Severity.NOTE, "AgentEnvOnlyForTemplates", "spec.env", message, cure)


def _provider(spec: Mapping[str, Any], where: str, profile: Profile) -> Iterator[Finding]:
    codex, path = mapping(mapping(spec.get("adapter")).get("codex")), "spec.adapter.codex"
    if not is_codex(spec):
        return
    if profile.traits.codex_prompt and text(codex.get("prompt")).strip():
        message = f"the provider's prompt {shown(codex['prompt'])} takes the place of every implementation's text"
        cure = "remove it; put what is to be done into ImplementationSpecs"
        yield _finding(where, Severity.WARNING, "ProviderPromptOverrides", f"{path}.prompt", message, cure)
    approval = text(codex.get("approval"))
    if approval and approval != "never":
        message = f"approval is {shown(approval)}, and the runner takes never alone: each attempt fails"
        yield _finding(
            where, Severity.ERROR, "ApprovalRefused", f"{path}.approval", message, "write never, or remove it"
        )


def _finding(where: str, severity: Severity, reason: str, path: str, message: str, cure: str) -> Finding:
    return Finding(
        severity=severity, source=Source.LINT, reason=reason, where=where, path=path, message=message, cure=cure
    )
