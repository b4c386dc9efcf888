"""A configuration made into an authenticated connection: lightkube does it, save for what it leaves out or open."""

import base64
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from lightkube.config import client_adapter
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError as LightkubeConfigError

from run_cycle_loop import __version__
from run_cycle_loop.clients.kubernetes import kubeconfig as kubeconfigs
from run_cycle_loop.clients.kubernetes.api import Cluster, Timeouts
from run_cycle_loop.clients.kubernetes.credentials import ExecCredentials
from run_cycle_loop.clients.kubernetes.kubeconfig import Access
from run_cycle_loop.clients.kubernetes.server import ApiServer
from run_cycle_loop.model.errors import ConfigError


def opened(
    *,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    field_manager: str,
    environ: Mapping[str, str],
    service_account: Path,
    timeouts: Timeouts,
    alarm: int | None,
) -> Cluster:
    """See :func:`~run_cycle_loop.clients.kubernetes.connecting.connect`."""

    def access() -> Access:
        return _access(kubeconfig, context, environ, service_account)

    return ApiServer(
        lambda: _client(access(), environ, timeouts),
        namespace=namespace or access().namespace,
        field_manager=field_manager,
        timeouts=timeouts,
        alarm=alarm,
    )


def _access(kubeconfig: Path | None, context: str | None, environ: Mapping[str, str], account: Path) -> Access:
    """By kubectl's order: the file that was named, ``KUBECONFIG``, the home's own, the pod."""
    if kubeconfig is not None:
        return kubeconfigs.from_files([kubeconfig], context)
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    own = Path(environ["HOME"]) / ".kube" / "config" if environ.get("HOME") else None
    # kubectl passes over what is not there, as long as one is.
    if found := [path for path in named or ([own] if own else []) if path.exists()]:
        return kubeconfigs.from_files(found, context)
    if not named and (pod := kubeconfigs.in_cluster(environ, account)) is not None:
        return pod
    looked = ", ".join(map(str, named)) or f"{own or 'no home'} and {account}"
    raise ConfigError(f"there is no kubeconfig and no service account (looked at {looked}); name a kubeconfig")


def _client(access: Access, environ: Mapping[str, str], timeouts: Timeouts) -> httpx2.AsyncClient:
    parameters = ConnectionParams(
        timeout=httpx2.Timeout(timeouts.read, connect=timeouts.connect, pool=timeouts.connect),
        proxy=access.cluster.get("proxy-url"),
    )
    _require_readable(access)
    try:
        with tempfile.TemporaryDirectory(prefix="run-cycle-loop-") as folder:  # for this user alone
            settings: dict[str, Any] = parameters.httpx_params(_single(access, Path(folder)))
        if isinstance(settings["auth"], client_adapter.ExecAuth):
            cluster = {key: value for key, value in access.cluster.items() if key != "extensions"}
            settings["auth"] = ExecCredentials(access.user["exec"], cluster=cluster, environ=environ)
        return httpx2.AsyncClient(
            **settings,
            event_hooks={"request": [_for_name(access.cluster.get("tls-server-name"))]},
            headers={"User-Agent": f"run-cycle-loop/{__version__}"},
        )
    except (LightkubeConfigError, msgspec.MsgspecError) as error:
        raise ConfigError(f"context {access.context!r} cannot be used: {error}; correct the kubeconfig") from None
    except (OSError, ValueError, TypeError, AssertionError, httpx2.InvalidURL) as error:
        # The sentence of a failed base64 or PEM reader may quote what it read.
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        name = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        raise ConfigError(
            f"context {access.context!r} cannot be used: its certificates, key or address cannot be read"
            f" ({why}{name}); correct the kubeconfig"
        ) from None


def _written(part: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The part of a kubeconfig with what stands in it as data in files instead.

    TLS reads keys from files only. lightkube would write them as well, and leave them to the garbage collection.
    """
    found = dict(part)
    for name in [name for name in found if name.endswith("-data")]:
        path = folder / name
        path.write_bytes(base64.b64decode(found.pop(name)))
        found[name.removesuffix("-data")] = str(path)
    return found


def _require_readable(access: Access) -> None:
    """Find what cannot be read before lightkube and TLS do, which say neither what nor where."""
    said = f"context {access.context!r} cannot be used"
    for part in (access.cluster, access.user):
        for field in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
            path = part.get(field)
            try:
                if isinstance(path, str) and path:
                    Path(path).open("rb").close()
            except OSError as error:
                raise ConfigError(
                    f"{said}: {field} {path} cannot be read ({error.strerror}); correct the kubeconfig"
                ) from error
        for field in ("certificate-authority-data", "client-certificate-data", "client-key-data"):
            try:
                if isinstance(part.get(field), str):
                    base64.b64decode(part[field])
            except ValueError:
                raise ConfigError(f"{said}: {field} is no base64; correct the kubeconfig") from None


def _single(access: Access, folder: Path) -> SingleConfig:
    document = {
        "clusters": [{"name": "cluster", "cluster": _written(access.cluster, folder)}],
        "users": [{"name": "user", "user": _written(access.user, folder)}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
    }
    config = KubeConfig.from_dict(document).get("context")
    assert config is not None, "a context that is named is found, or raises"  # noqa: S101 - for the type alone
    return config


def _for_name(name: str | None) -> Any:
    async def prepare(request: httpx2.Request) -> None:
        if name:
            request.extensions["sni_hostname"] = name

    return prepare
