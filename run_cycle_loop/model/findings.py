"""What guards find: in one sentence each, and measured on the tree that a cycle works in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.flat import flat


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardFinding:
    """What one guard has to say of one cycle; only what the operator should read is kept."""

    guard: str  #: ``write_cap consent git budget breaker isolation``
    mode: GuardMode
    ok: bool
    detail: str  #: one sentence: what was found, and what follows

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of a record."""
        return flat(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeVerdict:
    """What a cycle did to the tree it works in, as measured from outside."""

    files: int = 0  #: created, changed or deleted
    bytes: int = 0  #: in created and changed files
    fingerprint: str | None = None  #: of the tree as it is left; None where it could not be taken
    finding: GuardFinding | None = None  #: None: within the caps, or nothing is measured
    quarantine: Path | None = None  #: where what was written over the cap is parked
