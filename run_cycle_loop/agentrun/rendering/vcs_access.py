"""How a pod gets at a repository: the ways to log in, and the variables, volumes and mounts that each of them takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from run_cycle_loop.agentrun.names import object_name
from run_cycle_loop.agentrun.rendering.templates import json_text

#: What stands for a token that a controller fetches for itself: it is no Secret's value, and known to nobody here.
MINTED = "(a token that the controller fetches for its GitHub App)"

SSH_FOLDER = "/var/run/secrets/agents/vcs/ssh"
HOSTS_FOLDER = "/var/run/secrets/agents/vcs/known-hosts"


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """How a pod gets at a repository: variables, volumes and mounts."""

    env: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """What a kind of provider takes: ways to log in, kinds of token, and the name that goes with them."""

    user: str
    tokens: tuple[str, ...]
    default_token: str = ""
    deprecated: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("token", "ssh", "none")


_LOGINS = {
    "github": Login(
        user="x-access-token",
        tokens=("pat", "fine_grained", "access_token"),
        default_token="fine_grained",  # noqa: S106 - a kind of token
        deprecated=("pat",),
        methods=("token", "app", "ssh", "none"),
    ),
    "gitlab": Login(user="oauth2", tokens=("pat", "access_token"), default_token="access_token"),  # noqa: S106 - a kind
    "bitbucket": Login(user="x-token-auth", tokens=("access_token",), default_token="access_token"),  # noqa: S106 - a kind
    "gitea": Login(user="git", tokens=("api_token", "access_token"), default_token="api_token"),  # noqa: S106 - a kind
    "generic": Login(user="git", tokens=("pat", "fine_grained", "api_token", "access_token")),
}
TOKEN_NAMES = {
    "personal_access_token": "pat",
    "finegrained": "fine_grained",
    "api": "api_token",
    "access": "access_token",
}


def access_of(
    run: str,
    spec: Mapping[str, Any],
    context: Mapping[str, Any],
    method: str,
    secret: tuple[str, str],
    limits: Mapping[str, Any],
) -> Access:
    """What a pod is given, in the controller's order: the login first. Secrets are referred to; no value is in it.

    Args:
        run: the run's name.
        spec: of the VersionControlProvider.
        context: what ``run.json`` says of version control.
        method: ``token``, ``app``, ``ssh`` or ``none``.
        secret: the Secret that the login takes and the key in it; both empty for none.
        limits: of pull requests, as the controller has them.
    """
    login = _login_access(run, spec, method, *secret)
    return replace(login, env=(*login.env, *_plain(spec, context, method, limits)))


def login_of(kind: str) -> Login:
    """What a kind of provider takes; an unknown one what the generic one takes."""
    return _LOGINS.get(kind, _LOGINS["generic"])


def method_of(auth: Mapping[str, Any]) -> str:
    """How a provider's ``auth`` logs in, said or seen from what it holds."""
    explicit = _text(auth.get("method")).lower()
    if explicit in ("token", "app", "ssh", "none"):
        return explicit
    places = (("token", "secretRef"), ("app", "privateKeySecretRef"), ("ssh", "privateKeySecretRef"))
    return next((one for one, key in places if _name_in(_map(auth.get(one)).get(key))), "none")


def _plain(
    spec: Mapping[str, Any], context: Mapping[str, Any], method: str, limits: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The plain variables, in the controller's order; those without a value are left out."""
    defaults, request = context["defaults"], context["defaults"]["pullRequest"]
    user = _text(_map(spec.get("auth")).get("username"))
    if not user and method in ("token", "app"):
        user = login_of(context["provider"]).user
    name, mail = defaults["commitAuthorName"], defaults["commitAuthorEmail"]
    values = {
        "VCS_PROVIDER": context["provider"],
        "VCS_PROVIDER_NAME": context["providerName"],
        "VCS_API_BASE_URL": context["apiBaseUrl"],
        "VCS_CLONE_BASE_URL": context["cloneBaseUrl"],
        "VCS_WEB_BASE_URL": context["webBaseUrl"],
        "VCS_REPOSITORY": context["repository"],
        "VCS_BASE_BRANCH": context["baseBranch"],
        "VCS_HEAD_BRANCH": context["headBranch"],
        "VCS_CLONE_PROTOCOL": context["cloneProtocol"],
        "VCS_SSH_HOST": context["sshHost"],
        "VCS_SSH_USER": context["sshUser"],
        "VCS_USERNAME": user,
        "GIT_ASKPASS_USERNAME": user,
        "VCS_BRANCH_TEMPLATE": defaults["branchTemplate"],
        "VCS_BRANCH_CONFLICT_SUFFIX_TEMPLATE": defaults["branchConflictSuffixTemplate"],
        "VCS_COMMIT_AUTHOR_NAME": name,
        "VCS_COMMIT_AUTHOR_EMAIL": mail,
        "GIT_AUTHOR_NAME": name,
        "GIT_COMMITTER_NAME": name,
        "GIT_AUTHOR_EMAIL": mail,
        "GIT_COMMITTER_EMAIL": mail,
        "VCS_PR_TITLE_TEMPLATE": request["titleTemplate"],
        "VCS_PR_BODY_TEMPLATE": request["bodyTemplate"],
        "VCS_PR_RATE_LIMITS": json_text(limits) if limits else None,
        "VCS_PR_DRAFT": _truth(request["draft"]),
        "VCS_WRITE_ENABLED": _truth(context["writeEnabled"]),
        "VCS_PULL_REQUESTS_ENABLED": _truth(context["pullRequestsEnabled"]),
        "VCS_MODE": context["mode"],
    }
    yield from ({"name": key, "value": value} for key, value in values.items() if value)


def _login_access(run: str, spec: Mapping[str, Any], method: str, secret: str, key: str) -> Access:
    """What a login puts into the pod: references to Secrets, never their values."""
    if method == "ssh":
        return _ssh_access(run, spec, secret, key)
    github = _text(spec.get("provider")) == "github"
    variables = ("VCS_TOKEN", "GITHUB_TOKEN", "GH_TOKEN") if github else ("VCS_TOKEN",)
    if method == "token":
        return Access(
            env=tuple({"name": one, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for one in variables)
        )
    if method == "app":
        return Access(env=tuple({"name": one, "value": MINTED} for one in variables))
    return Access()


def _ssh_access(run: str, spec: Mapping[str, Any], secret: str, key: str) -> Access:
    volume = object_name(f"{run}-vcs-ssh")
    env = [{"name": "VCS_SSH_KEY_PATH", "value": f"{SSH_FOLDER}/{key}"}]
    volumes: list[dict[str, Any]] = [
        {"name": volume, "secret": {"secretName": secret, "items": [{"key": key, "path": key}]}}
    ]
    mounts: list[dict[str, Any]] = [{"name": volume, "mountPath": SSH_FOLDER, "readOnly": True}]
    reference = _map(_map(_map(spec.get("auth")).get("ssh")).get("knownHostsConfigMapRef"))
    hosts, hosts_key = _text(reference.get("name")), _text(reference.get("key")) or "known_hosts"
    if hosts:
        volume = object_name(f"{run}-vcs-known-hosts")
        items = [{"key": hosts_key, "path": hosts_key}]
        volumes.append({"name": volume, "configMap": {"name": hosts, "items": items}})
        mounts.append({"name": volume, "mountPath": HOSTS_FOLDER, "readOnly": True})
        env.append({"name": "VCS_SSH_KNOWN_HOSTS_PATH", "value": f"{HOSTS_FOLDER}/{hosts_key}"})
    return Access(env=tuple(env), volumes=tuple(volumes), mounts=tuple(mounts))


def _truth(value: object) -> str:
    return "true" if value else "false"


def _name_in(value: Any) -> str:
    return _text(_map(value).get("name"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
