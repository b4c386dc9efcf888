"""The sentence for each refusal: what was asked, what the server said, what to do next."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from run_cycle_loop.clients.kubernetes import errors
from run_cycle_loop.clients.kubernetes.errors import Cause, KubernetesError
from run_cycle_loop.clients.kubernetes.kinds import SECRET, Kind
from run_cycle_loop.kit.printable import printable

_LABEL = re.compile(r"[-A-Za-z0-9_./]{0,317}")
_SHOWN = 600  #: characters of what a server says


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked of the server, in the words of RBAC."""

    verb: str
    kind: Kind
    namespace: str = ""  #: empty: of no namespace, or of all
    name: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        what = f"{self.kind.kind}/{self.subresource}" if self.subresource else self.kind.kind
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {what} {where}".rstrip()

    @property
    def resource(self) -> str:
        """What an RBAC rule has to name."""
        plural, _, group = self.kind.resource.partition(".")
        return "".join((plural, self.subresource and f"/{self.subresource}", group and f".{group}"))

    @property
    def place(self) -> str:
        """Where an RBAC rule has to hold."""
        return f"in namespace {self.namespace}" if self.namespace else "in the whole cluster"


def require_name(request: Request, name: str) -> str:
    """The name, where it can be one: an empty one would ask for all objects, and ``..`` for something else.

    Raises:
        Invalid: it cannot.
    """
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise errors.Invalid(f"cannot {request}: {name!r} is no name of an object; correct it")
    return name


def require_labels(request: Request, labels: Mapping[str, str] | None) -> Mapping[str, str]:
    """The labels to select by; none where there are none.

    Raises:
        Invalid: one cannot be a label, and would be taken for more than one condition.
    """
    for text in (*(labels or {}), *(labels or {}).values()):
        if not _LABEL.fullmatch(text):
            raise errors.Invalid(f"cannot {request}: {text!r} is no label; correct it")
    return labels or {}


def refusal(
    request: Request,
    status: int,
    *,
    reason: str = "",
    said: str = "",
    causes: tuple[Cause, ...] = (),
    retry_after: float | None = None,
) -> KubernetesError:
    """The error for an answer that is none.

    Args:
        request: what was asked.
        status: of the answer.
        reason: the server's word for it.
        said: the server's own sentence; withheld for a Secret, whose content it may quote.
        causes: what the server found wrong, by field.
        retry_after: seconds the server wants to be left alone.
    """
    kind, step = _meaning(request, status, reason, retry_after)
    if request.kind == SECRET and causes:
        causes = tuple(Cause(cause.field, "withheld: it may quote the Secret", cause.reason) for cause in causes)
    return kind(
        f"cannot {request}: {_quoted(request, status, said)}; {step}",
        status=status,
        reason=reason,
        causes=causes,
        retry_after=retry_after,
        # Who answers 429 has done nothing; a 5xx may come from a proxy in between, after the server did its work.
        may_have_happened=status >= 500,
    )


def _quoted(request: Request, status: int, said: str) -> str:
    if request.kind == SECRET and status in (400, 422):
        return f"the server answers {status}, in words that may quote the Secret and are withheld"
    text = printable(" ".join(said.split()))
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f"the server answers {status}" + (f" ({text.rstrip('.')})" if text else "")


def _meaning(
    request: Request, status: int, reason: str, retry_after: float | None
) -> tuple[type[KubernetesError], str]:
    match status, reason:
        case 403, _:
            return errors.Forbidden, (
                f'let a Role allow the verb "{request.verb}" on "{request.resource}" {request.place},'
                " unless an admission rule says no"
            )
        case 404, not_served if not_served != "NotFound":
            wanted = f"{request.kind.resource} ({request.kind.version})"
            return errors.KindNotServed, f"install the CustomResourceDefinition {wanted}, or ask another cluster"
        case 409, "AlreadyExists":
            return errors.AlreadyExists, "take another name, or the one that is there"
        case 429, _:
            later = "later" if retry_after is None else f"in {retry_after:g} s"
            return errors.TooManyRequests, f"ask again {later}"
    if status >= 500:
        return errors.ServerFault, "ask again later; if it stays so, the log of the API server knows why"
    return _PLAIN.get(status, (KubernetesError, "check the server's address and what stands between it and us"))


_PLAIN: Mapping[int, tuple[type[KubernetesError], str]] = {
    400: (errors.Invalid, "correct what the server names"),
    401: (errors.Unauthorized, "the credentials are missing or have expired: log in again or renew the token"),
    404: (errors.NotFound, "look for its name and namespace with kubectl get"),
    409: (errors.Conflict, "it is not as this request takes it to be: read it again before the next try"),
    410: (errors.Expired, "list it again"),
    422: (errors.Invalid, "correct what the server names"),
}
