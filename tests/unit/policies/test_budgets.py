from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.sessions import Usage
from run_cycle_loop.model.spending import Account, Limit, Period, Spending, Unit
from run_cycle_loop.policies import budgets
from run_cycle_loop.policies.budgets import Charge, parse_limit, parse_limits, show_amount, show_limit
from run_cycle_loop.testing import make_record

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
DEFAULT = Spending(usd=2, tokens=500_000)


@pytest.mark.parametrize(
    ("text", "unit", "most", "period", "shown"),
    [
        ("usd=5/cycle", Unit.USD, 5, Period.CYCLE, "usd=5/cycle"),
        ("usd=20/day", Unit.USD, 20, Period.DAY, "usd=20/day"),
        ("usd=0.25/run", Unit.USD, 0.25, Period.RUN, "usd=0.25/run"),
        ("tokens=2M/day", Unit.TOKENS, 2_000_000, Period.DAY, "tokens=2M/day"),
        ("tokens=2.5m/day", Unit.TOKENS, 2_500_000, Period.DAY, "tokens=2.5M/day"),
        ("tokens=500k/cycle", Unit.TOKENS, 500_000, Period.CYCLE, "tokens=500k/cycle"),
        ("tokens=1234/run", Unit.TOKENS, 1234, Period.RUN, "tokens=1234/run"),
        ("time=3h/run", Unit.SECONDS, 10800, Period.RUN, "time=3h/run"),
        ("seconds=90/day", Unit.SECONDS, 90, Period.DAY, "time=1m30s/day"),
        ("time=1d2h3s/day", Unit.SECONDS, 93603, Period.DAY, "time=93603.0s/day"),
        ("cycles=40/day", Unit.CYCLES, 40, Period.DAY, "cycles=40/day"),
        (" USD = 5 / Cycle ", Unit.USD, 5, Period.CYCLE, "usd=5/cycle"),
    ],
)
def test_a_budget_is_read_and_shown(text: str, unit: Unit, most: float, period: Period, shown: str) -> None:
    limit = parse_limit(text)
    assert limit == Limit(unit=unit, most=most, period=period)
    assert show_limit(limit) == shown
    assert parse_limit(shown) == limit


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no budget"),
        ("20", "is no budget"),
        ("usd=20", "is no budget"),
        ("usd=/day", "is no budget"),
        ("20usd/day", "is no budget"),
        ("eur=5/day", "counts 'eur'"),
        ("usd=5/week", "for each 'week'"),
        ("usd=5/", "for each ''"),
        ("usd=0/day", "not above 0"),
        ("usd=-5/day", "not above 0"),
        ("usd=nan/day", "not above 0"),
        ("usd=inf/day", "not above 0"),
        ("usd=1e400/day", "not above 0"),
        ("usd=1e10/day", "too large"),
        ("usd=5k/day", "amount that is none"),
        ("usd=five/day", "amount that is none"),
        ("usd=1_0/day", "amount that is none"),
        ("usd=\u0665/day", "amount that is none"),
        ("tokens=k/day", "amount that is none"),
        ("tokens=1.5/day", "a part of one"),
        ("tokens=1e16/day", "too large"),
        ("time=soon/run", "amount that is none"),
        ("time=11y/run", "amount that is none"),
        ("cycles=1.5/day", "a part of one"),
        ("cycles=5/cycle", "always 1"),
        ("usd=5/day/run", "amount that is none"),
    ],
)
def test_what_is_no_budget_is_refused_with_the_next_step(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        parse_limit(text)
    assert "write" in str(error.value)


def test_budgets_stand_in_one_order_and_each_only_once() -> None:
    limits = parse_limits(["time=3h/run", "usd=20/day", "usd=5/cycle"])
    assert [show_limit(limit) for limit in limits] == ["usd=5/cycle", "usd=20/day", "time=3h/run"]
    with pytest.raises(ValueError, match=r"usd=20/day and usd=30/day limit the same; keep one"):
        parse_limits(["usd=20/day", "usd=30/day"])
    with pytest.raises(ValueError, match=r"time=1m/run and time=1m30s/run limit the same"):
        parse_limits(["time=1m/run", "seconds=90/run"])
    with pytest.raises(ValueError, match=r"'usd=x/day' has an amount"):
        parse_limits(["usd=x/day"])


@pytest.mark.parametrize(
    ("unit", "amount", "shown"),
    [
        (Unit.USD, 0, "0.00 usd"),
        (Unit.USD, 12.345, "12.35 usd"),
        (Unit.USD, 0.0012, "0.0012 usd"),
        (Unit.TOKENS, 999, "999 tokens"),
        (Unit.TOKENS, 1_234_567, "1.23M tokens"),
        (Unit.SECONDS, 5400, "1h30m"),
        (Unit.CYCLES, 1, "1 cycle"),
        (Unit.CYCLES, 40, "40 cycles"),
    ],
)
def test_amounts_are_shown_as_people_say_them(unit: Unit, amount: float, shown: str) -> None:
    assert show_amount(unit, amount) == shown


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([3], 3), ([1, 2], 2), (list(range(1, 21)), 19), ([100, *[1] * 19], 1), ([9, 9, *[1] * 18], 9)],
)
def test_19_of_20_cycles_do_not_cost_more_than_the_estimate(values: list[float], expected: float | None) -> None:
    assert budgets.p95(values) == expected


# --- what a cycle may cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "limits", "is_real", "expected"),
    [
        ({}, [], True, Spending(usd=2, tokens=500_000, cycles=1)),
        ({}, ["usd=0.5/cycle", "time=1m/cycle"], True, Spending(usd=0.5, tokens=500_000, seconds=60, cycles=1)),
        ({Unit.USD: [0.7, 0.2]}, ["usd=0.5/cycle"], True, Spending(usd=0.7, tokens=500_000, cycles=1)),
        ({Unit.TOKENS: [7.0], Unit.SECONDS: [9.5]}, [], True, Spending(usd=2, tokens=7, seconds=9.5, cycles=1)),
        # What is no agent costs nothing, unless such cycles have said otherwise.
        ({}, ["usd=0.5/cycle"], False, Spending(cycles=1)),
        ({Unit.USD: [0.7]}, [], False, Spending(usd=0.7, cycles=1)),
        # Only the newest twenty count.
        ({Unit.USD: [1.0] * 20 + [50.0] * 20}, [], True, Spending(usd=1, tokens=500_000, cycles=1)),
    ],
)
def test_a_cycle_is_expected_to_cost_what_others_did(
    measured: dict[Unit, list[float]], limits: list[str], is_real: bool, expected: Spending
) -> None:
    assert budgets.estimate(measured, parse_limits(limits), DEFAULT, is_real=is_real) == expected


EXPECTED = Spending(usd=3, tokens=1000, seconds=50, cycles=1)
KNOWN = Usage(input_tokens=100, output_tokens=50, cost_usd=0.25).as_dict()


def _charged(usage: Any, *, is_real: bool, status: Outcome = Outcome.SUCCESS) -> Charge:
    return budgets.charge(make_record(1, status, usage=usage, duration_seconds=12.5), EXPECTED, is_real=is_real)


@pytest.mark.parametrize(
    ("usage", "is_real", "usd", "tokens", "estimated"),
    [
        (KNOWN, True, 0.25, 150, ()),
        (KNOWN, False, 0.25, 150, ()),
        (None, True, 3, 1000, ("usd", "tokens")),
        (None, False, 0, 0, ()),
        # No price is known, and an agent's zero beside tokens is none.
        (KNOWN | {"cost_usd": None}, True, 3, 150, ("usd",)),
        (KNOWN | {"cost_usd": 0.0}, True, 3, 150, ("usd",)),
        (KNOWN | {"cost_usd": None}, False, 3, 150, ("usd",)),
        # Cut off: at least so much.
        (KNOWN | {"complete": False}, True, 3, 1000, ("usd", "tokens")),
        (KNOWN | {"complete": False, "cost_usd": 4.5}, True, 4.5, 1000, ("usd", "tokens")),
        (KNOWN | {"complete": False, "input_tokens": 5000}, True, 3, 5050, ("usd", "tokens")),
        # Nothing consumed costs nothing.
        (Usage().as_dict(), True, 0, 0, ()),
    ],
)
def test_a_cycle_is_charged_what_it_says_or_an_estimate(
    usage: Any, is_real: bool, usd: float, tokens: int, estimated: tuple[str, ...]
) -> None:
    made = _charged(usage, is_real=is_real)
    assert made.as_dict() == {
        "usd": usd,
        "tokens": tokens,
        "seconds": 12.5,
        "cycles": 1,
        "estimated": list(estimated),
    }


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"note": "cheap"},
        KNOWN | {"input_tokens": -1},
        KNOWN | {"output_tokens": "150"},
        KNOWN | {"input_tokens": 1.5},
        KNOWN | {"input_tokens": True},
        KNOWN | {"input_tokens": 1 << 80},
        KNOWN | {"input_tokens": 10**11},
        KNOWN | {"cost_usd": -0.01},
        KNOWN | {"cost_usd": float("nan")},
        KNOWN | {"cost_usd": float("inf")},
        KNOWN | {"cost_usd": 1e300},
        KNOWN | {"cost_usd": 1e6},
        KNOWN | {"cost_usd": "0.25"},
        KNOWN | {"cost_usd": [0.25]},
        KNOWN | {"complete": "yes"},
        KNOWN | {"calls": -3},
        KNOWN | {"source": 7},
        [1, 2],
        "cheap",
    ],
)
def test_a_usage_that_cannot_be_believed_is_none(usage: Any) -> None:
    assert budgets.believed_usage(usage) is None
    assert _charged(usage, is_real=True).estimated == (Unit.USD, Unit.TOKENS)
    assert _charged(usage, is_real=False).amount == Spending(seconds=12.5, cycles=1)


@pytest.mark.parametrize(
    ("status", "usage", "measured"),
    [
        (Outcome.SUCCESS, KNOWN, ("seconds", "usd", "tokens")),
        (Outcome.TIMEOUT, KNOWN, ("seconds", "usd", "tokens")),
        (Outcome.FAILED, KNOWN | {"cost_usd": None}, ("seconds", "tokens")),
        (Outcome.FAILED, KNOWN | {"complete": False}, ("seconds",)),
        (Outcome.FAILED, Usage().as_dict(), ("seconds",)),
        (Outcome.SUCCESS, None, ("seconds",)),
        # What was cut short from outside says nothing of what a cycle costs.
        (Outcome.RATE_LIMITED, KNOWN, ()),
        (Outcome.INTERRUPTED, KNOWN, ()),
    ],
)
def test_only_cycles_that_ran_to_an_end_tell_what_others_may_cost(
    status: Outcome, usage: Any, measured: tuple[str, ...]
) -> None:
    assert _charged(usage, is_real=True, status=status).measured == measured


# --- whether another one fits --------------------------------------------------------------------------------------


def _account(usd: float = 0, *, tokens: int = 0, cycles: int = 0, day: str = "2026-01-02") -> Account:
    spent = Spending(usd=usd, tokens=tokens, cycles=cycles)
    return Account(day=day, run="run", today=spent, this_run=spent)


@pytest.mark.parametrize(
    ("limits", "account", "need", "why"),
    [
        (["usd=20/day"], _account(0), 2, None),
        (["usd=20/day"], _account(18), 2, None),
        (["usd=20/day"], _account(18.01), 2, "20/day is spent: 18.01 usd used, and a cycle may cost 2.00 usd; until"),
        (["usd=20/day"], _account(20), 0, "20/day is spent: 20.00 usd used; until 2026-01-03 00:00 UTC, or raise it"),
        (["usd=20/day"], _account(25), 2, "20/day is spent: 25.00 usd used; until"),
        (["usd=20/run"], _account(19), 2, "20/run is spent: .* start the loop again, or raise it"),
        (["usd=1/day"], _account(0), 2, "no cycle fits into the budget usd=1/day: one may cost 2.00 usd; raise it"),
        (["usd=1/run"], _account(0), 2, "no cycle fits"),
        (["cycles=3/day"], _account(cycles=2), 2, None),
        (["cycles=3/day"], _account(cycles=3), 2, "3 cycles used"),
        (["usd=0.3/day"], _account(0.1 + 0.1), 0.1, None),
        (["usd=1/cycle"], _account(999), 2, None),
        ([], _account(999), 2, None),
    ],
)
def test_a_cycle_fits_where_enough_is_left_for_it(
    limits: list[str], account: Account, need: float, why: str | None
) -> None:
    found = budgets.refusal(parse_limits(limits), account, Spending(usd=need, cycles=1), NOW)
    if why is None:
        assert found is None
    else:
        assert found is not None
        with pytest.raises(ValueError, match=why):
            raise ValueError(found.why)


@pytest.mark.parametrize(
    ("limits", "until"),
    [
        (["usd=20/day"], datetime(2026, 1, 3, 0, 0, 30, tzinfo=UTC)),
        (["usd=20/day", "usd=20/run"], None),
        (["usd=1/day", "tokens=5/day"], None),
    ],
)
def test_what_no_waiting_helps_against_is_said_first(limits: list[str], until: datetime | None) -> None:
    need = Spending(usd=2, tokens=1, cycles=1)
    found = budgets.refusal(parse_limits(limits), _account(20, tokens=5), need, NOW)
    assert found is not None
    assert found.until == until


@pytest.mark.parametrize(
    ("now", "day", "until"),
    [
        ("2026-01-02T23:59:59.999", "2026-01-02", "2026-01-03T00:00:30"),
        ("2026-01-02T00:00:00", "2026-01-02", "2026-01-03T00:00:30"),
        # The clock was set back over midnight: the day that had begun goes on.
        ("2026-01-02T23:00:00", "2026-01-03", "2026-01-04T00:00:30"),
        # It had been years ahead: nobody waits for that.
        ("2026-01-02T23:00:00", "2026-01-04", None),
        ("2026-01-02T23:00:00", "2036-01-02", None),
    ],
)
def test_a_spent_day_ends_at_its_midnight(now: str, day: str, until: str | None) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    found = budgets.refusal(parse_limits(["usd=20/day"]), _account(20, day=day), Spending(usd=2, cycles=1), at)
    assert found is not None
    assert found.until == (None if until is None else datetime.fromisoformat(until).replace(tzinfo=UTC))
    assert ("set the clock right" in found.why) is (until is None)


def test_the_day_is_that_of_utc() -> None:
    zone = datetime(2026, 1, 3, 1, tzinfo=UTC).astimezone().tzinfo
    assert budgets.day_of(datetime(2026, 1, 3, 0, 30, tzinfo=UTC).astimezone(zone)) == "2026-01-03"
    ahead = datetime.fromisoformat("2026-01-03T08:00:00+09:00")
    assert budgets.day_of(ahead) == "2026-01-02"
    assert budgets.day_of(ahead + timedelta(hours=1)) == "2026-01-03"


def test_a_cycle_needs_no_more_than_it_is_allowed_by_itself() -> None:
    expected = Spending(usd=3, tokens=100, seconds=60, cycles=1)
    assert budgets.needed(expected, parse_limits(["usd=1/cycle", "usd=2/day"])) == Spending(
        usd=1, tokens=100, seconds=60, cycles=1
    )


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ([], None),
        (["usd=5/cycle"], 5),
        (["usd=5/cycle", "usd=20/day"], 2),
        (["usd=10/run"], 0),
        (["tokens=5/day"], None),
    ],
)
def test_a_cycle_is_allowed_what_the_narrowest_limit_leaves(limits: list[str], left: float | None) -> None:
    assert budgets.allowance(parse_limits(limits), _account(18), Unit.USD) == left


# --- what went beyond ----------------------------------------------------------------------------------------------


def _made(usd: float, *estimated: Unit) -> Charge:
    return Charge(amount=Spending(usd=usd, cycles=1), estimated=estimated)


@pytest.mark.parametrize(
    ("limits", "made", "used", "sentences"),
    [
        (["usd=5/cycle", "usd=20/day"], _made(5), 20, []),
        (["usd=5/cycle"], _made(5.5), 0, ["this cycle came to 5.50 usd, more than the budget usd=5/cycle allows"]),
        (["usd=5/cycle"], _made(5.5, Unit.USD), 0, []),
        (["usd=20/day"], _made(1), 20.5, ["20.50 usd of the budget usd=20/day used"]),
        (["usd=20/run"], _made(1), 20.5, ["20.50 usd of the budget usd=20/run used"]),
    ],
)
def test_what_went_beyond_is_said(limits: list[str], made: Charge, used: float, sentences: list[str]) -> None:
    assert budgets.overspent(parse_limits(limits), _account(used), made) == sentences


@pytest.mark.parametrize(
    ("made", "is_unheeded"),
    [
        ([_made(2), _made(2)], False),
        ([_made(2), _made(2), _made(2)], True),
        ([_made(0.1), _made(2), _made(2), _made(2)], True),
        ([_made(2), _made(2), _made(1.05)], False),
        ([_made(1.05), _made(1.05), _made(1.05)], False),
        ([_made(2), _made(2), _made(2, Unit.USD)], False),
    ],
)
def test_a_limit_that_no_cycle_keeps_to_is_found_out(made: list[Charge], is_unheeded: bool) -> None:
    assert (budgets.unheeded(parse_limits(["usd=1/cycle", "usd=0.5/day"]), made) is not None) is is_unheeded
