"""Trees in tests: how one looks in all that matters, and programs that work on one in processes of their own."""

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from run_cycle_loop.kit import beneath

_MARK_AND_MORE = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.records import CycleSpec
from run_cycle_loop.runners import sandbox
from run_cycle_loop.stores.work_tree import Caps, MeasuredTree

root, state = map(Path, sys.argv[1:3])
spec = CycleSpec(cycle_id="cycle-1", number=1, index=1, mode="", goal="", started_at=datetime.now(UTC), timeout=None,
                 idle_timeout=None, grace=1.0, control_file="", log_path=None)
tree = MeasuredTree(root, state, mode=GuardMode.ENFORCE, caps=Caps(files=0), clock=SystemClock())
def say(verdict):
    print(verdict and verdict.finding and verdict.finding.detail)
try:
    exec(sys.argv[3])
except RunnerError as error:
    print(f"RunnerError: {error}")
"""


def clear(folder: Path) -> None:
    """Remove a tree that may be too deep for those who clean up after tests."""
    descriptor = os.open(folder, os.O_RDONLY)
    beneath.empty(descriptor)
    os.close(descriptor)


def program(root: Path, state: Path, text: str) -> list[str]:
    """A command that works on a tree with ``tree``, ``spec``, ``say`` and ``sandbox``."""
    return [sys.executable, "-B", "-c", _MARK_AND_MORE, str(root), str(state), text]


def said(command: Sequence[str]) -> str:
    """What such a command prints; it must exit 0."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder that can be put back: types, modes, owners, times, links, contents."""
    found: dict[str, tuple[object, ...]] = {}
    for base, folders, files in os.walk(root):
        for name in (".", *folders, *files):
            path = Path(base, name)
            status = path.lstat()
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = path.readlink()
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            found[os.path.relpath(path, root)] = (
                status.st_mode, size, status.st_mtime_ns, status.st_uid, status.st_gid, content
            )  # fmt: skip
    return found
