"""A network of a test of its own with nothing in it but this machine: what agents tell their makers goes nowhere."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


@contextmanager
def loopback_alone() -> Iterator[None]:
    """Put this thread, and what it starts meanwhile, into a fresh network namespace; it needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(libc.unshare(_CLONE_NEWNET))
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
                fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
            yield
        finally:
            _check(libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


def _check(result: int) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, f"a network of its own cannot be had, which takes root: {os.strerror(error)}")
