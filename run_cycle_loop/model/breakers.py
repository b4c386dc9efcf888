"""What a breaker is in and remembers: the words of what stops a loop that goes on without getting anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from run_cycle_loop.model import reading


class BreakerState(StrEnum):
    """As of an electric one."""

    CLOSED = "closed"  #: the loop goes on
    HALF_OPEN = "half-open"  #: one cycle more, after a long wait, and it closes or opens
    OPEN = "open"  #: the loop ends, and does not go on before a person has looked


class BreakerName(StrEnum):
    """What each one watches for."""

    NO_PROGRESS = "no-progress"  #: cycle after cycle leaves the workdir as it was
    STORM = "storm"  #: cycle after cycle is over in no time
    SPENDING = "spending"  #: much is spent in a short time
    STATE = "state"  #: what the breakers remember was damaged


@dataclass(frozen=True, kw_only=True, slots=True)
class Reset:
    """A person has looked: what was recorded up to a cycle counts no more."""

    at: str  #: ISO 8601
    by: str
    number: int  #: of the last cycle that was recorded by then
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A breaker has opened, and stays open until it is reset."""

    name: BreakerName
    at: str  #: ISO 8601
    number: int  #: of the last cycle; 0 where none is known
    why: str  #: one sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerMarks:
    """What is kept of the breakers beside the history: all else follows from that."""

    reset: Reset | None = None
    opened: Opened | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of the state file."""
        return {"reset": _flat(self.reset), "opened": _flat(self.opened)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read the state file.

        Raises:
            ValueError: it is none of ours.
        """
        if not {"reset", "opened"} <= value.keys():
            raise ValueError("it is no state of breakers")
        return cls(reset=_reset(value["reset"]), opened=_opened(value["opened"]))


def _reset(value: object) -> Reset | None:
    found = reading.mapping_or_none(value)
    if found is None:
        return None
    texts = {name: reading.text(found.get(name)) for name in ("at", "by", "reason")}
    return Reset(number=reading.count(found.get("number")), **texts)


def _opened(value: object) -> Opened | None:
    found = reading.mapping_or_none(value)
    if found is None:
        return None
    texts = {name: reading.text(found.get(name)) for name in ("at", "why")}
    name = BreakerName(reading.text(found.get("name")))
    return Opened(name=name, number=reading.count(found.get("number")), **texts)


def _flat(record: Reset | Opened | None) -> dict[str, Any] | None:
    return None if record is None else {name: getattr(record, name) for name in record.__slots__}
