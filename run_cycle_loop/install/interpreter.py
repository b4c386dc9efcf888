"""Which Python a service or a cron job is to run, and what it needs to see for that."""

import os
import sys
from pathlib import Path

from run_cycle_loop.model.errors import ConfigError

_MOST_LINKS = 40  # the kernel's own limit


def current_python() -> Path:
    """The interpreter that runs this, by the name that keeps its virtual environment."""
    return Path(sys.prefix, "bin", "python") if sys.prefix != sys.base_prefix else Path(sys.executable)


def python_of(prefix: Path | None) -> Path:
    """The interpreter of the virtual environment in a folder; without one, our own."""
    return prefix.absolute() / ".venv" / "bin" / "python" if prefix else current_python()


def workdir_of(python: Path) -> Path:
    """The folder that a ``.venv`` is in; for any other interpreter the current one."""
    environment = python.parent.parent
    return environment.parent if environment.name == ".venv" else Path.cwd()


def homes_of(python: Path) -> tuple[Path, ...]:
    """The installations that a virtual environment's interpreter leads to, link by link."""
    hops: list[Path] = []
    while python.is_symlink() and len(hops) < _MOST_LINKS:
        python = python.parent / python.readlink()
        hops.append(python)
    # realpath, unlike resolve(), leaves links in a ring as they are in every version of Python.
    return tuple(sorted({Path(path).parent.parent for hop in hops for path in (hop, os.path.realpath(hop))}))


def require(python: Path) -> None:
    """See that there is such an interpreter.

    Raises:
        ConfigError: there is none.
    """
    if not python.is_file():
        raise ConfigError(f"there is no Python at {python}: make the environment first, or name another --prefix")
