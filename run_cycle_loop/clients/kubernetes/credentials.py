"""Credentials from an exec plugin: a command that prints a token, run without a terminal and for a limited time."""

import json
import re
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from run_cycle_loop.kit import processes
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.kit.processes import EndedBy, Limits

_SECONDS = 30.0
_OUTPUT = 1 << 20  #: bytes
_SAID = 4096  #: bytes of standard error that are kept
_EARLY = timedelta(seconds=10)  #: a token is renewed before it expires, or it expires on the way
_LIKE_A_TOKEN = re.compile(r"[A-Za-z0-9_\-+/=.~]{32,}")


class CredentialsError(Exception):
    """No credentials are to be had; one sentence."""


class ExecCredentials(httpx2.Auth):
    """A bearer token as ``client.authentication.k8s.io`` plugins give it, asked for again once it has expired."""

    def __init__(
        self,
        plugin: Mapping[str, Any],
        *,
        cluster: Mapping[str, Any],
        environ: Mapping[str, str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Prepare, without running anything.

        Args:
            plugin: the ``exec`` of a kubeconfig's user, checked.
            cluster: what a plugin is told about the cluster, where it wants to know.
            environ: the environment that the plugin's own variables are added to.
            now: the wall clock, for the token's end.
        """
        self._argv = [plugin["command"], *(plugin.get("args") or ())]
        own = {item["name"]: item["value"] for item in plugin.get("env") or ()}
        spec: dict[str, Any] = {"interactive": False}
        if plugin.get("provideClusterInfo"):
            spec["cluster"] = dict(cluster)
        about = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
        self._environ = {**environ, **own, "KUBERNETES_EXEC_INFO": json.dumps(about)}
        self._hint = f" ({printable(plugin['installHint'])[:200]})" if plugin.get("installHint") else ""
        self._now = now
        self._token = ""
        self._until: datetime | None = None

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send with the token at hand, and once more with a new one where it is no longer accepted."""
        is_new = not self._token or (self._until is not None and self._now() >= self._until - _EARLY)
        if is_new:
            self._ask()
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == 401 and not is_new:
            self._ask()
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _ask(self) -> None:
        self._token, self._until = "", None
        status = self._answer().get("status")
        token = status.get("token") if isinstance(status, dict) else None
        if not isinstance(token, str) or not token:
            raise CredentialsError(
                f"the exec plugin {self._name} gave no token (client certificates are not supported)"
            )
        until = status.get("expirationTimestamp") if isinstance(status, dict) else None
        try:
            self._until = datetime.fromisoformat(until) if isinstance(until, str) else None
        except ValueError:
            raise CredentialsError(f"the exec plugin {self._name} gave an expirationTimestamp that is none") from None
        if self._until is not None and self._until.tzinfo is None:
            self._until = self._until.replace(tzinfo=UTC)
        self._token = token

    @property
    def _name(self) -> str:
        return printable(Path(self._argv[0]).name)[:100]

    def _answer(self) -> dict[str, Any]:
        out, said = bytearray(), bytearray()

        def take(stream: str, chunk: memoryview) -> None:
            kept, most = (out, _OUTPUT + 1) if stream == "stdout" else (said, _SAID)
            kept += chunk[: most - len(kept)]

        try:
            ended = processes.supervise(
                self._argv, self._environ, limits=Limits(timeout=_SECONDS, grace=0.5), output=take
            )
        except (processes.LaunchError, OSError) as error:
            raise CredentialsError(f"the exec plugin cannot be started: {error}{self._hint}") from error
        if ended.ended_by is EndedBy.DEADLINE:
            raise CredentialsError(f"the exec plugin {self._name} gave nothing within {_SECONDS:g} s")
        if ended.exit_code != 0:
            raise CredentialsError(
                f"the exec plugin {self._name} failed: {_last_words(said, ended.exit_code)}{self._hint}"
            )
        try:
            answer = json.loads(out) if len(out) <= _OUTPUT else None
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            # Not quoted, and not chained: it may well hold the token.
            raise CredentialsError(f"the exec plugin {self._name} printed something else than an ExecCredential")
        return answer


def _last_words(said: bytes | bytearray, code: int | None) -> str:
    """The last line of standard error, without anything that could be a token."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        return "it was killed" if code is None else f"exit code {code}"
    return _LIKE_A_TOKEN.sub("[withheld]", printable(lines[-1]))[:200]
