"""A folder watched for names that appear in it (inotify(7)); where the kernel refuses, there is simply no watch."""

import ctypes
import os
from pathlib import Path

_CREATE, _MOVED_TO = 0x100, 0x80
_READ = 1 << 14


def watch_folder(path: Path) -> int | None:
    """A descriptor that turns readable when a name appears in ``path``; None where it cannot be watched.

    It is a hint to look sooner, never the only way to notice: network file systems send no events.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(path), _CREATE | _MOVED_TO) < 0:
        os.close(descriptor)
        return None
    return descriptor


def drain(descriptor: int) -> bool:
    """Take all waiting events; whether there were any."""
    seen = False
    try:
        while os.read(descriptor, _READ):
            seen = True
    except BlockingIOError:
        pass
    return seen
