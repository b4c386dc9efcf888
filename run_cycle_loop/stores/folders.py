"""The folders that hold state: made for this user alone, refused where somebody else could forge what is in them."""

import fcntl
import os
import stat
from pathlib import Path

from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, StateError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def secure(path: Path) -> None:
    """Make the folder where it is missing, and take write access from group and others.

    Raises:
        ConfigError: others can write there, and it is not ours to change.
        StateError: it cannot be made.
    """
    try:
        files.make_folder(path)
        found = path.stat()
    except OSError as error:
        raise StateError(
            f"folder {path} cannot be made: {error.strerror or error}; mend its parent, or name another"
        ) from error
    if not found.st_mode & _OTHERS_WRITE:
        return
    if found.st_uid != os.geteuid():
        if found.st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"folder {path} can be written by everybody and belongs to uid {found.st_uid}; "
                "chmod go-w it, or name another"
            )
        return  # a group that its owner chose
    try:
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS_WRITE)
    except OSError as error:
        raise StateError(
            f"folder {path} cannot be closed to others: {error.strerror or error}; chmod go-w it"
        ) from error


def claim(path: Path) -> int:
    """Keep a folder of logs for this loop: two would join each other's logs and overwrite each other's ``latest.json``.

    Returns the descriptor that holds it, until it is closed or the process ends.

    Raises:
        AlreadyRunning: another loop has claimed it.
        StateError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(f"folder {path} cannot be opened: {error.strerror or error}; chmod u+rwx it") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunning(f"another loop keeps its logs in {path}; stop it, or choose another --log-dir") from None
    except OSError:
        pass  # a network file system without locks on folders: the instance lock has to do
    return descriptor
