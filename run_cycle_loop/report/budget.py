"""The budgets as an operator sees them: what is used of each, what is left, and when it begins anew."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from run_cycle_loop.model.spending import Account, Limit, Period, Spending, Unit
from run_cycle_loop.policies import budgets
from run_cycle_loop.policies.budgets import Refusal, show_amount, show_limit
from run_cycle_loop.report.text import Style, clock_time, pad, span

_BAR = 24  #: columns, where there is room
_NARROW = 72  #: columns below which there is none
_SOON = 0.8  #: of a limit, from which on it is shown as nearly spent


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How one limit stands."""

    limit: Limit
    used: float
    begins_anew: datetime | None  #: None: with each cycle, or with the next run

    @property
    def left(self) -> float:
        """What may still be spent."""
        return max(0.0, self.limit.most - self.used)

    @property
    def share(self) -> float:
        """How much of it is used; 1 is all."""
        return self.used / self.limit.most


@dataclass(frozen=True, kw_only=True, slots=True)
class Budgets:
    """What is known of them at one moment."""

    now: datetime  #: aware; its zone is the one that times are shown in
    account: Account  #: on the day of ``now``, of the last run
    standings: tuple[Standing, ...]
    expected: Spending  #: what a cycle may cost
    refusal: Refusal | None  #: why no further cycle fits
    enforced: bool

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "day": self.account.day,
            "today": self.account.today.as_dict(),
            "this_run": self.account.this_run.as_dict(),
            "a_cycle_may_cost": self.expected.as_dict(),
            "enforced": self.enforced,
            "refused": self.refusal and self.refusal.why,
            "limits": [
                {
                    "limit": show_limit(item.limit),
                    "unit": item.limit.unit,
                    "period": item.limit.period,
                    "most": item.limit.most,
                    "used": item.used,
                    "left": item.left,
                    "begins_anew": item.begins_anew and item.begins_anew.isoformat(),
                }
                for item in self.standings
            ],
        }


def standing(
    limits: Sequence[Limit], account: Account, expected: Spending, *, now: datetime, enforced: bool
) -> Budgets:
    """Put together what is known.

    Args:
        limits: the operator's, in their order.
        account: as the ledger has it.
        expected: what a cycle may cost.
        now: aware.
        enforced: whether a spent budget ends the loop or holds it.
    """
    account = account.on(budgets.day_of(now))
    return Budgets(
        now=now,
        account=account,
        standings=tuple(
            Standing(limit=limit, used=budgets.used_of(limit, account), begins_anew=_begins_anew(limit, account))
            for limit in limits
        ),
        expected=expected,
        refusal=budgets.refusal(limits, account, budgets.needed(expected, limits), now),
        enforced=enforced,
    )


def _begins_anew(limit: Limit, account: Account) -> datetime | None:
    return budgets.next_day(account.day) - budgets.MARGIN if limit.period is Period.DAY else None


def summary(found: Budgets) -> tuple[str, str | None] | None:
    """What ``status`` says of them, and its colour; None where there is nothing to say."""
    if not found.standings:
        return None
    if found.refusal:
        return found.refusal.why, "red" if found.enforced else "yellow"
    fullest = max(found.standings, key=lambda item: item.share)
    text = f"{_amounts(fullest)} of {show_limit(fullest.limit)}" if fullest.used else "nothing is used"
    return text, "yellow" if fullest.share >= _SOON else None


def render(found: Budgets, *, width: int, style: Style) -> Iterator[str]:
    """A line for each limit, then what stands behind them."""
    names = [show_limit(item.limit) for item in found.standings]
    column = max(map(len, names), default=0)
    for name, item in zip(names, found.standings, strict=True):
        yield _row(pad(name, column), item, found.now, width, style)
    if not found.standings:
        yield style.fit("no budget is set; --budget usd=20/day sets one", width)
    yield from (style.fit(line, width) for line in _facts(found))
    if found.refusal:
        text = found.refusal.why if found.enforced else f"{found.refusal.why} (only warned about)"
        colour = "red" if found.enforced else "yellow"
        yield from (style.paint(line, colour) for line in style.wrap(text, width, most=9))


def _row(name: str, item: Standing, now: datetime, width: int, style: Style) -> str:
    if item.limit.period is Period.CYCLE:
        return style.fit(f"{name}  for each cycle", width)
    colour = "red" if item.share >= 1 else "yellow" if item.share >= _SOON else "green"
    before = f"{name}  "
    after = f"  {_amounts(item)}, {_left(item)}{_when(item, now)}"
    if width < _NARROW:
        return style.fit(before, width) + style.paint(style.fit(after.strip(), max(0, width - len(before))), colour)
    bar = _bar(item.share, style)
    return before + style.paint(bar, colour) + style.fit(after, width - len(before) - _BAR - 2)


def _bar(share: float, style: Style) -> str:
    full, empty = ("▇", " ") if style.unicode else ("#", " ")
    # Something used shows, and all is shown only when all is used.
    signs = min(max(round(share * _BAR), int(share > 0)), _BAR if share >= 1 else _BAR - 1)
    return f"[{full * signs}{empty * (_BAR - signs)}]"


def _amounts(item: Standing) -> str:
    return f"{show_amount(item.limit.unit, item.used)} used ({item.share:.0%})"


def _left(item: Standing) -> str:
    return f"{show_amount(item.limit.unit, item.left)} left"


def _when(item: Standing, now: datetime) -> str:
    if item.limit.period is Period.RUN:
        return "; anew next run"
    if item.begins_anew is None:
        return ""
    wait = item.begins_anew - now
    if timedelta(0) < wait < timedelta(days=2):
        return f"; anew in {span(wait.total_seconds())}"
    return f"; anew at {clock_time(item.begins_anew, now)}"


def _facts(found: Budgets) -> Iterator[str]:
    yield f"{found.account.day} (UTC): {_listed(found.account.today)}"
    if found.account.run:
        yield f"last run: {_listed(found.account.this_run)}"
    yield f"a cycle may cost {_listed(found.expected, (Unit.USD, Unit.TOKENS, Unit.SECONDS))}"
    lost = len(found.account.open)
    if lost:
        what = "1 cycle without an end counts" if lost == 1 else f"{lost} cycles without an end count"
        yield f"{what} in full: running, or lost by a crash"


def _listed(amount: Spending, units: Sequence[Unit] = tuple(Unit)) -> str:
    return ", ".join(show_amount(unit, amount.of(unit)) for unit in units)
