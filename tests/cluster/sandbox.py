"""A process that sees this machine with some folders and files mounted where a manifest wants them, by bubblewrap.

The process is the first one of its own process namespace: when it ends, whatever it started ends with it, and signals
that it does not handle do not reach it, both as in a container. The network, the users and the rest of the files are
those of the machine.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

_OWN = ("/proc", "/dev")  #: bubblewrap makes these itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """Where something of this machine is to be seen."""

    source: Path
    target: str  #: an absolute path
    read_only: bool = False


class Sandboxed:
    """The running process; ``output`` is its standard output and error, one stream."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        mounts: Sequence[Mount],
        hostname: str,
        folder: str,
    ) -> None:
        reading, writing = os.pipe()
        options = ["--die-with-parent", "--unshare-pid", "--as-pid-1", "--unshare-uts", "--hostname", hostname]
        options += ["--info-fd", str(writing), *_view(mounts), "--chdir", folder]
        try:
            self._process = subprocess.Popen(
                ["bwrap", *options, "--", *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        with os.fdopen(reading, "rb") as info:
            said = info.read()
        self._pid = int(json.loads(said)["child-pid"]) if said else 0  # 0: bubblewrap itself failed, and says why

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def read(self) -> bytes:
        """What it writes next; empty when nobody is left to write."""
        assert self._process.stdout is not None
        return os.read(self._process.stdout.fileno(), 65536)

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, 128 and more for signals; None: it still runs."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        if self._process.poll() is None and self._pid:
            try:
                os.kill(self._pid, number)
            except ProcessLookupError:
                return


def _view(mounts: Sequence[Mount]) -> list[str]:
    """The machine as it is, and the mounts on it, the outer ones first.

    Where a mount point does not exist on the machine, the deepest folder above it that does is shown as a fresh one
    with the same entries, so that the point can be made without a trace on the machine.
    """
    ordered = sorted(mounts, key=lambda mount: len(PurePosixPath(mount.target).parts))
    options = _fresh(Path("/"))
    made = {Path("/")}
    for mount in ordered:
        target = Path(os.path.realpath(mount.target))
        base = target
        while not os.path.exists(base):  # noqa: PTH110 - false where one may not look, which Path.exists raises for
            base = base.parent
        if base != target and base not in made and not any(_is_below(base, Path(other.target)) for other in ordered):
            options += _fresh(base)
            made.add(base)
        options += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), str(target)]
    return options


def _fresh(folder: Path) -> list[str]:
    """What this user may not list is shown empty."""
    options = ["--tmpfs", str(folder)]
    entries = sorted(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
    for entry in entries:
        if str(entry) in _OWN:
            options += [f"--{entry.name}", str(entry)]
        elif entry.is_symlink():
            options += ["--symlink", str(entry.readlink()), str(entry)]
        else:
            options += ["--dev-bind", str(entry), str(entry)]
    return options


def _is_below(path: Path, other: Path) -> bool:
    return path == other or other in path.parents
