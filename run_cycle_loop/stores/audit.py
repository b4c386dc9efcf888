"""The consent audit: append-only JSONL in which each entry carries the hash of the one before, so that a change, a gap
or a cut is noticed; who can write the folder can still forge all of it, for there is no key.

Beside the chain stands its *head*, the number and the hash of the newest entry, replaced after each append. A chain
that is shorter than its head was cut; one that is a single entry longer is what a crash between the two leaves.
"""

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.kit import files, lines
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.records import timestamp

FILE_NAME = "consent_audit.jsonl"  #: in the state directory
FIRST = "0" * 64  #: what the first entry names as the hash before it
_LONGEST = 64 << 10  #: bytes of a line; what is longer is no line of ours
_LARGEST_HEAD = 1024
_BLOCK = 1 << 20
_OWN = frozenset({"seq", "timestamp", "event", "previous", "hash"})
_PATIENCE = 5.0  #: seconds that are waited for another process that holds the file
_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class _Link:
    """Where the chain ends: the number and the hash of an entry; 0 and zeros before the first."""

    seq: int = 0
    hash: str = FIRST


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A beginning of the chain that a reading in this process has found whole."""

    size: int = 0  #: bytes
    digest: Any = field(default_factory=hashlib.sha256)  #: of them; a hash object, to which more can be added
    last: _Link = _Link()
    before: str = FIRST  #: the hash of the last entry but one


class AuditChain:
    """Implements the port ``Chain`` with one file and its head; any number of processes may append and read."""

    def __init__(
        self, path: Path, now: Callable[[], datetime], warn: Callable[[str], None] = lambda _sentence: None
    ) -> None:
        self.path = path
        self.head_path = path.with_suffix(".head")
        self._now = now
        self._warn = warn  #: told, in one sentence, what had to be mended

    def append(self, event: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add an entry; the cost does not grow with the chain, because only its end is looked at.

        Raises:
            StateError: the entry is not known to be durable, or the end of the chain is broken.
            ValueError: a fact has a name that every entry has anyway.
        """
        if taken := _OWN & facts.keys():
            raise ValueError(f"a fact cannot be named {', '.join(sorted(taken))}")
        try:
            with self._writing() as descriptor:
                (last, before), head = self._tail(descriptor), self._head()
                self._require_fit(last, head, before)
                self._set_torn_aside(descriptor)
                if last != head:
                    # Left by a crash: the entry may not be on the disk yet, and its head must not get there first.
                    os.fdatasync(descriptor)
                    self._replace_head(last)
                return self._add(descriptor, last, event, facts)
        except OSError as error:
            raise StateError(
                f"consent audit {self.path} cannot be written: {error.strerror or error}; "
                "free space there, or mend its folder"
            ) from error

    def _add(self, descriptor: int, last: _Link, event: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {
            "seq": last.seq + 1,
            "timestamp": timestamp(self._now()),
            "event": event,
            **facts,
            "previous": last.hash,
        }
        entry = body | {"hash": _hash(body)}
        line = _line(entry)
        if len(line) > _LONGEST:
            raise StateError(f"an entry of {len(line)} bytes is too long for the consent audit; say it shorter")
        size = os.fstat(descriptor).st_size
        try:
            files.write_all(descriptor, line)
            os.fdatasync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, size)  # what was not confirmed must not be built upon
            raise
        self._replace_head(_Link(entry["seq"], entry["hash"]))
        return entry

    def entries(self) -> Iterator[Mapping[str, Any]]:
        """All entries, oldest first, each checked; an incomplete last line was never confirmed and is left out.

        Raises:
            StateError: an entry is broken, or the newest were cut off.
        """
        yield from self.entries_after(Checked())

    def entries_after(self, known: Checked) -> Generator[Mapping[str, Any], None, Checked]:
        """Those that follow what was checked before; returns what is checked then.

        Raises:
            StateError: an entry is broken, or the newest were cut off.
        """
        try:
            found = self._open_to_read()
            if found is None:
                self._require_fit(_Link(), self._head(), FIRST)
                return Checked()
            descriptor, end, head = found
            last, before, digest = known.last, known.before, known.digest.copy()
            with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.seek(known.size)
                while file.tell() < end:
                    line = file.readline(_LONGEST + 1)
                    entry = self._checked(line, last)
                    digest.update(line)
                    last, before = _Link(entry["seq"], entry["hash"]), last.hash
                    yield entry
            self._require_fit(last, head, before)
            return Checked(size=max(end, known.size), digest=digest, last=last, before=before)
        except OSError as error:
            raise self._unreadable(error) from error

    def begins_with(self, known: Checked) -> bool:
        """Whether the chain still begins with what was checked before, byte by byte.

        Raises:
            StateError: it cannot be read.
        """
        digest, left = hashlib.sha256(), known.size
        try:
            with open(files.open_regular(self.path, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
                while left > 0 and (block := file.read(min(left, _BLOCK))):
                    digest.update(block)
                    left -= len(block)
        except FileNotFoundError:
            return not known.size
        except OSError as error:
            raise self._unreadable(error) from error
        return not left and digest.digest() == known.digest.digest()

    def _unreadable(self, error: OSError) -> StateError:
        return StateError(
            f"consent audit {self.path} cannot be read: {error.strerror or error}; mend its owner, or its folder"
        )

    # --- the file ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[int]:
        files.make_folder(self.path.parent)
        descriptor = self._open_locked(os.O_RDWR | os.O_APPEND | os.O_CREAT, fcntl.LOCK_EX)
        try:
            if os.fstat(descriptor).st_size == 0:
                files.sync_folder(self.path.parent)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_to_read(self) -> tuple[int, int, _Link] | None:
        """The file, where its last whole line ends, and the head that belongs to that; None where there is no file."""
        try:
            descriptor = self._open_locked(os.O_RDONLY, fcntl.LOCK_SH)
        except FileNotFoundError:
            return None
        try:
            found = lines.torn_tail(descriptor), self._head()
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # what stands before that end never changes
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, *found

    def _open_locked(self, flags: int, operation: int) -> int:
        """The file that has the name now, locked.

        Raises:
            OSError: it cannot be opened or locked, or others than its owner can write it.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            descriptor = files.open_regular(self.path, flags)
            try:
                _require_private(descriptor)
                fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.lstat(self.path)):
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise OSError(None, f"another process has held it for {_PATIENCE:g} s")
            time.sleep(_PAUSE)

    def _set_torn_aside(self, descriptor: int) -> None:
        """Move an incomplete last line out of the way: the crash that left it came before it was confirmed."""
        offset, size = lines.torn_tail(descriptor), os.fstat(descriptor).st_size
        if offset == size:
            return
        copy = files.free_name(self.path, f"torn-{offset}")
        files.copy_range(descriptor, offset, size - offset, copy)
        os.ftruncate(descriptor, offset)
        os.fsync(descriptor)
        self._warn(f"{size - offset} torn bytes of {self.path} were moved to {copy}")

    # --- the chain --------------------------------------------------------------------------------------------------

    def _tail(self, descriptor: int) -> tuple[_Link, str]:
        """The newest entry, checked against the one before it, and the hash that it names as that one's."""
        end = lines.torn_tail(descriptor)
        start = max(0, end - 2 * (_LONGEST + 1))
        found = os.pread(descriptor, end - start, start).splitlines(keepends=True)
        if not found:
            return _Link(), FIRST
        before = _Link()
        if len(found) > 1:
            entry = _parse(found[-2]) or {}
            before = _Link(_number(entry), str(entry.get("hash")))
        newest = self._checked(found[-1], before)
        return _Link(newest["seq"], newest["hash"]), before.hash

    def _checked(self, line: bytes, last: _Link) -> Mapping[str, Any]:
        """The entry in a line, which must follow ``last``."""
        number = last.seq + 1
        entry = _parse(line)
        if entry is None:
            raise self._broken(number, "it is no entry of ours")
        if _number(entry) != number:
            raise self._broken(number, f"it says that it is entry {entry.get('seq')!r:.20}")
        if entry.get("previous") != last.hash:
            raise self._broken(number, "it does not follow the entry before it")
        body = {name: value for name, value in entry.items() if name != "hash"}
        if entry.get("hash") != _hash(body):
            raise self._broken(number, "its content is not what its hash says")
        return entry

    def _require_fit(self, last: _Link, head: _Link, before: str) -> None:
        """The chain ends where its head says, or one entry later; ``before`` is the hash of the last entry but one."""
        if last.seq < head.seq:
            raise self._broken(last.seq + 1, f"it ends after {last.seq} entries, and there were {head.seq}")
        if last.seq > head.seq + 1:
            raise self._broken(head.seq + 1, f"{self.head_path.name} knows only {head.seq} entries")
        if head != (last if last.seq == head.seq else _Link(last.seq - 1, before)):
            raise self._broken(head.seq, "it is not the entry that the head names")

    def _broken(self, number: int, why: str) -> StateError:
        return StateError(
            f"consent audit {self.path} is broken at line {number}: {why}; "
            "find out who changed it, move it and its head aside, and grant anew"
        )

    # --- the head ---------------------------------------------------------------------------------------------------

    def _head(self) -> _Link:
        try:
            value = json.loads(files.read_bounded(self.head_path, _LARGEST_HEAD))
            seq, name = value["seq"], value["hash"]
        except FileNotFoundError:
            return _Link()
        except (ValueError, TypeError, KeyError, RecursionError):
            seq = name = None
        if not isinstance(seq, int) or not isinstance(name, str):
            raise StateError(f"{self.head_path} is damaged; move it and the consent audit aside, and grant anew")
        return _Link(seq, name)

    def _replace_head(self, link: _Link) -> None:
        data = json.dumps({"seq": link.seq, "hash": link.hash}).encode() + b"\n"
        files.replace_file(self.head_path, data, durable=True)


def _require_private(descriptor: int) -> None:
    if stat.S_IMODE(os.fstat(descriptor).st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(None, "others can write it, so nothing in it can be believed; chmod go-w")


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object in a line, which must stand there exactly as it would be written."""
    try:
        entry = json.loads(line)
        return entry if isinstance(entry, dict) and _line(entry) == line else None
    except (ValueError, TypeError, RecursionError):
        return None


def _number(entry: Mapping[str, Any]) -> int:
    seq = entry.get("seq")
    return seq if isinstance(seq, int) and not isinstance(seq, bool) else 0
