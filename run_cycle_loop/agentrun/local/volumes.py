"""What an attempt finds on disk: its files written, its folders made, its claims kept from other runs."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from run_cycle_loop.agentrun.local.places import Places
from run_cycle_loop.agentrun.local.pod import SECRET_FOLDER, Pod
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.kit import beneath, files
from run_cycle_loop.model.errors import AlreadyRunning, StateError

_LARGEST = 4096
_SHARED = "ReadWriteMany"


def lay_out(pod: Pod) -> None:
    """Write the attempt's files and make its folders; what an earlier try of the same attempt left there is replaced.

    Raises:
        OSError: that cannot be done.
    """
    for folder in pod.folders:
        files.make_folder(Path(folder))
    for one in pod.files:
        path = Path(one.path)
        files.make_folder(path.parent)
        files.replace_file(path, one.data, mode=0o600)
    for mount in pod.mounts:
        if not os.path.lexists(mount.folder):
            files.make_folder(Path(mount.folder))


def remove_secrets(folder: Path) -> None:
    """Remove an attempt's secret volumes; nobody uses them any more."""
    place = folder / SECRET_FOLDER
    with contextlib.suppress(OSError):
        descriptor = os.open(place, beneath.FOLDER)
        try:
            beneath.empty(descriptor)
        finally:
            os.close(descriptor)
        place.rmdir()


class Claims:
    """The volume claims of a run, held while it is driven. One of a single writer has one run until it is over.

    Args:
        places: where they are.
        namespace: the run's.
        run: its name.
        is_unfinished: whether a run of that name is known and not over.
    """

    def __init__(self, places: Places, namespace: str, run: str, is_unfinished: Callable[[str], bool]) -> None:
        self.folders: dict[str, str] = {}  #: by the claim's name
        self._places = places
        self._namespace = namespace
        self._run = run
        self._is_unfinished = is_unfinished
        self._held: list[int] = []

    def take(self, names: Iterable[str], resources: Resources) -> None:
        """Make the claims' folders and keep other runs out of those that allow one writer.

        Raises:
            AlreadyRunning: another run has one of them.
            StateError: a folder cannot be made.
        """
        for name in dict.fromkeys(names):
            place = self._places.claim(self._namespace, name)
            try:
                files.make_folder(place)
                if not _is_shared(resources, name):
                    self._hold(name, place.with_name(f"{name}.lock"))
            except OSError as error:
                raise StateError(
                    f"claim {name} cannot be kept at {place}: {error.strerror or error}; mend its folder"
                ) from error
            self.folders[name] = os.fspath(place)

    def _hold(self, name: str, path: Path) -> None:
        descriptor = files.open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise AlreadyRunning(self._taken(name, holder)) from None
        self._held.append(descriptor)
        holder = _holder(descriptor)
        if holder not in ("", self._run) and self._is_unfinished(holder):
            # Nobody drives that run at the moment, but its last attempt may still write.
            raise AlreadyRunning(self._taken(name, holder))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"run": self._run}).encode() + b"\n", 0)

    def _taken(self, name: str, holder: str) -> str:
        who = f"run {self._namespace}/{holder}" if holder else "another run"
        what = f"claim {name} allows one writer and belongs to {who}, which is not over"
        return f"{what}; wait for it or cancel it, or remove its folder where the run store does not know it"

    def release(self) -> None:
        """Let go of them; the folders stay."""
        while self._held:
            os.close(self._held.pop())


def _holder(descriptor: int) -> str:
    try:
        value = json.loads(os.pread(descriptor, _LARGEST, 0) or b"{}")
    except ValueError:
        return ""
    name = value.get("run") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _is_shared(resources: Resources, claim: str) -> bool:
    modes = resources.spec("PersistentVolumeClaim", claim).get("accessModes")
    return isinstance(modes, list) and _SHARED in modes
