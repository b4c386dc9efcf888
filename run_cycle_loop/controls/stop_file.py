"""The kill switch: a path whose mere presence stops the loop. Only a clean "not found" lets it go on.

The file is never opened. A dangling link, a FIFO, a folder, a loop of links, an unreadable parent: all of them stop.
"""

import os
import queue
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TypeVar

from run_cycle_loop.kit import files, inotify
from run_cycle_loop.model.enums import Urgency
from run_cycle_loop.model.errors import ConfigError

_NOW_SUFFIX = ".now"
_PATIENCE = 0.2  #: seconds for a file system to say what it is
_T = TypeVar("_T")


class Sight(Enum):
    """What one look at the kill switch said."""

    ABSENT = None
    AFTER_CYCLE = Urgency.AFTER_CYCLE
    NOW = Urgency.NOW
    UNKNOWN = "unknown"  #: the file system has not answered yet


def is_present(path: Path) -> bool:
    """Whether anything but a clean "not found" stands at ``path``."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def now_path(path: Path) -> Path:
    """The companion that ends the running cycle too."""
    return path.with_name(path.name + _NOW_SUFFIX)


class StopFile:
    """Looks at the path. Where its file system may hang, a thread looks, and the loop does not hang with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._now_path = now_path(path)
        self._requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Sight] = queue.SimpleQueue()
        self._asked = False
        self._at_once = _in_time(lambda: _is_on_a_disk(path.parent)) or False
        if not self._at_once:
            threading.Thread(target=self._watch, name="stop-file", daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._requests.get()
            self._answers.put(self._look())

    def _look(self) -> Sight:
        if is_present(self._now_path):
            return Sight.NOW
        return Sight.AFTER_CYCLE if is_present(self.path) else Sight.ABSENT

    def watch(self) -> int | None:
        """A descriptor that turns readable when a name appears beside the path; None where there is none to be had."""
        return _in_time(lambda: inotify.watch_folder(self.path.parent))

    def look(self, patience: float) -> Sight:
        """Look now; UNKNOWN when the file system took longer than ``patience`` seconds to answer."""
        if self._at_once:
            return self._look()
        if not self._asked:
            self._requests.put(None)
            self._asked = True
        try:
            sight = self._answers.get(timeout=patience)
        except queue.Empty:
            return Sight.UNKNOWN
        self._asked = False
        return sight


def _in_time(question: Callable[[], _T]) -> _T | None:
    """The answer, or None where it does not come soon: a mount may hang before the loop begins."""
    answers: queue.SimpleQueue[_T] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(question()), daemon=True).start()
    with suppress(queue.Empty):
        return answers.get(timeout=_PATIENCE)
    return None


def _is_on_a_disk(folder: Path) -> bool:
    """Whether a block device is behind a folder: network and user-space file systems have none (major number 0)."""
    try:
        return os.major(folder.stat().st_dev) != 0
    except OSError:
        return False


def engage(path: Path, *, now: bool) -> None:
    """Write the kill switch.

    Raises:
        OSError: it could not be written.
    """
    files.make_folder(path.parent)
    for target in (path, now_path(path)) if now else (path,):
        with suppress(FileExistsError):
            target.touch(mode=0o600, exist_ok=False)


def disengage(path: Path) -> bool:
    """Remove the kill switch; whether there was one.

    Raises:
        ConfigError: it is a device such as ``/dev/null``.
        OSError: it could not be removed.
    """
    found = False
    for target in (path, now_path(path)):
        with suppress(FileNotFoundError):
            _spare_device(target)
            target.unlink()
            found = True
    return found


def _spare_device(path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ConfigError(f"stop-file {path} is a device, which is not to be removed; name another --stop-file")
