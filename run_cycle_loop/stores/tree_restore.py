"""A work tree put back as it was: what was written since is parked, never deleted, and what is missing comes out of the
copy. Every step goes through open folders, so nothing outside of the tree is written or moved, whoever swaps what.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from run_cycle_loop.kit import beneath
from run_cycle_loop.kit.beneath import Descent, Folder
from run_cycle_loop.kit.manifest import Entry, Manifest, Scan, entry_at, relative_to
from run_cycle_loop.stores import tree_copy
from run_cycle_loop.stores.tree_copy import TreeCopy
from run_cycle_loop.stores.tree_parking import Parking

_PASSES = 3  #: a survivor may still write
_SHOWN = 3  #: faults named in a finding
_ROOM = 1 << 20  #: entries beyond the mark's that the last look takes in
_DRAFT = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}


class Restoration:
    """One tree on its way back to its mark.

    Args:
        root: the folder, by a path without links.
        mark: what it held.
        copy: where the contents are.
        parking: a folder of ours, where everything is moved that is not as it was.
        exclude: absolute paths that are no part of the tree.
        suspects: files to compare by content, because their signature may not tell.
    """

    def __init__(
        self,
        root: Path,
        mark: Manifest,
        copy: TreeCopy,
        parking: Path,
        *,
        exclude: Collection[Path | str],
        suspects: Collection[str] = (),
    ) -> None:
        self._root = root
        self._mark = mark
        self._expected = dict(mark.entries)  #: with the new signatures of what was put back
        self._copy = copy
        self._parking = parking
        self._exclude = exclude
        self._left_alone = relative_to(str(root), exclude)
        self._suspects = set(suspects)
        self._children = _children(mark)
        self._twins: dict[int, str] = {}  #: by its inode at the mark, a file with several names that was put back
        self._faults: dict[str, str] = {}

    def run(self) -> list[str]:
        """Park and put back; returns what could not be done, in sentences: empty where the tree is as it was."""
        left: list[str] = []
        for _ in range(_PASSES):
            self._faults.clear()
            try:
                self._one_pass()
                left = self._differences()
            except OSError as error:
                left = [_sentence("", error)]
            if not left:
                break
        return [*self._faults.values(), *left]

    def _one_pass(self) -> None:
        self._mounts = beneath.mounts_below(str(self._root))
        if self._mark.root is None:
            self._park_root()
            return
        self._make_root(self._mark.root)
        parking = Parking(self._parking / "tree")
        descent = beneath.descend(self._root, force=True)
        try:
            pending = [Folder()]
            met = []
            while pending:
                folder = pending.pop()
                met.append(folder)
                try:
                    self._put_folder_right(descent, folder, parking, pending)
                except OSError as error:
                    self._faults[folder.path] = _sentence(folder.path, error)
            descent.barred.clear()  # each folder of the mark gets its own mode back below
            for folder in reversed(met):
                self._put_attributes_right(descent, folder)
            with suppress(OSError):
                beneath.sync_all(descent.root)
        finally:
            descent.close()
            parking.close()

    # --- the folder itself -----------------------------------------------------------------------------------------

    def _park_root(self) -> None:
        """The folder was not there: whatever has its name now is parked whole."""
        if not os.path.lexists(self._root):
            return
        if self._mounts or any(os.path.lexists(self._root / path) for path in self._left_alone):
            raise OSError(errno.EXDEV, "a mount point, or a folder of the loop itself, stands in it", str(self._root))
        parent = os.open(self._root.parent, beneath.FOLDER)
        parking = Parking(self._parking)
        try:
            parking.take(parent, self._root.name, Folder(), "tree")
        finally:
            parking.close()
            os.close(parent)

    def _make_root(self, mark: Entry) -> None:
        try:
            found = self._root.lstat()
        except FileNotFoundError:
            found = None
        if found is not None and stat.S_ISDIR(found.st_mode):
            return
        parent = os.open(self._root.parent, beneath.FOLDER)
        parking = Parking(self._parking)
        try:
            if found is not None:
                parking.take(parent, self._root.name, Folder(), "in_its_place")
            os.mkdir(self._root.name, 0o700, dir_fd=parent)
        finally:
            parking.close()
            os.close(parent)
        with suppress(PermissionError):
            os.chown(self._root, mark.uid, mark.gid, follow_symlinks=False)

    # --- one folder ------------------------------------------------------------------------------------------------

    def _put_folder_right(self, descent: Descent, folder: Folder, parking: Parking, pending: list[Folder]) -> None:
        descriptor = descent.open(folder)
        if os.fstat(descriptor).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            _insist(descriptor, ".", lambda: os.fchmod(descriptor, stat.S_IRWXU))
        missing = set(self._children.get(folder.path, ()))
        for name in os.listdir(descriptor):  # noqa: PTH208 - a descriptor has no Path
            path = f"{folder.path}/{name}" if folder.path else name
            if path in self._left_alone:
                continue
            if path in self._mounts:
                missing.discard(name)
                self._faults[path] = f"{path!r} is a mount point and was left as it is"
                continue
            try:
                if self._may_stay(descent, folder, name, path, pending):
                    missing.discard(name)
                else:
                    _insist(descriptor, name, lambda name=name: parking.take(descriptor, name, folder, name))  # type: ignore[misc]
            except OSError as error:
                missing.discard(name)
                self._faults[path] = _sentence(path, error)
        for name in sorted(missing):
            path = f"{folder.path}/{name}" if folder.path else name
            try:
                self._bring_back(descent, folder, name, path, pending)
            except OSError as error:
                self._faults[path] = _sentence(path, error)

    def _may_stay(self, descent: Descent, folder: Folder, name: str, path: str, pending: list[Folder]) -> bool:
        """Whether an entry is as it was; a folder is looked into instead."""
        now = entry_at(descent.open(folder), name)
        if now is None:
            return False
        was = self._expected.get(path)
        if now.is_folder and ((was is not None and was.is_folder) or self._has_ours(path)):
            pending.append(folder.child(name))
            return True
        if was is None or now.is_folder or was.is_folder:
            return False
        if was.signature == now.signature and path not in self._suspects:
            return True
        if self._is_content_of(descent, folder, name, was, now):
            self._note_restored(path, was, now)  # its other names may still be missing
            return True
        return False

    def _has_ours(self, path: str) -> bool:
        """Whether something stands in a new folder that must stay where it is."""
        prefix = path + "/"
        return any(other.startswith(prefix) for other in (*self._left_alone, *self._mounts))

    def _is_content_of(self, descent: Descent, folder: Folder, name: str, was: Entry, now: Entry) -> bool:
        """Whether a file is as it was in all but the signature, as one is that an earlier attempt has put back."""
        if not now.is_regular or _visible(now) != _visible(was):
            return False
        try:
            ours, _ = tree_copy.open_file(
                descent, {folder.path: folder}, f"{folder.path}/{name}" if folder.path else name
            )
        except OSError:
            return False
        try:
            return self._copy.is_content(ours, was)
        finally:
            os.close(ours)

    def _bring_back(self, descent: Descent, folder: Folder, name: str, path: str, pending: list[Folder]) -> None:
        was = self._mark.entries[path]
        descriptor = descent.open(folder)
        if was.is_folder:
            os.mkdir(name, 0o700, dir_fd=descriptor)
            with suppress(PermissionError):
                os.chown(name, was.uid, was.gid, dir_fd=descriptor, follow_symlinks=False)
            pending.append(folder.child(name))
            return
        draft = f".{secrets.token_hex(12)}"
        try:
            if not self._linked(descent, folder, was, draft):
                self._make(descent.open(folder), draft, was)
            descriptor = descent.open(folder)
            os.rename(draft, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft, dir_fd=descent.open(folder))
            raise
        now = entry_at(descriptor, name)
        if now is not None and _visible(now)[:-1] == _visible(was)[:-1]:
            self._note_restored(path, was, now)

    def _note_restored(self, path: str, was: Entry, now: Entry) -> None:
        self._suspects.discard(path)
        self._expected[path] = now
        if was.nlink > 1:
            self._twins.setdefault(was.inode, path)
            for other, entry in self._mark.entries.items():  # their ctime moved with the new name
                if entry.inode == was.inode and self._expected[other].inode == now.inode:
                    self._expected[other] = now

    def _linked(self, descent: Descent, folder: Folder, was: Entry, draft: str) -> bool:
        """Whether the file could be made a second name of one that is already back."""
        twin = self._twins.get(was.inode) if was.nlink > 1 else None
        if twin is None:
            return False
        above, _, name = twin.rpartition("/")
        way = Folder()
        for part in filter(None, above.split("/")):
            way = way.child(part)
        try:
            source = os.dup(descent.open(way))
        except OSError:
            return False
        try:
            os.link(name, draft, src_dir_fd=source, dst_dir_fd=descent.open(folder), follow_symlinks=False)
        except OSError:
            return False
        finally:
            os.close(source)
        return True

    def _make(self, folder: int, name: str, was: Entry) -> None:
        times = was.mtime_ns, was.mtime_ns
        if was.is_regular:
            self._make_file(folder, name, was)
            return
        if was.link is not None:
            os.symlink(was.link, name, dir_fd=folder)
        else:
            os.mknod(name, was.mode, was.rdev, dir_fd=folder)
        with suppress(PermissionError):
            os.chown(name, was.uid, was.gid, dir_fd=folder, follow_symlinks=False)
        if was.link is None:
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(was.mode))  # noqa: PTH101
            finally:
                os.close(handle)
        os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)

    def _make_file(self, folder: int, name: str, was: Entry) -> None:
        kept = self._copy.open(was)
        try:
            descriptor = os.open(name, _DRAFT, 0o600, dir_fd=folder)
            try:
                tree_copy.copy_content(kept, descriptor, was.size)
                with suppress(PermissionError):
                    os.fchown(descriptor, was.uid, was.gid)
                tree_copy.copy_attributes(kept, descriptor)
                os.fchmod(descriptor, stat.S_IMODE(was.mode))
                os.utime(descriptor, ns=(was.mtime_ns, was.mtime_ns))
            finally:
                os.close(descriptor)
        finally:
            os.close(kept)

    def _put_attributes_right(self, descent: Descent, folder: Folder) -> None:
        was = self._mark.entries.get(folder.path) if folder.path else self._mark.root
        if was is None:
            return
        try:
            descriptor = descent.open(folder)
            now = os.fstat(descriptor)
            if (now.st_uid, now.st_gid) != (was.uid, was.gid):
                os.fchown(descriptor, was.uid, was.gid)
            if now.st_mtime_ns != was.mtime_ns:
                os.utime(descriptor, ns=(was.mtime_ns, was.mtime_ns))
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != stat.S_IMODE(was.mode):
                os.fchmod(descriptor, stat.S_IMODE(was.mode))
        except OSError as error:
            if error.errno not in _GONE:
                self._faults[folder.path] = _sentence(folder.path, error)

    # --- is it as it was? ------------------------------------------------------------------------------------------

    def _differences(self) -> list[str]:
        scan = Scan(self._root, exclude=self._exclude, max_entries=len(self._mark.entries) + _ROOM, force=True)
        scan.step()
        now = scan.manifest()
        found = [*now.faults, *filter(None, [now.overflow])]
        if (now.root is None) != (self._mark.root is None):
            found.append("the folder itself is missing" if now.root is None else "the folder itself is still there")
        if now.root and self._mark.root and _folder_of(now.root) != _folder_of(self._mark.root):
            found.append("the folder itself has other attributes")
        for path in sorted(self._expected.keys() | now.entries.keys()):
            was, is_now = self._expected.get(path), now.entries.get(path)
            if not self._same(path, was, is_now):
                what = "there" if was is None else "missing" if is_now is None else "changed"
                found.append(f"{path!r} is still {what}")
                if len(found) >= _SHOWN:
                    break
        return found

    def _same(self, path: str, was: Entry | None, now: Entry | None) -> bool:
        if was is None or now is None:
            return was is now or (now is not None and now.is_folder and self._has_ours(path))
        if was.is_folder or now.is_folder:
            return _folder_of(was) == _folder_of(now)
        return was.signature == now.signature


def _insist(folder: int, name: str, change: Callable[[], None]) -> None:
    """Change a folder; where chattr, or a folder's own mode, forbids that, take it away first, if we may."""
    try:
        change()
    except PermissionError:
        thawed = beneath.thaw_in(folder, name)
        found = entry_at(folder, name)
        if found is not None and found.is_folder and found.mode & stat.S_IRWXU != stat.S_IRWXU:
            # A folder that moves is written to (its "..").
            mount = beneath.mount_id(folder)
            os.close(beneath.open_barred(folder, name, mount, beneath.FOLDER)[0])
        elif not thawed:
            raise
        change()


def _children(mark: Manifest) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {}
    for path in mark.entries:
        above, _, name = path.rpartition("/")
        children.setdefault(above, []).append(name)
    return children


def _visible(entry: Entry) -> tuple[object, ...]:
    """What of a file can be put back."""
    return entry.mode, entry.size, entry.mtime_ns, entry.uid, entry.gid, entry.rdev, entry.link, entry.nlink


def _folder_of(entry: Entry) -> tuple[int, ...]:
    return entry.mode, entry.mtime_ns, entry.uid, entry.gid


def _sentence(path: str, error: OSError) -> str:
    return f"{path or 'the folder itself'!r} could not be put back: {error.strerror or error}"
