"""The container's paths around a process: made true by bubblewrap where the engine found that it works."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from run_cycle_loop.agentrun.local import mounts as places
from run_cycle_loop.agentrun.local.mounts import Mount
from run_cycle_loop.agentrun.local.sandbox import root_entries
from run_cycle_loop.agents.isolation import Isolation
from run_cycle_loop.kit import processes
from run_cycle_loop.kit.processes import LaunchError
from run_cycle_loop.model.enums import Role

BUBBLEWRAP = "RUN_CYCLE_BWRAP"  #: the program, where paths are to be made true
HIDDEN = "RUN_CYCLE_HIDDEN"  #: the folder that an agent must not see: the engine's own
GRACE = "RUN_CYCLE_GRACE"  #: seconds that the engine gives the attempt between TERM and KILL
COMMAND = "RUN_CYCLE_COMMAND"  #: the file with the container's own command, where that is the workload, not a runner
HELD = "RUN_CYCLE_WORKLOAD_ENV"  #: variables of the workload that this process must not heed itself, as JSON
PATTERNS = "RUN_CYCLE_SECRET_ENV"  #: names of variables with secrets in them

#: Between the engine and the runner; nothing of it is the workload's business.
_OURS = frozenset(
    {
        BUBBLEWRAP,
        HIDDEN,
        GRACE,
        COMMAND,
        HELD,
        PATTERNS,
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_PID",
        "LISTEN_FDS",
    }
)
_ROOT = ("--ro-bind", "/", "/")


def workload_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a command of the provider is started with."""
    ours = _OURS | ({places.VARIABLE} if environ.get(BUBBLEWRAP) else set())
    return {name: value for name, value in environ.items() if name not in ours} | held(environ)


def held(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are kept from this process until the workload starts."""
    found = json.loads(environ.get(HELD) or "{}")
    return {str(name): str(value) for name, value in found.items()}


def wrapped(
    argv: Sequence[str], *, environ: Mapping[str, str], mounts: Sequence[Mount], folder: str
) -> tuple[str, ...]:
    """The command line that runs ``argv`` in a folder of the container, with everything of this machine around it.

    Raises:
        LaunchError: there is no such command.
    """
    program = environ.get(BUBBLEWRAP)
    if not program:
        return tuple(argv)
    name = argv[0]
    if os.sep not in name:
        name = processes.locate(argv, environ)
    elif not os.path.lexists(places.translate(name, mounts) or name):
        raise LaunchError(f"command {name[:120]!r} does not exist; name one that does", 127)
    root = places.bwrap_root(root_entries(), mounts, read_only=False)
    # No namespace for processes: the whole tree stays in view of whoever ends it, and hears TERM.
    system = ("--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc")
    return (program, *root, *system, *places.bwrap_mounts(mounts), "--chdir", folder, "--", name, *argv[1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerView(Isolation):
    """The isolation of an agent's session, with the container's paths in it."""

    mounts: tuple[Mount, ...] = ()
    folder: str = places.WORKSPACE  #: of the container, where the agent works

    @classmethod
    def around(cls, isolation: Isolation, mounts: Sequence[Mount], folder: str) -> "ContainerView":
        """The same isolation with these mounts."""
        return cls(
            wanted=isolation.wanted,
            program=isolation.program,
            detail=isolation.detail,
            hidden=isolation.hidden,
            mounts=tuple(mounts),
            folder=folder,
        )

    def wrap(
        self, argv: Sequence[str], *, workdir: Path, role: Role, writes: Sequence[Path], reads: Sequence[Path]
    ) -> tuple[str, ...]:
        """See :meth:`Isolation.wrap`."""
        plain = Isolation(wanted=self.wanted, program=self.program, detail=self.detail, hidden=self.hidden)
        words = list(plain.wrap(argv, workdir=workdir, role=role, writes=writes, reads=reads))
        if self.program is None:
            return tuple(words)
        mounts = self.mounts if role is Role.WRITE else [replace(one, read_only=True) for one in self.mounts]
        end = words.index("--")
        head, tail = words[:end], words[end:]
        place = next(at for at in range(len(head)) if tuple(head[at : at + 3]) == _ROOT)
        head[place : place + 3] = places.bwrap_root(root_entries(), mounts, read_only=True)
        # The last --chdir is the isolation's own; the mounts come after all that it hides.
        del head[-2:]
        return (*head, *places.bwrap_mounts(mounts), "--chdir", self.folder, *tail)
