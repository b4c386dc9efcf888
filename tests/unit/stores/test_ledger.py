import json
import os
import random
from pathlib import Path

import pytest

from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.spending import Account, EntryKind, LedgerEntry, Spending, Unit
from run_cycle_loop.stores.ledger import JsonlLedger

DAY = "2026-01-02"


def _entry(number: int, event: EntryKind = EntryKind.RESERVE, usd: float = 1, *, day: str = DAY) -> LedgerEntry:
    amount = Spending(usd=usd, tokens=10, seconds=5, cycles=1)
    measured = (Unit.USD,) if event is EntryKind.CHARGE else ()
    return LedgerEntry(
        event=event, cycle_id=f"cycle-{number}", run="run", day=day, at="", amount=amount, measured=measured
    )


def _plant(what: str, path: Path, victim: Path) -> None:
    if what == "link":
        path.symlink_to(victim)
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()


def _fill(ledger: JsonlLedger, cycles: int, account: Account | None = None) -> Account:
    account = account or Account()
    for number in range(cycles):
        for entry in (_entry(number, usd=2), _entry(number, EntryKind.CHARGE, usd=1)):
            account = account.after(entry)
            ledger.append(entry, account)
    return account


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def ledger(tmp_path: Path, warnings: list[str]) -> JsonlLedger:
    return JsonlLedger(tmp_path / "state" / "ledger.jsonl", warnings.append)


def test_a_torn_last_line_is_moved_aside_and_what_it_said_never_happened(
    ledger: JsonlLedger, warnings: list[str]
) -> None:
    account = _fill(ledger, 2)
    with ledger.path.open("ab") as file:
        file.write(b'{"event":"reserve","cycle_id":"torn","usd":9')
    assert ledger.load().account == account
    entry = _entry(7)
    ledger.append(entry, account.after(entry))
    assert ledger.load().account == account.after(entry)
    (torn,) = ledger.path.parent.glob("*.torn-*")
    assert b'"torn"' in torn.read_bytes()
    assert len(warnings) == 1
    assert all(json.loads(line) for line in ledger.path.read_bytes().splitlines())


def test_a_last_line_that_lacks_only_its_newline_counts(ledger: JsonlLedger, warnings: list[str]) -> None:
    account = _fill(ledger, 2)
    ledger.path.write_bytes(ledger.path.read_bytes().removesuffix(b"\n"))
    assert ledger.load().account == account
    entry = _entry(7)
    ledger.append(entry, account.after(entry))
    assert ledger.load().account == account.after(entry)
    assert len(ledger.path.read_bytes().splitlines()) == 5
    assert "newline" in warnings[0]


@pytest.mark.parametrize(
    "damage",
    [
        b"garbage",
        b"\0" * 300,
        b"{}",
        b"[]",
        b"null",
        b"{" * 3000,
        b'{"event":"charge"}',
        json.dumps(_entry(1).as_dict()).encode(),  # without its account
        json.dumps(_entry(1).as_dict() | {"account": {"today": {"usd": -5}}}).encode(),
    ],
)
def test_damaged_lines_at_the_end_are_counted_and_said(ledger: JsonlLedger, warnings: list[str], damage: bytes) -> None:
    account = _fill(ledger, 2)
    with ledger.path.open("ab") as file:
        file.write(damage + b"\n" + damage + b"\n")
    found = ledger.load()
    assert (found.account, found.damaged) == (account, 2)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"2 damaged lines at the end of the budget ledger {ledger.path}: each counts as a")


def test_a_damaged_line_further_up_is_in_the_accounts_of_those_after_it(
    ledger: JsonlLedger, warnings: list[str]
) -> None:
    account = _fill(ledger, 5)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\xff" * (len(lines[3]) - 1) + b"\n"
    ledger.path.write_bytes(b"".join(lines))
    found = ledger.load()
    assert (found.account, found.damaged, warnings) == (account, 0, [])


def test_a_file_of_nothing_but_damage_has_no_account_and_a_bounded_count(ledger: JsonlLedger) -> None:
    ledger.path.parent.mkdir()
    ledger.path.write_bytes(b"x\n" * 50_000)
    found = ledger.load()
    assert (found.account, found.damaged) == (None, 1000)


@pytest.mark.parametrize("cut", range(0, 1500, 7))
def test_wherever_it_is_cut_off_it_reads_on_from_the_last_whole_line(tmp_path: Path, cut: int) -> None:
    whole = JsonlLedger(tmp_path / "whole.jsonl")
    account = Account()
    accounts = [account]
    for entry in (_entry(1, usd=2), _entry(1, EntryKind.CHARGE), _entry(2, usd=2)):
        account = account.after(entry)
        whole.append(entry, account)
        accounts.append(account)
    data = whole.path.read_bytes()[:cut]
    cut_off = JsonlLedger(tmp_path / "cut.jsonl")
    cut_off.path.write_bytes(data)
    found = cut_off.load()
    lines = data.count(b"\n")
    complete = bool(data) and not data.endswith(b"\n") and data.rsplit(b"\n", 1)[-1].endswith(b"}}")
    expected = accounts[lines + complete] if data.count(b"\n") + complete else None
    assert (found.account, found.damaged) == (expected, 0)
    entry = _entry(9, usd=3)
    after = (found.account or Account()).after(entry)
    cut_off.append(entry, after)
    assert cut_off.load().account == after


def test_what_an_attempt_that_failed_left_behind_stands_once(ledger: JsonlLedger) -> None:
    account = _fill(ledger, 1)
    entry = _entry(7)
    for _ in range(2):
        ledger.append(entry, account.after(entry))
    assert len(ledger.path.read_bytes().splitlines()) == 3


def test_the_newest_measured_cycles_are_found_and_no_more_than_twenty(ledger: JsonlLedger) -> None:
    account = Account()
    for number in range(30):
        for entry in (_entry(number), _entry(number, EntryKind.CHARGE, usd=number)):
            account = account.after(entry)
            ledger.append(entry, account)
    assert ledger.load().measured[Unit.USD] == tuple(float(number) for number in range(29, 9, -1))
    assert ledger.load().measured[Unit.TOKENS] == ()


def test_a_start_reads_the_end_of_a_long_ledger_only(ledger: JsonlLedger) -> None:
    account = _fill(ledger, 1)
    line = ledger.path.read_bytes().splitlines(keepends=True)[-1]
    with ledger.path.open("wb") as file:
        file.truncate(1 << 40)  # a hole of a terabyte: to read it would take for ever
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line * 300)
    assert ledger.load().account == account


@pytest.mark.parametrize("seed", range(20))
def test_a_random_life_of_starts_crashes_and_damage_never_counts_too_little(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "ledger.jsonl"
    least = 0.0  #: what has certainly been spent
    number = 0
    for _ in range(12):
        ledger = JsonlLedger(path)
        found = ledger.load()
        account = (found.account or Account()).on(DAY).adding(Spending(usd=2, cycles=1).times(found.damaged))
        assert account.today.usd >= least - 1e-6
        for _ in range(chance.randint(1, 4)):
            number += 1
            reserve = _entry(number, usd=2)
            account = account.after(reserve)
            ledger.append(reserve, account)
            if chance.random() < 0.3:
                least += 2  # killed in mid cycle: the estimate counts
                break
            cost = chance.choice([0.5, 1.5, 4.0])
            charge = _entry(number, EntryKind.CHARGE, usd=cost)
            account = account.after(charge)
            ledger.append(charge, account)
            least += cost
        if chance.random() < 0.3:
            with path.open("ab") as file:
                file.write(b'{"event":"charge","cycle_id":"cyc')


@pytest.mark.parametrize("what", ["link", "fifo", "folder"])
def test_what_is_no_file_of_ours_is_neither_read_nor_written(tmp_path: Path, what: str) -> None:
    path = tmp_path / "ledger.jsonl"
    victim = tmp_path / "victim"
    victim.write_text("precious")
    _plant(what, path, victim)
    ledger = JsonlLedger(path)
    with pytest.raises(StateError, match=r"ledger\.jsonl cannot be read: .*move it aside"):
        ledger.load()
    with pytest.raises(StateError, match=r"ledger\.jsonl cannot be written: .*mend its folder"):
        ledger.append(_entry(1), Account())
    assert victim.read_text() == "precious"


def test_the_file_is_for_its_owner_alone(ledger: JsonlLedger) -> None:
    _fill(ledger, 1)
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    assert ledger.path.parent.stat().st_mode & 0o777 == 0o700
