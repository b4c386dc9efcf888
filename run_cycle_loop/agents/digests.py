"""What the planner reads of earlier cycles and what it keeps for later ones, on the files as they are found.

Reading takes whatever is there: torn lines, broken archives, links, pipes and devices are left out and told about,
never followed and never waited for. Writing leaves the whole new thing or the old one.
"""

import errno
import fcntl
import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from run_cycle_loop.kit.files import (
    make_folder,
    open_regular,
    read_bounded,
    replace_file,
    set_aside,
    sync_folder,
    write_all,
)
from run_cycle_loop.kit.lines import newest_first
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.records import CycleRecord

DIGESTS = "planner_digests.jsonl"
ARCHIVES = "planner_digest_archives"
#: Digests in one archive, and archives in the folder: together they bound what an unattended year leaves on the disk.
KEPT_DIGESTS = 500
KEPT_ARCHIVES = 500

_HISTORY_LINES = 50
_ARCHIVE_LIMIT = 16 << 20  #: bytes, packed and unpacked
_ARCHIVES_TRIED = 5
_SANDBOX_ENTRIES = 5000
_CHANGES_NAMED = 5
_NAME = re.compile(r"planner_digests_(\d{8}T\d{6}Z)(?:-(\d{1,9}))?\.jsonl\.gz")
_NO_LINE = (ValueError, TypeError, ArithmeticError, RecursionError)
_NO_ARCHIVE = (OSError, EOFError, zlib.error, ValueError)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found(Generic[T]):
    """What could be read, oldest first, and one clause on what could not."""

    values: tuple[T, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What stands in the sandbox."""

    files: int = 0
    size: int = 0  #: bytes
    changed: tuple[str, ...] = ()  #: the first few paths, by the kernel's change time
    changes: int = 0
    trouble: str = ""


def read_history(path: Path) -> Found[CycleRecord]:
    """The newest records of the loop's history."""
    return _newest_lines(path, _HISTORY_LINES, CycleRecord.from_dict)


def read_digests(state_dir: Path) -> Found[dict[str, Any]]:
    """The newest digests: what the newest archive holds, and what was appended since."""
    appended = _newest_lines(state_dir / DIGESTS, KEPT_DIGESTS, dict)
    archived = _newest_archive(state_dir / ARCHIVES)
    known = {_key(digest) for digest in appended.values}
    older = tuple(digest for digest in archived.values if _key(digest) not in known)
    return Found(
        values=(*older, *appended.values)[-KEPT_DIGESTS:],
        trouble="; ".join(filter(None, (appended.trouble, archived.trouble))),
    )


def _key(digest: Mapping[str, Any]) -> tuple[str, str]:
    return str(digest.get("timestamp")), str(digest.get("cycle_id"))


def _newest_lines(path: Path, limit: int, reader: Callable[[dict[str, Any]], T]) -> Found[T]:
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except FileNotFoundError:
        return Found()
    except OSError as error:
        return Found(trouble=f"{path.name} is not readable: {error.strerror}")
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        lines = list(islice(newest_first(file.fileno()), limit))
    lines.reverse()
    return _parsed(lines, reader, path.name)


def _parsed(lines: Sequence[bytes], reader: Callable[[dict[str, Any]], T], name: str) -> Found[T]:
    values: list[T] = []
    damaged = 0
    for line in lines:
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise TypeError(f"{type(value)} is no object")
            values.append(reader(value))
        except _NO_LINE:
            damaged += 1
    return Found(values=tuple(values), trouble=f"damaged lines of {name} skipped: {damaged}" if damaged else "")


def archives(folder: Path) -> list[Path]:
    """The planner's archives, oldest first, by their names."""
    try:
        matches = [match for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name))]
    except OSError:
        return []
    return [folder / match[0] for match in sorted(matches, key=lambda match: (match[1], int(match[2] or 1)))]


def _newest_archive(folder: Path) -> Found[dict[str, Any]]:
    """The newest archive with a readable digest; newer ones without are counted."""
    damaged = 0
    found: Found[dict[str, Any]] = Found()
    for path in archives(folder)[: -_ARCHIVES_TRIED - 1 : -1]:
        with suppress(*_NO_ARCHIVE):
            found = _parsed(_unpack(path).splitlines(), dict, path.name)
        if found.values:
            break
        damaged += 1
    skipped = f"damaged archives skipped: {damaged}" if damaged else ""
    return Found(values=found.values, trouble="; ".join(filter(None, (skipped, found.trouble))))


def _unpack(path: Path) -> bytes:
    """The lines of an archive; a gzip bomb is refused where it passes the limit."""
    with gzip.GzipFile(fileobj=io.BytesIO(read_bounded(path, _ARCHIVE_LIMIT))) as packed:
        data = packed.read(_ARCHIVE_LIMIT + 1)
    if len(data) > _ARCHIVE_LIMIT:
        raise ValueError(f"{path} unpacks to more than {_ARCHIVE_LIMIT} bytes")
    return data


def survey(sandbox: Path, *, since: datetime | None, leave_out: str) -> Survey:
    """Count the sandbox's files, and name some that changed after ``since``; links are counted, never followed.

    Args:
        sandbox: the folder; a missing one is empty.
        since: None for no comparison.
        leave_out: a path inside whose changes are not news: the planner's own plan.
    """
    files = size = changes = 0
    changed: list[str] = []
    trouble = ""
    for seen, (name, status) in enumerate(_entries(sandbox)):
        if seen >= _SANDBOX_ENTRIES:
            trouble = f"only the first {_SANDBOX_ENTRIES} files were looked at"
            break
        files += 1
        size += status.st_size
        if since is not None and name != leave_out and status.st_ctime > since.timestamp():
            changes += 1
            changed += [name] if len(changed) < _CHANGES_NAMED else []
    return Survey(files=files, size=size, changed=tuple(changed), changes=changes, trouble=trouble)


def _entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every path below ``root`` that is no folder, relative to it, in the order of names."""
    if root.is_symlink():
        return
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError:
            continue  # gone, or not ours to read
        for entry in entries:
            name = os.path.join(folder, entry.name)  # noqa: PTH118 - names, before any path is touched
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(name)
            else:
                yield name, status


@contextmanager
def journal(state_dir: Path) -> Iterator[int]:
    """The digests file, open and locked against another planner; what stands in its place is set aside first.

    Raises:
        OSError: it cannot be opened.
    """
    make_folder(state_dir)
    path = state_dir / DIGESTS
    try:
        descriptor = _open_own(path)
    except OSError as error:
        if error.errno not in {None, errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise
        set_aside(path, "set-aside")
        descriptor = _open_own(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_own(path: Path) -> int:
    """Open for appending what is ours alone: a second name for some other file is not."""
    descriptor = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise OSError(None, "has a second name", str(path))
    return descriptor


def append(descriptor: int, digest: Mapping[str, Any]) -> None:
    """Add a digest, durably; an unfinished line before it is ended first.

    Raises:
        OSError: it is not known to be durable.
    """
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    write_all(descriptor, (b"\n" if torn else b"") + _line(digest))
    os.fsync(descriptor)


def record(state_dir: Path, digest: Mapping[str, Any], now: datetime) -> Path:
    """Add a digest to those that are there, and pack the newest of them; returns the archive.

    Raises:
        OSError: something of it could not be written.
    """
    with journal(state_dir) as descriptor:
        earlier = read_digests(state_dir).values
        append(descriptor, digest)
        return archive(state_dir, (*earlier, digest), now)


def _line(digest: Mapping[str, Any]) -> bytes:
    return json.dumps(digest, separators=(",", ":")).encode() + b"\n"


def archive(state_dir: Path, digests: Sequence[Mapping[str, Any]], now: datetime) -> Path:
    """Pack the newest digests under a name of their own, whole and durable, and let the oldest archives go.

    To be called with the :func:`journal` locked.

    Raises:
        OSError: it cannot be written.
    """
    folder = state_dir / ARCHIVES
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        set_aside(folder, "set-aside")
    make_folder(folder)
    draft = folder / ".planner_digests.draft"
    packed = gzip.compress(b"".join(map(_line, digests[-KEPT_DIGESTS:])), mtime=int(now.timestamp()))
    replace_file(draft, packed, durable=True)
    path = _free_name(folder, now)
    draft.rename(path)
    sync_folder(folder)
    for outdated in archives(folder)[:-KEPT_ARCHIVES]:
        if outdated != path:
            outdated.unlink(missing_ok=True)
    return path


def _free_name(folder: Path, now: datetime) -> Path:
    stem = f"planner_digests_{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    names = (folder / (stem + (f"-{turn}" if turn > 1 else "") + ".jsonl.gz") for turn in count(1))
    return next(path for path in names if not os.path.lexists(path))


def write_plan(sandbox: Path, name: str, text: str) -> Path:
    """Replace the plan in the sandbox; the sandbox must be a real folder, so that nothing is written elsewhere.

    Raises:
        ConfigError: the sandbox is a link or no folder.
        OSError: it cannot be written.
    """
    if sandbox.is_symlink() or (sandbox.exists() and not sandbox.is_dir()):
        raise ConfigError(f"the sandbox {sandbox} is no folder of its own: remove it, or name another with --sandbox")
    make_folder(sandbox)
    replace_file(sandbox / name, text.encode(errors="replace"))
    return sandbox / name


def write_control(path: Path, payload: Mapping[str, Any]) -> None:
    """Leave the control payload where the loop looks for it.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, _line(payload))
    finally:
        os.close(descriptor)
