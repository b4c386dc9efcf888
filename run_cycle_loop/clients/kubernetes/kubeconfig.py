"""Which server, which user, which namespace: one context out of kubeconfigs, or the pod's own service account.

What is asked for here and not understood is refused: a login that is silently weaker, stronger or elsewhere than the
operator's file says is none.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import ConfigError

_LARGEST = 4 << 20  #: bytes of a kubeconfig
_SMALL = 64 << 10  #: bytes of a service account's namespace
_LISTS = {"clusters": "cluster", "contexts": "context", "users": "user"}
_PATHS = {
    "cluster": ("certificate-authority",),
    "user": ("client-certificate", "client-key", "tokenFile"),
    "context": (),
}
_REFUSED = {
    "as": "impersonation",
    "as-uid": "impersonation",
    "as-groups": "impersonation",
    "as-user-extra": "impersonation",
    "auth-provider": "auth providers (take an exec plugin)",
}
_EXEC_VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """One context, as plain data in the words of a kubeconfig."""

    context: str
    namespace: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]


def from_files(paths: Sequence[Path], context: str | None) -> Access:
    """One context of one or several kubeconfigs; what several of them define is what the first one says.

    Raises:
        ConfigError: a file cannot be read, or the context is not there or not complete.
    """
    named: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in _LISTS}
    current = ""
    for path in paths:
        document = _read(path)
        current = current or str(document.get("current-context") or "")
        for section, word in _LISTS.items():
            for name, value in _entries(document, section, word, path):
                named[section].setdefault(name, value)
    where = ", ".join(str(path) for path in paths)
    chosen = context or current
    if not chosen:
        raise ConfigError(f"{where} has no current-context; set one with kubectl config use-context, or name a context")
    if chosen not in named["contexts"]:
        known = ", ".join(sorted(named["contexts"])) or "none"
        raise ConfigError(f"{where} has no context {chosen!r}; it has: {known}")
    found = named["contexts"][chosen]
    cluster = _part(named["clusters"], found, "cluster", chosen, where)
    user = _part(named["users"], found, "user", chosen, where) if found.get("user") else {}
    return _checked(
        Access(context=chosen, namespace=str(found.get("namespace") or "default"), cluster=cluster, user=user), where
    )


def in_cluster(environ: Mapping[str, str], account: Path) -> Access | None:
    """The pod's own service account; None outside of a pod.

    Raises:
        ConfigError: it is there and cannot be read.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token = account / "token"
    if not (host and port and token.exists()):
        return None
    try:
        # The kubelet lays these files out as links.
        namespace = files.read_bounded((account / "namespace").resolve(strict=True), _SMALL).decode().strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the service account in {account} cannot be read: {error}") from error
    return Access(
        context="in-cluster",
        namespace=namespace or "default",
        cluster={
            "server": f"https://{f'[{host}]' if ':' in host else host}:{port}",
            "certificate-authority": str(account / "ca.crt"),
        },
        user={"tokenFile": str(token)},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(files.read_bounded(path.expanduser().resolve(strict=True), _LARGEST))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"the kubeconfig {path} cannot be read: {_without_content(error)}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"the kubeconfig {path} is no YAML{_line(error)}; correct it") from None
    if not isinstance(document, dict):
        raise ConfigError(f"the kubeconfig {path} is empty or no mapping; write one, or name another file")
    return document


def _without_content(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is no text" if isinstance(error, UnicodeError) else str(error)


def _line(error: Exception) -> str:
    """Where a file is broken; what stands there is not quoted, it may be a token."""
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1})" if mark is not None else ""


def _entries(document: Mapping[str, Any], section: str, word: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    listed = document.get(section) or []
    entries = []
    for number, item in enumerate(listed if isinstance(listed, list) else [None], start=1):
        value = item.get(word) if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not isinstance(value or {}, dict):
            raise ConfigError(f"the kubeconfig {path} is broken: entry {number} of {section} is no named {word}")
        entries.append((item["name"], _absolute(dict(value or {}), word, path)))
    return entries


def _absolute(value: dict[str, Any], word: str, path: Path) -> dict[str, Any]:
    """Paths in a kubeconfig are relative to the folder of that file; a bare command is looked up on PATH."""
    folder = path.expanduser().absolute().parent
    for field in _PATHS[word]:
        if isinstance(value.get(field), str) and value[field]:
            value[field] = str(folder / value[field])
    plugin = value.get("exec")
    if word == "user" and isinstance(plugin, dict) and isinstance(plugin.get("command"), str):
        command = plugin["command"]
        value["exec"] = {**plugin, "command": str(folder / command) if os.sep in command else command}
    return value


def _part(
    named: Mapping[str, dict[str, Any]], context: Mapping[str, Any], word: str, chosen: str, where: str
) -> dict[str, Any]:
    name = context.get(word)
    if not isinstance(name, str) or name not in named:
        raise ConfigError(f"{where}: context {chosen!r} names the {word} {name!r}, which is not there")
    return named[name]


def _checked(access: Access, where: str) -> Access:
    server = access.cluster.get("server")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        raise ConfigError(f"{where}: context {access.context!r} has no server address; set cluster.server to its URL")
    for field, meaning in _REFUSED.items():
        if access.user.get(field):
            raise ConfigError(f"{where}: the user of context {access.context!r} asks for {meaning}: not supported")
    if plugin := access.user.get("exec"):
        _check_plugin(plugin, access.context, where)
    return access


def _check_plugin(plugin: Any, context: str, where: str) -> None:
    said = f"{where}: the exec plugin of context {context!r}"
    if not isinstance(plugin, dict) or not isinstance(plugin.get("command"), str) or not plugin["command"]:
        raise ConfigError(f"{said} has no command")
    if plugin.get("apiVersion") not in _EXEC_VERSIONS:
        raise ConfigError(
            f"{said} has apiVersion {plugin.get('apiVersion')!r}; it must be one of {', '.join(_EXEC_VERSIONS)}"
        )
    if plugin.get("interactiveMode") == "Always":
        raise ConfigError(f"{said} needs a terminal (interactiveMode: Always), and an unattended loop has none")
    arguments, variables = plugin.get("args") or [], plugin.get("env") or []
    if not isinstance(arguments, list) or not all(isinstance(item, str) for item in arguments):
        raise ConfigError(f"{said} has args that are no list of texts")
    if not isinstance(variables, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("value"), str)
        for item in variables
    ):
        raise ConfigError(f"{said} has an env that is no list of names and values")
