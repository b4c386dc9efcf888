"""The repository and the branches that a step works on, or why it is given none."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import AgentRun, Step
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.metadata import event_of
from run_cycle_loop.agentrun.rendering.prompts import implementation_of
from run_cycle_loop.agentrun.rendering.templates import fill_braces
from run_cycle_loop.agentrun.rendering.vcs_access import TOKEN_NAMES, Access, access_of, login_of, method_of
from run_cycle_loop.agentrun.resources import Object, Resources


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionControl:
    """What a step is given of version control."""

    provider: str = ""  #: the VersionControlProvider's name; empty where none is named
    kind: str = ""  #: ``github``, ``gitlab``, ``bitbucket``, ``gitea`` or ``generic``
    repository: str = ""
    base: str = ""  #: the branch that work starts from; empty where nothing says it
    head: str = ""  #: the branch that work goes to
    mode: str = "none"  #: ``read-write``, ``read-only`` or ``none``
    head_source: str = ""  #: what names the head branch
    refusal: Refusal | None = None  #: why the run fails
    skipped: Refusal | None = None  #: why the step is given nothing, as a condition says it; silent where none is named
    warning: Refusal | None = None
    secrets: tuple[str, ...] = ()  #: that it takes, beside those of the run
    context: Mapping[str, Any] | None = None  #: as ``run.json`` and templates have it; None for none
    access: Access = field(default_factory=Access)
    note: str = ""  #: what could not be looked up here

    @property
    def is_given(self) -> bool:
        """Whether the step's runner is told of a repository at all."""
        return self.context is not None


_DEFAULT_KEYS = {"token": "token", "app": "privateKey", "ssh": "privateKey"}


def version_control(
    run: AgentRun, step: Step | None, resources: Resources, profile: Profile, flags: ControllerFlags
) -> VersionControl:
    """What a step is given of version control; ``step`` is None for runtimes without steps."""
    if not flags.vcs_enabled:
        skipped = _condition("VcsProvidersDisabled", "the controller's version control providers are turned off")
        return VersionControl(skipped=skipped)
    return _Asked(run, step, resources, profile, flags).answer()


class _No(Exception):  # noqa: N818 - no error, but the end of the questions
    """Nothing is given, and why."""

    def __init__(self, reason: str, message: str, *, always: bool = False) -> None:
        super().__init__(message)
        self.reason, self.message, self.always = reason, message, always


class _Asked:
    """The questions about one step, in the controller's order."""

    def __init__(
        self, run: AgentRun, step: Step | None, resources: Resources, profile: Profile, flags: ControllerFlags
    ) -> None:
        self._run, self._resources, self._flags = run, resources, flags
        found = implementation_of(run, step, resources, profile)
        self._implementation: Mapping[str, Any] = found.spec if found and found.spec is not None else {}
        self._parameters = run.parameters_of(step) if step else run.parameters
        self._event = event_of(self._implementation, self._parameters, profile)
        self._agent = resources.spec("Agent", run.agent)
        self._known: dict[str, Any] = {"mode": "none"}  # of the answer, as far as it is known

    def answer(self) -> VersionControl:
        try:
            return self._given()
        except _No as no:
            wanted = self._run.vcs_mode != "none"
            fails = wanted and (self._run.vcs_required or no.always)
            if not no.reason:
                return VersionControl(**self._known)
            if fails:
                refusal = Refusal(reason=no.reason, message=no.message)
                return VersionControl(**self._known, refusal=refusal)
            return VersionControl(**self._known, skipped=_condition(no.reason, no.message))

    def _given(self) -> VersionControl:
        spec = self._provider()
        repository = self._repository(spec)
        if self._run.vcs_mode == "none":
            raise _No("VcsDisabled", "vcsPolicy.mode is none")
        mode = self._mode(spec)
        base, head, head_source = self._branches(spec, mode)
        self._known |= {"mode": mode, "base": base, "head": head, "head_source": head_source}
        method, warning = self._method(spec)
        secret, key = self._secret(spec, method)
        can_write = mode == "read-write" and method != "none"
        if self._run.vcs_mode == "read-write" and not can_write:
            if self._run.vcs_required:
                raise _No("VcsAuthUnavailable", "write access to the repository is not available")
            mode = "read-only"
            self._known["mode"] = mode
        if mode == "none":
            raise _No("VcsDisabled", "the mode comes out as none")
        context = self._context(spec, repository, writes=can_write)
        limits = self._flags.vcs_pr_rate_limits
        return VersionControl(
            **self._known,
            warning=warning,
            secrets=(secret,) if secret else (),
            context=context,
            access=access_of(self._run.name, spec, context, method, (secret, key), limits),
        )

    def _provider(self) -> Mapping[str, Any]:
        named = (self._run.vcs_ref, _name_in(self._implementation.get("vcsRef")), _name_in(self._agent.get("vcsRef")))
        name = next(filter(None, named), "")
        if not name:
            required = self._run.vcs_required
            raise _No(
                "MissingVcsProvider" if required else "", "vcsPolicy.required is true, and nothing names a vcsRef"
            )
        self._known["provider"] = name
        if self._resources.get("VersionControlProvider", name) is None:
            raise self._not_here("VersionControlProvider", name, "MissingVcsProvider")
        spec = self._resources.spec("VersionControlProvider", name)
        self._known["kind"] = _text(spec.get("provider")) or "generic"
        return spec

    def _repository(self, spec: Mapping[str, Any]) -> str:
        repository = self._event.metadata.get("repository", "")
        if not repository:
            raise _No("MissingRepository", "no parameter names the repository")
        self._known["repository"] = repository
        policy = _map(spec.get("repositoryPolicy"))
        allowed = _texts(policy.get("allow"))
        if _matches(repository, _texts(policy.get("deny"))):
            raise _No("VcsPolicyDenied", f"repository {repository} is denied by the provider's policy", always=True)
        if allowed and not _matches(repository, allowed):
            raise _No("VcsPolicyDenied", f"repository {repository} is not in the provider's allow list", always=True)
        return repository

    def _mode(self, spec: Mapping[str, Any]) -> str:
        can = _map(spec.get("capabilities"))
        mode = self._run.vcs_mode
        if mode == "read-write" and can.get("write") is False:
            mode = "read-only"
        if mode == "read-only" and can.get("read") is False:
            mode = "none"
        self._known["mode"] = mode
        if self._run.vcs_required and mode != self._run.vcs_mode:
            raise _No("VcsCapabilityDenied", f"provider {self._known['provider']} cannot do {self._run.vcs_mode}")
        return mode

    def _branches(self, spec: Mapping[str, Any], mode: str) -> tuple[str, str, str]:
        """Base, head, and what names the head. Whether others work on that head is not looked at, as in workflows."""
        defaults, metadata = _map(spec.get("defaults")), self._event.metadata
        base = metadata.get("base") or _text(defaults.get("baseBranch"))
        if metadata.get("head"):
            return base, metadata["head"], "parameters"
        fallback = f"codex/{self._run.name}"
        template = _text(defaults.get("branchTemplate"))
        if template:
            branch = fill_braces(template, self._branch_context()).text.strip()
            if branch and all(branch.split("/")):
                return base, branch, "the provider's branchTemplate"
            return base, fallback, "the run's name: the provider's branchTemplate comes out with an empty part"
        return (base, fallback, "the run's name") if mode == "read-write" else (base, "", "")

    def _branch_context(self) -> dict[str, Any]:
        return {
            **self._event.metadata,
            **self._parameters,
            "agentRun": {"name": self._run.name, "namespace": self._run.namespace},
            "parameters": self._parameters,
            "metadata": self._event.metadata,
            "event": self._event.payload,
        }

    def _method(self, spec: Mapping[str, Any]) -> tuple[str, Refusal | None]:
        """How the runner logs in, and what is to be said against it."""
        auth, kind = _map(spec.get("auth")), self._known["kind"]
        login, method = login_of(kind), method_of(auth)
        if method not in login.methods:
            raise _No("UnsupportedVcsAuth", f"auth.method {method} does not go with {kind} providers")
        if method != "token":
            return method, None
        given = _text(_map(auth.get("token")).get("type")).strip().lower().replace("-", "_")
        token = TOKEN_NAMES.get(given, given) or login.default_token
        if token and token not in login.tokens:
            raise _No("UnsupportedVcsAuth", f"auth.token.type {token} does not go with {kind} providers")
        deprecated = self._flags.vcs_deprecated_tokens.get(kind, login.deprecated)
        if isinstance(deprecated, list | tuple) and token in deprecated:
            return method, Refusal(
                reason="DeprecatedAuth", message=f"auth.token.type {token} is deprecated", condition="Warning"
            )
        return method, None

    def _secret(self, spec: Mapping[str, Any], method: str) -> tuple[str, str]:
        """The Secret that the login takes, and its key; both empty where it takes none."""
        if method == "none":
            return "", ""
        holder = _map(_map(spec.get("auth")).get(method))
        reference = _map(holder.get("secretRef" if method == "token" else "privateKeySecretRef"))
        name, key = _text(reference.get("name")), _text(reference.get("key")) or _DEFAULT_KEYS[method]
        if method == "app" and not (holder.get("appId") and holder.get("installationId")):
            name = ""
        if not name:
            raise _No("MissingVcsAuth", f"the provider's spec.auth.{method} does not say which Secret to use")
        allowed = _texts(_map(self._agent.get("security")).get("allowedSecrets"))
        if name in self._flags.blocked_secrets:
            raise _No("SecretBlocked", f"vcs secret {name} is blocked by the controller")
        if allowed and name not in allowed:
            raise _No("SecretNotAllowed", f"vcs secret {name} is not in the allowedSecrets of Agent {self._run.agent}")
        secret = self._resources.get("Secret", name)
        if secret is None and not self._resources.complete:
            self._known["note"] = f"Secret/{name} is not among the objects given: it is taken to be there"
            return name, key
        if secret is None or not _has(secret, key):
            raise _No("VcsAuthUnavailable", f"secret {name} has no key {key}")
        return name, key

    def _not_here(self, kind: str, name: str, reason: str) -> _No:
        """In a bundle it may be elsewhere: then nothing is refused, and nothing is known."""
        if self._resources.complete:
            return _No(reason, f"{kind} {name} not found")
        self._known["note"] = f"{kind}/{name} is not among the objects given: what it allows is not known here"
        self._known |= {key: self._event.metadata.get(key, "") for key in ("repository", "base", "head")}
        return _No("", "")

    def _context(self, spec: Mapping[str, Any], repository: str, *, writes: bool) -> dict[str, Any]:
        """As ``run.json`` has it; what nothing says is null there."""
        defaults = _map(spec.get("defaults"))
        request = _map(defaults.get("pullRequest"))
        enabled = request.get("enabled") is not False
        can = _map(spec.get("capabilities")).get("pullRequests") is not False
        kind = self._known["kind"]
        api = _text(spec.get("apiBaseUrl")) or ("https://api.github.com" if kind == "github" else None)
        return {
            "provider": kind,
            "providerName": self._known["provider"],
            "repository": repository,
            "baseBranch": self._known["base"],
            "headBranch": self._known["head"],
            "mode": self._known["mode"],
            "writeEnabled": writes,
            "pullRequestsEnabled": writes and can and enabled,
            "apiBaseUrl": api,
            **{
                key: _text(spec.get(key)) or None
                for key in ("cloneBaseUrl", "webBaseUrl", "cloneProtocol", "sshHost", "sshUser")
            },
            "defaults": {
                **{
                    key: _text(defaults.get(key)) or None
                    for key in (
                        "baseBranch",
                        "branchTemplate",
                        "branchConflictSuffixTemplate",
                        "commitAuthorName",
                        "commitAuthorEmail",
                    )
                },
                "pullRequest": {
                    "enabled": enabled,
                    "draft": request.get("draft") is True,
                    "titleTemplate": _text(request.get("titleTemplate")) or None,
                    "bodyTemplate": _text(request.get("bodyTemplate")) or None,
                },
            },
        }


def _matches(repository: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern with ``*`` takes the whole name, upper and lower case apart."""
    literal = (pattern.replace("[", "[[]").replace("?", "[?]") for pattern in patterns)
    return any(fnmatch.fnmatchcase(repository, one) for one in literal)


def _has(secret: Object, key: str) -> bool:
    return key in _map(secret.get("data")) or key in _map(secret.get("stringData"))


def _condition(reason: str, message: str) -> Refusal:
    return Refusal(reason=reason, message=message, condition="VcsSkipped")


def _name_in(value: Any) -> str:
    return _text(_map(value).get("name"))


def _texts(value: Any) -> tuple[str, ...]:
    return (
        tuple(one.strip() for one in value if isinstance(one, str) and one.strip()) if isinstance(value, list) else ()
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
