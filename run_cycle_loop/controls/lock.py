"""One instance per state directory, by a kernel lock that dies with its holder."""

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path

from run_cycle_loop.kit import files, process_table
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.model.errors import AlreadyRunning, StateError
from run_cycle_loop.model.records import SupervisorIdentity, identity_of

_LARGEST = 4096


class InstanceLock:
    """The lock file; it stays on disk, and says who held it last."""

    def __init__(self, path: Path, identity: SupervisorIdentity) -> None:
        self._path = path
        self._identity = identity
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or take it again where its file was removed.

        Raises:
            AlreadyRunning: another instance holds it.
            StateError: the lock file cannot be opened.
        """
        if self._descriptor is not None and self._is_current(self._descriptor):
            return
        try:
            descriptor = self._open()
            self._lock(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(self._identity)).encode() + b"\n", 0)
        except OSError as error:
            raise StateError(
                f"lock {self._path} cannot be taken: {error.strerror or error}; make its folder writable"
            ) from error
        self.release()
        self._descriptor = descriptor

    def _open(self) -> int:
        files.make_folder(self._path.parent)
        return files.open_regular(self._path, os.O_RDWR | os.O_CREAT)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyRunning(_who(self._path)) from None

    def _is_current(self, descriptor: int) -> bool:
        """Whether the file that is locked still has the lock's name: somebody may have removed it."""
        ours = os.fstat(descriptor)
        try:
            named = self._path.lstat()
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def release(self) -> None:
        """Let go of the lock; the file stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def last_holder(path: Path) -> SupervisorIdentity | None:
    """Who wrote the lock file last, alive or not."""
    try:
        return identity_of(json.loads(files.read_bounded(path, _LARGEST)))
    except (OSError, ValueError, RecursionError):
        return None


def holder(path: Path) -> SupervisorIdentity | None:
    """The instance that runs now on this machine, found without touching its lock."""
    found = last_holder(path)
    if found is None or found.boot_id != process_table.boot_id():
        return None
    return found if process_table.is_alive(ProcessId(found.pid, found.start_ticks)) else None


def _who(path: Path) -> str:
    found = last_holder(path)
    who = f"pid {found.pid} on {found.host}, since {found.started_at}" if found else "whose name is not yet written"
    return f"another instance ({who}) holds {path}; stop it, or choose another --state-dir"
