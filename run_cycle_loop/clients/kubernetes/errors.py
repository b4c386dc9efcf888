"""Every way in which a Kubernetes API may refuse, or fail to answer; each names what was asked and what to do next.

No sentence here may carry a token, or what is in a Secret.
"""
# ruff: noqa: N818 - the API's own words for its refusals

from dataclasses import dataclass
from typing import Self

from run_cycle_loop.model.errors import ClientError, RunCycleLoopError


@dataclass(frozen=True, slots=True)
class Cause:
    """One fault that the server found in an object."""

    field: str  #: the path in the object; empty: the object as a whole
    message: str
    reason: str = ""


class KubernetesError(ClientError):
    """The API refused, or did not answer.

    Attributes:
        status: the HTTP status; None where there was no answer.
        reason: the server's one word for it, such as ``AlreadyExists``.
        causes: what the server found wrong in an object, field by field.
        retry_after: seconds that the server wants to be left alone; None where it says nothing.
        may_have_happened: whether the server may have done what it was asked, although it did not say so.
    """

    exit_code = 8
    status: int | None = None
    reason: str = ""
    may_have_happened: bool = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        reason: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
        may_have_happened: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = type(self).status if status is None else status
        self.reason = reason or type(self).reason
        self.causes = causes
        self.retry_after = retry_after
        if may_have_happened is not None:
            self.may_have_happened = may_have_happened

    def adding(self, text: str) -> Self:
        """The same error with something behind its sentence."""
        return type(self)(
            f"{self}; {text}",
            status=self.status,
            reason=self.reason,
            causes=self.causes,
            retry_after=self.retry_after,
            may_have_happened=self.may_have_happened,
        )


class Unauthorized(KubernetesError):
    """Who asks is not known: no credentials, or expired ones."""

    status = 401
    reason = "Unauthorized"


class Forbidden(KubernetesError):
    """Who asks may not do this."""

    status = 403
    reason = "Forbidden"


class NotFound(KubernetesError):
    """The object, or its namespace, is not there."""

    status = 404
    reason = "NotFound"


class KindNotServed(NotFound):
    """The API knows no objects of this kind: its definition is not installed."""

    reason = "KindNotServed"


class Conflict(KubernetesError):
    """The object is not, or no longer, as the request takes it to be."""

    status = 409
    reason = "Conflict"


class AlreadyExists(KubernetesError):
    """An object of this name is there already."""

    status = 409
    reason = "AlreadyExists"


class Expired(KubernetesError):
    """The version to go on from is forgotten: list again."""

    status = 410
    reason = "Expired"


class Invalid(KubernetesError):
    """The server does not accept the object; ``causes`` says why."""

    status = 422
    reason = "Invalid"


class TooManyRequests(KubernetesError):
    """The server wants to be asked later; ``retry_after`` says when."""

    status = 429
    reason = "TooManyRequests"


class ServerFault(KubernetesError):
    """The server failed, or answered what cannot be read."""

    status = 500
    reason = "InternalError"
    may_have_happened = True


class Unreachable(KubernetesError):
    """There was no answer."""

    reason = "Unreachable"
    may_have_happened = True


class Stopped(RunCycleLoopError):
    """A stop was asked for while a cluster was waited for; no fault of the cluster.

    Attributes:
        may_have_happened: whether the server may have done what it was asked before the stop came.
    """

    def __init__(self, message: str, *, may_have_happened: bool = False) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened
