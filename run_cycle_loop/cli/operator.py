"""Who gives a command that is kept, and whether what he writes can be read by the loop."""

import os
import pwd
import socket
import sys
from pathlib import Path

from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.errors import ConfigError


def require_own(folder: Path, command: str) -> None:
    """Nothing, unless what root writes there would lock the loop's own user out.

    Raises:
        ConfigError: it would; the sentence says how to give the command.
    """
    owner = folder.stat().st_uid if folder.is_dir() else os.geteuid()
    if os.geteuid() == 0 and owner != 0:
        name = user_name(owner)
        raise ConfigError(f"{folder} belongs to {name}; say it as that user: sudo -u {name} run-cycle-loop {command}")


def who() -> str:
    """The person at this terminal, as far as the machine knows."""
    try:
        terminal = os.ttyname(sys.stdin.fileno())
    except (OSError, ValueError):
        terminal = "no terminal"
    became = os.environ.get("SUDO_USER")
    user = user_name(os.getuid()) + (f" for {printable(became)}" if became else "")
    return f"{user} (uid {os.getuid()}) on {socket.gethostname()}, {terminal}"


def user_name(uid: int) -> str:
    """The name of a user, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
