"""The steps of the scripted agent: what a script may hold, and how each step is carried out, in the working directory
and nowhere else.
"""

import json
import math
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from run_cycle_loop.kit.files import write_all

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1 << 20  #: bytes
_LONGEST = 86400.0  #: seconds of one wait
_MOST = 1 << 40  #: bytes of one file, times of one repetition

Step = Mapping[str, Any]

#: Every kind of step, and what it is described by.
KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("write", "append", "delete", "mkdir", "symlink", "print", "final", "class"), str),
    **dict.fromkeys(("wait", "child"), (int, float)),
    "usage": dict,
    "exit": int,
    "ignore_term": bool,
}
TOOLS = frozenset({"write", "append", "delete", "mkdir", "symlink", "child"})


def parse_script(text: str) -> list[list[Step]]:
    """The blocks of a script, one for a file without ``{"cycle": n}`` lines.

    Raises:
        ValueError: a line is no step; the sentence names the line.
    """
    blocks: list[list[Step]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        step = _parsed(line, number)
        if set(step) == {"cycle"}:
            if step["cycle"] != len(blocks) + 1:
                raise ValueError(f'line {number}: the blocks are {{"cycle": 1}}, {{"cycle": 2}} and so on')
            blocks.append([])
            continue
        if not blocks:
            blocks.append([])
        blocks[-1].append(step)
    return blocks or [[]]


def _parsed(line: str, number: int) -> Step:
    try:
        step = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number} is no JSON ({error})") from None
    if not isinstance(step, dict) or (set(step) != {"cycle"} and kind_of(step) is None):
        raise ValueError(f"line {number} is no step; a step is one of {', '.join(KINDS)}")
    return step


def kind_of(step: Step) -> str | None:
    """What a step does; None where it is none, or described by the wrong kind of value."""
    found = [kind for kind in KINDS if kind in step]
    if len(found) != 1 or not isinstance(step[found[0]], KINDS[found[0]]):
        return None
    return found[0]


def replay(
    steps: Sequence[Step], tell: Callable[[Mapping[str, Any]], None], *, root: int, reads_only: bool = False
) -> int:
    """Carry out the steps in the open folder ``root``, telling each as an event; returns the exit code."""
    for step in steps:
        kind = kind_of(step) or ""
        if kind == "exit":
            return int(step["exit"])
        if kind in TOOLS:
            tell(
                {
                    "event": "tool",
                    "name": kind,
                    "path": str(step[kind])[:500],
                    **_used(kind, step, None if reads_only else root),
                }
            )
        elif kind == "print":
            _print(step)
        elif kind == "wait":
            time.sleep(_seconds(step["wait"]))
        elif kind == "ignore_term":
            signal.signal(signal.SIGTERM, signal.SIG_IGN if step["ignore_term"] else signal.SIG_DFL)
        else:
            tell({"event": kind, **({"text": step["final"]} if kind == "final" else {"told": step})})
    return 0


def _used(kind: str, step: Step, root: int | None) -> dict[str, Any]:
    if root is None:
        return {"ok": False, "error": "the role is read-only"}
    try:
        _TOOLS[kind](step, root)
    except (OSError, ValueError) as error:
        return {"ok": False, "error": getattr(error, "strerror", None) or str(error)}
    return {"ok": True}


def _print(step: Step) -> None:
    stream = sys.stderr if step.get("stream") == "stderr" else sys.stdout
    stream.flush()
    for block in _content(step, str(step["print"])):
        write_all(stream.fileno(), block)


def _seconds(value: float) -> float:
    return min(max(float(value), 0.0), _LONGEST) if math.isfinite(value) else _LONGEST


def _content(step: Step, text: str) -> Iterator[bytes]:
    """The text, so often as it is to be repeated, or so many bytes, by the block."""
    size = step.get("bytes")
    piece = b"." if size is not None else text.encode("utf-8", "surrogatepass")
    left = _counted(step["bytes" if size is not None else "repeat"]) if size is not None or "repeat" in step else 1
    at_once = max(1, _BLOCK // max(1, len(piece)))
    while left > 0 and piece:
        yield piece * min(left, at_once)
        left -= at_once


def _counted(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError(f"{value!r:.80} is no count")
    return value


# Files: every folder on the way is opened through the one before it, so that no link leads out of the workdir.


def _within(path: str, root: int, *, make: bool = False) -> tuple[int, str]:
    """The open folder in which a path of ours ends, and its last part."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or ".." in parts or not parts:
        raise ValueError("it is not inside the workdir")
    folder = os.dup(root)
    for part in parts[:-1]:
        try:
            inner = _entered(part, folder, make=make)
        finally:
            os.close(folder)
        folder = inner
    return folder, parts[-1]


def _entered(part: str, folder: int, *, make: bool) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
        os.mkdir(part, dir_fd=folder)
        return os.open(part, _FOLDER, dir_fd=folder)


def _fill(step: Step, root: int, *, path: str, flags: int) -> None:
    folder, name = _within(path, root, make=True)
    try:
        descriptor = os.open(name, _FILE | os.O_CREAT | flags, 0o666, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise ValueError("it is no file of its own")
        if not flags & os.O_APPEND:
            os.ftruncate(descriptor, 0)
        for block in _content(step, str(step.get("text", ""))):
            write_all(descriptor, block)
    finally:
        os.close(descriptor)


def _write(step: Step, root: int) -> None:
    _fill(step, root, path=step["write"], flags=0)


def _append(step: Step, root: int) -> None:
    _fill(step, root, path=step["append"], flags=os.O_APPEND)


def _delete(step: Step, root: int) -> None:
    folder, name = _within(step["delete"], root)
    try:
        is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        (os.rmdir if is_folder else os.unlink)(name, dir_fd=folder)
    finally:
        os.close(folder)


def _mkdir(step: Step, root: int) -> None:
    folder, name = _within(step["mkdir"], root, make=True)
    try:
        os.mkdir(name, dir_fd=folder)
    finally:
        os.close(folder)


def _symlink(step: Step, root: int) -> None:
    """Plant a link; where it leads is anybody's guess, and nothing is written through it."""
    folder, name = _within(step["symlink"], root, make=True)
    try:
        os.symlink(str(step.get("to", "")), name, dir_fd=folder)
    finally:
        os.close(folder)


def _child(step: Step, _root: int) -> None:
    """Leave a process behind in a session of its own."""
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    argv = ["sleep", f"{_seconds(step['child']):.3f}"]
    os.posix_spawnp("sleep", argv, os.environ, file_actions=quiet, setsid=True, setsigdef=[signal.SIGTERM])


_TOOLS: Mapping[str, Callable[[Step, int], None]] = {
    "write": _write,
    "append": _append,
    "delete": _delete,
    "mkdir": _mkdir,
    "symlink": _symlink,
    "child": _child,
}
