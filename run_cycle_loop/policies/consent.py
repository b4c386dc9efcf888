"""Consent to unattended agents, read out of the entries of the audit: which grants there are, how far they are used up,
and whether one of them is live.

Doubt means no: a grant from the future, one that cannot be understood. A cycle of which it is not known that it did
not run has used its grant.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Any, Protocol

from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.model import reading
from run_cycle_loop.model.ports import Chain

LONGEST = timedelta(days=30)
HOW_TO_GRANT = 'run-cycle-loop consent grant --until 24h --reason "..."'
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Event(StrEnum):
    """What an entry of the audit tells."""

    GRANT = "grant"
    REVOKE = "revoke"
    CYCLE = "cycle"  #: one of an agent's cycles is about to start
    CYCLE_FINISHED = "cycle_finished"  #: what became of it, and whether it was launched at all


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """One person's word that agents may work without anybody to ask."""

    id: str
    granted_at: datetime
    until: datetime
    reason: str
    by: str  #: user, uid, host and terminal, as they were found
    max_cycles: int | None = None  #: None: as many as fit in the time
    agents: tuple[str, ...] = ()  #: empty: any
    used: int = 0  #: cycles that ran under it, or of which it is not known that they did not
    revoked_at: datetime | None = None
    revoked_why: str = ""
    seen: datetime = _LONG_AGO  #: the latest time that an entry after it tells

    def fault(self, now: datetime, agent: str | None = None) -> str | None:
        """Why it does not hold for one more cycle of this agent (None: of any), as the end of a sentence."""
        if self.revoked_at is not None:
            why = f" ({self.revoked_why})" if self.revoked_why else ""
            return f"was revoked at {_shown(self.revoked_at, now)}{why}"
        if now < self.granted_at:
            return f"begins only at {_shown(self.granted_at, now)}, so the clock was set back"
        if max(now, self.seen) >= self.until:  # time that was seen to pass does not come back
            return f"expired at {_shown(self.until, now)}"
        if self.max_cycles is not None and self.used >= self.max_cycles:
            return f"is used up, {self.used} of {_cycles(self.max_cycles)}"
        if agent is not None and self.agents and agent not in self.agents:
            return f"is for {', '.join(self.agents)} and not for {agent}"
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Consent:
    """What all the entries come to."""

    grants: tuple[Grant, ...] = ()  #: oldest first
    noted: Mapping[str, str | None] = field(default_factory=dict)  #: the grant of each cycle, by its id

    def live(self, now: datetime, agent: str | None = None) -> Grant | None:
        """The newest grant that holds now."""
        return next((grant for grant in reversed(self.grants) if grant.fault(now, agent) is None), None)

    def why_not(self, now: datetime, agent: str | None = None) -> str:
        """Why none holds, in one sentence that ends with the command that grants."""
        if not self.grants:
            return f"no consent to unattended agents was ever granted; {HOW_TO_GRANT}"
        newest = self.grants[-1]
        return f"consent {newest.id} {newest.fault(now, agent) or 'holds'}; {HOW_TO_GRANT}"


class Audit(Chain, Protocol):
    """The audit, together with what it comes to."""

    def standing(self, *, besides: str | None = None) -> Consent:
        """What all entries come to, each checked; see :func:`fold`.

        Raises:
            StateError: an entry is broken.
        """
        ...


class Tally:
    """What the entries so far come to; more of them can follow."""

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        self._noted: dict[str, str | None] = {}
        self._unused: set[str] = set()
        self._seen: list[datetime] = []  #: the latest time told between each grant and the next

    def take(self, entry: Mapping[str, Any]) -> None:
        """The next entry."""
        at = _moment(entry.get("timestamp"))
        match entry.get("event"):
            case Event.GRANT:
                grant = _grant(entry, at)
                if grant is not None and grant.id not in self._grants:
                    self._grants[grant.id] = grant
                    self._seen.append(_LONG_AGO)
            case Event.REVOKE:
                _revoke(self._grants, entry, at or _LONG_AGO)
            case Event.CYCLE:
                self._noted[str(entry.get("cycle_id"))] = _id(entry)
            case Event.CYCLE_FINISHED:
                cycle = str(entry.get("cycle_id"))
                self._noted.setdefault(cycle, _id(entry))
                if entry.get("launched") is False:
                    self._unused.add(cycle)
            case _:
                pass
        if self._seen and at:
            self._seen[-1] = max(self._seen[-1], at)

    def consent(self, *, besides: str | None = None) -> Consent:
        """What they come to; the use of the cycle ``besides`` does not count."""
        used = Counter(grant for cycle, grant in self._noted.items() if cycle != besides and cycle not in self._unused)
        since = reversed(list(accumulate(reversed(self._seen), max)))
        grants = zip(self._grants.values(), since, strict=True)
        counted = (replace(grant, used=used[grant.id], seen=at) for grant, at in grants)
        return Consent(grants=tuple(counted), noted=dict(self._noted))


def fold(entries: Iterable[Mapping[str, Any]], *, besides: str | None = None) -> Consent:
    """What the entries come to, oldest first.

    Args:
        entries: of the audit.
        besides: the id of a cycle whose own use does not count.
    """
    tally = Tally()
    for entry in entries:
        tally.take(entry)
    return tally.consent(besides=besides)


def live_grant(entries: Iterable[Mapping[str, Any]], now: datetime, agent: str | None = None) -> Grant | None:
    """The grant that holds now, if there is one."""
    return fold(entries).live(now, agent)


def why_not(entries: Iterable[Mapping[str, Any]], now: datetime, agent: str | None = None) -> str:
    """Why no grant holds, in one sentence that ends with the command that grants."""
    return fold(entries).why_not(now, agent)


def why_refused(*, granted_at: datetime, until: datetime, now: datetime) -> str | None:
    """Why such a grant is not to be given; None where it may be."""
    if granted_at > now:
        return f"a grant cannot begin in the future, at {_shown(granted_at, now)}"
    if until <= granted_at:
        return f"a grant until {_shown(until, now)} would be over before it begins; name a later time"
    if until - granted_at > LONGEST:
        return f"a grant until {_shown(until, now)} is longer than {LONGEST.days} days; grant less, and again"
    return None


def _grant(entry: Mapping[str, Any], at: datetime | None) -> Grant | None:
    """The grant in an entry; None where it cannot be understood, which is no consent."""
    until = _moment(entry.get("until"))
    if at is None or until is None or why_refused(granted_at=at, until=until, now=at):
        return None
    try:
        most = entry.get("max_cycles")
        grant = Grant(
            id=_id(entry) or "",
            granted_at=at,
            until=until,
            reason=reading.text(entry.get("reason")),
            by=reading.text(entry.get("by")),
            max_cycles=None if most is None else reading.count(most),
            agents=reading.texts(entry.get("agents")),
        )
    except ValueError:
        return None
    return grant if grant.id else None


def _revoke(grants: dict[str, Grant], entry: Mapping[str, Any], at: datetime) -> None:
    """Revoke the grant that the entry names; where it names none that can be understood, all of them."""
    named = _id(entry)
    for name, grant in grants.items():
        if grant.revoked_at is None and named in (None, name):
            grants[name] = replace(grant, revoked_at=at, revoked_why=str(entry.get("reason") or ""))


def _id(entry: Mapping[str, Any]) -> str | None:
    name = entry.get("grant")
    return name if isinstance(name, str) and name else None


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
        return found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _shown(at: datetime, now: datetime) -> str:
    return f"{at.astimezone(now.tzinfo):%Y-%m-%d %H:%M}"


def summary(grant: Grant, now: datetime) -> str:
    """A live grant in a few words: ``until 08:00 (in 9h), 3 of 40 cycles used: nightly refactor``."""
    until = grant.until.astimezone(now.tzinfo)
    shown = f"{until:%H:%M}" if until.date() == now.date() or until - now < timedelta(hours=12) else _shown(until, now)
    used = _cycles(grant.used) if grant.max_cycles is None else f"{grant.used} of {_cycles(grant.max_cycles)}"
    left = format_duration(max((until - now).total_seconds(), 0.0))
    return f"until {shown} (in {left}), {used} used: {grant.reason}"


def _cycles(count: int) -> str:
    return "1 cycle" if count == 1 else f"{count} cycles"
