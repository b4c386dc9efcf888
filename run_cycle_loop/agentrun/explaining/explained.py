"""What is to be said of a run before anything starts, as plain data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from run_cycle_loop.agentrun.explaining.plans import Plan
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import AgentRun, Volume
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.payloads import Payloads
from run_cycle_loop.agentrun.rendering.prompts import Candidate
from run_cycle_loop.agentrun.rendering.system_prompts import MOUNT_PATH, SystemPrompt
from run_cycle_loop.agentrun.rendering.templates import Replacement
from run_cycle_loop.agentrun.rendering.vcs import VersionControl
from run_cycle_loop.kit.printable import printable

_EXCERPT = 60  #: characters of a prompt that are shown


@dataclass(frozen=True, kw_only=True, slots=True)
class StepExplanation:
    """What will become of one step."""

    index: int  #: from 1; 0 for the one pod of a run without steps
    name: str
    implementation: str  #: where it stands; empty for none
    paid: Payloads
    literal: tuple[str, ...]  #: placeholders that stay as they are, because this profile fills nothing in
    image: str
    image_source: str
    volumes: tuple[Volume, ...]
    labels: Mapping[str, str]
    plan: Plan
    refusal: Refusal | None

    def as_json(self) -> dict[str, Any]:
        """As plain data; prompts are whole, values of Secrets are not in it."""
        prompt = self.paid.prompt
        return {
            "index": self.index,
            "name": self.name,
            "implementation": self.implementation or None,
            "prompt": {
                "text": prompt.text,
                "sha256": sha(prompt.text),
                "source": prompt.source or None,
                "runJson": prompt.run_text,
                "candidates": [_candidate(one) for one in prompt.candidates],
                "replacements": [_replacement(one) for one in prompt.replacements],
                "literalPlaceholders": list(self.literal),
                "note": prompt.note or None,
            },
            "image": {"name": self.image or None, "source": self.image_source or None},
            "volumes": [_volume(one) for one in self.volumes],
            "labels": dict(self.labels),
            "versionControl": _version_control(self.paid.version_control),
            "plan": self.plan.as_json(),
            "refusal": _refusal(self.refusal),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Something that the other profile would do otherwise."""

    what: str
    here: str
    there: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What will become of a run."""

    run: AgentRun
    profile: Profile
    provider: str  #: the AgentProvider's name; empty where the agent is not here
    adapter: str  #: ``codex-app-server`` or ``exec``; empty where the provider is not here
    system_prompt: SystemPrompt
    service_account: tuple[str, str]  #: and what names it
    job_ttl: int | None
    steps: tuple[StepExplanation, ...]
    differences: tuple[Difference, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        run, system = self.run, self.system_prompt
        account, account_source = self.service_account
        return {
            "name": run.name,
            "namespace": run.namespace,
            "profile": str(self.profile),
            "runtime": run.runtime,
            "agent": run.agent,
            "provider": self.provider or None,
            "adapter": self.adapter or None,
            "systemPrompt": {
                "source": system.source or None,
                "kind": system.kind or None,
                "object": system.name or None,
                "key": system.key or None,
                "sha256": system.hash,
                "reaches": reaches(system) or None,
                "refusal": _refusal(system.refusal),
                "note": system.note or None,
            },
            "serviceAccount": {"name": account, "source": account_source or None},
            "secrets": list(run.secrets),
            "jobTtlSeconds": self.job_ttl,
            "steps": [one.as_json() for one in self.steps],
            "otherProfile": [{"what": one.what, "here": one.here, "there": one.there} for one in self.differences],
        }


def reaches(system: SystemPrompt) -> str:
    """How the system prompt gets to the agent; empty where it does not."""
    if system.refusal is not None or not system.kind:
        return ""
    return f"mounted at {MOUNT_PATH}" if system.is_mounted else "inside of run.json"


def sha(text: str | None) -> str | None:
    """The SHA-256 of a text, in hex; None for none."""
    return None if text is None else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def short(digest: str | None) -> str:
    """The first digits of a hash."""
    return digest[:12] if digest else "unknown"


def excerpt(text: str) -> str:
    """A text on one line, its beginning alone where it is long."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= _EXCERPT else f"{line[: _EXCERPT - 3]}..."


def _candidate(one: Candidate) -> dict[str, Any]:
    return {
        "source": one.source,
        "place": one.place,
        "wins": one.wins,
        "why": one.why,
        "sha256": sha(one.text),
        "excerpt": None if one.text is None else excerpt(one.text),
    }


def _replacement(one: Replacement) -> dict[str, Any]:
    return {"token": one.token, "path": one.path, "value": one.value, "position": one.position, "inValue": one.in_value}


def _volume(one: Volume) -> dict[str, Any]:
    return {
        "name": one.name,
        "type": one.type,
        "mountPath": one.mount_path,
        "readOnly": one.read_only,
        "claim": one.claim_name or None,
        "secret": one.secret_name or None,
        "persists": one.is_persistent,
    }


def _version_control(found: VersionControl) -> dict[str, Any]:
    return {
        "provider": found.provider or None,
        "repository": found.repository or None,
        "baseBranch": found.base or None,
        "headBranch": found.head or None,
        "headSource": found.head_source or None,
        "mode": found.mode,
        "secrets": list(found.secrets),
        "refusal": _refusal(found.refusal),
        "skipped": _refusal(found.skipped),
        "warning": _refusal(found.warning),
        "note": found.note or None,
    }


def _refusal(refusal: Refusal | None) -> dict[str, str] | None:
    return None if refusal is None else {"reason": refusal.reason, "message": refusal.message}


def other_of(profile: Profile) -> Profile:
    """The profile that this one is not."""
    return Profile.CURRENT if profile is Profile.GUIDE else Profile.GUIDE
