"""The control file of a loop: taken away before each attempt, so that only what that attempt wrote is read after it."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath

from run_cycle_loop.agentrun.lifecycle import control
from run_cycle_loop.agentrun.lifecycle.control import MISSING, Control
from run_cycle_loop.agentrun.local import mounts as places
from run_cycle_loop.agentrun.local.mounts import Mount
from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import RunnerError

LIMIT = 256 << 10  #: bytes; so much goes into an annotation, too
ANNOTATION = "loop-control.annotation.json"  #: in ``.agent``, what stands for the annotation of the Job
PREVIOUS = "previous-control.json"

_SKEW = 2.0  #: seconds by which a file's time may lie before the attempt's start: its clock ticks more coarsely
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def take_away(path: str, mounts: Sequence[Mount], folder: Path) -> Path | None:
    """Move what stands at the control path into the attempt's folder; returns where it is kept, None where nothing was.

    Raises:
        RunnerError: it cannot be moved: the attempt's own file could not be told from it.
    """
    mount = places.mount_of(path, mounts)
    if mount is None:
        return None
    kept = files.free_name(folder / PREVIOUS, "of-earlier-try") if (folder / PREVIOUS).exists() else folder / PREVIOUS
    try:
        with _parent(path, mount) as (parent, name):
            _move(parent, name, kept)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunnerError(
            f"the control file {path} of an earlier attempt cannot be moved away: {error.strerror or error}; remove it"
        ) from error
    return kept


def _move(parent: int, name: str, kept: Path) -> None:
    """Move what has that name away; from another file system, where a claim may lie, by way of a copy."""
    try:
        os.rename(name, kept, src_dir_fd=parent)
    except OSError as error:
        if error.errno != errno.EXDEV:  # which the kernel says before it looks whether anything is there
            raise
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            raise
        if stat.S_ISREG(found.st_mode):
            descriptor = os.open(name, _FILE, dir_fd=parent)
            with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
                files.replace_file(kept, file.read(LIMIT + 1))
        os.unlink(name, dir_fd=parent)


def read(path: str, mounts: Sequence[Mount], started_at: datetime) -> Control:
    """What the attempt that began then left at the control path."""
    mount = places.mount_of(path, mounts)
    if mount is None:
        return MISSING
    try:
        with _parent(path, mount) as (parent, name):
            return _read(parent, name, path, started_at)
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return Control(fault=f"loop control file {path} cannot be read: {error.strerror or error}")


def read_annotation(folder: Path, path: str) -> Control:
    """The same from the file that stands for the Job's annotation, in the attempt's ``.agent`` folder."""
    try:
        text = files.read_bounded(folder / ".agent" / ANNOTATION, LIMIT).decode()
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError) as error:
        return Control(fault=f"invalid loop control annotation JSON: {error}")
    return control.from_annotation(text, path)


def _read(parent: int, name: str, path: str, started_at: datetime) -> Control:
    descriptor = os.open(name, _FILE, dir_fd=parent)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return Control(fault=f"loop control file {path} is no regular file")
        if found.st_mtime < started_at.timestamp() - _SKEW:
            return MISSING  # brought back from before
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        return Control(fault=f"loop control file {path} is larger than {LIMIT} bytes")
    try:
        return control.from_file(data.decode(), path)
    except UnicodeDecodeError as error:
        return Control(fault=f"invalid loop control JSON in {path}: {error}")


@contextlib.contextmanager
def _parent(path: str, mount: Mount) -> Iterator[tuple[int, str]]:
    """The folder of a container's path, reached from its mount without a link: an agent could have put one there.

    Raises:
        OSError: it is not there, or a link stands on the way.
    """
    parts = PurePosixPath(places.normal(path)).relative_to(mount.path).parts
    if not parts:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    descriptor = os.open(mount.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor, parts[-1]
    finally:
        os.close(descriptor)
