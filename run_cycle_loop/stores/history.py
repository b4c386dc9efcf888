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
            descriptor = self._open()
            size = os.fstat(descriptor).st_size
            before = size - len(line)
            if before >= 0 and os.pread(descriptor, len(line), before) == line:
                self._rewrite(line, before)  # an attempt whose sync failed has left it there: it must not stand twice
                return
            self._write(descriptor, line, size)
            self._sync(descriptor, line, size)
        except OSError as error:
            self.close()
            raise _unwritable(self.path, error) from error

    def _write(self, descriptor: int, line: bytes, offset: int) -> None:
        try:
            files.write_all(descriptor, line)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, offset)  # what a full disk cut short must not swallow the next line
            raise

    def _sync(self, descriptor: int, line: bytes, offset: int) -> None:
        """Make the line durable.

        After a failed fsync the kernel may call the lost page clean, and a second fsync would lie: so the bytes are
        written again through a fresh descriptor, and that one is asked once.
        """
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            self._warn(f"{self.path} could not be synced ({error.strerror or error}); its last line was written again")
            self.close()
            self._rewrite(line, offset)

    def _rewrite(self, line: bytes, offset: int) -> None:
        descriptor = files.open_regular(self.path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, line, offset)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

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
            self._mend_tail(descriptor)
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

    def _mend_tail(self, descriptor: int) -> None:
        offset, size = lines.torn_tail(descriptor), os.fstat(descriptor).st_size
        if offset == size:
            return
        if size - offset <= _LONGEST and _parse(os.pread(descriptor, size - offset, offset)) is not None:
            files.write_all(descriptor, b"\n")  # only its newline is missing
            self._warn(f"the last line of {self.path} lacked its newline; it was added")
            return
        copy = files.free_name(self.path, f"torn-{offset}")
        files.copy_range(descriptor, offset, size - offset, copy)
        os.ftruncate(descriptor, offset)
        os.fsync(descriptor)
        self._warn(f"{size - offset} torn bytes of {self.path} were moved to {copy}")

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


def _parse(line: bytes) -> CycleRecord | None:
    try:
        value = json.loads(line)
        return CycleRecord.from_dict(value) if isinstance(value, dict) else None
    except (ValueError, TypeError, RecursionError):
        return None
