"""What a cycle printed: its log found, read and followed."""

import codecs
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from run_cycle_loop.kit.files import open_regular
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.ports import History
from run_cycle_loop.stores.cycle_logs import log_names, log_order
from run_cycle_loop.stores.head_and_tail import unjoined

LATEST = "latest"

_BLOCK = 64 * 1024
_PERIOD = 0.25  #: seconds between two looks at a log that is followed


def find_log(directory: Path, which: str, history: History) -> Path | None:
    """The log of a cycle, or None where there is none (any more).

    Args:
        directory: the folder of the logs; no other place is looked into, whatever a record says.
        which: ``latest``, a cycle's number (of several its newest log), or a cycle's id.
        history: knows the ids.
    """
    names = log_names(directory)
    if which.isdecimal():
        names = [name for name in names if log_order(name)[1] == int(which)]
    elif which != LATEST:
        wanted = _name_by_id(which, history)
        names = [name for name in names if name == wanted]
    return directory / names[-1] if names else None


def _name_by_id(cycle_id: str, history: History) -> str | None:
    record = next((record for record in history.newest_first() if record.cycle_id == cycle_id), None)
    return Path(record.log_path).name if record is not None and record.log_path else None


def read(log: Path) -> Iterator[bytes]:
    """The log's content in blocks; of a cycle still running also the newest output, which is not joined yet.

    Raises:
        OSError: it cannot be read.
    """
    with open(open_regular(log, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        while block := file.read(_BLOCK):
            yield block
    yield from unjoined(log)


def follow(directory: Path, log: Path | None, *, wait: Callable[[float], object]) -> Iterator[bytes]:
    """The log's content as it grows, then that of every cycle that starts; it does not end by itself.

    Output past the first half of the size limit appears when the cycle ends and its log is joined.

    Args:
        directory: the folder of the logs.
        log: where to begin; None: with the first log that appears.
        wait: called with the seconds to wait between two looks.
    """
    seen = set(log_names(directory))
    while True:
        growing = _Growing(log)
        try:
            while not (later := [name for name in log_names(directory) if name not in seen]):
                yield from growing.blocks()
                wait(_PERIOD)
            yield from growing.blocks()  # a log is finished before the next one is opened
        finally:
            growing.close()
        seen.add(later[0])
        log = directory / later[0]
        yield f"\n==> {log.name} <==\n".encode()


class _Growing:
    """A log that is read while it is written."""

    def __init__(self, path: Path | None) -> None:
        try:
            self._descriptor = open_regular(path, os.O_RDONLY) if path else None
        except OSError:
            self._descriptor = None  # removed meanwhile: there is nothing to show
        self._position = 0

    def blocks(self) -> Iterator[bytes]:
        """What came since the last time."""
        if self._descriptor is None:
            return
        # A joining that is done again begins with cutting off what the first one had appended.
        self._position = min(self._position, os.fstat(self._descriptor).st_size)
        while block := os.pread(self._descriptor, _BLOCK, self._position):
            self._position += len(block)
            yield block

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def for_terminal(blocks: Iterable[bytes]) -> Iterator[str]:
    """The text of a log by whole lines, without anything that could drive a terminal."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    line = ""
    for block in blocks:
        line += decoder.decode(block)
        # A line is shown when it is complete, so that no escape sequence is cut in two; an endless one before that.
        end = line.rfind("\n") + 1 or (len(line) if len(line) >= _BLOCK else 0)
        if end:
            yield printable(line[:end], keep="\n\t")
            line = line[end:]
    line += decoder.decode(b"", final=True)
    if line:
        yield printable(line, keep="\n\t")
