"""The folder of per-cycle logs: a file for each cycle, bounded in size and number, never a reason for one to fail."""

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from run_cycle_loop.kit.files import make_folder, open_regular, unlink_quietly
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.kit.redact import Redactor
from run_cycle_loop.stores.head_and_tail import SUFFIXES, HeadAndTail, join, segment_paths

#: ``YYYYMMDDTHHMMSSZ-<number>.log``; ``-2``, ``-3``, ... where that name was taken.
NAME = re.compile(r"(\d{8}T\d{6}Z)-(\d+)(?:-(\d+))?\.log")

_STREAMS = ("stdout", "stderr")
_TAIL_BYTES = 2048
_TAIL_LINES = 20
_NAMESAKES = 1000
_NEW_FILE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UTF8_CONTINUATION = bytes(range(0x80, 0xC0))


def log_order(name: str) -> tuple[str, int, int]:
    """What a log's name sorts by: its second, its cycle, its place among namesakes.

    Raises:
        ValueError: it is no log's name.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no cycle log's name, which reads YYYYMMDDTHHMMSSZ-NUMBER.log")
    return match[1], int(match[2]), int(match[3] or 1)


def log_names(directory: Path) -> list[str]:
    """The cycle logs in a folder, oldest first; none where the folder cannot be read. Links and folders are no logs."""
    try:
        with os.scandir(directory) as entries:
            names = [
                entry.name for entry in entries if NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            ]
    except OSError:
        return []
    return sorted(names, key=log_order)


def recover(directory: Path) -> int:
    """Finish the logs that a supervisor left unfinished when it died, before any log is open; returns how many."""
    return sum(_finish(directory / name) for name in _unfinished(directory))


def _unfinished(directory: Path) -> set[str]:
    try:
        names = os.listdir(directory)  # noqa: PTH208 - names, not paths
    except OSError:
        return set()
    stems = {name.removesuffix(suffix) for suffix in SUFFIXES for name in names if name.endswith(suffix)}
    return {stem for stem in stems if NAME.fullmatch(stem)}


def _finish(log: Path) -> bool:
    """Join a log's segments to it. Without its log a segment is worth nothing and is removed."""
    with ExitStack() as stack:
        try:
            segments = {path: _opened(path, os.O_RDWR, stack) for path in segment_paths(log) if path.exists()}
            if log.exists():
                join(_opened(log, os.O_WRONLY | os.O_APPEND, stack), segments)
        except OSError:
            return False  # the segments stay for a better day
    _remove_segments(log)
    return True


def _opened(path: Path, flags: int, stack: ExitStack) -> int:
    descriptor = open_regular(path, flags)
    stack.callback(os.close, descriptor)
    return descriptor


def _remove_segments(log: Path) -> None:
    for path in segment_paths(log):
        unlink_quietly(path)


class CycleLogFolder:
    """Implements the port ``CycleLogs``.

    Args:
        directory: where the logs go; made when it is missing, also between two cycles.
        max_bytes: of a log. The first half of so much output is kept and the last quarter to half.
        keep: so many logs; the oldest go first. 0 keeps all.
        redactor: takes the secrets out of all that is written.
    """

    def __init__(self, directory: Path, *, max_bytes: int, keep: int, redactor: Redactor) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._keep = keep
        self._redactor = redactor
        self._kept: deque[str] | None = None  # listed once, then followed

    def open(self, number: int, started_at: datetime) -> "CycleLogFile":
        """A fresh log; one without a file, and with ``error`` set, where no file can be made."""
        try:
            path, descriptor = self._create(number, started_at)
        except OSError as error:
            reason = f"no log could be made in {self.directory}: {error.strerror or error}; mend the folder"
            return CycleLogFile(None, None, self._redactor, error=reason)
        self._prune(path.rpartition("/")[2])
        return CycleLogFile(path, HeadAndTail(path, descriptor, self._max_bytes), self._redactor)

    def _create(self, number: int, started_at: datetime) -> tuple[str, int]:
        make_folder(self.directory)
        stem = f"{started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{number}"
        for path in self._candidates(stem):
            with suppress(FileExistsError):
                return path, os.open(path, _NEW_FILE, 0o600)
        raise FileExistsError(None, f"{_NAMESAKES} logs named {stem} exist")

    def _candidates(self, stem: str) -> Iterator[str]:
        # Strings, not Paths: pathlib interns every part, and names that never come again would grow that table.
        yield f"{self.directory}/{stem}.log"
        for namesake in range(2, _NAMESAKES + 1):
            yield f"{self.directory}/{stem}-{namesake}.log"

    def _prune(self, newest: str) -> None:
        if not self._keep:
            return
        if self._kept is None:
            self._kept = deque(name for name in log_names(self.directory) if name != newest)
        self._kept.append(newest)
        while len(self._kept) > self._keep:
            oldest = f"{self.directory}/{self._kept.popleft()}"
            for path in (oldest, *(oldest + suffix for suffix in SUFFIXES)):
                unlink_quietly(path)


class CycleLogFile:
    """Implements the port ``CycleLog``. After the first error it goes on counting and writes no more."""

    def __init__(
        self, path: str | None, file: HeadAndTail | None, redactor: Redactor, *, error: str | None = None
    ) -> None:
        self.path = path
        self.error = error  #: why the file is missing or incomplete, in one sentence
        self.output_bytes = 0  #: so many came from the child, written or not
        self._file = file
        self._redactor = redactor
        self._streams = {stream: redactor.stream() for stream in _STREAMS}
        self._tails = dict.fromkeys(_STREAMS, b"")
        self._truncated = False
        self._at_line_start = True

    @property
    def truncated(self) -> bool:
        """Whether output is left out of the file."""
        return self._truncated or (self._file is not None and self._file.overflowed)

    def write(self, stream: str, chunk: bytes | memoryview) -> None:
        """Take raw output of ``stdout`` or ``stderr``."""
        self.output_bytes += len(chunk)
        self._pass_on(stream, self._streams[stream].feed(chunk))

    def _pass_on(self, stream: str, data: bytes | memoryview) -> None:
        if not data:
            return
        self._tails[stream] = (self._tails[stream] + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        self._at_line_start = data[-1] == 0x0A
        if self._file is not None and self.error is None:
            with self._errors_kept():
                self._file.put(memoryview(data))

    def note(self, text: str) -> None:
        """Add a line of the supervisor's own; it is kept even where output is left out around it."""
        text = printable(self._redactor.text(text), keep="\n\t").rstrip("\n")
        line = ("" if self._at_line_start else "\n") + f"[run-cycle-loop: {text}]\n"
        self._at_line_start = True
        if self._file is not None and self.error is None:
            with self._errors_kept():
                self._file.put_note(line.encode())

    def tail(self, stream: str) -> str:
        """The last lines of a stream, 20 or two KiB at most, redacted, printable."""
        data = self._tails[stream] + self._streams[stream].pending
        if len(data) >= _TAIL_BYTES:
            data = data[-_TAIL_BYTES:].lstrip(_UTF8_CONTINUATION)
        text = printable(data.decode("utf-8", "replace"), keep="\n\t")
        # Once more: a secret that was coloured in its midst is whole again without the escape sequences.
        return self._redactor.text("\n".join(text.splitlines()[-_TAIL_LINES:]))

    def close(self) -> None:
        """Finish the file. A second time does nothing."""
        for stream, filter_ in self._streams.items():
            self._pass_on(stream, filter_.finish())
        if self._file is None:
            return
        self._truncated = self.truncated
        file, self._file = self._file, None
        with self._errors_kept():
            file.finish()

    @contextmanager
    def _errors_kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or error
            self.error = self.error or f"log {self.path} is incomplete: {why}; free space there, or mend its folder"
            self._truncated = True
