"""Budgets: what the operator allows, what a cycle is charged, and whether another one still fits."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from run_cycle_loop.kit.durations import format_duration, parse_duration, parse_number
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.model.sessions import Usage
from run_cycle_loop.model.spending import Account, Limit, Period, Spending, Unit

SAMPLES = 20  #: recent cycles whose cost tells what the next one may cost
MARGIN = timedelta(seconds=30)  #: after midnight, lest a clock that is a little fast wakes the loop too early
_OVER = 1.1  #: a cycle may come to a tenth more than it was allowed: an agent ends after a step, not within one
_IN_A_ROW = 3  #: so many cycles beyond that say that none keeps to the limit
_NOTHING = 1e-9  #: what sums of floats may be off by

_EXAMPLE = "write such as usd=5/cycle, usd=20/day, tokens=2M/day, time=3h/run or cycles=40/day"
_UNITS = {"usd": Unit.USD, "tokens": Unit.TOKENS, "time": Unit.SECONDS, "seconds": Unit.SECONDS, "cycles": Unit.CYCLES}
_FACTORS = {"k": 1000, "m": 1000**2, "g": 1000**3}
_MOST = {Unit.USD: 1e9, Unit.TOKENS: 1e15, Unit.CYCLES: 1e9}
#: Beyond these a cycle's own word is not believed.
_BELIEVED_USD, _BELIEVED_TOKENS = 1e5, 10**10
#: Cycles that tell what the next one may cost: those that an agent brought to an end, or that ran out of time.
_TELLING = frozenset({Outcome.SUCCESS, Outcome.DEGRADED, Outcome.FAILED, Outcome.TIMEOUT})


# --- what the operator writes --------------------------------------------------------------------------------------


def parse_limit(text: str) -> Limit:
    """Read ``usd=5/cycle``, ``tokens=2M/day``, ``time=3h/run``, ``cycles=40/day``.

    Raises:
        ValueError: the reason and the next step, without the value.
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    amount, slash, period = (part.strip() for part in rest.rpartition("/"))
    if not (equals and slash and name and amount):
        raise ValueError(f"is no budget; {_EXAMPLE}")
    if name.lower() not in _UNITS:
        raise ValueError(f"counts {name!r:.40}, which is none of usd, tokens, time and cycles; {_EXAMPLE}")
    if period.lower() not in list(Period):
        raise ValueError(f"is for each {period!r:.40}, which is none of cycle, day and run; {_EXAMPLE}")
    limit = Limit(unit=_UNITS[name.lower()], most=_amount(_UNITS[name.lower()], amount), period=Period(period.lower()))
    if limit.unit is Unit.CYCLES and limit.period is Period.CYCLE:
        raise ValueError("counts cycles for each cycle, which is always 1; write cycles=40/day or cycles=40/run")
    return limit


def _amount(unit: Unit, text: str) -> float:
    try:
        if unit is Unit.SECONDS:
            most = parse_duration(text)
        else:
            factor = _FACTORS.get(text[-1].lower(), 1) if unit is not Unit.USD else 1
            most = parse_number(text[:-1].rstrip() if factor > 1 else text) * factor
    except ValueError:
        raise ValueError(f"has an amount that is none, {text!r:.40}; {_EXAMPLE}") from None
    if not math.isfinite(most) or not 0 < most <= _MOST.get(unit, math.inf):
        raise ValueError(f"has an amount that is not above 0, or too large, {text!r:.40}; {_EXAMPLE}")
    if unit in {Unit.TOKENS, Unit.CYCLES} and most != int(most):
        raise ValueError(f"has a part of one in {text!r:.40}; write a whole number of {unit}")
    return most


def parse_limits(items: Sequence[str]) -> tuple[Limit, ...]:
    """Read all of them, in the order of the units.

    Raises:
        ValueError: the item where it is one's fault, the reason and the next step.
    """
    limits = []
    for item in items:
        try:
            limits.append(parse_limit(item))
        except ValueError as error:
            raise ValueError(f"{item!r:.80} {error}") from None
    return ordered(limits)


def ordered(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """The limits in the order of units and periods; each unit has one limit for each period.

    Raises:
        ValueError: there are two; the sentence names them.
    """
    found: dict[tuple[Unit, Period], Limit] = {}
    for limit in limits:
        first = found.setdefault((limit.unit, limit.period), limit)
        if first is not limit:
            raise ValueError(f"{show_limit(first)} and {show_limit(limit)} limit the same; keep one of them")
    units, periods = list(Unit), list(Period)
    return tuple(sorted(found.values(), key=lambda limit: (units.index(limit.unit), periods.index(limit.period))))


def show_limit(limit: Limit) -> str:
    """The same, as it is written."""
    if limit.unit is Unit.SECONDS:
        short = format_duration(limit.most)
        amount = short if parse_duration(short) == limit.most else f"{limit.most!r}s"
        return f"time={amount}/{limit.period}"
    if limit.unit is Unit.USD:
        return f"usd={limit.most:.10g}/{limit.period}"
    return f"{limit.unit}={_short_count(limit.most)}/{limit.period}"


def _short_count(number: float) -> str:
    for letter, factor in (("G", 1000**3), ("M", 1000**2), ("k", 1000)):
        if number >= factor and not number % (factor / 10):
            return f"{number / factor:.10g}{letter}"
    return f"{number:.0f}"


def show_amount(unit: Unit, amount: float) -> str:
    """An amount as a sentence says it: ``4.50 usd``, ``1.2M tokens``, ``2h10m``, ``3 cycles``."""
    if unit is Unit.USD:
        return f"{amount:.2f} usd" if amount >= 0.01 or amount == 0 else f"{amount:.2g} usd"
    if unit is Unit.SECONDS:
        return format_duration(amount)
    if unit is Unit.CYCLES:
        return f"{amount:.0f} {'cycle' if amount == 1 else 'cycles'}"
    for letter, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= factor:
            return f"{amount / factor:.3g}{letter} tokens"
    return f"{amount:.0f} tokens"


# --- what a cycle may cost, and what it did ------------------------------------------------------------------------


def p95(values: Sequence[float]) -> float | None:
    """The value that 19 of 20 do not exceed; the largest of fewer than 20, None of none."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1] if values else None


def estimate(
    measured: Mapping[Unit, Sequence[float]], limits: Sequence[Limit], default: Spending, *, is_real: bool
) -> Spending:
    """What a cycle is charged where nobody knows what it cost.

    Args:
        measured: recent cycles, newest first.
        limits: the operator's; one for each cycle stands in until something is measured.
        default: what stands in where there is none.
        is_real: whether the cycle runs an agent that costs something; another one costs nothing unless it says so.
    """
    each = {limit.unit: limit.most for limit in limits if limit.period is Period.CYCLE}

    def of(unit: Unit) -> float:
        known = p95(measured.get(unit, ())[:SAMPLES])
        if known is not None:
            return known
        if not is_real and unit is not Unit.SECONDS:
            return 0.0
        return each.get(unit, default.of(unit))

    return Spending(usd=of(Unit.USD), tokens=round(of(Unit.TOKENS)), seconds=of(Unit.SECONDS), cycles=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """What a cycle is charged."""

    amount: Spending
    estimated: tuple[Unit, ...] = ()  #: nobody knows what was spent of these
    measured: tuple[Unit, ...] = ()  #: of these it tells what another cycle may cost

    def as_dict(self) -> dict[str, object]:
        """The ``charged`` of a record."""
        return {**self.amount.as_dict(), "estimated": list(self.estimated)}


def charge(record: CycleRecord, expected: Spending, *, is_real: bool) -> Charge:
    """What a cycle that was launched is charged.

    Args:
        record: the cycle's, with its usage as it was reported.
        expected: see :func:`estimate`.
        is_real: whether it ran an agent that costs something.
    """
    usage = believed_usage(record.usage)
    tells = record.status in _TELLING
    amounts: dict[Unit, float] = {}
    estimated, measured = [], [Unit.SECONDS] if tells else []
    for unit, told in ((Unit.USD, _usd(usage)), (Unit.TOKENS, None if usage is None else usage.tokens)):
        if told is not None and usage is not None and usage.complete:
            amounts[unit] = told
            measured += [unit] if tells and told else []  # what consumed nothing tells nothing
        elif is_real or usage is not None:
            amounts[unit] = max(told or 0, expected.of(unit))
            estimated.append(unit)
    amount = Spending(
        usd=round(amounts.get(Unit.USD, 0.0), 9),
        tokens=int(amounts.get(Unit.TOKENS, 0)),
        seconds=round(record.duration_seconds, 6),
        cycles=1,
    )
    return Charge(amount=amount, estimated=tuple(estimated), measured=tuple(measured))


def believed_usage(told: Mapping[str, object] | None) -> Usage | None:
    """What a cycle reported, where it is a report at all; None also for what no cycle can have consumed."""
    if not isinstance(told, Mapping) or not {"input_tokens", "output_tokens", "cost_usd"} & told.keys():
        return None
    try:
        usage = Usage.from_dict(told)
    except (ValueError, TypeError, OverflowError):
        return None
    if usage.tokens > _BELIEVED_TOKENS or (usage.cost_usd or 0) > _BELIEVED_USD:
        return None
    return usage


def _usd(usage: Usage | None) -> float | None:
    """The price of a usage; nothing consumed costs nothing, and a zero beside tokens is no price."""
    if usage is None:
        return None
    if usage.tokens and not usage.cost_usd:
        return None
    return usage.cost_usd or 0.0


# --- whether another one fits --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why no cycle fits any more."""

    limit: Limit
    used: float
    until: datetime | None  #: when it can be asked again; None: waiting does not help
    why: str  #: one sentence, with the next step


def day_of(moment: datetime) -> str:
    """The day of UTC, as an ISO date."""
    return moment.astimezone(UTC).date().isoformat()


def used_of(limit: Limit, account: Account) -> float:
    """What is spent of a limit; nothing of one that is for each cycle."""
    if limit.period is Period.CYCLE:
        return 0.0
    return (account.today if limit.period is Period.DAY else account.this_run).of(limit.unit)


def needed(expected: Spending, limits: Sequence[Limit]) -> Spending:
    """What must be left for a cycle to start: what it may cost, and no more than it is allowed by itself."""
    each = {limit.unit: limit.most for limit in limits if limit.period is Period.CYCLE}

    def of(unit: Unit) -> float:
        return min(expected.of(unit), each.get(unit, math.inf))

    return Spending(usd=of(Unit.USD), tokens=int(of(Unit.TOKENS)), seconds=of(Unit.SECONDS), cycles=1)


def refusal(limits: Sequence[Limit], account: Account, need: Spending, now: datetime) -> Refusal | None:
    """Why no further cycle fits, with the reason that lasts longest; None where one does.

    Args:
        limits: the operator's.
        account: on the day of ``now``, of this run.
        need: see :func:`needed`.
        now: an aware time.
    """
    found = [refused for limit in limits if (refused := _refused(limit, account, need.of(limit.unit), now))]
    return max(found, key=lambda refused: (refused.until is None, refused.until or now), default=None)


def _refused(limit: Limit, account: Account, need: float, now: datetime) -> Refusal | None:
    if limit.period is Period.CYCLE:
        return None
    if limit.unit is Unit.SECONDS:
        need = min(need, limit.most)  # a cycle is ended when its time is up: one that took it all still fits into it
    name, cost = show_limit(limit), show_amount(limit.unit, need)
    used = used_of(limit, account)
    if need > limit.most + _NOTHING:
        why = f"no cycle fits into the budget {name}: one may cost {cost}; raise it, or lower what a cycle may cost"
        return Refusal(limit=limit, used=used, until=None, why=why)
    left = limit.most - used
    if left > _NOTHING and left >= need - _NOTHING:
        return None
    why = f"the budget {name} is spent: {show_amount(limit.unit, used)} used"
    if left > _NOTHING:
        why += f", and a cycle may cost {cost}"
    if limit.period is Period.RUN:
        return Refusal(limit=limit, used=used, until=None, why=f"{why}; start the loop again, or raise it")
    if account.day > day_of(now + timedelta(days=1)):
        why += f", counted for {account.day}, a day to come; set the clock right, or move the budget ledger aside"
        return Refusal(limit=limit, used=used, until=None, why=why)
    until = next_day(account.day)
    return Refusal(limit=limit, used=used, until=until, why=f"{why}; until {until:%Y-%m-%d %H:%M} UTC, or raise it")


def next_day(day: str) -> datetime:
    """When the day after that one has begun."""
    return datetime.combine(date.fromisoformat(day) + timedelta(days=1), time(), UTC) + MARGIN


def allowance(limits: Sequence[Limit], account: Account, unit: Unit) -> float | None:
    """What is left of a unit for the next cycle, by its narrowest limit; None where it has none."""
    left = [limit.most - used_of(limit, account) for limit in limits if limit.unit is unit]
    return max(0.0, min(left)) if left else None


# --- what went beyond ----------------------------------------------------------------------------------------------


def overspent(limits: Sequence[Limit], account: Account, made: Charge) -> list[str]:
    """A sentence for each limit that a cycle went beyond, by itself or with those before it.

    Args:
        limits: the operator's.
        account: with the charge in it.
        made: what the cycle was charged.
    """
    sentences = []
    for limit in limits:
        unit = limit.unit
        if limit.period is not Period.CYCLE:
            used = used_of(limit, account)
            if used > limit.most + _NOTHING:
                sentences.append(f"{show_amount(unit, used)} of the budget {show_limit(limit)} used")
        elif unit not in made.estimated and made.amount.of(unit) > limit.most * (_OVER if unit is Unit.SECONDS else 1):
            cost = show_amount(unit, made.amount.of(unit))
            sentences.append(f"this cycle came to {cost}, more than the budget {show_limit(limit)} allows")
    return sentences


def unheeded(limits: Sequence[Limit], recent: Sequence[Charge]) -> Limit | None:
    """A limit for each cycle that several in a row went far beyond; ``recent`` are those of this run, oldest first.

    Time is none of them: the loop itself ends a cycle whose time is over.
    """
    last = recent[-_IN_A_ROW:]
    if len(last) < _IN_A_ROW:
        return None
    each = (limit for limit in limits if limit.period is Period.CYCLE and limit.unit is not Unit.SECONDS)
    return next((limit for limit in each if all(_far_over(limit, made) for made in last)), None)


def _far_over(limit: Limit, made: Charge) -> bool:
    return limit.unit not in made.estimated and made.amount.of(limit.unit) > limit.most * _OVER
