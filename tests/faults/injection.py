"""Faults at system calls, by strace: where the product touches its files, and a run that dies or fails right there."""

import re
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.lab import Lab, Loop

#: Every call that changes files, or says that they are safe. Before a ``close``, or an opening for reading, the disk is
#: as it is before the call that follows.
TOUCHING = ("openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "mkdir")
_CALL = re.compile(r"^(\d+) +([a-z0-9_]+)\((.*)$")
_OURS = re.compile(r'(?:"|<[^>]*/)(?:state|logs)[/">]')


@dataclass(frozen=True)
class Point:
    """The n-th call of one kind in the supervisor's own thread."""

    call: str
    nth: int
    what: str = ""

    def __str__(self) -> str:
        return f"{self.call} {self.nth} ({self.what})"


def _strace(output: Path | str, *options: str) -> list[str]:
    return ["strace", "-f", "-qq", "-o", str(output), *options]


def trace(lab: Lab, calls: Sequence[str], *options: str, cycle: Sequence[str | Path] = ("true",)) -> list[str]:
    """The supervisor's own calls in a run that nothing disturbs, with the paths behind its descriptors."""
    output = lab.root / "trace"
    loop = lab.run(
        *options, cycle=cycle, prefix=_strace(output, "--seccomp-bpf", "-y", "-e", f"trace={','.join(calls)}")
    )
    assert loop.code == 0, loop.stderr
    lines = output.read_text(errors="replace").splitlines()
    first = lines[0].split()[0]
    return [line for line in lines if line.split()[0] == first]


def points(lines: Sequence[str]) -> list[Point]:
    """The calls of a trace that concern the state and log directories."""
    seen: Counter[str] = Counter()
    found = []
    for line in lines:
        if match := _CALL.match(line):
            call, arguments = match[2], match[3]
            seen[call] += 1
            if _OURS.search(arguments) and (call != "openat" or "O_CREAT" in arguments):
                found.append(Point(call, seen[call], arguments[:80]))
    return found


def dying_at(lab: Lab, point: Point, *options: str, cycle: Sequence[str | Path] = ("true",)) -> Loop:
    """A run that is killed as it enters that call; ``killed`` says whether it came so far."""
    loop = lab.run(*options, cycle=cycle, prefix=_inject(point.call, f"signal=KILL:when={point.nth}"))
    loop.killed = loop.code in {-signal.SIGKILL, 128 + signal.SIGKILL}
    return loop


def failing(
    lab: Lab, call: str, fault: str, *options: str, cycle: Sequence[str | Path] = ("true",), only: str | None = None
) -> Loop:
    """A run in which calls fail, ``fault`` as in ``error=EIO:when=2``; ``only`` on one path."""
    paths = ("-P", only) if only else ()
    return lab.run(*options, cycle=cycle, prefix=_inject(call, fault, "--seccomp-bpf", *paths))


def _inject(call: str, fault: str, *options: str) -> list[str]:
    # No --seccomp-bpf with signals: strace 6.1 then never sends them.
    return _strace("/dev/null", *options, "-e", f"trace={call}", "-e", f"inject={call}:{fault}")
