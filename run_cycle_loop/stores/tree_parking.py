"""Where it is kept what a cycle wrote over its cap: moved there as it is, copied only where another file system is."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from run_cycle_loop.kit import beneath, files
from run_cycle_loop.kit.beneath import Descent, Folder
from run_cycle_loop.kit.manifest import Entry, entry_at
from run_cycle_loop.stores import tree_copy

_LONGEST_NAME = 255  #: bytes
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Parking:
    """The folder that takes what is moved away, under the same relative paths; made when the first thing comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descent: Descent | None = None
        self._folders: dict[str, Folder] = {"": Folder()}

    def take(self, source: int, name: str, folder: Folder, new_name: str) -> None:
        """Move an entry of an open folder here.

        Raises:
            OSError: it cannot be moved; it stands where it stood.
        """
        target = self._open(folder)
        free = next(other for other in _names(new_name) if entry_at(target, other) is None)
        try:
            os.rename(name, free, src_dir_fd=source, dst_dir_fd=target)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise OSError(errno.EXDEV, "a mount point stands in it", name) from error
            if error.errno != errno.EXDEV:
                raise
            _carry(source, name, target, free)

    def _open(self, folder: Folder) -> int:
        if self._descent is None:
            files.make_folder(self._folder)
            self._descent = Descent(os.open(self._folder, beneath.FOLDER), force=True)
        way: list[Folder] = []
        node: Folder | None = folder
        while node is not None and node.path not in self._folders:
            way.append(node)
            node = node.parent
        for step in reversed(way):
            above = beneath.folder_at(self._folders, step.path.rpartition("/")[0])
            parent = self._descent.open(above)
            with suppress(FileExistsError):
                os.mkdir(step.name, 0o700, dir_fd=parent)
            self._folders[step.path] = above.child(step.name)
        return self._descent.open(self._folders[folder.path])

    def close(self) -> None:
        """Let go of it."""
        if self._descent is not None:
            self._descent.close()


def _names(name: str) -> Iterator[str]:
    """The name, then others: the same may come a second time, from a survivor or after a crash."""
    yield name
    for attempt in count(2):
        other = f"{name}.again-{attempt}"
        yield other if len(os.fsencode(other)) <= _LONGEST_NAME else f"again-{attempt}"


def _carry(source: int, name: str, target: int, new_name: str) -> None:
    """Move across file systems: copy all of it, make that durable, and only then remove it.

    Raises:
        OSError: it could not be copied whole, and is still there.
    """
    entry = entry_at(source, name)
    if entry is None:
        return
    if not entry.is_folder:
        _copy_entry(source, name, entry, target, new_name)
        beneath.sync_all(target)
        os.unlink(name, dir_fd=source)
        return
    mount = beneath.mount_id(source)
    os.mkdir(new_name, 0o700, dir_fd=target)
    here, there = _descent_into(source, name, mount), _descent_into(target, new_name, beneath.mount_id(target))
    try:
        pending = [(Folder(), Folder())]
        while pending:
            from_folder, to_folder = pending.pop()
            for child in os.listdir(here.open(from_folder)):  # noqa: PTH208 - a descriptor has no Path
                found = entry_at(here.open(from_folder), child)
                if found is None:
                    continue
                if found.is_folder:
                    os.mkdir(child, 0o700, dir_fd=there.open(to_folder))
                    pending.append((from_folder.child(child), to_folder.child(child)))
                else:
                    _copy_entry(here.open(from_folder), child, found, there.open(to_folder), child)
        beneath.sync_all(target)
        here.barred.clear()
        beneath.empty(here.root)
    finally:
        here.close()
        there.close()
    os.rmdir(name, dir_fd=source)


def _descent_into(parent: int, name: str, mount: int) -> Descent:
    try:
        return Descent(beneath.open_folder(parent, name, mount), force=True)
    except PermissionError:
        return Descent(beneath.open_barred(parent, name, mount, beneath.FOLDER)[0], force=True)


def _copy_entry(source: int, name: str, entry: Entry, target: int, new_name: str) -> None:
    if entry.link is not None:
        os.symlink(entry.link, new_name, dir_fd=target)
    elif not entry.is_regular:
        os.mknod(new_name, entry.mode, entry.rdev, dir_fd=target)
    else:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            ours = os.open(name, flags, dir_fd=source)
        except PermissionError:
            ours, _ = beneath.open_barred(source, name, beneath.mount_id(source), flags)
        try:
            descriptor = os.open(new_name, _NEW_FILE, 0o600, dir_fd=target)
            try:
                tree_copy.copy_content(ours, descriptor, os.fstat(ours).st_size)
                tree_copy.copy_attributes(ours, descriptor)
                os.fchmod(descriptor, stat.S_IMODE(entry.mode))
            finally:
                os.close(descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(new_name, dir_fd=target)
            raise
        finally:
            os.close(ours)
    os.utime(new_name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=target, follow_symlinks=False)
