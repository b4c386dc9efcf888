"""The budget ledger and the state of the breakers, killed at every write and beside a failing disk."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.spending import Account, EntryKind, LedgerEntry, Spending
from run_cycle_loop.stores.breakers import BreakerFile
from run_cycle_loop.stores.ledger import JsonlLedger
from run_cycle_loop.testing import NOON
from tests.faults import injection
from tests.faults.injection import Point

TOUCHING = ("openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "linkat", "ftruncate", "mkdir")
ESTIMATE, COST = 2.0, 0.5

#: Three cycles, each reserved for and charged, and each said on standard output once it is said to be durable.
SPENDING = """
import sys
from pathlib import Path
from run_cycle_loop.model.spending import Account, EntryKind, LedgerEntry, Spending
from run_cycle_loop.stores.ledger import JsonlLedger

ledger = JsonlLedger(Path("state/ledger.jsonl"))
account = ledger.load().account or Account()
for number in range(3):
    for event, usd in ((EntryKind.RESERVE, 2.0), (EntryKind.CHARGE, 0.5)):
        entry = LedgerEntry(
            event=event, cycle_id=f"{sys.argv[1]}-{number}", run=sys.argv[1], day="2026-01-02", at="",
            amount=Spending(usd=usd, cycles=1),
        )
        account = account.after(entry)
        ledger.append(entry, account)
        print(event, number, flush=True)
"""
LOOKING = """
from datetime import UTC, datetime
from pathlib import Path
from run_cycle_loop.stores.breakers import BreakerFile

marks = BreakerFile(Path("state/breakers.json"), lambda: datetime(2026, 1, 2, tzinfo=UTC)).load()
print(marks.opened is not None, flush=True)
"""


def _run(place: Path, code: str, *options: str, output: str = "/dev/null") -> subprocess.CompletedProcess[str]:
    """The code in a process of its own; with options under strace."""
    strace = ["strace", "-f", "-qq", "-o", output, *options] if options else []
    command = [*strace, sys.executable, "-c", code, "first" if options else "second"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)


def _points(place: Path, code: str) -> list[Point]:
    """Where an undisturbed run touches its files."""
    done = _run(place, code, "-y", "-e", f"trace={','.join(TOUCHING)}", output=str(place / "trace"))
    assert done.returncode == 0, done.stderr
    return injection.points((place / "trace").read_text(errors="replace").splitlines())


def _killed_at(place: Path, code: str, point: Point) -> subprocess.CompletedProcess[str]:
    done = _run(place, code, "-e", f"trace={point.call}", "-e", f"inject={point.call}:signal=KILL:when={point.nth}")
    assert done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}, (point, done.stderr)
    return done


def _torn(place: Path) -> None:
    """A ledger with a cycle in it, whose last line was torn."""
    ledger = JsonlLedger(place / "state" / "ledger.jsonl")
    entry = LedgerEntry(
        event=EntryKind.RESERVE,
        cycle_id="before",
        run="before",
        day="2026-01-02",
        at="",
        amount=Spending(usd=ESTIMATE, cycles=1),
    )
    ledger.append(entry, Account().after(entry))
    with ledger.path.open("ab") as file:
        file.write(b'{"event": "charge", "cycle_id": "bef')


def _fresh(place: Path) -> None:
    place.mkdir()


def _torn_one(place: Path) -> None:
    place.mkdir()
    _torn(place)


@pytest.mark.root
@pytest.mark.parametrize(("prepare", "before"), [(_fresh, 0.0), (_torn_one, ESTIMATE)])
def test_a_kill_at_any_write_of_the_ledger_never_makes_spent_money_unspent(
    tmp_path: Path, prepare: Any, before: float
) -> None:
    prepare(tmp_path / "undisturbed")
    found = _points(tmp_path / "undisturbed", SPENDING)
    assert {"openat", "write", "fdatasync"} <= {point.call for point in found}
    for number, point in enumerate(found):
        place = tmp_path / str(number)
        prepare(place)
        said = [line.split()[0] for line in _killed_at(place, SPENDING, point).stdout.splitlines()]
        reserved, charged = said.count("reserve"), said.count("charge")
        least = before + charged * COST + (reserved - charged) * COST  # its charge may be durable already
        if reserved > charged:
            most = before + charged * COST + ESTIMATE
        else:
            most = before + charged * COST + ESTIMATE * (charged < 3)  # the next reservation may be
        assert least <= _usd(place) <= most, point
        again = _usd(place)
        assert _run(place, SPENDING).returncode == 0
        assert _usd(place) == pytest.approx(again + 3 * COST), point
        for line in (place / "state" / "ledger.jsonl").read_bytes().splitlines():
            json.loads(line)
        shutil.rmtree(place)


def _usd(place: Path) -> float:
    found = JsonlLedger(place / "state" / "ledger.jsonl").load()
    assert found.damaged == 0
    return found.account.today.usd if found.account else 0.0


@pytest.mark.root
def test_a_kill_at_any_write_while_damage_is_set_aside_never_closes_a_breaker(tmp_path: Path) -> None:
    def prepare(name: str) -> Path:
        place = tmp_path / name
        (place / "state").mkdir(parents=True)
        (place / "state" / "breakers.json").write_bytes(b'{"reset": nul')
        return place

    found = _points(prepare("undisturbed"), LOOKING)
    assert {"openat", "write", "fsync", "rename", "linkat"} <= {point.call for point in found}
    for number, point in enumerate(found):
        place = prepare(str(number))
        _killed_at(place, LOOKING, point)
        assert _run(place, LOOKING).stdout == "True\n", point
        assert BreakerFile(place / "state" / "breakers.json", lambda: NOON).load().opened is not None
        assert b'{"reset": nul' in {path.read_bytes() for path in (place / "state").iterdir()}, point


@pytest.mark.root
@pytest.mark.parametrize("fault", ["write:error=ENOSPC", "fdatasync:error=EIO", "openat:error=EROFS"])
def test_a_disk_that_fails_is_said_and_nothing_partial_is_left(tmp_path: Path, fault: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    assert _run(place, SPENDING).returncode == 0
    whole = (place / "state" / "ledger.jsonl").read_bytes()
    call, _, error = fault.partition(":")
    done = _run(
        place, SPENDING, "-e", f"trace={call}", "-P", str(place / "state" / "ledger.jsonl"), "-P", "state/ledger.jsonl",
        "-e", f"inject={call}:{error}{':when=2+' if call == 'openat' else ''}",
    )  # fmt: skip
    assert done.returncode == 1
    assert StateError.__name__ in done.stderr
    assert "cannot be written" in done.stderr
    assert (place / "state" / "ledger.jsonl").read_bytes().startswith(whole)
    assert JsonlLedger(place / "state" / "ledger.jsonl").load().damaged == 0
