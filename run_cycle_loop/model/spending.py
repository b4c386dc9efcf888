"""What cycles cost: the units, what the operator allows of them, and the account that the ledger keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from run_cycle_loop.model import reading

_OPEN = 16  #: reservations without a charge that are remembered one by one; older ones stay counted
_DAY = len("2026-01-31")


class Unit(StrEnum):
    """What is counted."""

    USD = "usd"
    TOKENS = "tokens"
    SECONDS = "seconds"
    CYCLES = "cycles"


class Period(StrEnum):
    """For how long it is added up."""

    CYCLE = "cycle"
    DAY = "day"  #: of UTC
    RUN = "run"  #: from one start of the loop to its end


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """The most that may be spent of one unit in one period."""

    unit: Unit
    most: float
    period: Period


@dataclass(frozen=True, kw_only=True, slots=True)
class Spending:
    """An amount of every unit."""

    usd: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    cycles: int = 0

    def of(self, unit: Unit) -> float:
        """The amount of one unit."""
        amount: float = getattr(self, unit)
        return amount

    def plus(self, other: Self) -> Self:
        """Both together."""
        return replace(
            self,
            usd=round(self.usd + other.usd, 9),
            tokens=self.tokens + other.tokens,
            seconds=round(self.seconds + other.seconds, 6),
            cycles=self.cycles + other.cycles,
        )

    def minus(self, other: Self) -> Self:
        """What is left without the other, never less than nothing."""
        return replace(
            self,
            usd=round(max(0.0, self.usd - other.usd), 9),
            tokens=max(0, self.tokens - other.tokens),
            seconds=round(max(0.0, self.seconds - other.seconds), 6),
            cycles=max(0, self.cycles - other.cycles),
        )

    def times(self, count: int) -> Self:
        """So many of it."""
        return replace(
            self,
            usd=self.usd * count,
            tokens=self.tokens * count,
            seconds=self.seconds * count,
            cycles=self.cycles * count,
        )

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of a ledger line."""
        return {str(unit): getattr(self, unit) for unit in Unit}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read it back.

        Raises:
            ValueError: something in it is no amount.
        """
        return cls(
            usd=reading.seconds(value.get("usd")),
            tokens=reading.count(value.get("tokens")),
            seconds=reading.seconds(value.get("seconds")),
            cycles=reading.count(value.get("cycles")),
        )


class EntryKind(StrEnum):
    """What an entry of the ledger says."""

    RESERVE = "reserve"  #: a cycle is about to start, and may cost so much
    CHARGE = "charge"  #: it came to so much, in place of what was reserved


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerEntry:
    """One line of the ledger, without the account that stands beside it."""

    event: EntryKind
    cycle_id: str
    run: str
    day: str  #: ISO date in UTC, of the reservation
    at: str  #: ISO 8601
    amount: Spending
    estimated: tuple[Unit, ...] = ()  #: what is not known and was charged by an estimate
    measured: tuple[Unit, ...] = ()  #: what tells something about later cycles

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of a ledger line."""
        return {
            "event": self.event,
            "cycle_id": self.cycle_id,
            "run": self.run,
            "day": self.day,
            "at": self.at,
            **self.amount.as_dict(),
            "estimated": list(self.estimated),
            "measured": list(self.measured),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read a line.

        Raises:
            ValueError: it is none of ours.
        """
        found = cls(
            event=EntryKind(reading.text(value.get("event"))),
            **{name: reading.text(value.get(name)) for name in ("cycle_id", "run", "at")},
            day=_day(value.get("day")),
            amount=Spending.from_dict(value),
            estimated=tuple(map(Unit, reading.texts(value.get("estimated")))),
            measured=tuple(map(Unit, reading.texts(value.get("measured")))),
        )
        if not found.cycle_id:
            raise ValueError("not a ledger entry: it has no cycle_id")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """What a cycle without a charge may cost, and where that is counted."""

    day: str
    run: str
    amount: Spending


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What is spent of one day and one run; a reservation counts in full until its charge takes its place."""

    day: str = ""  #: the newest that was ever seen: a clock that is set back does not open an older one again
    run: str = ""
    today: Spending = field(default_factory=Spending)
    this_run: Spending = field(default_factory=Spending)
    open: Mapping[str, Reservation] = field(default_factory=dict)  #: by cycle_id, oldest first

    def on(self, day: str) -> Self:
        """The same account on that day, or on its own where that one is later."""
        return self if day <= self.day else replace(self, day=day, today=Spending())

    def of_run(self, run: str) -> Self:
        """The same account for that run."""
        return self if run == self.run else replace(self, run=run, this_run=Spending())

    def adding(self, amount: Spending) -> Self:
        """The account with something more spent, today and in this run."""
        return replace(self, today=self.today.plus(amount), this_run=self.this_run.plus(amount))

    def after(self, entry: LedgerEntry) -> Self:
        """The account with one more entry in it; what is reserved or charged a second time changes nothing."""
        known = self.open.get(entry.cycle_id)
        if entry.event is EntryKind.RESERVE:
            return self if known else self._reserving(entry)
        return self._charging(entry, known) if known else self

    def _reserving(self, entry: LedgerEntry) -> Self:
        account = self.on(entry.day).of_run(entry.run)
        added = Reservation(day=account.day, run=entry.run, amount=entry.amount)
        kept = list(account.open.items())[-_OPEN + 1 :]
        return replace(account.adding(entry.amount), open={**dict(kept), entry.cycle_id: added})

    def _charging(self, entry: LedgerEntry, reserved: Reservation) -> Self:
        """What was reserved gives way to what it came to, on the day and in the run of the reservation alone."""
        today, this_run = self.today, self.this_run
        if reserved.day == self.day:
            today = today.minus(reserved.amount).plus(entry.amount)
        if reserved.run == self.run:
            this_run = this_run.minus(reserved.amount).plus(entry.amount)
        rest = {cycle_id: value for cycle_id, value in self.open.items() if cycle_id != entry.cycle_id}
        return replace(self, today=today, this_run=this_run, open=rest)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that stands in every line of the ledger."""
        return {
            "day": self.day,
            "run": self.run,
            "today": self.today.as_dict(),
            "this_run": self.this_run.as_dict(),
            "open": {
                cycle_id: {"day": value.day, "run": value.run, **value.amount.as_dict()}
                for cycle_id, value in self.open.items()
            },
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read it back.

        Raises:
            ValueError: something in it cannot be believed.
        """
        parts = {name: reading.mapping_or_none(value.get(name)) for name in ("today", "this_run", "open")}
        if None in parts.values():
            raise ValueError("not an account: a part of it is missing")
        return cls(
            day=_day(value.get("day")),
            run=reading.text(value.get("run")),
            today=Spending.from_dict(parts["today"] or {}),
            this_run=Spending.from_dict(parts["this_run"] or {}),
            open={
                str(cycle_id): Reservation(
                    day=_day(item.get("day")), run=reading.text(item.get("run")), amount=Spending.from_dict(item)
                )
                for cycle_id, item in (parts["open"] or {}).items()
                if reading.mapping_or_none(item) is not None
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerState:
    """What the end of the ledger says."""

    account: Account | None  #: by the newest line that can be read; None where there is none
    damaged: int = 0  #: lines after it that cannot: so many cycles may have cost something
    measured: Mapping[Unit, tuple[float, ...]] = field(default_factory=dict)  #: of recent cycles, newest first


def _day(value: object) -> str:
    """An ISO date, which sorts as text.

    Raises:
        ValueError: it is none.
    """
    day = reading.text(value)
    if len(day) != _DAY or not day.isascii() or not day.replace("-", "").isdigit() or (day[4], day[7]) != ("-", "-"):
        raise ValueError(f"{day!r:.40} is no day")
    return day
