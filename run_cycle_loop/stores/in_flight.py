"""The in-flight slot: the one cycle that may be running, said durably before anything of it runs.

It is overwritten in place and never cleared: whether its cycle came to an end is the history's to say. So a crash at
any instant leaves either no launch or a launch that is named here.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.records import RunningCycle

_LARGEST = 1 << 20
_GOAL = 4096  #: characters of the goal that are kept; a goal may be large, and only its record needs it whole
_ROOM = 8192  #: bytes that must be free: a cycle that could not be recorded afterwards is not begun


class InFlightSlot:
    """Implements the port ``InFlight`` with one small file."""

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda _sentence: None) -> None:
        self.path = path
        self._warn = warn  #: told, in one sentence, what was set aside
        self._cycle: RunningCycle | None = None

    def begin(self, cycle: RunningCycle) -> None:
        """Say that a cycle starts.

        Raises:
            StateError: it cannot be said, or there is no room to record the cycle's end.
        """
        self._cycle = replace(cycle, goal=cycle.goal[:_GOAL])
        try:
            files.make_folder(self.path.parent)
            self._require_room()
            self._write(self._cycle, durable=True)
        except OSError as error:
            raise StateError(
                f"the start of a cycle cannot be recorded in {self.path}: {error.strerror or error}; "
                "free space there, or mend its folder"
            ) from error

    def _require_room(self) -> None:
        room = os.statvfs(self.path.parent)
        if room.f_bavail * room.f_frsize < _ROOM:
            raise OSError(None, f"less than {_ROOM} bytes are free")

    def launched(self, leader_pid: int, leader_start_ticks: int | None, output_inodes: tuple[int, ...]) -> None:
        """Add what was launched. Best effort: the cycle's processes also carry its id."""
        if self._cycle is None:
            return
        self._cycle = replace(
            self._cycle,
            leader_pid=leader_pid,
            leader_start_ticks=leader_start_ticks,
            output_inodes=output_inodes,
        )
        with suppress(OSError):
            self._write(self._cycle, durable=False)

    def _write(self, cycle: RunningCycle, *, durable: bool) -> None:
        data = json.dumps(cycle.as_dict(), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        descriptor = files.open_regular(self.path, os.O_WRONLY | os.O_CREAT)
        try:
            # Blanks up to the old length in the same write: at no instant does an old end follow a new beginning.
            size = os.fstat(descriptor).st_size
            files.write_all(descriptor, data.ljust(size))
            if durable:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> RunningCycle | None:
        """The last cycle that was begun; a damaged slot is set aside, named, and gives None.

        A slot that a crash tore was never confirmed: nothing of its cycle had been launched.

        Raises:
            StateError: a damaged slot cannot be set aside.
        """
        try:
            value = json.loads(files.read_bounded(self.path, _LARGEST))
            return RunningCycle.from_dict(value if isinstance(value, dict) else {})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._set_aside(error)
            return None

    def _set_aside(self, damage: Exception) -> None:
        try:
            kept = files.set_aside(self.path, "corrupt")
        except OSError as error:
            raise StateError(
                f"damaged {self.path} ({damage}) cannot be set aside: {error.strerror or error}; mend its folder"
            ) from error
        self._warn(f"damaged {self.path} ({damage}) was set aside as {kept}")
