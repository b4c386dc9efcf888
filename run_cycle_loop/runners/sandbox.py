"""The sandbox emptied between cycles, and nothing beside it: no link is followed, no mount point entered."""

import os
from pathlib import Path

from run_cycle_loop.kit import beneath
from run_cycle_loop.model.errors import RunnerError


def reset(sandbox: Path) -> None:
    """Remove everything in ``sandbox``; the folder itself stays, and is made where it is missing.

    Raises:
        RunnerError: it is a link, a mount point, or holds the working directory; or something in it cannot be removed.
    """
    try:
        sandbox.mkdir(mode=0o700, parents=True, exist_ok=True)
        if Path.cwd().resolve().is_relative_to(sandbox.resolve()):
            raise RunnerError(f"sandbox {sandbox} holds the working directory; name another --sandbox-dir")
        parent = os.open(sandbox.absolute().parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            descriptor = _open(sandbox, parent)
        finally:
            os.close(parent)
    except OSError as error:
        detail = error.strerror or error
        raise RunnerError(f"sandbox {sandbox} cannot be reset: {detail}; it must be a folder of its own") from error
    try:
        beneath.empty(descriptor)
    except OSError as error:
        detail = error.strerror or error
        raise RunnerError(
            f"sandbox {sandbox} cannot be emptied: {detail} ({error.filename!r}); remove it yourself"
        ) from error
    finally:
        os.close(descriptor)


def _open(sandbox: Path, parent: int) -> int:
    """The sandbox, with all rights for its owner: a cycle may have taken them away."""
    try:
        descriptor = os.open(sandbox, beneath.FOLDER)
    except PermissionError:
        descriptor, _ = beneath.open_barred(parent, sandbox.name, beneath.mount_id(parent), beneath.FOLDER)
    try:
        # By the mount, not by the device: a bind mount of the same file system is a mount point too.
        own = beneath.mount_id(descriptor) == beneath.mount_id(parent)
    except OSError:
        os.close(descriptor)
        raise
    if own:
        return descriptor
    os.close(descriptor)
    raise RunnerError(f"sandbox {sandbox} is a mount point and is not emptied; unmount it, or reset it yourself")
