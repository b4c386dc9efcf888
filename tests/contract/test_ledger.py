"""What every budget ledger promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from run_cycle_loop.model.ports import Ledger
from run_cycle_loop.model.spending import Account, EntryKind, LedgerEntry, LedgerState, Spending, Unit
from run_cycle_loop.stores.ledger import JsonlLedger
from run_cycle_loop.testing import InMemoryLedger

Make = Callable[[Path], Ledger]
LEDGERS: dict[str, Make] = {
    "jsonl": lambda folder: JsonlLedger(folder / "state" / "ledger.jsonl"),
    "memory": lambda _folder: InMemoryLedger(),
}


@pytest.fixture(params=LEDGERS)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    make = LEDGERS[request.param]
    return make(tmp_path)


def _entry(event: EntryKind, number: int, usd: float) -> LedgerEntry:
    return LedgerEntry(
        event=event,
        cycle_id=f"cycle-{number}",
        run="run",
        day="2026-01-02",
        at="",
        amount=Spending(usd=usd, cycles=1),
        measured=(Unit.USD,),
    )


def test_a_new_ledger_has_no_account(ledger: Ledger) -> None:
    found = ledger.load()
    assert (found.account, found.damaged) == (None, 0)
    assert not any(found.measured.values())


def test_the_account_is_that_of_the_newest_entry(ledger: Ledger) -> None:
    account = Account()
    for number in (1, 2):
        for entry in (_entry(EntryKind.RESERVE, number, 2), _entry(EntryKind.CHARGE, number, number)):
            account = account.after(entry)
            ledger.append(entry, account)
            assert ledger.load().account == account
    assert account.today.usd == 3
    assert ledger.load().measured[Unit.USD] == (2, 1)


def test_the_same_entry_again_stands_once(ledger: Ledger) -> None:
    entry = _entry(EntryKind.RESERVE, 1, 2)
    account = Account().after(entry)
    ledger.append(entry, account)
    before: LedgerState = ledger.load()
    ledger.append(entry, account)
    assert ledger.load() == before
