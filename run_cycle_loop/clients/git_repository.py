"""A repository on the disk, read by hand: where it is, whose it is, what its HEAD and its branches name.

git itself is not asked for any of this, because git obeys the repository's configuration and that may have been
written by an agent. Only the plain files of the classic layout are understood; everything else is unknown.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import ClientError

_SMALL = 4096  #: bytes of a reference or a pointer
_PACKED_REFS = 64 << 20
_DEPTH = 5  #: references that name references
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NAME = re.compile(r"refs(?:/(?!\.)[^\x00-\x20\x7f~^:?*\[\\/]+)+")


class GitError(ClientError):
    """git, a repository or its remote did not do what was asked; the sentence says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A checkout and where its repository keeps what."""

    worktree: Path
    folder: Path  #: HEAD, index, FETCH_HEAD
    common: Path  #: objects, refs, config; another folder only in a linked work tree

    @property
    def objects(self) -> Path:
        """Where the objects are."""
        return self.common / "objects"

    @property
    def index(self) -> Path:
        """The index file."""
        return self.folder / "index"


def locate(start: Path) -> Repository:
    """The checkout that a folder lies in.

    Raises:
        GitError: it lies in none, the repository belongs to somebody else, or is not where it says.
    """
    worktree = _worktree_of(start)
    marker = worktree / ".git"
    folder = marker
    try:
        if not stat.S_ISDIR(marker.lstat().st_mode):
            folder = _linked_folder(marker)
        common = _common_of(folder)
        for place in {worktree, marker, folder, common}:
            _require_own(place)
        for name in ("objects", "refs"):
            if not stat.S_ISDIR((common / name).lstat().st_mode):
                raise GitError(f"{common / name} is no folder; see git fsck")
    except (OSError, ValueError) as error:
        raise GitError(f"{marker} is no repository that can be read: {error}") from error
    return Repository(worktree=worktree, folder=folder, common=common)


def _worktree_of(start: Path) -> Path:
    try:
        here = start.resolve(strict=True)
        device = here.stat().st_dev
        for place in (here, *here.parents):
            if place.stat().st_dev != device:
                break
            if os.path.lexists(place / ".git"):
                return place
        bare = (here / "HEAD").is_file() and (here / "objects").is_dir()
    except (OSError, RuntimeError) as error:
        raise GitError(f"{start} cannot be read: {error}") from error
    raise GitError(f"{start} is a bare repository, without a work tree" if bare else f"{start} is in no git checkout")


def _linked_folder(marker: Path) -> Path:
    """The repository that a ``.git`` file names: it must point back, or any repository could be passed off as this."""
    text = files.read_bounded(marker, _SMALL).decode()
    if not text.startswith("gitdir: "):
        raise ValueError("it is neither a folder nor a pointer")
    folder = (marker.parent / text.removeprefix("gitdir: ").rstrip("\n")).resolve(strict=True)
    try:
        back = files.read_bounded(folder / "gitdir", _SMALL).decode().rstrip("\n")
    except FileNotFoundError:
        back = ""
    if not back or (folder / back).resolve() != marker:
        raise ValueError(f"it points to {folder}, which does not point back")
    return folder


def _common_of(folder: Path) -> Path:
    try:
        text = files.read_bounded(folder / "commondir", _SMALL).decode()
    except FileNotFoundError:
        return folder
    return (folder / text.rstrip("\n")).resolve(strict=True)


def _require_own(place: Path) -> None:
    owner = place.lstat().st_uid
    if owner != os.geteuid():
        raise GitError(f"{place} belongs to uid {owner} and not to uid {os.geteuid()}, who looks at it")


def is_name(name: str) -> bool:
    """Whether this can be the full name of a reference."""
    return (
        _NAME.fullmatch(name) is not None
        and ".." not in name
        and "@{" not in name
        and not any(part.endswith((".lock", ".")) for part in name.split("/"))
    )


def is_hash(text: str) -> bool:
    """Whether this can be the name of an object."""
    return _HASH.fullmatch(text) is not None


def head(repository: Repository) -> str:
    """What HEAD says: the full name of a branch, or a commit.

    Raises:
        GitError: it says neither.
    """
    try:
        return _target(repository.folder / "HEAD", "HEAD")
    except FileNotFoundError:
        raise GitError("there is no HEAD") from None


def commit_of(repository: Repository, name: str) -> str | None:
    """The commit that a reference names; None where there is no such reference.

    Raises:
        GitError: it is damaged.
    """
    for _ in range(_DEPTH):
        try:
            target = _target(repository.common / name, name)
        except FileNotFoundError:
            return _packed(repository, name)
        if is_hash(target):
            return target
        name = target
    raise GitError(f"{name} names a reference that names a reference, and so on")


def _target(path: Path, name: str) -> str:
    """What a reference's own file says.

    Raises:
        GitError: it says nothing that can be understood.
        FileNotFoundError: there is no such file.
    """
    try:
        text = files.read_bounded(path, _SMALL).decode("ascii").rstrip("\n")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        if path.is_dir() or isinstance(error, NotADirectoryError):
            raise FileNotFoundError(path) from error  # a folder of references, or a reference where a folder would be
        raise GitError(f"{name} is damaged: {error}") from error
    target = text.removeprefix("ref: ")
    if is_hash(text) or (target != text and is_name(target)):
        return target
    raise GitError(f"{name} is damaged: it names neither a commit nor a reference")


def _packed(repository: Repository, name: str) -> str | None:
    try:
        text = files.read_bounded(repository.common / "packed-refs", _PACKED_REFS)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise GitError(f"packed-refs cannot be read: {error}") from error
    ending = b" " + name.encode()
    for line in text.splitlines():
        if line.endswith(ending):
            commit = line[: -len(ending)].decode("ascii", "replace")
            if not is_hash(commit):
                raise GitError(f"{name} is damaged: packed-refs gives it no commit")
            return commit
    return None


def replace_reference(repository: Repository, name: str, old: str | None, new: str) -> None:
    """Let a reference name another commit, by git's own protocol: a lock beside it, the old value compared, a rename.

    Raises:
        GitError: it is locked, is not what it was, or cannot be written.
    """
    path = repository.common / name
    try:
        root = repository.common.resolve()
        files.make_folder(path.parent)
        if not path.parent.resolve().is_relative_to(root):
            raise GitError(f"{name} lies outside of the repository")
        with _locked(path) as lock:
            now = commit_of(repository, name)
            if now != old:
                raise GitError(f"{name} was moved by somebody else; the next cycle looks again")
            files.write_all(lock, f"{new}\n".encode())
            os.fsync(lock)
            path.with_name(f"{path.name}.lock").rename(path)
        files.sync_folder(path.parent)
    except OSError as error:
        raise GitError(f"{name} cannot be written: {error.strerror or error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """``<reference>.lock``, made by us or not at all; gone afterwards unless it became the reference."""
    lock = path.with_name(f"{path.name}.lock")
    descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    except BaseException:
        files.unlink_quietly(lock)
        raise
    finally:
        os.close(descriptor)


def note_in_log(repository: Repository, path: Path, line: str) -> None:
    """Add a line to a reference's log where there is one already; best effort, as it is only a convenience."""
    if not path.resolve().is_relative_to(repository.common.resolve()):
        return
    with suppress(OSError):
        descriptor = files.open_regular(path, os.O_WRONLY | os.O_APPEND)
        try:
            files.write_all(descriptor, line.encode())
        finally:
            os.close(descriptor)


def age(path: Path, now: float) -> float | None:
    """Seconds since a file was last written; None where there is none, or it is from the future."""
    try:
        passed = now - path.lstat().st_mtime
    except OSError:
        return None
    return passed if passed >= -1 else None
