"""What the kernel says of processes, read from ``/proc``: identities that never name a stranger, and kinship."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid with its start time in clock ticks after boot: unique until the machine restarts."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Stat:
    """The fields of ``/proc/PID/stat`` that kinship needs."""

    id: ProcessId
    state: str  #: one letter; Z is a zombie, D an uninterruptible sleep
    parent: int
    group: int
    session: int

    @property
    def is_zombie(self) -> bool:
        """Whether only its exit status is left of it."""
        return self.state in {"Z", "X"}


@cache
def boot_id() -> str:
    """The kernel's name for this boot."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


def stat(pid: int) -> Stat | None:
    """What the kernel says of ``pid``, or None where there is no such process (or it may not be seen)."""
    try:
        line = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The command's name may hold spaces and parentheses: the fields begin behind the last one.
    rest = line[line.rindex(b")") + 2 :].split()
    parent, group, session = map(int, rest[1:4])
    return Stat(id=ProcessId(pid, int(rest[19])), state=chr(rest[0][0]), parent=parent, group=group, session=session)


def _read(path: str) -> bytes:
    """A small file of ``/proc``, with as few system calls as can be: this is the hot path of a kill."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while chunk := os.read(descriptor, 1 << 16):
            data += chunk
        return data
    finally:
        os.close(descriptor)


def identify(pid: int) -> ProcessId | None:
    """The identity of a process that is alive."""
    found = stat(pid)
    return None if found is None or found.is_zombie else found.id


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs."""
    return identify(process.pid) == process


def every() -> Iterator[Stat]:
    """All the processes that can be seen."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - names, not paths: this runs over every process
        if name.isdigit() and (found := stat(int(name))) is not None:
            yield found


def children(pid: int) -> list[int]:
    """The direct children of ``pid``, zombies included."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    except FileNotFoundError:
        if _children_files_exist():
            return found  # the process ended meanwhile
        return [other.id.pid for other in every() if other.parent == pid]
    except OSError:
        return found
    return found


@cache
def _children_files_exist() -> bool:
    """Whether this kernel lists children (CONFIG_PROC_CHILDREN)."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def environment(pid: int) -> list[bytes]:
    """The variables that a process was started with, as ``NAME=value``; empty where they may not be read."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def pipe_inodes(pid: int) -> set[int]:
    """The pipes that a process holds open; empty where that may not be read."""
    inodes: set[int] = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except OSError:
        return inodes
    for name in names:
        with contextlib.suppress(OSError):  # one that was closed meanwhile says nothing of the others
            target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
            if target.startswith("pipe:["):
                inodes.add(int(target[6:-1]))
    return inodes
