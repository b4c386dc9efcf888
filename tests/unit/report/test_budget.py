import json
from datetime import UTC, datetime

import pytest

from run_cycle_loop.model.spending import Account, Reservation, Spending
from run_cycle_loop.policies.budgets import parse_limits
from run_cycle_loop.report.budget import Budgets, render, standing, summary
from run_cycle_loop.report.text import Style, columns

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
ACCOUNT = Account(
    day="2026-01-02",
    run="run-1",
    today=Spending(usd=12.5, tokens=1_900_000, seconds=3600, cycles=7),
    this_run=Spending(usd=4, tokens=600_000, seconds=1800, cycles=3),
    open={"lost": Reservation(day="2026-01-02", run="run-0", amount=Spending(usd=2, cycles=1))},
)
EXPECTED = Spending(usd=2, tokens=100_000, seconds=240, cycles=1)
LIMITS = ("usd=5/cycle", "usd=20/day", "tokens=2M/day", "time=3h/run", "cycles=7/run")


def _standing(*limits: str, account: Account = ACCOUNT, now: datetime = NOW, enforced: bool = True) -> Budgets:
    return standing(parse_limits(limits), account, EXPECTED, now=now, enforced=enforced)


def _lines(found: Budgets, *, width: int = 110, style: Style | None = None) -> list[str]:
    return list(render(found, width=width, style=style or Style()))


def test_each_limit_says_what_is_used_and_left_and_when_it_begins_anew() -> None:
    lines = _lines(_standing(*LIMITS))
    assert lines[0] == "usd=5/cycle    for each cycle"
    assert lines[1] == ("usd=20/day     [###############         ]  12.50 usd used (62%), 7.50 usd left; anew in 12h")
    assert lines[2].endswith("1.9M tokens used (95%), 100k tokens left; anew in 12h")
    assert lines[3].endswith("30m used (17%), 2h30m left; anew next run")
    assert lines[4].endswith("3 cycles used (43%), 4 cycles left; anew next run")
    assert lines[5:] == [
        "2026-01-02 (UTC): 12.50 usd, 1.9M tokens, 1h, 7 cycles",
        "last run: 4.00 usd, 600k tokens, 30m, 3 cycles",
        "a cycle may cost 2.00 usd, 100k tokens, 4m",
        "1 cycle without an end counts in full: running, or lost by a crash",
    ]


@pytest.mark.parametrize("enforced", [True, False])
def test_a_spent_budget_is_said_in_words(enforced: bool) -> None:
    text = " ".join(_lines(_standing("usd=12/day", enforced=enforced)))
    assert "[########################]" in text
    assert "the budget usd=12/day is spent: 12.50 usd used; until 2026-01-03 00:00 UTC, or raise it" in text
    assert ("only warned about" in text) is not enforced


@pytest.mark.parametrize("width", [10, 20, 40, 71, 72, 80, 100, 200])
@pytest.mark.parametrize("style", [Style(), Style(unicode=True)])
def test_no_line_is_wider_than_the_terminal(width: int, style: Style) -> None:
    for found in (_standing(*LIMITS), _standing("usd=12/day"), _standing()):
        for line in _lines(found, width=width, style=style):
            assert columns(line) <= max(width, 20)


@pytest.mark.parametrize(("used", "signs"), [(0, 0), (0.01, 1), (10, 12), (19.99, 23), (20, 24), (500, 24)])
def test_a_bar_shows_something_for_something_and_all_for_all_alone(used: float, signs: int) -> None:
    account = Account(day="2026-01-02", today=Spending(usd=used))
    assert _lines(_standing("usd=20/day", account=account))[0].count("#") == signs


def test_yesterdays_account_says_nothing_of_today() -> None:
    account = Account(day="2026-01-01", run="run-1", today=Spending(usd=19), this_run=Spending(usd=19))
    assert "0.00 usd used (0%), 20.00 usd left" in _lines(_standing("usd=20/day", account=account))[0]


def test_a_day_far_ahead_is_told_with_its_date() -> None:
    account = Account(day="2036-01-02", today=Spending(usd=1))
    assert "anew at 2036-01-03 00:00:00" in _lines(_standing("usd=20/day", account=account))[0]


def test_without_a_budget_it_says_how_to_set_one() -> None:
    assert _lines(_standing())[0] == "no budget is set; --budget usd=20/day sets one"
    assert summary(_standing()) is None


@pytest.mark.parametrize(
    ("limits", "enforced", "text", "colour"),
    [
        (["usd=20/day"], True, "12.50 usd used (62%) of usd=20/day", None),
        (["usd=20/day", "tokens=2M/day"], True, "1.9M tokens used (95%) of tokens=2M/day", "yellow"),
        (["usd=5/cycle"], True, "nothing is used", None),
        (["usd=12/day"], True, "the budget usd=12/day is spent", "red"),
        (["usd=12/day"], False, "the budget usd=12/day is spent", "yellow"),
    ],
)
def test_the_status_has_one_line_for_the_fullest(
    limits: list[str], enforced: bool, text: str, colour: str | None
) -> None:
    found = summary(_standing(*limits, enforced=enforced))
    assert found is not None
    assert found[0].startswith(text)
    assert found[1] == colour


def test_all_of_it_is_json() -> None:
    value = json.loads(json.dumps(_standing(*LIMITS).as_dict()))
    assert value["limits"][1] == {
        "limit": "usd=20/day",
        "unit": "usd",
        "period": "day",
        "most": 20.0,
        "used": 12.5,
        "left": 7.5,
        "begins_anew": "2026-01-03T00:00:00+00:00",
    }
    assert value["refused"] is None
    assert value["today"]["cycles"] == 7
