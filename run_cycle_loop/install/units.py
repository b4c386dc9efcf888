"""The texts of the systemd units and their environment file: the only source; ``systemd/`` holds renderings of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from run_cycle_loop.config.settings import OPTIONS
from run_cycle_loop.model.errors import ConfigError

NAME = "run-cycle-loop"
PREFIX = Path("/opt/run-cycle-loop")
CONFIG_DIR = Path("/etc/run-cycle-loop")

#: The folders that ``ProtectHome=`` covers.
HOMES = (PurePath("/home"), PurePath("/root"), PurePath("/run/user"))

#: The folders that ``PrivateTmp=`` replaces.
_PRIVATE = (PurePath("/tmp"), PurePath("/var/tmp"))  # noqa: S108 - names, not used as scratch space

#: What operators change most; the rest is in ``run-cycle-loop config show``.
_IN_ENVIRONMENT_FILE = (
    "mode",
    "agent",
    "goal_file",
    "sleep",
    "timeout",
    "max_failures",
    "max_backoff",
    "stale_after",
    "isolate",
    "cap_bytes",
    "on_budget",
    "keep_logs",
    "metrics_port",
    "metrics_textfile",
    "log_level",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitSettings:
    """What differs from machine to machine."""

    python: Path = PREFIX / ".venv/bin/python"
    workdir: Path = PREFIX  #: the checkout, or wherever the cycle script and the configuration file are
    user: str | None = None  #: None: a user that systemd makes up
    config_dir: Path = CONFIG_DIR  #: where the environment files are
    visible: tuple[Path, ...] = ()  #: what else the service must be able to read, such as the interpreter's home

    def __post_init__(self) -> None:
        for path in (self.python, self.workdir, self.config_dir, *self.visible):
            _check_path(path)
        for path in needed(self):
            _check_visible(path)
        if self.user is not None:
            checked_name(self.user, "user")


def unit_name(instance: str | None = None) -> str:
    """The unit to start: ``run-cycle-loop.service`` or ``run-cycle-loop@INSTANCE.service``."""
    return f"{NAME}@{checked_name(instance, 'instance')}.service" if instance is not None else f"{NAME}.service"


def unit_file(*, template: bool) -> str:
    """The name of the unit's file."""
    return f"{NAME}@.service" if template else f"{NAME}.service"


def environment_file(instance: str | None = None) -> str:
    """The name of the environment file that is an instance's own, or of the one that all share."""
    return f"{checked_name(instance, 'instance') if instance is not None else NAME}.env"


def render_unit(settings: UnitSettings | None = None, *, template: bool = False) -> str:
    """The unit's text; the template runs one loop per instance, each with its own state, logs and environment file."""
    chosen = settings or UnitSettings()
    return _UNIT.format(
        title="run-cycle-loop, instance %i" if template else "run-cycle-loop",
        home="%S/run-cycle-loop-%i" if template else "%S/run-cycle-loop",
        directory="run-cycle-loop-%i" if template else "run-cycle-loop",
        python=_word(chosen.python).replace("$", "$$"),
        workdir=str(chosen.workdir).replace("%", "%%"),
        environment_files="\n".join(_environment_files(chosen.config_dir, template=template)),
        user="\n".join(_user(chosen.user)),
        protect_home="\n".join(_protect_home(chosen)),
    )


def render_environment_file() -> str:
    """The environment file's text: every line commented out, so that the defaults hold until someone decides."""
    options = [OPTIONS[name] for name in _IN_ENVIRONMENT_FILE]
    blocks = [f"# {option.help}\n#{option.variable}={option.default_text}\n" for option in options]
    return "\n".join([_ENVIRONMENT_HEAD, *blocks])


def checked_name(name: str, what: str) -> str:
    """A user's or an instance's name, if it is one that unit files take as it stands.

    Raises:
        ConfigError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", name):
        raise ConfigError(f"{name!r} is no {what} name: use letters, digits, '_', '-' and '.'")
    return name


def _check_path(path: PurePath) -> None:
    if not path.is_absolute() or not str(path).isprintable() or str(path).endswith("\\"):
        raise ConfigError(
            f"{str(path)!r} cannot stand in a unit file: give an absolute, printable path without \\ at its end"
        )


def _check_visible(path: PurePath) -> None:
    if any(path.is_relative_to(folder) for folder in _PRIVATE):
        raise ConfigError(f"the service has a /tmp of its own and cannot see {path}: move it out of there")


def _word(path: PurePath) -> str:
    """A path as one word of a unit file: specifiers doubled, quoted where it needs to be."""
    text = str(path).replace("%", "%%")
    if not re.search(r"[\s\"'\\;]", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _environment_files(folder: Path, *, template: bool) -> Iterable[str]:
    base = str(folder).replace("%", "%%")
    yield f"EnvironmentFile=-{base}/{environment_file()}"
    if template:
        yield f"EnvironmentFile=-{base}/%i.env"


def _user(user: str | None) -> Iterable[str]:
    if user is None:
        yield "# A user that exists while the service runs. Where a user of this name exists, it is that one."
        yield "DynamicUser=yes"
        yield f"User={NAME}"
    else:
        yield f"User={user}"


def _protect_home(settings: UnitSettings) -> Iterable[str]:
    visible = outermost(path for path in needed(settings) if is_below_home(path))
    if not visible:
        yield "ProtectHome=yes"
        return
    yield "# The service lives below a home: of all the homes it sees these folders only, and cannot write to them."
    yield "ProtectHome=tmpfs"
    for path in visible:
        # A colon would separate the source from the target of a bind mount.
        yield f"BindReadOnlyPaths={_word(path).replace(':', chr(92) + ':')}"


def needed(settings: UnitSettings) -> tuple[Path, ...]:
    """What the service must be able to read: its working directory, its virtual environment, and what was named."""
    return (settings.workdir, settings.python.parent.parent, *settings.visible)


def is_below_home(path: PurePath) -> bool:
    """Whether ``ProtectHome=`` would hide the path."""
    return any(path.is_relative_to(home) for home in HOMES)


def outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that are not inside of another one of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


_ENVIRONMENT_HEAD = """\
# Settings of run-cycle-loop under systemd, one VARIABLE=value a line; no shell, no export.
# `run-cycle-loop config show` lists them all. After a change: systemctl restart.
# Keys for the cycle's far ends may stand here too: this file is readable by root alone.
"""

_UNIT = """\
[Unit]
Description={title}
Wants=network-online.target
After=network-online.target
# The loop has its own failure limit. systemd's would leave the unit failed, and refuse the operator's next start.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
WorkingDirectory={workdir}
ExecStart={python} -m run_cycle_loop run --continuous
ExecReload=/bin/kill -HUP $MAINPID
# The checkout is read-only for the service: home and sandbox are with the state. The files may say otherwise.
Environment=HOME={home} RUN_CYCLE_SANDBOX_DIR={home}/sandbox
{environment_files}
{user}
UMask=0077
StateDirectory={directory}
StateDirectoryMode=0700
LogsDirectory={directory}
LogsDirectoryMode=0700

# Exit codes: 2 wrong settings, 10 stop-file, 11 failure limit, 12 budget spent, 13 goals reached: down until an
# operator starts it again.
# All else comes back: 74 state not writable, 75 another instance has the lock, crashes, lost watchdogs.
Restart=always
RestartSec=10
SuccessExitStatus=10 12 13
RestartPreventExitStatus=2 10 11 12 13

# A stop signals the loop alone, which lets the running cycle end; whatever is left after that is killed.
# Long enough for the default cycle (timeout and grace); for longer ones the loop asks for more while it drains.
KillMode=mixed
TimeoutStopSec=330
# The loop proves every 20 s that it is alive; one that hangs is aborted, and is not asked twice.
WatchdogSec=60
TimeoutAbortSec=10
# A cycle that runs out of memory is the cycle's failure, not the loop's.
OOMPolicy=continue

# The cycle inherits all of this. Left out on purpose: MemoryDenyWriteExecute= (node and other JIT compilers),
# ProcSubset=pid (the memory check reads /proc/meminfo), PrivateNetwork= (agents call their providers).
# Isolation by bubblewrap needs, in a drop-in (systemctl edit): RestrictNamespaces=no and
# SystemCallFilter=@mount pivot_root capset. Without it agents run unisolated, and each record says so.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
{protect_home}
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
# Netlink: resolvers and runtimes list the network interfaces with it.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
