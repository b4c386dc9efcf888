"""The copy of a work tree from which it can be put back: each content once, under a name made from its signature."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from run_cycle_loop.kit import beneath, files
from run_cycle_loop.kit.beneath import Descent, Folder
from run_cycle_loop.kit.manifest import Entry, Manifest, entry_at, entry_of
from run_cycle_loop.model.errors import RunnerError

_FICLONE = 0x40049409
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DRAFT = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 1 << 20
_STRIDE = 1 << 30  #: bytes for one copy_file_range(2)
_ATTEMPTS = 3  #: to copy a file that somebody writes at the same time
_MARK_LIMIT = 1 << 30  #: bytes of the written manifest
_REMEDY = "name a smaller --workdir, or take --write-guard warn"
#: What a file system says that cannot do this kind of copy.
_CANNOT = {errno.ENOTTY, errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EBADF}


class TreeCopy:
    """The folder ``baseline``: contents, and the manifest that says what belongs where."""

    def __init__(self, folder: Path, max_bytes: int, beat: Callable[[], object] = lambda: None) -> None:
        self._folder = folder
        self._contents = folder / "contents"
        self._mark = folder / "mark.json"
        self._max_bytes = max_bytes
        self._beat = beat  #: called after each file that is copied
        self._held: set[str] | None = None  #: names of contents that are known to be whole
        self._kept: Manifest | None = None  #: what mark.json says, once this process wrote it

    def keep(self, root: Path, manifest: Manifest) -> Manifest:
        """Copy what is not yet copied, durably; returns the manifest with what it found while copying.

        Raises:
            RunnerError: the tree is too large, there is no room, or it cannot be read.
            OSError: the copy cannot be written.
        """
        self._require_small(root, manifest)
        files.make_folder(self._contents)
        held = self._load_held()
        # What may have changed under its old signature is copied anew.
        doubtful = {_name(self._kept.entries[path]) for path in racy(self._kept)} if self._kept else set()
        for name in doubtful & held:
            files.unlink_quietly(self._contents / name)
        held -= doubtful
        missing = [(path, entry) for path, entry in _regular(manifest) if _name(entry) not in held]
        if missing:
            manifest = replace(manifest, entries={**manifest.entries, **self._copy_all(root, missing)})
        self._write_mark(manifest)
        self._drop_unused(manifest)
        return manifest

    def load(self) -> Manifest:
        """The manifest of the last mark.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        value = json.loads(files.read_bounded(self._mark, _MARK_LIMIT))
        try:
            entries = {str(path): Entry(*numbers) for path, *numbers in value["entries"]}
            return Manifest(root=Entry(*value["root"]), entries=entries, taken_ns=int(value["taken_ns"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self._mark} is no manifest: {error!r}") from error

    def open(self, entry: Entry) -> int:
        """The content of a file as it was at the mark.

        Raises:
            OSError: it is not there, or not whole.
        """
        path = self._contents / _name(entry)
        descriptor = os.open(path, _READ)
        if os.fstat(descriptor).st_size != entry.size:
            os.close(descriptor)
            raise OSError(errno.EIO, "the copy of it is not whole", str(path))
        return descriptor

    def changed_secretly(self, root: Path, mark: Manifest, now: Manifest) -> list[str]:
        """Files that changed so soon after the mark that only their content shows it.

        Raises:
            OSError: the tree cannot be opened.
        """
        paths = [path for path in racy(mark) if path in now.entries and _same(mark.entries[path], now.entries[path])]
        if not paths or now.root is None:
            return []
        descent = beneath.descend(root, force=True)
        try:
            folders = {"": Folder()}
            return [path for path in paths if not self._is_content_of(descent, folders, path, mark.entries[path])]
        finally:
            descent.close()

    def _is_content_of(self, descent: Descent, folders: dict[str, Folder], path: str, was: Entry) -> bool:
        try:
            ours, barred = open_file(descent, folders, path)
        except OSError:
            return False
        try:
            return self.is_content(ours, was)
        finally:
            _shut(ours, barred)

    def is_content(self, descriptor: int, was: Entry) -> bool:
        """Whether an open file holds what a file held at the mark."""
        try:
            kept = self.open(was)
        except OSError:
            return False
        try:
            while block := os.read(descriptor, _BLOCK):
                if os.read(kept, _BLOCK) != block:
                    return False
            return not os.read(kept, 1)
        finally:
            os.close(kept)

    def _require_small(self, root: Path, manifest: Manifest) -> None:
        sizes = {_name(entry): entry.blocks * 512 for _, entry in _regular(manifest)}
        size = sum(sizes.values())
        if size > self._max_bytes:
            raise RunnerError(
                f"workdir {root} holds {size} bytes, more than the {self._max_bytes} that are copied to put it back; "
                f"{_REMEDY}"
            )

    def _load_held(self) -> set[str]:
        """The contents that are whole: those of the last mark, which was written after all of them were synced."""
        if self._held is None:
            try:
                self._kept = self.load()
            except (OSError, ValueError):
                self._kept = None
            named = {_name(entry) for _, entry in _regular(self._kept)} if self._kept else set()
            there = {path.name for path in self._contents.iterdir()}
            self._held = named & there
            for name in there - self._held:
                files.unlink_quietly(self._contents / name)
        return self._held

    def _copy_all(self, root: Path, missing: list[tuple[str, Entry]]) -> dict[str, Entry]:
        held = self._load_held()
        found = {}
        folders = {"": Folder()}
        descent = beneath.descend(root, force=True)
        target = os.open(self._contents, beneath.FOLDER)
        try:
            clones = self._require_room(root, descent, folders, target, missing)
            for path, entry in missing:
                if _name(entry) in held:
                    continue  # by another of its names
                self._beat()
                taken = _take(descent, folders, path, target, clones=clones)
                if taken != entry:
                    found[path] = taken
                held.add(_name(taken))
            beneath.sync_all(target)
        except OSError as error:
            self._held = None
            detail = f"{error.strerror or error} ({error.filename!r})" if error.filename else error.strerror or error
            raise RunnerError(f"workdir {root} cannot be copied to put it back later: {detail}; {_REMEDY}") from error
        except BaseException:
            self._held = None  # what was copied by then is not known to be on the disk
            raise
        finally:
            descent.close()
            os.close(target)
        return found

    def _require_room(
        self, root: Path, descent: Descent, folders: dict[str, Folder], target: int, missing: list[tuple[str, Entry]]
    ) -> bool:
        """Whether the file system shares contents between files; where it does not, refuse what would fill it."""
        path, _ = max(missing, key=lambda item: item[1].size)
        clones = _can_clone(descent, folders, path, target)
        needed = sum(entry.blocks * 512 for _, entry in missing)
        disk = os.fstatvfs(target)
        free = disk.f_bavail * disk.f_frsize
        if not clones and needed > free:
            raise RunnerError(
                f"workdir {root} has {needed} bytes to copy and {self._folder} has room for {free}; free space, or "
                f"{_REMEDY}"
            )
        return clones

    def _write_mark(self, manifest: Manifest) -> None:
        kept = self._kept
        if kept and (kept.root, kept.entries, kept.taken_ns) == (manifest.root, manifest.entries, manifest.taken_ns):
            return
        if kept and kept.root == manifest.root and kept.entries == manifest.entries and not racy(kept):
            return  # the same tree, and it stood still before it was last looked at
        rows = [[path, *entry] for path, entry in manifest.entries.items()]
        value = {"root": manifest.root, "taken_ns": manifest.taken_ns, "entries": rows}
        files.replace_file(self._mark, json.dumps(value, separators=(",", ":")).encode(), durable=True)
        self._kept = manifest

    def _drop_unused(self, manifest: Manifest) -> None:
        held = self._load_held()
        unused = held - {_name(entry) for _, entry in _regular(manifest)}
        for name in unused:
            files.unlink_quietly(self._contents / name)
        held -= unused


_TICK_NS = 20_000_000  #: two changes within one tick of the kernel's coarse clock may have the same ctime


def racy(manifest: Manifest) -> list[str]:
    """Files that changed so shortly before the look that a change after it may not show in their signature."""
    edge = manifest.taken_ns - _TICK_NS
    return [path for path, entry in manifest.entries.items() if entry.ctime_ns >= edge and entry.is_regular]


def _same(one: Entry, other: Entry) -> bool:
    return one.signature == other.signature


def _regular(manifest: Manifest) -> list[tuple[str, Entry]]:
    return [item for item in manifest.entries.items() if item[1].is_regular]


def _name(entry: Entry) -> str:
    return f"{entry.inode:x}.{entry.ctime_ns:x}.{entry.mtime_ns:x}.{entry.size:x}"


def _can_clone(descent: Descent, folders: dict[str, Folder], path: str, target: int) -> bool:
    draft = _draft_name()
    descriptor = os.open(draft, _DRAFT, 0o600, dir_fd=target)
    try:
        source, barred = open_file(descent, folders, path)
        try:
            return clone(source, descriptor)
        finally:
            _shut(source, barred)
    finally:
        os.close(descriptor)
        os.unlink(draft, dir_fd=target)


def _take(descent: Descent, folders: dict[str, Folder], path: str, target: int, *, clones: bool) -> Entry:
    """Copy one file to its name among the contents; returns its entry, which did not change while it was copied."""
    for _ in range(_ATTEMPTS):
        source, barred = open_file(descent, folders, path)
        try:
            before = entry_of(source)
            _copy_to(source, before, target, clones=clones)
            settled = entry_of(source).signature == before.signature
        finally:
            _shut(source, barred)
        after = before if barred is None else _look(descent, folders, path)
        if settled and after is not None:
            if after is not before:
                os.rename(_name(before), _name(after), src_dir_fd=target, dst_dir_fd=target)
            return after
        os.unlink(_name(before), dir_fd=target)
    raise OSError(errno.EBUSY, "somebody writes to it", path)


def _copy_to(source: int, entry: Entry, target: int, *, clones: bool) -> None:
    # Under its final name at once: it is trusted only once the mark names it.
    name = _name(entry)
    descriptor = os.open(name, _DRAFT, 0o600, dir_fd=target)
    try:
        copy_content(source, descriptor, entry.size, try_clone=clones, has_holes=entry.blocks * 512 < entry.size)
        copy_attributes(source, descriptor)
    except BaseException:
        os.unlink(name, dir_fd=target)
        raise
    finally:
        os.close(descriptor)


def _look(descent: Descent, folders: dict[str, Folder], path: str) -> Entry | None:
    above, _, name = path.rpartition("/")
    return entry_at(descent.open(beneath.folder_at(folders, above)), name)


def _draft_name() -> str:
    return f"draft.{os.getpid()}"


def open_file(descent: Descent, folders: dict[str, Folder], path: str) -> tuple[int, int | None]:
    """A regular file of a tree for reading, and the mode to give it back where it had to be opened by force.

    Raises:
        OSError: it is not there, or is none.
    """
    above, _, name = path.rpartition("/")
    parent = descent.open(beneath.folder_at(folders, above))
    try:
        return os.open(name, _READ, dir_fd=parent), None
    except PermissionError:
        return beneath.open_barred(parent, name, descent.mount, _READ)


def _shut(descriptor: int, barred: int | None) -> None:
    if barred is not None:
        os.fchmod(descriptor, barred)
    os.close(descriptor)


def clone(source: int, target: int) -> bool:
    """Let two files share their content until one of them changes; whether the file system can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def copy_content(source: int, target: int, size: int, *, try_clone: bool = True, has_holes: bool = True) -> None:
    """Copy an open file to an empty one; holes stay holes.

    Raises:
        OSError: it cannot be copied.
    """
    if try_clone and size and clone(source, target):
        return
    if not has_holes:
        _copy_range(source, target, 0, size)
        return
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
            offset = min(size, os.lseek(source, start, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # only a hole is left
            if error.errno != errno.EINVAL:
                raise
            start, offset = offset, size  # a file system that knows no holes
        _copy_range(source, target, start, offset)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            count = os.copy_file_range(source, target, min(end - start, _STRIDE), start, start)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            count = 0
        if count == 0:
            break
        start += count
    while start < end and (block := os.pread(source, min(end - start, _BLOCK), start)):
        view = memoryview(block)
        while view:
            written = os.pwrite(target, view, start)
            view, start = view[written:], start + written


def copy_attributes(source: int, target: int) -> None:
    """Copy extended attributes (access control lists among them), those that both sides and our rights allow."""
    with suppress(OSError):
        for name in os.listxattr(source):
            with suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
