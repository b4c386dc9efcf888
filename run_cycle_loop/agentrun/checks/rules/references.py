"""The controller's rules for what a run refers to: agent, implementation, memory, secrets, images, system prompt."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.rules.parameters import is_match
from run_cycle_loop.agentrun.checks.subject import Subject, mapping, shown, step_words, text, words
from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.agentrun.rendering.launches import effective_image
from run_cycle_loop.agentrun.rendering.system_prompts import system_prompt


def reference_findings(subject: Subject) -> Iterator[Finding]:
    """In the controller's order."""
    yield from _agent(subject)
    yield from _implementation(subject)
    memory = _memory_name(subject)
    if memory and subject.resources.get("Memory", memory) is None:
        path = "spec.memoryRef.name" if subject.run.memory_ref else "spec.agentRef.name"
        yield _absent(subject, "Memory", memory, "MissingMemory", path)
    yield from _secrets(subject, memory)
    yield from _service_account(subject)
    yield from _source(subject)
    yield from _images(subject)
    yield from _system_prompt(subject)


def _absent(subject: Subject, kind: str, name: str, reason: str, path: str) -> Finding:
    """An object that is not here: refused where it does not exist, and a note where it may be elsewhere."""
    if subject.resources.complete:
        message = f"{kind} {shown(name)} not found in namespace {subject.run.namespace}{_meant(subject, kind, name)}"
        return subject.refusal(reason, path, message, f"apply the {kind} before the run, or correct the name")
    unchecked = {
        "Agent": "its provider, its system prompt and what it allows were not checked",
        "AgentProvider": "its program, its image and its account were not checked",
        "ImplementationSpec": "the text that becomes the prompt was not checked",
        "Memory": "its secret was not checked",
    }
    message = f"{kind} {shown(name)} is not among the files: {unchecked[kind]}"
    short = {"ImplementationSpec": "Implementation", "AgentProvider": "Provider"}.get(kind, kind)
    cure = "give its file with -f as well, or check on the cluster that it is there"
    return subject.note(f"{short}NotInBundle", path, message + _meant(subject, kind, name), cure)


def _meant(subject: Subject, kind: str, name: str) -> str:
    """The object that was probably meant, as the end of a message."""
    known = [str(mapping(one.get("metadata")).get("name")) for one in subject.resources.all(kind)]
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _agent(subject: Subject) -> Iterator[Finding]:
    name = subject.run.agent
    if not name:
        message = "spec.agentRef.name is missing"
        yield subject.refusal("MissingAgent", "spec.agentRef.name", message, "name an Agent of the same namespace")
    elif subject.resources.get("Agent", name) is None:
        yield _absent(subject, "Agent", name, "MissingAgent", "spec.agentRef.name")
    elif not subject.provider_name:
        message = f"Agent {name} has no spec.providerRef.name"
        yield subject.refusal("MissingProvider", "spec.agentRef.name", message, "add it to the Agent")
    elif subject.resources.get("AgentProvider", subject.provider_name) is None:
        yield _absent(subject, "AgentProvider", subject.provider_name, "MissingProvider", "spec.agentRef.name")


def _implementation(subject: Subject) -> Iterator[Finding]:
    run = subject.run
    if run.implementation is not None:
        return
    if not run.implementation_ref:
        own = sum(1 for step in run.steps if step.implementation is not None or step.implementation_ref)
        message = "the run has neither implementationSpecRef.name nor implementation.inline"
        message += f", and those of its {own} steps do not count here" if own else ""
        cure = "add spec.implementationSpecRef.name to the run itself"
        yield subject.refusal("MissingImplementation", "spec.implementationSpecRef", message, cure)
    elif subject.resources.get("ImplementationSpec", run.implementation_ref) is None:
        path = "spec.implementationSpecRef.name"
        yield _absent(subject, "ImplementationSpec", run.implementation_ref, "MissingImplementation", path)


def _memory_name(subject: Subject) -> str:
    """The run's, else the agent's, else the one that is marked default."""
    own = subject.run.memory_ref or text(mapping(subject.agent.get("memoryRef")).get("name"))
    if own:
        return own
    for one in subject.resources.all("Memory"):
        if mapping(one.get("spec")).get("default") is True:
            return text(mapping(one.get("metadata")).get("name"))
    return ""


def _secrets(subject: Subject, memory: str) -> Iterator[Finding]:
    run, flags = subject.run, subject.flags
    allowed = words(mapping(subject.agent.get("security")).get("allowedSecrets"))
    connection = mapping(mapping(subject.resources.spec("Memory", memory).get("connection")).get("secretRef"))
    others = (
        (text(connection.get("name")), f"the secret of Memory {memory}", _memory_path(subject)),
        (flags.auth_secret_name, "the controller's own auth secret", "spec.agentRef.name"),
    )
    listed = tuple((name, "the secret", child("spec.secrets", number)) for number, name in enumerate(run.secrets))
    for name, what, path in (*listed, *others):
        if name and allowed and name not in allowed:
            message = f"{what} {name} is not in the allowedSecrets of Agent {run.agent}"
            cure = (
                f"add it to spec.security.allowedSecrets of the Agent, or leave it out: {', '.join(allowed)} are there"
            )
            yield subject.refusal("SecretNotAllowed", path, message, cure)
    name, what, path = others[0]
    if name and run.secrets and name not in run.secrets:
        message = f"{what}, {name}, is not in spec.secrets"
        yield subject.refusal("SecretNotAllowed", "spec.secrets", message, "add it to spec.secrets")
    for name, what, path in (*listed, *others):
        if name and name in flags.blocked_secrets:
            message = f"{what} {name} is blocked by the controller"
            cure = f"leave it out; {flags.variables(subject.profile)['blocked_secrets']} on the controller names it"
            yield subject.refusal("SecretBlocked", path, message, cure)


def _memory_path(subject: Subject) -> str:
    return "spec.memoryRef.name" if subject.run.memory_ref else "spec.secrets"


def _service_account(subject: Subject) -> Iterator[Finding]:
    config = subject.run.runtime_config
    allowed = words(mapping(subject.agent.get("security")).get("allowedServiceAccounts"))
    own = text(config.get("serviceAccount")) or text(config.get("serviceAccountName"))
    provided = text(mapping(subject.provider.get("workload")).get("serviceAccountName"))
    account = own or provided or subject.flags.runner_service_account or "default"
    is_known = own or (subject.provider and (provided or subject.flags.known))
    if allowed and account not in allowed and is_known:
        message = f"the service account {account} is not in the allowedServiceAccounts of Agent {subject.run.agent}"
        cure = f"write one of {', '.join(allowed)} as spec.runtime.config.serviceAccount"
        path = "spec.runtime.config.serviceAccount" if own else "spec.runtime"
        yield subject.refusal("ServiceAccountNotAllowed", path, message, cure)


def _source(subject: Subject) -> Iterator[Finding]:
    run = subject.run
    if run.implementation is not None:
        yield from source_findings(subject, run.implementation, "spec.implementation.inline.source.provider")
    elif subject.resources.get("ImplementationSpec", run.implementation_ref) is not None:
        spec = subject.resources.spec("ImplementationSpec", run.implementation_ref)
        yield from source_findings(subject, spec, "spec.implementationSpecRef.name")


def source_findings(
    subject: Subject, implementation: Mapping[str, Any], path: str, prefix: str = ""
) -> Iterator[Finding]:
    """Whether the agent may work on implementations from that source."""
    allowed = words(mapping(subject.agent.get("security")).get("allowedImplementationSourceProviders"))
    source = text(mapping(implementation.get("source")).get("provider")).lower()
    if allowed and source not in [one.lower() for one in allowed]:
        message = (
            f"{prefix}the implementation's source.provider {shown(source)} is not allowed for Agent {subject.run.agent}"
        )
        cure = f"write one of {', '.join(allowed)} as source.provider of the implementation"
        yield subject.refusal("ImplementationSourceProviderNotAllowed", path, message, cure)


def _images(subject: Subject) -> Iterator[Finding]:
    flags = subject.flags
    if not flags.images_allowed and not flags.images_denied:
        return
    names = flags.variables(subject.profile)
    for step in subject.run.steps:
        image, source = effective_image(subject.run, step, subject.resources, subject.profile, flags)
        path = source if source.startswith("spec.") else "spec.agentRef.name"
        prefix = step_words(step)
        if image and any(is_match(image, glob) for glob in flags.images_denied):
            message, cure = (
                f"{prefix}: the image {image} is blocked by the controller",
                f"use another; see {names['images_denied']}",
            )
            yield subject.refusal("ImageBlocked", path, message, cure)
        elif image and flags.images_allowed and not any(is_match(image, glob) for glob in flags.images_allowed):
            message = f"{prefix}: the image {image} is not among those that the controller allows"
            cure = f"use one that matches {', '.join(flags.images_allowed)}"
            yield subject.refusal("ImageNotAllowed", path, message, cure)


_PROMPT_CURES = {
    "SystemPromptOverrideNotAllowed": "remove it, and set spec.defaults.systemPrompt or systemPromptRef of the Agent",
    "MissingSystemPromptConfiguration": "add spec.defaults.systemPromptRef or systemPrompt to the Agent",
    "InvalidSystemPromptRef": "write kind: ConfigMap (or Secret), name and key",
    "InvalidSystemPrompt": "write a text",
    "SystemPromptTooLong": "shorten it, or put it into a ConfigMap and refer to that",
    "MissingSystemPromptRef": "apply the object with that key before the run, or correct name and key",
    "SecretNotAllowed": "add it to spec.secrets, and to spec.security.allowedSecrets of the Agent where that is set",
}


def _system_prompt(subject: Subject) -> Iterator[Finding]:
    prompt = system_prompt(subject.run, subject.resources, subject.profile)
    owner, _, inside = prompt.source.partition(" ")
    path = inside if owner == subject.where else "spec.agentRef.name"
    if prompt.refusal is not None:
        refusal = prompt.refusal
        cure = _PROMPT_CURES.get(refusal.reason, "mend the system prompt")
        yield subject.refusal(refusal.reason, path, refusal.message, cure)
    elif prompt.name and prompt.text is None:
        message = f"{prompt.kind} {shown(prompt.name)}, which holds the system prompt, is not among the files"
        cure = f"give its file as well, or check that it has the key {prompt.key}"
        yield subject.note("SystemPromptNotInBundle", path, message, cure)
