"""What came back from a server, or did not, as an object or an error; whatever it is, it is foreign."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from lightkube.core.exceptions import ConfigError as LightkubeConfigError

from run_cycle_loop.clients.kubernetes.api import Object
from run_cycle_loop.clients.kubernetes.credentials import CredentialsError
from run_cycle_loop.clients.kubernetes.errors import Cause, KubernetesError, ServerFault, Unauthorized, Unreachable
from run_cycle_loop.clients.kubernetes.refusals import Request, refusal
from run_cycle_loop.kit.printable import printable

_CAUSES = 20  #: kept of what a server finds wrong
_LONGEST = 3600.0  #: seconds; the longest wait that a server may ask for

#: What can come out of a request that was not answered.
FAULTS = (httpx2.HTTPError, httpx2.InvalidURL, LightkubeConfigError, CredentialsError, OSError, ValueError)

#: The request never left, so the server cannot have acted on it.
_NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.LocalProtocolError,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
    UnicodeError,
)


class TooLargeError(ValueError):
    """An answer beyond every reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the server did what it was asked."""
        return 200 <= self.status < 300


def as_object(request: Request, answer: Answer) -> Object:
    """The object in an answer.

    Raises:
        KubernetesError: it is a refusal, or no object.
    """
    if not answer.is_success:
        raise refused(request, answer)
    return parsed(request, answer.body)


def parsed(request: Request, data: bytes) -> Object:
    """A JSON object.

    Raises:
        ServerFault: it is none.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        # What was sent is not quoted: it may be half of a Secret.
        raise ServerFault(
            f"cannot {request}: the server answers with {len(data)} bytes that are no JSON object;"
            " check the server's address and what stands between it and us",
            status=200,
            reason="NotJson",
        )
    return found


def refused(request: Request, answer: Answer) -> KubernetesError:
    """The error that an answer stands for."""
    try:
        status = json.loads(answer.body)
    except (ValueError, RecursionError):
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return from_status(request, status, code=answer.status, headers=answer.headers)
    plain = answer.headers.get("content-type", "").startswith("text/plain")
    said = answer.body[:1000].decode("utf-8", "replace") if plain else ""
    return refusal(request, answer.status, said=said, retry_after=_retry_after({}, answer.headers))


def from_status(
    request: Request, status: Object, *, code: int | None = None, headers: Mapping[str, str] | None = None
) -> KubernetesError:
    """The error that a Status object stands for, in an answer or in the middle of a watch."""
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    found = details.get("causes")
    causes = tuple(_cause(item) for item in (found if isinstance(found, list) else [])[:_CAUSES])
    if code is None:
        given = status.get("code")
        code = given if isinstance(given, int) else 500
    return refusal(
        request,
        code,
        reason=_text(status.get("reason")),
        said=_text(status.get("message")),
        causes=causes,
        retry_after=_retry_after(details, headers or {}),
    )


def _cause(item: Any) -> Cause:
    item = item if isinstance(item, dict) else {}
    return Cause(*(printable(_text(item.get(field)))[:1000] for field in ("field", "message", "reason")))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _retry_after(details: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    header = headers.get("retry-after", "").strip()
    if header.isascii() and header.isdigit():
        return min(float(header), _LONGEST)
    seconds = details.get("retryAfterSeconds")
    if isinstance(seconds, int) and not isinstance(seconds, bool) and seconds > 0:
        return min(float(seconds), _LONGEST)
    return None


def unanswered(request: Request, error: Exception, server: str) -> KubernetesError:
    """The error for a request that was not answered.

    Raise it ``from None``: the exception behind it may quote a header, and with that a token.

    Args:
        request: what was asked.
        error: one of :data:`FAULTS`.
        server: its host and port.
    """
    if isinstance(error, CredentialsError | LightkubeConfigError | PermissionError):
        return Unauthorized(f"cannot {request}: {error}; log in again or renew the token", reason="NoCredentials")
    if isinstance(error, TooLargeError):
        return ServerFault(f"cannot {request}: {server} {error}; ask for less", status=200, reason="TooLarge")
    why, step = _diagnosis(error)
    return Unreachable(
        f"cannot {request}: {server} gave no answer: {why}; {step}",
        may_have_happened=not isinstance(error, _NEVER_SENT),
    )


def _diagnosis(error: Exception) -> tuple[str, str]:
    """What went wrong on the way, and what to do about it; nothing of the request is quoted."""
    behind = list(_chain(error))
    for kind, why, step in _CAUSES_OF_SILENCE:
        for cause in behind:
            if isinstance(cause, kind):
                return why(cause), step
    return type(error).__name__, _CHECK


_CHECK = "check that the cluster runs, and the server's address in the kubeconfig"
_CAUSES_OF_SILENCE: tuple[
    tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[Any], str], str], ...
] = (
    (
        ssl.SSLCertVerificationError,
        lambda cause: f"its certificate is not trusted (x509: {cause.verify_message})",
        "check certificate-authority and the server's name in the kubeconfig",
    ),
    (
        ssl.SSLError,
        lambda cause: f"TLS failed ({cause.reason})",
        "check that the address speaks TLS, and that it knows the client certificate",
    ),
    (
        socket.gaierror,
        lambda _: "its name cannot be resolved",
        "check the name in the kubeconfig, and the DNS",
    ),
    (InterruptedError, lambda _: "a signal came before it", "ask again"),
    (ConnectionRefusedError, lambda _: "connection refused", _CHECK),
    (httpx2.ConnectTimeout, lambda _: "the connection timed out", _CHECK),
    (
        (httpx2.TimeoutException, TimeoutError),
        lambda _: "it took too long",
        "ask again later: the server, or the way to it, is slow or hangs",
    ),
    (
        (httpx2.LocalProtocolError, UnicodeError),
        lambda _: "the request cannot be sent",
        "check that the token is one line of plain characters",
    ),
    (
        (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError, ConnectionError),
        lambda _: "the connection was cut, or what came is no HTTP",
        "ask again; if it stays so, check what stands between the server and us",
    ),
    (OSError, lambda cause: (cause.strerror or type(cause).__name__).lower(), _CHECK),
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what lies behind it, the nearest first."""
    pending, seen = [error], set[int]()
    while pending:
        current = pending.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [item for item in (current.__cause__, current.__context__) if item is not None]
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions
