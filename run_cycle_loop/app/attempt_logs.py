"""What the attempts of a run of this machine print: their logs followed, whenever somebody asks."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from run_cycle_loop.kit import files

#: What an attempt leaves: its runner's own words, and what its command prints.
_NAMES = ("attempt.log", ".agent/runner.log")
_PIECE = 1 << 16
_AT_ONCE = 4 << 20  #: bytes of one log, before something else gets its turn


class AttemptLogs:
    """The logs of the attempts so far; nothing is handed on twice."""

    def __init__(self, output: Callable[[bytes], object]) -> None:
        self._output = output
        self._read: dict[Path, int] = {}  #: bytes handed on

    def follow(self, folder: Path) -> None:
        """Hand on what this attempt prints from now on, and what it has printed."""
        for name in _NAMES:
            self._read.setdefault(folder / name, 0)

    def pump(self) -> None:
        """Hand on what has come; a log that cannot be read is no reason to stop."""
        for path, at in self._read.items():
            with suppress(OSError):
                self._read[path] = self._from(path, at)

    def _from(self, path: Path, at: int) -> int:
        descriptor = files.open_regular(path, os.O_RDONLY)
        try:
            until = at + _AT_ONCE
            while at < until and (piece := os.pread(descriptor, _PIECE, at)):
                self._output(piece)
                at += len(piece)
            return at
        finally:
            os.close(descriptor)
