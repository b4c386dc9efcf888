"""A file system whose server stops answering: the kernel then holds whoever looks at it, as a dead NFS server does."""

import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOKUP, _FORGET, _GETATTR, _INIT = 1, 2, 3, 26
_HEADER = struct.Struct("<IIQQIIIHH")
_REPLY = struct.Struct("<IiQ")
_ROOT_ATTRIBUTES = struct.pack("<QII", 0, 0, 0) + struct.pack(
    "<QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0
)
_ENOENT, _ENOSYS = 2, 38


@contextmanager
def hung_mount(path: Path) -> Iterator[Callable[[], None]]:
    """Mount an empty folder; what is yielded makes it answer no more. Needs root."""
    path.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40755,user_id=0,group_id=0"
    if libc.mount(b"hung", os.fsencode(path), b"fuse", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    hung = threading.Event()
    server = threading.Thread(target=_serve, args=(device, hung), daemon=True)
    server.start()

    def hang() -> None:
        hung.set()
        server.join()  # it reads nothing more: what was never read can still be killed, and a test must not be stuck

    try:
        yield hang
    finally:
        hung.set()
        libc.umount2(os.fsencode(path), 3)  # MNT_FORCE | MNT_DETACH: whoever waits gets an error
        server.join(5)
        os.close(device)


def _serve(device: int, hung: threading.Event) -> None:
    poll = select.poll()
    poll.register(device, select.POLLIN)
    while not hung.is_set():
        if not poll.poll(10):
            continue
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return  # unmounted
        _, opcode, unique, _, _, _, _, _, _ = _HEADER.unpack_from(request)
        if opcode == _FORGET:
            continue
        error, body = _answer(opcode)
        try:
            os.write(device, _REPLY.pack(_REPLY.size + len(body), -error, unique) + body)
        except OSError:
            continue  # whoever asked has given up


def _answer(opcode: int) -> tuple[int, bytes]:
    if opcode == _INIT:
        return 0, struct.pack("<IIIIHHIIHHI", 7, 31, 65536, 0, 12, 9, 65536, 1, 16, 0, 0) + b"\0" * 28
    if opcode == _GETATTR:
        return 0, _ROOT_ATTRIBUTES
    return (_ENOENT if opcode == _LOOKUP else _ENOSYS), b""
