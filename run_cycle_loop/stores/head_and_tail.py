"""A file that keeps the head and the tail of an output of any length, in flat memory.

Past the head, output goes to two segment files beside the log that are overwritten in turn; in the end they are joined
to it. Each segment begins with a header line: where in the output behind the log's head it starts, and how far its
joining came. So it is known how much is left out, and a joining that was cut short is completed, with nothing doubled,
by whoever finds the segments.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from run_cycle_loop.kit.files import open_regular, unlink_quietly, write_all

SUFFIXES = (".tail-a", ".tail-b")

_HEADER = re.compile(rb"(\d{20}) (\d{20}|-{20}|={20})\n")
_HEADER_SIZE = 42
_JOINING_AT = 21  #: where in the header stands how far the joining came: not begun, the log's size before it, or done
_NOT_BEGUN = b"-" * 20
_DONE = b"=" * 20
_BLOCK = 256 * 1024
_NEW_SEGMENT = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def segment_paths(log: Path) -> tuple[Path, ...]:
    """Where the segments of a log are, while it has any."""
    return tuple(log.with_name(log.name + suffix) for suffix in SUFFIXES)


@dataclass(slots=True)
class _Segment:
    path: Path
    descriptor: int
    offset: int = 0  #: where in the output behind the log's head it begins
    length: int = 0  #: bytes behind the header
    notes: list[bytes] = field(default_factory=list)

    def append(self, data: bytes | memoryview) -> None:
        write_all(self.descriptor, data)
        self.length += len(data)

    def begin(self, offset: int) -> None:
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        write_all(self.descriptor, b"%020d %b\n" % (offset, _NOT_BEGUN))
        self.offset = offset
        self.length = 0
        self.notes.clear()


class HeadAndTail:
    """A log of at most ``max_bytes`` of output: its first half, and of the rest the newest quarter to half.

    Takes over the descriptor of the new and empty log. All methods raise ``OSError``.
    """

    def __init__(self, path: str, descriptor: int, max_bytes: int) -> None:
        self._log = descriptor
        self._path = path
        self._head_room = max_bytes - max_bytes // 2
        self._size = max(max_bytes // 4, 1)
        self._segments: list[_Segment] = []  # the one that is written to is the last
        self._passed = 0  # bytes of the output so far, behind the log's head

    @property
    def overflowed(self) -> bool:
        """Whether something is left out by now."""
        return bool(self._segments) and self._segments[0].offset > 0

    def put(self, data: memoryview) -> None:
        """Add output."""
        head = data[: self._head_room]
        write_all(self._log, head)
        self._head_room -= len(head)
        self._put_behind_head(data[len(head) :])

    def _put_behind_head(self, data: memoryview) -> None:
        surplus = max(len(data) - 2 * self._size, 0)
        self._passed += surplus
        data = data[surplus:]
        while data:
            segment = self._with_room()
            part = data[: self._size - segment.length]
            segment.append(part)
            self._passed += len(part)
            data = data[len(part) :]

    def put_note(self, line: bytes) -> None:
        """Add a line that is never left out: before it would fall out it moves to the end of the log's head."""
        if not self._segments:
            write_all(self._log, line)
            return
        segment = self._with_room()
        segment.append(line)
        segment.notes.append(line)

    def _with_room(self) -> _Segment:
        if self._segments and self._segments[-1].length < self._size:
            return self._segments[-1]
        if len(self._segments) < len(SUFFIXES):
            path = Path(self._path + SUFFIXES[len(self._segments)])
            segment = _Segment(path, _create(path))
        else:
            segment = self._segments.pop(0)
            self._rescue(segment.notes)
        self._segments.append(segment)
        segment.begin(self._passed)
        return segment

    def _rescue(self, notes: Sequence[bytes]) -> None:
        if notes:  # on lines of their own: the head is cut anywhere
            write_all(self._log, b"\n" + b"".join(notes).lstrip(b"\n"))

    def finish(self) -> None:
        """Join the segments to the log, and let go of all the files in any case."""
        with ExitStack() as stack:
            for descriptor in (self._log, *(segment.descriptor for segment in self._segments)):
                stack.callback(os.close, descriptor)
            join(self._log, {segment.path: segment.descriptor for segment in self._segments})


def join(log: int, segments: Mapping[Path, int]) -> None:
    """Append what the segments hold to the log, in order, behind a line that says how much was left out; remove them.

    Args:
        log: descriptor of the log, for appending.
        segments: their paths and descriptors, for reading and writing.

    Raises:
        OSError: it could not be done; doing it again later completes it.
    """
    pieces = sorted(piece for path, descriptor in segments.items() if (piece := _Piece.read(path, descriptor)))
    if pieces and pieces[0].progress != _DONE:
        _append(log, pieces)
    # The oldest knows that all is done, so it goes last.
    for path in {*segments} - {piece.path for piece in pieces}:
        unlink_quietly(path)
    for piece in reversed(pieces):
        unlink_quietly(piece.path)


def unjoined(log: Path) -> Iterator[bytes]:
    """What a joining would append to the log now, for readers. The output may run on meanwhile: then it has gaps."""
    with ExitStack() as stack:
        pieces = []
        for path in segment_paths(log):
            with suppress(OSError):
                descriptor = open_regular(path, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                pieces.append(_Piece.read(path, descriptor))
        found = sorted(piece for piece in pieces if piece)
        if not found or found[0].progress != _NOT_BEGUN:
            return
        yield _left_out_line(found[0].offset)
        for piece in found:
            yield from _behind_header(piece.descriptor)


class _Piece(NamedTuple):
    """A segment that somebody began to write."""

    offset: int
    progress: bytes
    descriptor: int
    path: Path

    @classmethod
    def read(cls, path: Path, descriptor: int) -> Self | None:
        match = _HEADER.match(os.pread(descriptor, _HEADER_SIZE, 0))
        return match and cls(int(match[1]), match[2], descriptor, path)

    def note_progress(self, progress: bytes) -> None:
        os.pwrite(self.descriptor, progress, _JOINING_AT)


def _append(log: int, pieces: Sequence[_Piece]) -> None:
    oldest = pieces[0]
    size = os.fstat(log).st_size
    if oldest.progress == _NOT_BEGUN:
        oldest.note_progress(b"%020d" % size)
    elif int(oldest.progress) < size:
        os.ftruncate(log, int(oldest.progress))
    write_all(log, _left_out_line(oldest.offset))
    for piece in pieces:
        for block in _behind_header(piece.descriptor):
            write_all(log, block)
    oldest.note_progress(_DONE)


def _create(path: Path) -> int:
    try:
        return os.open(path, _NEW_SEGMENT, 0o600)
    except FileExistsError:
        path.unlink()  # the log is ours and new, so this is not: a leftover of a removed log, or planted
        return os.open(path, _NEW_SEGMENT, 0o600)


def _left_out_line(count: int) -> bytes:
    return f"\n[run-cycle-loop: {count} bytes left out]\n".encode() if count else b""


def _behind_header(segment: int) -> Iterator[bytes]:
    position = _HEADER_SIZE
    while block := os.pread(segment, _BLOCK, position):
        yield block
        position += len(block)
