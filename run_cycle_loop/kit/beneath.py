"""What lies below an open folder, reached by descriptors alone: no link is followed and no mount point entered, however
deep it lies and whatever is swapped meanwhile.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import secrets
import stat
import struct
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 32  #: descriptors of folders on the way; a tree may be deeper than a process may have files open
_ROUNDS = 3  #: attempts to empty a folder that somebody still writes to

_AT_EMPTY_PATH = 0x1000
_STATX_MNT_ID = 0x1000
_STATX_SIZE = 256
_STATX_MNT_ID_AT = 0x90  #: where struct statx has it
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  #: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
_FROZEN = 0x10 | 0x20  #: immutable, append only: chattr +i, +a


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def mount_id(descriptor: int) -> int:
    """Which mount an open file is on. A bind mount shares its device number with its origin, but not this.

    Raises:
        OSError: neither the kernel nor /proc tells.
    """
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    call = getattr(_libc(), "statx", None)
    if call is not None and call(descriptor, b"", _AT_EMPTY_PATH, _STATX_MNT_ID, buffer) == 0:
        (mask,) = struct.unpack_from("I", buffer)
        if mask & _STATX_MNT_ID:
            (number,) = struct.unpack_from("Q", buffer, _STATX_MNT_ID_AT)
            return int(number)
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:  # noqa: PTH123 - no Path for a name that is used once
        for line in file:
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    raise OSError(errno.ENOTSUP, "neither statx nor /proc/self/fdinfo tells its mount", None)


def mounts_below(folder: str) -> frozenset[str]:
    """The paths, relative to a folder without links in its path, of all mount points below it."""
    prefix = os.fsencode(folder).rstrip(b"/") + b"/"
    found = set()
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        for line in file:
            path = line.split(b" ", 5)[4]
            if b"\\" in path:
                path = path.decode("unicode_escape").encode("latin-1")  # a blank is \\040
            if path.startswith(prefix) and len(path) > len(prefix):
                found.add(os.fsdecode(path[len(prefix) :]))
    return frozenset(found)


def require_mount(descriptor: int, mount: int, name: str) -> None:
    """Refuse what stands on another mount.

    Raises:
        OSError: EXDEV, it does.
    """
    if mount_id(descriptor) != mount:
        raise OSError(errno.EXDEV, "a mount point stands in it", name)


def open_folder(parent: int, name: str, mount: int) -> int:
    """Open a folder of a folder.

    Raises:
        OSError: it cannot be opened, is no folder (ENOTDIR, ELOOP), or is a mount point (EXDEV).
    """
    descriptor = os.open(name, FOLDER, dir_fd=parent)
    try:
        require_mount(descriptor, mount, name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_barred(parent: int | None, name: str, mount: int | None, flags: int) -> tuple[int, int]:
    """Open a folder or regular file of ours although its mode forbids it, by giving its owner all rights first.

    Args:
        parent: the open folder in which it is; None: ``name`` is a path.
        name: what it is called.
        mount: where it must be.
        flags: for open(2).

    Returns the descriptor and the permission bits that it had.

    Raises:
        OSError: it is not ours, is neither folder nor file, or is a mount point (EXDEV).
    """
    handle = os.open(name, _HANDLE, dir_fd=parent)
    try:
        if mount is not None:
            require_mount(handle, mount, name)
        mode = os.fstat(handle).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise OSError(errno.EACCES, "neither a folder nor a file", name)
        # Through the descriptor: no name is looked up a second time, so nothing can be swapped in between.
        link = f"/proc/self/fd/{handle}"
        os.chmod(link, stat.S_IMODE(mode) | stat.S_IRWXU)  # noqa: PTH101
        return os.open(link, flags & ~os.O_NOFOLLOW | os.O_CLOEXEC), stat.S_IMODE(mode)
    finally:
        os.close(handle)


class Folder:
    """A folder on the way down, by its name in its parent; the root of a descent has no parent."""

    __slots__ = ("identity", "name", "parent", "path")

    def __init__(self, parent: "Folder | None" = None, name: str = "") -> None:
        self.parent = parent
        self.name = name
        self.path: str = name if parent is None or not parent.path else f"{parent.path}/{name}"
        self.identity: tuple[int, int] | None = None  #: device and inode, once it was open

    def child(self, name: str) -> "Folder":
        """A folder in it."""
        return Folder(self, name)


class Descent:
    """Opens the folders of one tree, of any depth, with a bounded number of descriptors."""

    def __init__(self, root: int, *, force: bool = False) -> None:
        try:
            self.mount = mount_id(root)
        except BaseException:
            os.close(root)
            raise
        self.root = root  #: closed with this
        self._force = force  #: open what our own user may not, and remember its mode in ``barred``
        self.barred: list[tuple[Folder, int]] = []
        self._open: dict[Folder, int] = {}

    def open(self, folder: Folder) -> int:
        """The descriptor of a folder, valid until the next call.

        Raises:
            OSError: it is gone, is no folder any more, another one (ESTALE), or on another mount (EXDEV).
        """
        way: list[Folder] = []
        node: Folder | None = folder
        while node is not None and node.parent is not None and node not in self._open:
            way.append(node)
            node = node.parent
        descriptor = self.root
        if node is not None and node.parent is not None:
            descriptor = self._open[node] = self._open.pop(node)
        while way:
            node = way.pop()
            descriptor = self._enter(descriptor, node)
            self._open[node] = descriptor
            if len(self._open) > _KEPT_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
        return descriptor

    def _enter(self, parent: int, folder: Folder) -> int:
        try:
            descriptor = open_folder(parent, folder.name, self.mount)
        except PermissionError:
            if not self._force:
                raise
            descriptor, mode = open_barred(parent, folder.name, self.mount, FOLDER)
            self.barred.append((folder, mode))
        found = os.fstat(descriptor)
        identity = found.st_dev, found.st_ino
        if folder.identity not in {None, identity}:
            os.close(descriptor)
            raise OSError(errno.ESTALE, "another folder stands there now", folder.path)
        folder.identity = identity
        return descriptor

    def close(self) -> None:
        """Give the barred folders their modes back, and let go of all."""
        for folder, mode in reversed(self.barred):
            with contextlib.suppress(OSError):
                os.fchmod(self.open(folder), mode)
        self.barred.clear()
        for descriptor in (*self._open.values(), self.root):
            os.close(descriptor)
        self._open.clear()


def descend(root: str | os.PathLike[str], *, force: bool = False) -> Descent:
    """Open a tree by the path of its root.

    Raises:
        OSError: it cannot be opened, or is no folder (ENOTDIR, ELOOP).
    """
    try:
        return Descent(os.open(root, FOLDER), force=force)
    except PermissionError:
        if not force:
            raise
    descriptor, mode = open_barred(None, os.fspath(root), None, FOLDER)
    descent = Descent(descriptor, force=force)
    descent.barred.append((Folder(), mode))
    return descent


def folder_at(folders: MutableMapping[str, Folder], path: str) -> Folder:
    """The folder of a descent at a relative path, out of those that are known, or made known."""
    way = []
    while path not in folders:
        path, _, name = path.rpartition("/")
        way.append(name)
    folder = folders[path]
    while way:
        folder = folder.child(way.pop())
        folders[folder.path] = folder
    return folder


def empty(folder: int) -> None:
    """Remove everything in an open folder.

    A folder in a folder is first moved up into the open one: so the depth of the tree costs neither descriptors nor
    stack, and no path is ever followed.

    Raises:
        OSError: something cannot be removed, or stands on another mount (EXDEV).
    """
    mount = mount_id(folder)
    for _ in range(_ROUNDS):
        names = deque(os.listdir(folder))
        if not names:
            return
        while names:
            name = names.popleft()
            if _is_folder(folder, name):
                names.extend(_hollow(folder, name, mount))
                _insist(lambda name=name: os.rmdir(name, dir_fd=folder), folder, name)  # type: ignore[misc]
            else:
                _insist(lambda name=name: os.unlink(name, dir_fd=folder), folder, name)  # type: ignore[misc]
    if left := os.listdir(folder):
        raise OSError(errno.ENOTEMPTY, "something still writes into it", left[0])


def _is_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _hollow(folder: int, name: str, mount: int) -> list[str]:
    """Remove what a folder in ``folder`` holds, and move its folders up into ``folder``; their names there."""
    try:
        inner, _ = _open_any(folder, name, mount)
    except (FileNotFoundError, NotADirectoryError):
        return []  # somebody was faster; the next round sees what is there
    lifted = []
    try:
        for child in os.listdir(inner):  # noqa: PTH208 - a descriptor has no Path
            if _is_folder(inner, child):
                above = f".{secrets.token_hex(12)}"
                _insist(functools.partial(_lift, inner, child, folder, above), inner, child)
                lifted.append(above)
            else:
                _insist(functools.partial(os.unlink, child, dir_fd=inner), inner, child)
    finally:
        os.close(inner)
    return lifted


def _open_any(folder: int, name: str, mount: int) -> tuple[int, int]:
    """A folder with all rights for its owner: one that was made unreadable must not keep its content."""
    try:
        inner = open_folder(folder, name, mount)
    except PermissionError:
        return open_barred(folder, name, mount, FOLDER)
    mode = stat.S_IMODE(os.fstat(inner).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        try:
            try:
                os.fchmod(inner, stat.S_IRWXU)
            except PermissionError:
                if not thaw(inner):
                    raise
                os.fchmod(inner, stat.S_IRWXU)
        except BaseException:
            os.close(inner)
            raise
    return inner, mode


def _lift(inner: int, child: str, folder: int, above: str) -> None:
    try:
        os.rename(child, above, src_dir_fd=inner, dst_dir_fd=folder)
    except PermissionError:
        # A folder that moves is written to (its "..").
        descriptor, _ = _open_any(inner, child, mount_id(inner))
        os.close(descriptor)
        os.rename(child, above, src_dir_fd=inner, dst_dir_fd=folder)


def _insist(change: Callable[[], None], folder: int, name: str) -> None:
    """Change a folder; where chattr forbids it, take that from the folder and from what stands in it, if we may."""
    try:
        change()
    except FileNotFoundError:
        return
    except PermissionError:
        if not thaw_in(folder, name):
            raise
        change()
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise OSError(errno.EXDEV, "a mount point stands in it", name) from error
        if error.errno != errno.ENOTEMPTY:
            raise
        # Somebody still writes there: the next round tries again.


def thaw_in(folder: int, name: str) -> bool:
    """Take "immutable" and "append only" from a folder and from a file or folder in it; whether one had them."""
    thawed = thaw(folder)
    with contextlib.suppress(OSError):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
            try:
                thawed = thaw(descriptor) or thawed
            finally:
                os.close(descriptor)
    return thawed


def thaw(descriptor: int) -> bool:
    """Take "immutable" and "append only" from an open file or folder; whether it had one, and it could be taken."""
    with contextlib.suppress(OSError):
        (flags,) = struct.unpack("I", fcntl.ioctl(descriptor, _GET_FLAGS, b"\0" * 4))
        if flags & _FROZEN:
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("I", flags & ~_FROZEN))
            return True
    return False


def sync_all(descriptor: int) -> None:
    """Make everything written to an open file's file system survive a power loss.

    Raises:
        OSError: that failed.
    """
    if _libc().syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
