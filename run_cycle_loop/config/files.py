"""Reading the files that the configuration names: never blocking, never more than was meant, with a clear reason."""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from run_cycle_loop.config.declaration import closest
from run_cycle_loop.config.kinds import checked_prose, quoted
from run_cycle_loop.config.settings import OPTIONS
from run_cycle_loop.model.errors import ConfigError

LARGEST = 1024**2


def look_for(path: Path) -> None:
    """See that a regular file is there; a program need not be readable to be run.

    Raises:
        ValueError: the reason and the next step.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ValueError(_reason(error)) from error
    _only_regular(mode)


def read_text(path: Path) -> str:
    """The text of a regular file of at most 1 MiB; a FIFO or a device never makes us wait.

    Raises:
        ValueError: the reason and the next step.
    """
    with open(_open_regular(path), "rb") as stream:
        try:
            content = stream.read(LARGEST + 1)
        except OSError as error:
            raise ValueError(_reason(error)) from error
    if len(content) > LARGEST:
        raise ValueError("is larger than 1 MiB; name a smaller file")
    try:
        return content.decode("utf-8-sig")  # some editors put a byte order mark before the first line
    except UnicodeDecodeError as error:
        raise ValueError(f"is not valid UTF-8 at byte {error.start}; save it as UTF-8") from None


def read_goal(path: Path) -> str:
    """The goal that a goal file holds, without the blank space around it.

    Raises:
        ConfigError: unreadable, blank, or no text that a process can be given.
    """
    try:
        return goal_text(path)
    except ValueError as error:
        raise ConfigError(f"the goal file {quoted(str(path))} {error}") from error


def goal_text(path: Path) -> str:
    """The same, for those who name the file themselves.

    Raises:
        ValueError: the reason and the next step.
    """
    return checked_prose(read_text(path).strip())


def read_table(path: Path, shown: str) -> Mapping[str, Any]:
    """The raw values of a configuration file by the names of their options; ``shown`` is how errors name the file.

    Raises:
        ConfigError: unreadable, no TOML, an unknown key, or one key twice.
    """
    import tomllib  # noqa: PLC0415 - 10 ms that only those with a file pay

    try:
        document = tomllib.loads(read_text(path))
    except RecursionError:
        raise ConfigError(f"{shown} is nested too deeply; write plain `key = value` lines") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{shown} is no valid TOML: {error}; correct that line") from error
    except ValueError as error:
        raise ConfigError(f"{shown} {error}") from error
    return _by_name(document, shown)


def _by_name(document: Mapping[str, Any], shown: str) -> dict[str, Any]:
    names = {option.key: option.name for option in OPTIONS.values() if option.in_file}
    table: dict[str, Any] = {}
    for key, value in document.items():
        name = names.get(key.replace("_", "-"))
        if name is None:
            raise ConfigError(f"{shown} has the unknown key {quoted(key)}: {_advice(key, value, names)}")
        if name in table:
            raise ConfigError(f"{shown} has {OPTIONS[name].key} twice, with - and with _; take one of them out")
        table[name] = value
    return table


def _advice(key: str, value: object, names: Iterable[str]) -> str:
    if isinstance(value, dict):
        return "write the settings at the top level, outside of any table"
    meant = closest(key.replace("_", "-"), names)
    return f"did you mean {meant}?" if meant else "`run-cycle-loop config show` lists all the keys"


def _open_regular(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(_reason(error)) from error
    try:
        _only_regular(os.fstat(descriptor).st_mode)
    except ValueError:
        os.close(descriptor)
        raise
    return descriptor


def _only_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError("is no regular file; name one")


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist; create it, or name another"
    return f"cannot be read ({error.strerror}); name a file that can be"
