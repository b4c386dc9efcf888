"""Files that survive crashes and hostile neighbours: written whole or not at all, never through a link, never read
without a bound.
"""

import contextlib
import os
import stat
from itertools import count
from pathlib import Path

_PRIVATE = 0o600
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, all for this user alone; what exists is left as it is."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte; a short write is continued, so that its reason (a full disk) comes out as an error."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: Path, data: bytes, *, mode: int = _PRIVATE, durable: bool = False) -> None:
    """Put ``data`` in place of ``path`` in one step: readers see the old file or the new one, nothing between.

    Args:
        path: the file; a link there is replaced, not followed.
        data: the whole new content.
        mode: of the new file, whatever the umask.
        durable: whether the new content shall survive a power loss when this returns.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}.tmp")  # noqa: PTH118 - this runs several times a cycle
    try:
        descriptor = os.open(draft, _NEW_FILE, mode)
    except FileExistsError:
        os.unlink(draft)  # noqa: PTH108 - left by a writer that was killed; the next open refuses a planted one
        descriptor = os.open(draft, _NEW_FILE, mode)
    try:
        _fill(descriptor, data, mode, durable=durable)
        os.rename(draft, path)  # noqa: PTH104
    except OSError:
        unlink_quietly(draft)
        raise
    if durable:
        sync_folder(path.parent)


def _fill(descriptor: int, data: bytes, mode: int, *, durable: bool) -> None:
    try:
        os.fchmod(descriptor, mode)
        write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make a folder's entries (creations, renames) survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_range(source: int, offset: int, length: int, target: Path) -> None:
    """Copy a part of an open file to a new one, durably.

    Raises:
        OSError: it cannot be copied, or the target exists.
    """
    descriptor = os.open(target, _NEW_FILE, _PRIVATE)
    try:
        while length > 0 and (block := os.pread(source, min(length, 1 << 20), offset)):
            write_all(descriptor, block)
            offset, length = offset + len(block), length - len(block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(target.parent)


def open_regular(path: Path | str, flags: int, mode: int = _PRIVATE) -> int:
    """Open a regular file and nothing else: no link is followed, no FIFO waited for.

    What has a second name is not opened for writing: it may be somebody else's file, linked here to be harmed.

    Raises:
        OSError: it cannot be opened, is no regular file, or is to be written and has a second name.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    found = os.fstat(descriptor)
    fault = None
    if not stat.S_ISREG(found.st_mode):
        fault = "not a regular file"
    elif found.st_nlink > 1 and flags & os.O_ACCMODE != os.O_RDONLY:
        fault = "it has a second name (a hard link), remove one"
    if fault:
        os.close(descriptor)
        raise OSError(None, fault, str(path))
    return descriptor


def read_bounded(path: Path | str, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes")
    return data


def set_aside(path: Path, label: str) -> Path:
    """Rename what is damaged to a free name; returns it."""
    target = free_name(path, label)
    path.rename(target)
    return target


def free_name(path: Path, label: str) -> Path:
    """``<name>.<label>``, or ``-2``, ``-3``, ... behind it where that is taken."""
    names = (path.with_name(f"{path.name}.{label}" + (f"-{attempt}" if attempt > 1 else "")) for attempt in count(1))
    return next(name for name in names if not os.path.lexists(name))


def unlink_quietly(path: Path | str) -> None:
    """Remove a file of ours where there is one."""
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108 - a name that is used once is no Path: pathlib would intern its parts
