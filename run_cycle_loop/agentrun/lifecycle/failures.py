"""Failures that another attempt would meet again: logins and quotas of a model's provider, as its logs tell them.

The patterns are the controller's own. They are looked for in whatever was printed, so that an agent that talks about a
rate limit is taken for one that met it; the line that matched is told, so that a person can see that.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

AUTH, CAPACITY = "ProviderAuthUnavailable", "ProviderCapacityExhausted"
LINES = 120  #: from a log's end that are looked at

_SHOWN = 200  #: characters of a line
_AUTH = re.compile(
    r"token_expired|invalid_grant|grant not found|refresh token|access token could not be refreshed|expired token"
    r"|missing bearer|chatgpt authentication required",
    re.IGNORECASE,
)
_CAPACITY = re.compile(
    r"usage limit|insufficient[ _]quota|quota exceeded|rate[ _-]?limit(?:ed)?|resource has been exhausted",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderFailure:
    """What a log says of the provider."""

    reason: str
    line: str  #: the first one that matched

    @property
    def message(self) -> str:
        """One sentence with the line."""
        what = "refused the login" if self.reason == AUTH else "has no capacity left for it"
        return f"the model's provider {what}: {self.line!r}"


def provider_failure(lines: Sequence[str]) -> ProviderFailure | None:
    """The first line about a login, else the first about a quota, among the last :data:`LINES`; None for neither."""
    recent = lines[-LINES:]
    for reason, pattern in ((AUTH, _AUTH), (CAPACITY, _CAPACITY)):
        for line in recent:
            if pattern.search(line):
                words = " ".join(line.split())
                return ProviderFailure(reason=reason, line=words if len(words) <= _SHOWN else f"{words[:_SHOWN]}...")
    return None
