import itertools
import json
import random
from typing import Any

import pytest

from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, Opened, Reset
from run_cycle_loop.model.spending import Account, EntryKind, LedgerEntry, Spending, Unit

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")


def _entry(event: EntryKind, cycle: int, usd: float, *, day: str = DAYS[1], run: str = "run-1") -> LedgerEntry:
    amount = Spending(usd=usd, tokens=int(usd * 1000), seconds=usd * 60, cycles=1)
    return LedgerEntry(event=event, cycle_id=f"cycle-{cycle}", run=run, day=day, at="", amount=amount)


def _reserve(cycle: int, usd: float, **where: str) -> LedgerEntry:
    return _entry(EntryKind.RESERVE, cycle, usd, **where)


def _charge(cycle: int, usd: float, **where: str) -> LedgerEntry:
    return _entry(EntryKind.CHARGE, cycle, usd, **where)


def _after(*entries: LedgerEntry) -> Account:
    account = Account()
    for entry in entries:
        account = account.after(entry)
    return account


def test_a_charge_takes_the_place_of_what_was_reserved() -> None:
    account = _after(_reserve(1, 2), _charge(1, 0.5))
    assert account.today == Spending(usd=0.5, tokens=500, seconds=30, cycles=1) == account.this_run
    assert not account.open


def test_what_is_reserved_counts_in_full_until_it_is_charged() -> None:
    assert _after(_reserve(1, 2), _charge(1, 1), _reserve(2, 2)).today.usd == 3


def test_what_is_reserved_or_charged_twice_counts_once() -> None:
    twice = _after(_reserve(1, 2), _reserve(1, 2), _charge(1, 1), _charge(1, 1))
    assert twice == _after(_reserve(1, 2), _charge(1, 1))


def test_a_new_day_begins_with_nothing_and_a_new_run_too() -> None:
    account = _after(_reserve(1, 2, day=DAYS[0]), _charge(1, 1, day=DAYS[0]), _reserve(2, 2, day=DAYS[1]))
    assert (account.day, account.today.usd, account.this_run.usd) == (DAYS[1], 2, 3)
    account = account.after(_reserve(3, 5, day=DAYS[1], run="run-2"))
    assert (account.today.usd, account.this_run.usd, account.run) == (7, 5, "run-2")


def test_a_charge_after_midnight_is_of_the_day_of_its_reservation() -> None:
    account = _after(_reserve(1, 2, day=DAYS[0]), _reserve(2, 3, day=DAYS[1]), _charge(1, 1, day=DAYS[0]))
    assert (account.today.usd, account.this_run.usd) == (3, 4)


def test_a_clock_that_is_set_back_opens_no_older_day() -> None:
    account = _after(_reserve(1, 2, day=DAYS[2]), _charge(1, 2), _reserve(2, 3, day=DAYS[0]))
    assert (account.day, account.today.usd) == (DAYS[2], 5)
    assert account.on(DAYS[1]) is account


@pytest.mark.parametrize("seed", range(200))
def test_in_whatever_order_entries_come_the_day_adds_up_to_charges_and_open_reservations(seed: int) -> None:
    chance = random.Random(seed)
    amounts = {number: (chance.randint(1, 9), chance.randint(0, 9)) for number in range(chance.randint(1, 12))}
    entries = [
        entry
        for number, (reserved, charged) in amounts.items()
        for entry in (_reserve(number, reserved), _charge(number, charged))[: chance.randint(1, 2)]
    ]
    # A charge never comes before its own reservation; else any order can happen.
    places = sorted(range(len(entries)), key=lambda _: chance.random())
    shuffled = [entries[place] for place in places]
    for number in amounts:
        own = [at for at, entry in enumerate(shuffled) if entry.cycle_id == f"cycle-{number}"]
        if len(own) == 2 and shuffled[own[0]].event is EntryKind.CHARGE:
            shuffled[own[0]], shuffled[own[1]] = shuffled[own[1]], shuffled[own[0]]
    charged = {entry.cycle_id for entry in entries if entry.event is EntryKind.CHARGE}
    expected = sum(made if f"cycle-{number}" in charged else kept for number, (kept, made) in amounts.items())
    account = _after(*shuffled)
    assert (account.today.usd, account.today.cycles) == (expected, len(amounts))
    assert len(account.open) == len(amounts) - len(charged)
    # Through the file, in the middle of it, nothing changes.
    half = len(shuffled) // 2
    resumed = Account.from_dict(json.loads(json.dumps(_after(*shuffled[:half]).as_dict()))) if half else Account()
    for entry in shuffled[half:]:
        resumed = resumed.after(LedgerEntry.from_dict(json.loads(json.dumps(entry.as_dict()))))
    assert resumed == account


def test_no_total_ever_falls_within_a_day_but_by_a_charge_below_its_estimate() -> None:
    for order in itertools.permutations([_reserve(1, 2), _reserve(2, 3), _reserve(3, 1)]):
        totals = [_after(*order[:count]).today.usd for count in range(4)]
        assert totals == sorted(totals)


def test_many_lost_cycles_stay_counted_though_only_some_are_remembered() -> None:
    account = _after(*(_reserve(number, 1) for number in range(100)))
    assert (account.today.usd, len(account.open)) == (100, 16)
    assert account.after(_charge(99, 0.25)).today.usd == 99.25
    assert account.after(_charge(1, 0)).today.usd == 100


def test_an_account_and_an_entry_come_back_as_they_were() -> None:
    account = _after(_reserve(1, 2), _charge(1, 0.1), _reserve(2, 0.3))
    assert Account.from_dict(json.loads(json.dumps(account.as_dict()))) == account
    entry = LedgerEntry(
        event=EntryKind.CHARGE,
        cycle_id="a",
        run="b",
        day=DAYS[0],
        at="now",
        amount=Spending(usd=0.1, tokens=3, seconds=2.5, cycles=1),
        estimated=(Unit.USD,),
        measured=(Unit.TOKENS, Unit.SECONDS),
    )
    assert LedgerEntry.from_dict(json.loads(json.dumps(entry.as_dict()))) == entry


@pytest.mark.parametrize(
    "change",
    [
        {"usd": -1},
        {"usd": "1"},
        {"usd": True},
        {"tokens": 1.5},
        {"tokens": 1 << 60},
        {"seconds": [1]},
        {"cycles": -1},
        {"day": "2026-1-1"},
        {"day": "tomorrow!!"},
        {"day": None},
        {"event": "spend"},
        {"event": None},
        {"cycle_id": ""},
        {"cycle_id": 7},
        {"estimated": "usd"},
        {"measured": ["euros"]},
    ],
)
def test_what_is_no_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        LedgerEntry.from_dict(_charge(1, 1).as_dict() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"today": None},
        {"today": {"usd": -5}},
        {"this_run": []},
        {"open": {"a": 1}},
        {"open": {"a": {"day": "", "run": ""}}},
        {"day": "x"},
        {"run": 3},
    ],
)
def test_what_is_no_account_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Account.from_dict(_after(_reserve(1, 1)).as_dict() | change)


def test_the_marks_of_breakers_come_back_as_they_were() -> None:
    marks = BreakerMarks(
        reset=Reset(at="then", by="me", number=7, reason="mended"),
        opened=Opened(name=BreakerName.STORM, at="now", number=9, why="ten short cycles"),
    )
    for found in (marks, BreakerMarks()):
        assert BreakerMarks.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"reset": None},
        {"reset": 1, "opened": None},
        {"reset": {"number": -1}, "opened": None},
        {"reset": None, "opened": {"name": "fuse"}},
        {"reset": None, "opened": {"name": "storm", "why": 3}},
    ],
)
def test_what_are_no_marks_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        BreakerMarks.from_dict(value)
