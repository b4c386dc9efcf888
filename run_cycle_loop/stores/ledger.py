"""The budget ledger: append-only JSONL, a line before each cycle and one after it, each with the account as it then is.

So the newest line that can be read says all: a start reads the end of the file, however long it is, and a line that was
damaged further up is in the accounts of those after it.
"""

import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from run_cycle_loop.kit import files, lines
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.spending import Account, EntryKind, LedgerEntry, LedgerState, Unit
from run_cycle_loop.stores.appending import LONGEST, AppendOnlyFile

_RECENT = 128  #: lines among which measured cycles are looked for
_SAMPLES = 20
_DAMAGED = 1000  #: damaged lines that are counted, if there are more of them at the end


class JsonlLedger:
    """Implements the port ``Ledger``. One writer, the holder of the instance lock; any number of readers."""

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda _sentence: None) -> None:
        self.path = path
        self._warn = warn  #: told, in one sentence, what was mended or cannot be read
        self._file = AppendOnlyFile(path, warn, lambda data: _parse(data) is not None)

    def append(self, entry: LedgerEntry, account: Account) -> None:
        """Add an entry with the account after it.

        Raises:
            StateError: they are not known to be durable.
        """
        value = entry.as_dict() | {"account": account.as_dict()}
        try:
            self._file.append(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise StateError(
                f"budget ledger {self.path} cannot be written: {error.strerror or error}; "
                "free space there, or mend its folder"
            ) from error

    def load(self) -> LedgerState:
        """What the end of the ledger says; nothing is mended.

        Raises:
            StateError: it cannot be read.
        """
        try:
            descriptor = files.open_regular(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return LedgerState(account=None)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            found = _state(_newest_first(descriptor))
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            os.close(descriptor)
        if found.damaged:
            self._warn(
                f"{found.damaged} damaged lines at the end of the budget ledger {self.path}: each counts as a cycle "
                "that came to what one is estimated to"
            )
        return found

    def _unreadable(self, error: OSError) -> StateError:
        return StateError(
            f"budget ledger {self.path} cannot be read: {error.strerror or error}; mend it, or move it aside"
        )


def _newest_first(descriptor: int) -> Iterator[bytes]:
    """The lines, and before them an incomplete last one that lacks nothing but its newline."""
    end = lines.torn_tail(descriptor)
    tail = os.pread(descriptor, LONGEST, end)
    if tail and _parse(tail) is not None:
        yield tail
    yield from lines.newest_first(descriptor, end)


def _state(newest_first: Iterator[bytes]) -> LedgerState:
    account: Account | None = None
    damaged = 0
    measured: dict[Unit, list[float]] = {Unit.USD: [], Unit.TOKENS: [], Unit.SECONDS: []}
    while account is None and damaged < _DAMAGED and (line := next(newest_first, None)) is not None:
        found = _parse(line)
        if found is None:
            damaged += 1
            continue
        entry, account = found
        _sample(entry, measured)
    for line in islice(newest_first, _RECENT if account else 0):
        if all(len(values) >= _SAMPLES for values in measured.values()):
            break
        if found := _parse(line):
            _sample(found[0], measured)
    return LedgerState(
        account=account,
        damaged=damaged,
        measured={unit: tuple(values[:_SAMPLES]) for unit, values in measured.items()},
    )


def _sample(entry: LedgerEntry, measured: dict[Unit, list[float]]) -> None:
    if entry.event is EntryKind.CHARGE:
        for unit in entry.measured:
            if unit in measured:
                measured[unit].append(entry.amount.of(unit))


def _parse(line: bytes) -> tuple[LedgerEntry, Account] | None:
    try:
        value: Any = json.loads(line)
        return LedgerEntry.from_dict(value), Account.from_dict(value["account"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
