"""What an agent can see and write: with bubblewrap its workdir and its own folders, and nothing of the loop's records.

The network stays, and so does everything that can be read. What is asked of whom outside (a socket in the abstract
name space, a far end) is beyond reach; what stands under ``/run`` is not there.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from run_cycle_loop.kit.files import make_folder
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.kit.processes import LaunchError, Limits, locate, supervise
from run_cycle_loop.model.enums import Role
from run_cycle_loop.model.errors import ConfigError

WAYS = ("auto", "bwrap", "none")

_PROBE = Limits(timeout=5.0, grace=0.5)
_SHOWN = 200
_MOST_LINKS = 40  #: on one way; the kernel's own bound
#: Ours alone inside: scratch space of others, and the sockets of daemons that would do something for whoever asks.
_PRIVATE = (Path("/tmp"), Path("/var/tmp"), Path("/run"))  # noqa: S108 - they are replaced, not written to
#: Of ``/run``, what names are resolved with and where programs may stand.
_KEPT_OF_RUN = ("systemd/resolve", "resolvconf", "NetworkManager", "connman", "nscd", "current-system", "opengl-driver")
_SYSTEM = (
    *("--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    # As root, even without capabilities, the kernel's settings could be written: a way out (core_pattern).
    *("--ro-bind-try", "/proc/sys", "/proc/sys", "--ro-bind-try", "/proc/sysrq-trigger", "/proc/sysrq-trigger"),
    *("--setenv", "TMPDIR", "/tmp"),  # noqa: S108 - one of its own
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Isolation:
    """How an agent is kept to its own."""

    wanted: str  #: one of :data:`WAYS`
    program: str | None  #: bubblewrap; None: the agent is not isolated
    detail: str  #: one sentence, for the operator
    hidden: tuple[Path, ...] = ()  #: files and folders that the agent must neither see nor touch

    @property
    def used(self) -> str:
        """``bwrap`` or ``none``."""
        return "none" if self.program is None else "bwrap"

    @property
    def ok(self) -> bool:
        """Whether the operator got what was asked for."""
        return self.program is not None or self.wanted == "none"

    def wrap(
        self, argv: Sequence[str], *, workdir: Path, role: Role, writes: Sequence[Path], reads: Sequence[Path]
    ) -> tuple[str, ...]:
        """The argument vector that runs ``argv`` in ``workdir``, isolated or not.

        Args:
            argv: what is to run.
            workdir: writable, except for a reader.
            role: what the agent may do to it.
            writes: further files and folders that it writes; folders that are missing are made.
            reads: files and folders that it must see wherever they stand; missing ones are left out.

        Raises:
            ConfigError: the workdir and what is to be hidden from it cannot be told apart.
            OSError: a folder cannot be made.
        """
        if self.program is None:
            # The shell is there for the working directory alone, and goes.
            return ("/bin/sh", "-c", 'cd -- "$1" && shift && exec "$@"', "sh", os.fspath(workdir), *argv)
        for folder in writes:
            if not os.path.lexists(folder):
                make_folder(folder)
        view = _View(workdir=workdir, role=role, writes=writes, reads=reads, hidden=self.hidden)
        chdir = ("--chdir", os.path.realpath(workdir))
        return (self.program, *_SYSTEM, *view.arguments(), *chdir, "--", *argv)


def choose(wanted: str, env: Mapping[str, str], *, hidden: Sequence[Path]) -> Isolation:
    """Isolation as it is wanted, and as this machine can give it; bubblewrap is tried, five seconds at most.

    Raises:
        ConfigError: it is demanded and does not work.
    """
    if wanted == "none":
        return Isolation(wanted=wanted, program=None, detail="the agent is not isolated, as --isolate none asks")
    program, trouble = _probe(env)
    if program is not None:
        detail = "the agent is isolated with bubblewrap: it can write to its workdir and to its own folders alone"
        return Isolation(wanted=wanted, program=program, detail=detail, hidden=tuple(hidden))
    if wanted == "bwrap":
        raise ConfigError(f"--isolate bwrap cannot be met: {trouble}; see to that, or choose auto or none")
    detail = f"the agent is not isolated, since {trouble}: it can change whatever this user can"
    return Isolation(wanted=wanted, program=None, detail=detail)


def _probe(env: Mapping[str, str]) -> tuple[str | None, str]:
    """Bubblewrap where it works, else why it does not."""
    told = bytearray()

    def listen(stream: str, chunk: memoryview) -> None:
        if stream == "stderr" and len(told) < _SHOWN:
            told.extend(chunk[:_SHOWN])

    try:
        program = locate(("bwrap",), env)
        ended = supervise((program, *_SYSTEM, "--", "/bin/sh", "-c", ":"), env, limits=_PROBE, output=listen)
    except LaunchError:
        return None, "bubblewrap (bwrap) is not installed"
    if ended.exit_code == 0:
        return program, ""
    reason = printable(told.decode(errors="replace").strip().partition("\n")[0])[:_SHOWN]
    return None, f"bubblewrap does not work here ({reason or 'it was ended after five seconds'})"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mount:
    arguments: tuple[str, ...]
    writable: bool = False


class _View:
    """The mounts of one session: the deeper path decides, and of two that are the same the one that takes more away."""

    def __init__(
        self, *, workdir: Path, role: Role, writes: Sequence[Path], reads: Sequence[Path], hidden: Sequence[Path]
    ) -> None:
        self._mounts: dict[Path, _Mount] = {}
        self._emptied: list[Path] = []
        for place in _PRIVATE:
            if place.is_dir() and not place.is_symlink():
                self._mounts[place] = _Mount(arguments=("--perms", "1777", "--tmpfs", str(place)))
        for name in _KEPT_OF_RUN:
            self._bind("--ro-bind-try", Path("/run") / name)
        for path in reads:
            self._show(_real(path))
        for path in writes:
            self._bind("--bind-try", _real(path))
        root = _real(workdir)
        self._bind("--ro-bind" if role is Role.READ_ONLY else "--bind", root)
        for path in sorted(hidden, key=lambda path: len(_real(path).parts)):
            self._hide(path, root)
        self._fence()

    def arguments(self) -> Iterator[str]:
        """Parents before what is below them; what was emptied becomes read-only once everything in it has its place."""
        for path in sorted(self._mounts, key=lambda path: len(path.parts)):
            yield from self._mounts[path].arguments
        for path in self._emptied:
            yield from ("--remount-ro", str(path))

    def _bind(self, how: str, path: Path) -> None:
        self._mounts[path] = _Mount(arguments=(how, str(path), str(path)), writable=not how.startswith("--ro-"))

    def _show(self, path: Path) -> None:
        """Only what a private place would cover: the rest is there anyway."""
        if path.exists() and any(path != place and path.is_relative_to(place) for place in _PRIVATE):
            self._bind("--ro-bind", path)

    def _hide(self, path: Path, workdir: Path) -> None:
        for link in _links_on_the_way(path):
            if self._is_writable(link):
                raise ConfigError(
                    f"{path} is reached by the link {link}, which the agent could replace: name {_real(path)} itself"
                )
        real = _real(path)
        if real == workdir:
            raise ConfigError(f"the workdir {workdir} is where the loop keeps its own records: name another --workdir")
        around = self._around(real)
        if around in self._emptied or around in _PRIVATE:
            return  # it is not in view
        try:
            mode = real.stat().st_mode
        except OSError:
            return  # what is not there needs no cover, and a cover would make it
        if stat.S_ISDIR(mode):
            self._mounts[real] = _Mount(arguments=("--tmpfs", str(real)))
            self._emptied.append(real)
        else:
            self._mounts[real] = _Mount(arguments=("--ro-bind", os.devnull, str(real)))

    def _fence(self) -> None:
        """Mount the folders between a writable place and what is hidden in it on themselves: a mount point stays where
        it is, while a plain folder could be moved away with all that is hidden in it.
        """
        hidden = [path for path, mount in self._mounts.items() if not mount.writable]
        for path in hidden:
            for parent in path.parents:
                if parent in self._mounts or not self._is_writable(parent):
                    break
                self._bind("--bind", parent)

    def _is_writable(self, path: Path) -> bool:
        """Whether the agent could change what stands at a path."""
        around = self._around(path)
        return around is not None and self._mounts[around].writable

    def _around(self, path: Path) -> Path | None:
        """The nearest mount in which a path lies; None for the system's own root."""
        return next((place for place in (path, *path.parents) if place in self._mounts), None)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _links_on_the_way(path: Path, seen: int = 0) -> Iterator[Path]:
    """Where each link stands that is followed on the way to a path."""
    for prefix in (*reversed(path.absolute().parents), path.absolute()):
        place = _real(prefix.parent) / prefix.name
        if seen < _MOST_LINKS and place.is_symlink():
            yield place
            yield from _links_on_the_way(place.parent / place.readlink(), seen + 1)
