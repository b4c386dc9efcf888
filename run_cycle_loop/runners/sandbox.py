"""The sandbox emptied between cycles, and nothing beside it: no link is followed, no mount point entered."""

import os
import stat
from pathlib import Path

from run_cycle_loop.model.errors import RunnerError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def reset(sandbox: Path) -> None:
    """Remove everything in ``sandbox``; the folder itself stays, and is made where it is missing.

    Raises:
        RunnerError: it is a link, another file system, or holds the working directory; or something in it cannot be
            removed.
    """
    try:
        sandbox.mkdir(mode=0o700, parents=True, exist_ok=True)
        if Path.cwd().resolve().is_relative_to(sandbox.resolve()):
            raise RunnerError(f"sandbox {sandbox} holds the working directory; name another --sandbox-dir")
        parent = os.stat(sandbox.absolute().parent)  # noqa: PTH116 - beside fstat below, which has no Path form
        descriptor = os.open(sandbox, _FOLDER)
    except OSError as error:
        detail = error.strerror or error
        raise RunnerError(f"sandbox {sandbox} cannot be reset: {detail}; it must be a folder of its own") from error
    try:
        device = os.fstat(descriptor).st_dev
        if device != parent.st_dev:
            raise RunnerError(
                f"sandbox {sandbox} is a mount point and is not emptied; unmount it, or reset it yourself"
            )
        _empty(descriptor, device)
    except OSError as error:
        detail = error.strerror or error
        raise RunnerError(
            f"sandbox {sandbox} cannot be emptied: {detail} ({error.filename!r}); remove it yourself"
        ) from error
    finally:
        os.close(descriptor)


def _empty(folder: int, device: int) -> None:
    """Remove what an open folder holds; every name is looked at through that descriptor, so no swap leads outside."""
    for name in os.listdir(folder):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=folder)
            continue
        inner = os.open(name, _FOLDER, dir_fd=folder)
        try:
            if os.fstat(inner).st_dev != device:
                raise OSError(None, "a mount point stands in it", name)
            os.fchmod(inner, 0o700)  # a folder that was made unreadable must not keep its content
            _empty(inner, device)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=folder)
