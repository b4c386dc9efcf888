"""One digest over what a tree holds, for telling whether a cycle moved anything: files by content, git by commit."""

import hashlib
import os
import re
import stat
import time
from collections.abc import MutableMapping
from pathlib import Path

from run_cycle_loop.kit import beneath, files
from run_cycle_loop.kit.beneath import Descent, Folder
from run_cycle_loop.kit.manifest import Entry, Manifest, entry_of, is_in_git

_BLOCK = 1 << 20
_SHORT = 4096  #: bytes of HEAD, of a loose reference, of the file that names a worktree's git folder
_PACKED = 16 << 20  #: bytes of packed-refs
_COMMIT = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REFERENCE = re.compile(r"refs(?:/(?!\.\.?(?:/|$))[^/\0\n]+)+")

#: Digests of contents by signature, kept from cycle to cycle, so that only what changed is read again.
Known = MutableMapping[tuple[object, ...], bytes]


def fingerprint(root: Path | str, manifest: Manifest, known: Known, *, seconds: float = 5.0) -> str | None:
    """The sha256 over path, type, mode, link target and content of all files outside ``.git``, and git's commit.

    Args:
        root: the folder that the manifest was taken of.
        manifest: what it holds.
        known: what earlier calls have read; it is brought up to date, and what is no longer there is dropped.
        seconds: how long it may read.

    Returns:
        None where the manifest is not whole, a file cannot be read, or the time was not enough; what was read until
        then is known to the next call.
    """
    if manifest.overflow or manifest.faults:
        return None
    counted = sorted((path, entry) for path, entry in manifest.files() if not is_in_git(path))
    if not _read_contents(root, counted, known, time.monotonic() + seconds):
        return None
    whole = hashlib.sha256()
    kept = {}
    for path, entry in counted:
        content = b""
        if entry.is_regular:
            content = kept[entry.signature] = known[entry.signature]
        link = os.fsencode(entry.link or "")
        head = f"{stat.S_IFMT(entry.mode):o} {stat.S_IMODE(entry.mode):o} {entry.rdev}".encode()
        whole.update(b"\0".join((os.fsencode(path), head, link, content.hex().encode(), b"")))
    known.clear()
    known.update(kept)
    whole.update(head_commit(Path(root)) or b"")
    return whole.hexdigest()


def _read_contents(root: Path | str, counted: list[tuple[str, Entry]], known: Known, deadline: float) -> bool:
    missing = [item for item in counted if item[1].is_regular and item[1].signature not in known]
    if not missing:
        return True
    descent = None
    try:
        descent = beneath.descend(root, force=True)
        folders = {"": Folder()}
        for path, entry in missing:
            digest = _content(descent, folders, path, entry, deadline)
            if digest is None:
                return False
            known[entry.signature] = digest
    except OSError:
        return False
    finally:
        if descent is not None:
            descent.close()
    return True


def _content(
    descent: Descent, folders: MutableMapping[str, Folder], path: str, entry: Entry, deadline: float
) -> bytes | None:
    above, _, name = path.rpartition("/")
    parent = descent.open(beneath.folder_at(folders, above))
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    barred = None
    try:
        descriptor = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        descriptor, barred = beneath.open_barred(parent, name, descent.mount, flags)
    try:
        if barred is None and entry_of(descriptor).signature != entry.signature:
            return None  # somebody still writes
        digest = hashlib.sha256()
        while block := os.read(descriptor, _BLOCK):
            digest.update(block)
            if time.monotonic() > deadline:
                return None
        return digest.digest()
    finally:
        if barred is not None:
            os.fchmod(descriptor, barred)
        os.close(descriptor)


def head_commit(root: Path) -> bytes | None:
    """The commit that HEAD names, read without git, which would run what the repository's configuration says.

    None where there is no repository, no commit yet, or nothing that can be understood.
    """
    try:
        git = _git_folder(root)
        head = files.read_bounded(git / "HEAD", _SHORT).strip()
        if not head.startswith(b"ref:"):
            return head if _COMMIT.fullmatch(head) else None
        name = os.fsdecode(head[4:].strip())
        if _REFERENCE.fullmatch(name) is None:
            return None
        common = _common_folder(git)
        return _loose(git / name) or _loose(common / name) or _packed(common, name)
    except (OSError, ValueError):
        return None


def _git_folder(root: Path) -> Path:
    git = root / ".git"
    if stat.S_ISDIR(git.lstat().st_mode):
        return git
    line = files.read_bounded(git, _SHORT).strip()
    if not line.startswith(b"gitdir:"):
        raise ValueError(f"{git} names no folder")
    return root / os.fsdecode(line[7:].strip())


def _common_folder(git: Path) -> Path:
    """Where a worktree keeps the references that it shares with others."""
    try:
        return git / os.fsdecode(files.read_bounded(git / "commondir", _SHORT).strip())
    except OSError:
        return git


def _loose(path: Path) -> bytes | None:
    try:
        commit = files.read_bounded(path, _SHORT).strip()
    except OSError:
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _packed(common: Path, name: str) -> bytes | None:
    wanted = os.fsencode(name)
    for line in files.read_bounded(common / "packed-refs", _PACKED).splitlines():
        commit, _, reference = line.partition(b" ")
        if reference == wanted and _COMMIT.fullmatch(commit):
            return commit
    return None
