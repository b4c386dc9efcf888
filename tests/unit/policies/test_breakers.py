from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, BreakerState, Opened, Reset
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.records import CycleRecord, timestamp
from run_cycle_loop.policies import breakers
from run_cycle_loop.policies.breakers import SpendRate, Thresholds, Watch
from run_cycle_loop.testing import NOON, make_record

CLOSED, HALF_OPEN, OPEN = BreakerState
THRESHOLDS = Thresholds(no_progress=3, storm_cycles=4, storm_seconds=5, spend_rate=SpendRate(usd=10, seconds=1800))
OK, BAD, LIMITED, SKIPPED = Outcome.SUCCESS, Outcome.FAILED, Outcome.RATE_LIMITED, Outcome.PREREQ_FAILED


def _is_real(agent: str | None) -> bool:
    return agent == "claude"


def _records(*cycles: dict[str, Any]) -> list[CycleRecord]:
    """One a minute, each a minute long, unless they say otherwise; oldest first."""
    made = []
    for number, changes in enumerate(cycles, 1):
        minutes = changes.pop("minute", number)
        known: dict[str, Any] = {
            "duration_seconds": 60.0,
            "finished_at": timestamp(NOON + timedelta(minutes=minutes)),
        }
        made.append(make_record(number, changes.pop("status", OK), **known | changes))
    return made


def _added(records: list[CycleRecord], thresholds: Thresholds = THRESHOLDS) -> Watch:
    watch = Watch()
    for record in records:
        watch = breakers.adding(watch, record, thresholds, is_real=_is_real(record.agent))
    return watch


def _states(
    records: list[CycleRecord], marks: BreakerMarks | None = None, thresholds: Thresholds = THRESHOLDS
) -> dict[str, BreakerState]:
    """What a loop that has just started makes of these records, which must be what one that ran on makes of them."""
    marks = marks or BreakerMarks()
    loaded = breakers.watched(reversed(records), thresholds, marks, _is_real)
    found = {verdict.name.value: verdict.state for verdict in breakers.judge(loaded, thresholds, marks)}
    if marks.reset is None:
        running = breakers.judge(_added(records, thresholds), thresholds, marks)
        assert {verdict.name.value: verdict.state for verdict in running} == found
    return found


def _prints(text: str) -> list[CycleRecord]:
    """A cycle for each letter, which is its fingerprint; a small one is of a cycle that does not count, a dot none."""
    return _records(
        *(
            {"fingerprint": None if letter == "." else letter.upper(), "status": LIMITED if letter.islower() else OK}
            for letter in text
        )
    )


@pytest.mark.parametrize(
    ("prints", "state"),
    [
        ("", CLOSED),
        ("A", CLOSED),
        ("AA", CLOSED),
        ("AAA", HALF_OPEN),
        ("AAAA", OPEN),
        ("AAAAAAAAA", OPEN),
        ("AAAB", CLOSED),
        ("AABAA", CLOSED),
        ("BAAA", HALF_OPEN),
        ("ABABAB", CLOSED),
        ("AA.A", HALF_OPEN),
        ("....", CLOSED),
        ("AAaaaaa", CLOSED),
        ("AAaA", HALF_OPEN),
        ("AAbA", HALF_OPEN),
        ("AAAb", HALF_OPEN),
        ("AAAbA", OPEN),
    ],
)
def test_cycles_that_leave_the_same_workdir_open_it_after_one_more_try(prints: str, state: BreakerState) -> None:
    assert _states(_prints(prints))["no-progress"] is state


@pytest.mark.parametrize(
    "status", [SKIPPED, Outcome.INTERRUPTED, Outcome.SKIPPED, LIMITED, Outcome.ERROR, Outcome.LOST]
)
def test_what_did_not_run_to_an_end_says_nothing_of_progress(status: Outcome) -> None:
    assert _states(_records(*({"fingerprint": "A", "status": status} for _ in range(9))))["no-progress"] is CLOSED


@pytest.mark.parametrize("status", [OK, BAD, Outcome.DEGRADED, Outcome.TIMEOUT])
def test_what_ran_to_an_end_says_something(status: Outcome) -> None:
    assert _states(_records(*({"fingerprint": "A", "status": status} for _ in range(4))))["no-progress"] is OPEN


def test_it_takes_two_cycles_to_compare() -> None:
    thresholds = Thresholds(no_progress=1)
    assert [_states(_prints("A" * count), thresholds=thresholds)["no-progress"] for count in (1, 2, 3)] == [
        CLOSED,
        HALF_OPEN,
        OPEN,
    ]


def _cycle(letter: str) -> dict[str, Any]:
    """F fails, S succeeds, A is an agent that succeeds, L is rate limited; a small letter is short."""
    status = {"F": BAD, "L": LIMITED, "E": Outcome.ERROR, "X": Outcome.LOST, "D": Outcome.DEGRADED}
    return {
        "status": status.get(letter.upper(), OK),
        "agent": "claude" if letter.upper() == "A" else None,
        "duration_seconds": 4.9 if letter.islower() else 5.0,
    }


@pytest.mark.parametrize(
    ("cycles", "state"),
    [
        ("fff", CLOSED),
        ("ffff", OPEN),
        ("FFFF", CLOSED),
        ("ffFff", CLOSED),
        ("ffsff", CLOSED),
        ("ssssss", CLOSED),
        ("aaaa", OPEN),
        ("afaf", OPEN),
        ("aaAa", CLOSED),
        ("exdf", OPEN),
        ("fflllff", OPEN),
        ("llllllll", CLOSED),
        ("ffffS", CLOSED),
    ],
)
def test_short_cycles_in_a_row_open_it(cycles: str, state: BreakerState) -> None:
    assert _states(_records(*map(_cycle, cycles)))["storm"] is state


def _spent(*amounts: tuple[float, float]) -> list[CycleRecord]:
    return _records(*({"minute": minute, "charged": {"usd": usd}} for minute, usd in amounts))


@pytest.mark.parametrize(
    ("amounts", "state"),
    [
        ([(0, 10)], CLOSED),
        ([(0, 10.01)], OPEN),
        ([(0, 5), (30, 5.01)], OPEN),
        ([(0, 5), (30.1, 5.01)], CLOSED),
        ([(0, 50), (31, 1)], CLOSED),
        ([(minute, 0.5) for minute in range(20)], CLOSED),
        ([(minute, 0.5) for minute in range(21)], OPEN),
        ([(0, 9), (10, 0), (40, 9)], CLOSED),
        # A clock that was set back: what seems to come later counts.
        ([(60, 6), (0, 6)], OPEN),
    ],
)
def test_much_spent_in_a_short_time_opens_it(amounts: list[tuple[float, float]], state: BreakerState) -> None:
    assert _states(_spent(*amounts))["spending"] is state


@pytest.mark.parametrize(
    "charged", [None, {}, {"usd": None}, {"usd": -5}, {"usd": "99"}, {"usd": float("nan")}, {"usd": []}]
)
def test_a_charge_that_cannot_be_read_is_none(charged: Any) -> None:
    assert breakers.charged_usd(charged) == 0


def test_what_is_not_wanted_stays_closed() -> None:
    off = Thresholds(no_progress=0, storm_cycles=0, spend_rate=None)
    records = _records(*({"fingerprint": "A", "status": BAD, "duration_seconds": 0.1} for _ in range(50)))
    assert set(_states(records, thresholds=off).values()) == {CLOSED}
    assert set(_states(records, thresholds=Thresholds(no_progress=0, storm_seconds=0)).values()) == {CLOSED}


# --- resets and what is kept ---------------------------------------------------------------------------------------


def _reset(number: int) -> BreakerMarks:
    return BreakerMarks(reset=Reset(at=timestamp(NOON), by="me", number=number))


@pytest.mark.parametrize(
    ("number", "state"), [(0, OPEN), (1, OPEN), (2, HALF_OPEN), (3, CLOSED), (5, CLOSED), (6, OPEN), (500, OPEN)]
)
def test_what_was_looked_at_counts_no_more(number: int, state: BreakerState) -> None:
    """A reset beyond the newest cycle is of a history whose numbers have begun anew since."""
    assert _states(_prints("AAAAA"), _reset(number))["no-progress"] is state


def test_one_that_has_opened_stays_open_whatever_the_records_say() -> None:
    marks = BreakerMarks(opened=Opened(name=BreakerName.STORM, at="", number=3, why="four short cycles"))
    for records in (_prints("AB"), []):
        verdicts = breakers.judge(breakers.watched(reversed(records), THRESHOLDS, marks, _is_real), THRESHOLDS, marks)
        worst = breakers.gravest(verdicts)
        assert (worst.name, worst.state, worst.detail) == (BreakerName.STORM, OPEN, "four short cycles")
        assert len(verdicts) == 3


def test_no_more_of_a_good_history_is_read_than_says_something() -> None:
    taken = []

    def endless() -> Iterator[CycleRecord]:
        for number in range(10**6, 0, -1):
            taken.append(number)
            yield make_record(number, fingerprint=str(number), duration_seconds=60.0)

    breakers.watched(endless(), Thresholds(), BreakerMarks(), _is_real)
    assert len(taken) <= 4


@pytest.mark.parametrize(
    "changes", [{"status": LIMITED}, {"fingerprint": None}, {"status": BAD, "duration_seconds": 0.1}]
)
def test_no_history_is_read_without_a_bound(changes: dict[str, Any]) -> None:
    taken = []

    def endless() -> Iterator[CycleRecord]:
        for number in range(10**5, 0, -1):
            taken.append(number)
            yield make_record(number, **changes)

    breakers.watched(endless(), Thresholds(spend_rate=SpendRate(usd=1, seconds=60)), BreakerMarks(), _is_real)
    assert len(taken) <= 5002


# --- what the operator writes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate", "shown"),
    [
        ("10usd/30m", SpendRate(usd=10, seconds=1800), "10usd/30m"),
        ("usd=10/30m", SpendRate(usd=10, seconds=1800), "10usd/30m"),
        (" 2.5 USD / 90 ", SpendRate(usd=2.5, seconds=90), "2.5usd/1m30s"),
        ("0.1/1h", SpendRate(usd=0.1, seconds=3600), "0.1usd/1h"),
    ],
)
def test_a_rate_is_read_and_shown(text: str, rate: SpendRate, shown: str) -> None:
    assert breakers.parse_spend_rate(text) == rate
    assert breakers.show_spend_rate(rate) == shown
    assert breakers.parse_spend_rate(shown) == rate


@pytest.mark.parametrize(
    "text",
    ["", "10usd", "10usd/", "/30m", "0usd/30m", "10usd/0", "-1usd/5m", "x/5m", "1.2.3usd/5m", "nan/5m", "10eur/30m"],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write such as 10usd/30m"):
        breakers.parse_spend_rate(text)
