"""What a folder holds, entry by entry, taken in short steps while others change it; and how two looks differ."""

import errno
import os
import stat
import time
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from run_cycle_loop.kit import beneath
from run_cycle_loop.kit.beneath import Descent, Folder

MAX_ENTRIES = 200_000
_LONGEST_PATH = 64 << 10  #: characters; what lies deeper is not walked
_MOST_TEXT = 64 << 20  #: characters of all paths together: what a manifest may cost in memory
_GLANCE = 32  #: entries between two looks at the clock


class Entry(NamedTuple):
    """One entry by lstat(2). A tuple, because there may be hundreds of thousands."""

    mode: int  #: type and permission bits
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    link: str | None  #: where a symbolic link leads
    blocks: int  #: of 512 bytes; no part of the signature: file systems change it after the fact

    @property
    def signature(self) -> tuple[object, ...]:
        """Differs wherever content or attributes were touched: no program can set a ctime."""
        return self[:10]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, which is not counted."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether it has content of its own."""
        return stat.S_ISREG(self.mode)

    @property
    def weight(self) -> int:
        """The bytes that it counts for: a sparse file by what it claims, a preallocated one by what it takes."""
        return max(self.size, self.blocks * 512)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """All entries of a tree by their relative paths; undecodable bytes in a path are surrogates (PEP 383)."""

    root: Entry | None  #: the folder itself; None: there is none
    entries: Mapping[str, Entry] = field(default_factory=dict)
    overflow: str | None = None  #: in words: why the walk was broken off
    faults: tuple[str, ...] = ()  #: in words: what could not be read
    mounts: tuple[str, ...] = ()  #: mount points in it, not entered
    taken_ns: int = 0  #: wall clock when the walk began

    def files(self) -> Iterator[tuple[str, Entry]]:
        """All that counts: everything but folders."""
        return (item for item in self.entries.items() if not item[1].is_folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What differs between two manifests; folders are left out."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    files: int  #: that count: none below ``.git``, and a rename once
    bytes: int  #: in created and changed files, those below ``.git`` too

    def __bool__(self) -> bool:
        return bool(self.created or self.changed or self.deleted)


def is_in_git(path: str) -> bool:
    """Whether a path lies below the tree's own ``.git``: all of it counts as one file, as a commit is one act."""
    return path.startswith(".git/")


def compare(before: Manifest, after: Manifest, *, also: Collection[str] = ()) -> Changes:
    """What was created, changed and deleted; ``also`` names files known to have changed under the same signature."""
    created, changed = [], []
    weight = 0
    for path, entry in after.files():
        old = before.entries.get(path)
        if old is None or old.is_folder:
            created.append(path)
        elif old[:10] != entry[:10] or path in also:
            changed.append(path)
        else:
            continue
        weight += entry.weight
    now = after.entries
    deleted = [path for path, _ in before.files() if path not in now or now[path].is_folder]
    all_paths = (*created, *changed, *deleted)
    own = sum(not is_in_git(path) for path in all_paths)
    return Changes(
        created=tuple(created),
        changed=tuple(changed),
        deleted=tuple(deleted),
        files=own + (own < len(all_paths)) - _renamed(before, after, created, deleted),
        bytes=weight,
    )


def _renamed(before: Manifest, after: Manifest, created: list[str], deleted: list[str]) -> int:
    gone: dict[tuple[int, int], int] = {}
    for path in deleted:
        if not is_in_git(path):
            key = before.entries[path].inode, before.entries[path].size
            gone[key] = gone.get(key, 0) + 1
    count = 0
    for path in created:
        key = after.entries[path].inode, after.entries[path].size
        if not is_in_git(path) and gone.get(key, 0) > 0:
            gone[key] -= 1
            count += 1
    return count


class Scan:
    """A walk that can be interrupted: ``step`` until it says that it is done, then ask for the manifest.

    Args:
        root: the folder, by a path without links; a link that stands there is no folder.
        exclude: absolute paths that are no part of the tree.
        max_entries: a tree with more of them is not walked to its end.
        force: enter folders of ours that their modes bar, which are opened for the time of the walk.
        before: an earlier manifest; what differs from it is counted on the way.
        keep: whether the entries are kept for a manifest; to count alone costs no memory.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        exclude: Collection[Path | str] = (),
        max_entries: int = MAX_ENTRIES,
        force: bool = False,
        before: Manifest | None = None,
        keep: bool = True,
    ) -> None:
        self._root = os.fspath(root)
        self._exclude = relative_to(self._root, exclude)
        self._max_entries = max_entries
        self._before: Mapping[str, Entry] = before.entries if before else {}
        self._force = force
        self._keep = keep
        self._entries: dict[str, Entry] = {}
        self._number = 0  #: of entries
        self._faults: list[str] = []
        self._overflow: str | None = None
        self._mounts: set[str] = set()
        self._text = 0
        self._present = 0  #: of the files before that count, those that are still there
        self.created = 0  #: files so far that count and were not there before
        self.changed = 0  #: files so far that count and differ
        self.bytes = 0  #: in both, and below ``.git``
        self._taken_ns = time.time_ns()
        self._top: Entry | None = None
        self._walk = self._walking()

    def step(self, seconds: float | None = None) -> bool:
        """Walk on for so long; whether the end was reached."""
        deadline = None if seconds is None else time.monotonic() + seconds
        return all(deadline is None or time.monotonic() < deadline for _ in self._walk)

    def close(self) -> None:
        """Give up."""
        self._walk.close()

    @property
    def is_whole(self) -> bool:
        """Whether everything so far could be walked."""
        return not (self._overflow or self._faults or self._mounts)

    def manifest(self) -> Manifest:
        """What was found; whole only after the last step."""
        return Manifest(
            root=self._top,
            entries=self._entries,
            overflow=self._overflow,
            faults=tuple(self._faults),
            mounts=tuple(sorted(self._mounts)),
            taken_ns=self._taken_ns,
        )

    def least_changed(self, counted_before: int, *, done: bool) -> int:
        """How many files differ at the least: each that is gone may have got the name of one that is new."""
        gone = counted_before - self._present if done else 0
        return self.changed + max(self.created, gone)

    def _walking(self) -> Generator[None]:
        descent = self._opened()
        if descent is None:
            return
        mounts = beneath.mounts_below(self._root)
        try:
            pending = [Folder()]
            while pending and not self._is_full():
                folder = pending.pop()
                try:
                    descriptor = descent.open(folder)
                    with os.scandir(descriptor) as listing:
                        yield from self._listing(descriptor, folder, listing, mounts, pending)
                except OSError as error:
                    self._note(folder, error)
                yield
            self._is_full()  # the last folder may have been the one too many
        finally:
            descent.close()

    def _opened(self) -> Descent | None:
        try:
            descent = beneath.descend(self._root, force=self._force)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}:
                self._faults.append(f"{self._root} cannot be opened: {error.strerror or error}")
            return None
        self._top = entry_of(descent.root)
        for _, mode in descent.barred:
            self._top = self._top._replace(mode=stat.S_IFDIR | mode)
        return descent

    def _listing(
        self,
        descriptor: int,
        folder: Folder,
        listing: Iterator["os.DirEntry[str]"],
        mounts: Collection[str],
        pending: list[Folder],
    ) -> Iterator[None]:
        prefix = f"{folder.path}/" if folder.path else ""
        inner = []
        for number, item in enumerate(listing):
            if number % _GLANCE == _GLANCE - 1:
                yield
                if self._is_full():
                    return
            path = prefix + item.name
            if path in self._exclude:
                continue
            if path in mounts:
                self._mounts.add(path)  # not even looked at: what is mounted there may hang
                continue
            try:
                found = item.stat(follow_symlinks=False)
                link = os.readlink(item.name, dir_fd=descriptor) if stat.S_ISLNK(found.st_mode) else None
            except OSError:
                continue  # gone or replaced meanwhile
            entry = _entry(found, link)
            self._number += 1
            if self._keep:
                self._entries[path] = entry
                self._text += len(path)
            if stat.S_ISDIR(entry.mode):
                if len(path) > _LONGEST_PATH:
                    self._overflow = f"a path in it has more than {_LONGEST_PATH} characters"
                    return
                inner.append(folder.child(item.name))
            else:
                self._count(path, entry)
        pending.extend(reversed(inner))

    def _count(self, path: str, entry: Entry) -> None:
        old = self._before.get(path)
        counts = not is_in_git(path)
        if old is None or stat.S_ISDIR(old.mode):
            self.created += counts
            self.bytes += entry.weight
            return
        self._present += counts
        if old[:10] != entry[:10]:
            self.changed += counts
            self.bytes += entry.weight

    def _is_full(self) -> bool:
        if self._number > self._max_entries:
            self._overflow = f"it has more than {self._max_entries} entries"
        elif self._text > _MOST_TEXT:
            self._overflow = f"its paths have more than {_MOST_TEXT} characters together"
        return self._overflow is not None

    def _note(self, folder: Folder, error: OSError) -> None:
        """A folder that could not be walked: gone or replaced meanwhile, a mount point, or barred."""
        if error.errno == errno.EXDEV:
            self._mounts.add(folder.path)
            self._entries.pop(folder.path, None)
        elif error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}:
            self._faults.append(f"{folder.path!r} cannot be read: {error.strerror or error}")


def relative_to(root: str, paths: Collection[Path | str]) -> frozenset[str]:
    """Those of the absolute paths that lie below a folder, relative to it."""
    prefix = root.rstrip("/") + "/"
    absolute = (os.path.realpath(path) for path in paths)
    return frozenset(path[len(prefix) :] for path in absolute if path.startswith(prefix))


def entry_at(folder: int, name: str) -> Entry | None:
    """One entry of an open folder as it is now; None where there is none.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        link = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(found.st_mode) else None
    except FileNotFoundError:
        return None
    return _entry(found, link)


def entry_of(descriptor: int) -> Entry:
    """An open file or folder as it is now."""
    return _entry(os.fstat(descriptor), None)


def _entry(found: os.stat_result, link: str | None) -> Entry:
    return Entry(
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_ino,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_rdev,
        link,
        found.st_blocks,
    )
