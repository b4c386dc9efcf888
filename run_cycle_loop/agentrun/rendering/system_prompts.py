"""The system prompt of a run: where it comes from, its exact text and hash, or why the controller refuses it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import AgentRun
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Object, Resources

MOUNT_FOLDER = "/workspace/.codex"
MOUNT_FILE = "system-prompt.txt"
MOUNT_PATH = f"{MOUNT_FOLDER}/{MOUNT_FILE}"
LIMIT = 16384  #: UTF-16 units of a system prompt that stands inline

_KINDS = {"secret": "Secret", "configmap": "ConfigMap", "config-map": "ConfigMap"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemPrompt:
    """The system prompt of a run: one for all its steps."""

    source: str = ""  #: the field that names it, ``Agent/demo spec.defaults.systemPromptRef``; empty for none
    kind: str = ""  #: ``ConfigMap`` or ``Secret`` for a reference, ``inline`` for a text, empty for none
    name: str = ""  #: of the object referred to
    key: str = ""  #: in it
    text: str | None = None  #: None where there is none, or the object is not here
    hash: str | None = None  #: SHA-256 of the exact text, in hex; a newline at its end counts
    refusal: Refusal | None = None
    note: str = ""  #: why text and hash are not known here

    @property
    def is_mounted(self) -> bool:
        """Whether it reaches the agent as a file, rather than inside of ``run.json``."""
        return self.kind in ("ConfigMap", "Secret")


def system_prompt(run: AgentRun, resources: Resources, profile: Profile) -> SystemPrompt:
    """The system prompt of a run, or the refusal that the controller would give.

    Where the object that holds it is not here and the resources are not complete, text and hash are None without a
    refusal, and the note says so.
    """
    traits, agent = profile.traits, resources.get("Agent", run.agent)
    in_run = [key for key in ("systemPromptRef", "systemPrompt") if run.spec.get(key) is not None]
    if in_run and not traits.run_system_prompt:
        message = f"AgentRun.spec.{in_run[0]} is not allowed; configure Agent.spec.defaults instead"
        source = f"AgentRun/{run.name} spec.{in_run[0]}"
        return SystemPrompt(source=source, refusal=_refusal("SystemPromptOverrideNotAllowed", message))
    spec = resources.spec("Agent", run.agent)
    defaults = _map(spec.get("defaults"))
    for place, holder in ((f"AgentRun/{run.name} spec", run.spec), (f"Agent/{run.agent} spec.defaults", defaults)):
        found = _in_holder(place, holder, run, resources)
        if found is not None:
            return found
    if agent is None:
        return SystemPrompt(note=f"Agent/{run.agent} is not among the objects given: its defaults are not known here")
    if not traits.system_prompt_needed:
        return SystemPrompt()
    message = f"Agent {run.agent} has neither spec.defaults.systemPrompt nor spec.defaults.systemPromptRef"
    return SystemPrompt(refusal=_refusal("MissingSystemPromptConfiguration", message))


def digest(text: str) -> str:
    """The hash of a system prompt: of every byte, nothing trimmed."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def value_in(found: Object, key: str) -> str | None:
    """The text under a key of a ConfigMap or a Secret; None where there is none.

    A Secret's ``data`` is decoded, bytes that are no UTF-8 as the controller does it; its ``stringData`` stands first.
    """
    data = _map(found.get("data")).get(key)
    if found.get("kind") != "Secret":
        return data if isinstance(data, str) else None
    plain = _map(found.get("stringData")).get(key)
    if isinstance(plain, str):
        return plain
    return _decoded(data) if isinstance(data, str) and data else None


def _in_holder(place: str, holder: Mapping[str, Any], run: AgentRun, resources: Resources) -> SystemPrompt | None:
    """What one object says: its reference, else its text where that is not blank."""
    reference, inline = holder.get("systemPromptRef"), holder.get("systemPrompt")
    if reference is not None:
        return _by_reference(f"{place}.systemPromptRef", reference, run, resources)
    return None if inline is None else _inline(f"{place}.systemPrompt", inline)


def _inline(source: str, value: Any) -> SystemPrompt | None:
    found = SystemPrompt(source=source, kind="inline")
    if not isinstance(value, str):
        return replace(found, refusal=_refusal("InvalidSystemPrompt", f"{source} must be a text"))
    if not value.strip():
        return None
    units = len(value.encode("utf-16-le", "surrogatepass")) // 2
    if units > LIMIT:
        message = f"{source} has {units} characters; the limit is {LIMIT}"
        return replace(found, refusal=_refusal("SystemPromptTooLong", message))
    return replace(found, text=value, hash=digest(value))


def _by_reference(source: str, value: Any, run: AgentRun, resources: Resources) -> SystemPrompt:
    reference = _map(value)
    kind = _KINDS.get(_text(reference.get("kind")).strip().lower(), "")
    name, key = _text(reference.get("name")), _text(reference.get("key"))
    found = SystemPrompt(source=source, kind=kind, name=name, key=key)
    if not (kind and name and key):
        message = f"{source} needs a kind (Secret or ConfigMap), a name and a key"
        return replace(found, refusal=_refusal("InvalidSystemPromptRef", message))
    if kind == "Secret" and (message := _not_allowed(name, run, resources)):
        return replace(found, refusal=_refusal("SecretNotAllowed", message))
    holder = resources.get(kind, name)
    if holder is None and not resources.complete:
        return replace(found, note=f"{kind}/{name} is not among the objects given: its text is not known here")
    if holder is None:
        return replace(found, refusal=_refusal("MissingSystemPromptRef", f"{kind} {name} not found"))
    text = value_in(holder, key)
    if text is None or not text.strip():
        return replace(found, refusal=_refusal("MissingSystemPromptRef", f"{kind} {name} has nothing under {key}"))
    return replace(found, text=text, hash=digest(text))


def _not_allowed(name: str, run: AgentRun, resources: Resources) -> str:
    """Why the Secret may not be read; empty where it may."""
    if name not in run.secrets:
        return f"system prompt secret {name} is not in spec.secrets"
    allowed = _map(resources.spec("Agent", run.agent).get("security")).get("allowedSecrets")
    if isinstance(allowed, list) and allowed and name not in allowed:
        return f"system prompt secret {name} is not in the allowedSecrets of Agent {run.agent}"
    return ""


def _refusal(reason: str, message: str) -> Refusal:
    return Refusal(reason=reason, message=message, condition="InvalidSpec")


def _decoded(data: str) -> str | None:
    import base64  # noqa: PLC0415 - only where a Secret holds the prompt

    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except ValueError:
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
