"""Every agent by its name: one line each, imported when it is asked for."""

import importlib
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from run_cycle_loop.model.errors import ConfigError

if TYPE_CHECKING:  # names are looked up at every start; adapters only where one is
    from run_cycle_loop.agents.adapter import Adapter

PLANNER: Final = "planner"  #: built in: it runs within the cycle and has no command line


class Entry(NamedTuple):
    """Where an agent's adapter is."""

    place: str | None  #: ``module.Class`` in this package; None: built in, without an adapter
    program: str | None = None  #: what is looked for on PATH; None: nothing


#: In the order in which the first that is installed is taken.
ADAPTERS: Final[Mapping[str, Entry]] = {
    "claude": Entry("claude.Claude", "claude"),
    "codex": Entry("codex.Codex", "codex"),
    "pi": Entry("pi.Pi", "pi"),
    "opencode": Entry("opencode.Opencode", "opencode"),
    "gemini": Entry("gemini.Gemini", "gemini"),
    "command": Entry("command.Command"),
    PLANNER: Entry(None),
    "scripted": Entry("scripted.Scripted"),
}

NAMES: Final = tuple(ADAPTERS)


def find(name: str) -> "Adapter":
    """The adapter of an agent.

    Raises:
        ConfigError: there is no such agent, or it is the planner, which has no command line to adapt to.
    """
    check(name)
    place = ADAPTERS[name].place
    if place is None:
        raise ConfigError(f"agent {name!r} is built in and is not started as a command; name one that is")
    module, _, attribute = place.partition(".")
    adapter: Adapter = getattr(importlib.import_module(f"run_cycle_loop.agents.{module}"), attribute)()
    return adapter


def check(name: str) -> None:
    """Nothing where there is an agent of this name.

    Raises:
        ConfigError: there is none; with the nearest name where one is near.
    """
    if name in ADAPTERS:
        return
    from difflib import get_close_matches  # noqa: PLC0415 - only for a slip of the pen

    close = get_close_matches(name.lower(), NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it is one of {', '.join(NAMES)}"
    raise ConfigError(f"there is no agent {name[:80]!r}; {hint}")


def is_real(name: str | None) -> bool:
    """Whether a model decides what it does, so that it needs consent, budgets and caps; ``None`` is no agent."""
    return name == "command" or program_of(name) is not None


def program_of(name: str | None) -> str | None:
    """The program that must be on PATH for it; None where it needs none."""
    return None if name is None or name not in ADAPTERS else ADAPTERS[name].program


def default_agent(path: str | None) -> str:
    """The first agent that is installed on this PATH, else the planner; no program is started."""
    programs = ((name, entry.program) for name, entry in ADAPTERS.items())
    return next((name for name, program in programs if program and shutil.which(program, path=path)), PLANNER)
