"""The history: append-only JSONL, one line per cycle, durable when ``append`` returns.

A torn last line (power loss, a full disk) is moved to ``<history>.torn-<offset>`` before the next line is written;
a damaged line in the middle is left where it is and passed over by readers.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from run_cycle_loop.kit import files, lines
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import AlreadyRunning, StateError
from run_cycle_loop.model.records import CycleRecord, outcome_of
from run_cycle_loop.stores.appending import add_line, mend_tail

_LONGEST = 8 << 20  #: bytes; what is longer is no line of ours


class JsonlHistory:
    """One writer (the holder of the instance lock), any number of readers."""

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda _sentence: None) -> None:
        self.path = path
        self._warn = warn  #: told, in one sentence, what had to be mended
        self._descriptor: int | None = None

    def append(self, record: CycleRecord) -> None:
        """Add a record.

        Raises:
            StateError: it is not known to be durable; nothing partial is left behind.
        """
        text = json.dumps(record.as_dict(), ensure_ascii=False, separators=(",", ":"))
        # A cycle's payload may hold half a surrogate pair; as an escape it is JSON still.
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        try:
            add_line(self.path, self._open(), line, self._warn)
        except OSError as error:
            self.close()
            raise _unwritable(self.path, error) from error

    def _open(self) -> int:
        """The descriptor of the file that has the history's name now."""
        if self._descriptor is not None:
            if self._is_current(self._descriptor):
                return self._descriptor
            self.close()
        files.make_folder(self.path.parent)
        existed = os.path.lexists(self.path)
        descriptor = files.open_regular(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._descriptor = descriptor
        self._claim(descriptor)
        if existed:
            mend_tail(self.path, descriptor, _is_record, self._warn, longest=_LONGEST)
        else:
            files.sync_folder(self.path.parent)
        return descriptor

    def _claim(self, descriptor: int) -> None:
        """Refuse a second writer: a loop with another state directory may have been given the same history."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise AlreadyRunning(f"another loop writes {self.path}; stop it, or name another --history-path") from None
        except OSError:
            pass  # a network file system without locks: the instance lock has to do

    def _is_current(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            named = self.path.lstat()
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def prepare(self) -> None:
        """Open the file and mend its tail, before anything is appended.

        Raises:
            AlreadyRunning: another loop writes it.
            StateError: it cannot be opened for writing.
        """
        try:
            self._open()
        except OSError as error:
            self.close()
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Let go of the file; the next append opens it afresh."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def last(self) -> CycleRecord | None:
        """The newest readable record."""
        return next(self.newest_first(), None)

    def newest_first(self) -> Iterator[CycleRecord]:
        """All readable records from the end, reading only as far as is asked."""
        try:
            descriptor = files.open_regular(self.path, os.O_RDONLY)
        except OSError:
            return
        try:
            yield from _records(lines.newest_first(descriptor))
        finally:
            os.close(descriptor)

    def records(self) -> Iterator[CycleRecord]:
        """All readable records, oldest first; a torn tail is left out."""
        return _records(self._lines())

    def outcomes(self) -> Counter[Outcome]:
        """How many readable records there are of each outcome; of each line only that is looked at."""
        return Counter(outcome for line in self._lines() if (outcome := _outcome(line)) is not None)

    def _lines(self) -> Iterator[bytes]:
        try:
            descriptor = files.open_regular(self.path, os.O_RDONLY)
        except OSError:
            return
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            yield from (line for line in file if line.endswith(b"\n"))


def _unwritable(path: Path, error: OSError) -> StateError:
    detail = error.strerror or str(error)
    return StateError(f"history {path} cannot be written: {detail}; free space, mend its folder, or name another")


def _records(found: Iterable[bytes]) -> Iterator[CycleRecord]:
    for line in found:
        record = _parse(line)
        if record is not None:
            yield record


def _outcome(line: bytes) -> Outcome | None:
    try:
        value = json.loads(line)
        return outcome_of(value) if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


def _is_record(line: bytes) -> bool:
    return _parse(line) is not None


def _parse(line: bytes) -> CycleRecord | None:
    try:
        value = json.loads(line)
        return CycleRecord.from_dict(value) if isinstance(value, dict) else None
    except (ValueError, TypeError, RecursionError):
        return None
