"""What an attempt came to, and how it is told: in ``status.json``, and by an exit code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
EXIT_CANCELLED = 130  #: in the file; the process itself leaves with 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How it ended."""

    status: str
    exit_code: int
    error: str = ""  #: one sentence
    facts: Mapping[str, Any] = field(default_factory=dict)  #: what else the file says

    @property
    def leaves_with(self) -> int:
        """The exit code of the process."""
        return 1 if self.status == CANCELLED else self.exit_code

    def document(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """The status file; ``told`` is what is known beside the end."""
        error = {"error": self.error} if self.error else {}
        return {**told, "exitCode": self.exit_code, "status": self.status, **self.facts, **error}


def ended(exit_code: int, error: str = "", **facts: Any) -> Outcome:
    """Success for 0, else failure."""
    status = SUCCEEDED if exit_code == 0 else FAILED
    return Outcome(status=status, exit_code=exit_code, error=error, facts=facts)


def cancelled(error: str, **facts: Any) -> Outcome:
    """Ended from outside."""
    return Outcome(status=CANCELLED, exit_code=EXIT_CANCELLED, error=error, facts=facts)
