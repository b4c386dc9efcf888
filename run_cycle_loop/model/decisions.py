"""What follows: go on, or end; and who asked for the end."""

from dataclasses import dataclass
from datetime import datetime

from run_cycle_loop.model.enums import StopReason, Urgency


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequest:
    """Who wants the loop stopped, and how hard."""

    reason: StopReason
    urgency: Urgency
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Continue:
    """The loop goes on after ``delay`` seconds, and not before ``until`` by the wall clock."""

    delay: float
    why: str
    backoff: bool = False
    until: datetime | None = None  #: looked at again and again: clocks are set, machines sleep
    instead: StopReason | None = None  #: why a loop ends that may not wait; None: it goes on at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Halt:
    """The loop ends."""

    reason: StopReason
    why: str


Decision = Continue | Halt
