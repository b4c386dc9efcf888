"""Where the value of each setting comes from: flag over variable over file over systemd over default."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from run_cycle_loop.config.agents import check_agent, check_budget, check_sandbox, check_workdir
from run_cycle_loop.config.declaration import PREFIX, Option, closest
from run_cycle_loop.config.files import goal_text, look_for, read_table
from run_cycle_loop.config.kinds import quoted
from run_cycle_loop.config.runs import check_runner
from run_cycle_loop.config.settings import (
    DEFAULT_PREREQ_SCRIPT,
    FILE_NAME,
    OPTIONS,
    Settings,
)
from run_cycle_loop.model.errors import ConfigError

#: Handed to every cycle beside some of the options, so a loop inside of a cycle sees them; they set nothing.
CHILD_VARIABLES = frozenset(
    f"{PREFIX}{name}"
    for name in (
        *("ID", "NUMBER", "CONTROL_FILE", "ALLOWED_USD", "ALLOWED_TOKENS"),
        *("ITERATION", "MAX_ITERATIONS", "STEP", "ATTEMPT", "BWRAP", "HIDDEN"),  # to an attempt of an AgentRun
    )
)

_SYSTEMD = {"state_dir": "STATE_DIRECTORY", "log_dir": "LOGS_DIRECTORY"}

#: A flag as it was written: text, texts where it may be repeated, or whether a switch is on.
Raw = str | bool | Sequence[str]


class Source(IntEnum):
    """Who gave a value; the higher one wins."""

    DEFAULT = 0
    SYSTEMD = 1
    FILE = 2
    VARIABLE = 3
    FLAG = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where one value came from."""

    source: Source
    text: str  #: for people: ``flag --sleep``, ``variable RUN_CYCLE_SLEEP``, ``file run-cycle-loop.toml``


DEFAULT = Origin(source=Source.DEFAULT, text="default")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """The settings in force, and where each of them came from."""

    settings: Settings
    sources: Mapping[str, Origin]  #: by the names of the fields of Settings

    def rows(self, redact: Callable[[str], str]) -> list[tuple[str, str, str]]:
        """Key, value and origin of every setting, each on one line; values pass through ``redact``."""
        return [
            (option.key, redact(option.kind.show(getattr(self.settings, name))), self.sources[name].text)
            for name, option in OPTIONS.items()
            if name in self.sources
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """A raw value that one source gave."""

    option: Option
    origin: Origin
    where: str  # as an error names it
    raw: Any
    read: Callable[[Any], Any]

    def value(self) -> Any:
        try:
            return self.read(self.raw)
        except ValueError as error:
            raise self.refuse(self.raw, str(error)) from error

    def refuse(self, value: object, reason: str) -> ConfigError:
        if isinstance(value, tuple) and len(value) == 1:
            value = value[0]  # a flag that may be repeated, and was not
        return ConfigError(f"{self.where}: {'the value' if self.option.private else quoted(value)} {reason}")


def resolve(
    flags: Mapping[str, Raw],
    env: Mapping[str, str],
    cwd: Path,
    command: Sequence[str] = (),
    *,
    cycle_files: bool = True,
) -> Resolved:
    """The settings that the flags, the environment and the file in ``cwd`` come to; only winners are read.

    Args:
        flags: what stood on the command line, by the names of ``OPTIONS``; a flag that was not given is absent.
        env: the environment.
        cwd: what relative paths count from.
        command: what stood after ``--``.
        cycle_files: whether the files that only a cycle needs are checked; a command that runs none says no.

    Raises:
        ConfigError: one sentence with where the value came from, the value, and the next step.
    """
    stated = _from_variables(env) | _from_flags(flags, command)
    path = _config_file(stated, cwd)
    given = _from_systemd(env) | (_from_file(path, cwd, stated.get("config")) if path else {}) | stated
    _let_higher_win(given)
    if "RUN_CYCLE_ID" in env:
        _leave_outer_history(given)
    values = {name: item.value() for name, item in given.items()} | {"config": path}
    origins = dict.fromkeys(OPTIONS, DEFAULT) | {name: item.origin for name, item in given.items()}
    _join_continuous(values, origins, given)
    if values.get("while_") and origins["iterations"] is DEFAULT:
        # One iteration would be over before the condition is ever asked.
        values["iterations"], origins["iterations"] = 0, origins["while_"]
    if "prereq_script" not in given and os.path.lexists(cwd / DEFAULT_PREREQ_SCRIPT):
        values["prereq_script"] = DEFAULT_PREREQ_SCRIPT
    settings = Settings.of(**values)
    if cycle_files:
        _look_for_cycle_files(given, values, cwd)
        _spare_what_is_ours(settings, cwd)
        check_agent(settings)
        check_budget(settings)
        if "workdir" in given:
            check_workdir(settings, cwd)
        elif not settings.command:
            check_sandbox(settings, cwd)
    return Resolved(settings=settings, sources=origins)


def require_cycle(settings: Settings) -> None:
    """See that there is something to run.

    Raises:
        ConfigError: no command was given and the cycle script is not there, the command's first word is blank, or the
            runner lacks what it runs.
    """
    check_runner(settings)
    if settings.command and not settings.command[0].strip():
        raise ConfigError(f"the command's first word is {quoted(settings.command[0])}; name a program")
    if settings.runner != "script":
        return
    if not settings.command and settings.agent == "auto" and not os.path.lexists(settings.cycle_script):
        raise ConfigError(
            f"there is no cycle to run: {quoted(str(settings.cycle_script))} does not exist and no command was given; "
            "pass `--agent NAME`, `-- COMMAND` or `--cycle-script PATH`"
        )


def unknown_variables(env: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """The RUN_CYCLE_* variables that set nothing, each with the one that was probably meant."""
    known = {option.variable.removeprefix(PREFIX): option.variable for option in _command_line_options()}
    strange = sorted(
        name.removeprefix(PREFIX)
        for name in env
        if name.startswith(PREFIX) and name not in CHILD_VARIABLES and name.removeprefix(PREFIX) not in known
    )
    return [(PREFIX + word, known.get(closest(word.upper(), known) or "")) for word in strange]


def _command_line_options() -> list[Option]:
    return [option for option in OPTIONS.values() if option.on_command_line]


def _from_flags(flags: Mapping[str, Raw], command: Sequence[str]) -> dict[str, _Given]:
    if unknown := flags.keys() - {option.name for option in _command_line_options()}:
        raise TypeError(f"no such options: {sorted(unknown)}")
    given = {}
    for name, raw in flags.items():
        option = OPTIONS[name]
        origin = Origin(source=Source.FLAG, text=f"flag {option.flag}")
        text = str(raw).lower() if isinstance(raw, bool) else raw
        given[name] = _Given(option=option, origin=origin, where=option.flag, raw=text, read=option.kind.from_text)
    if command:
        option, where = OPTIONS["command"], "the command after --"
        origin = Origin(source=Source.FLAG, text=where)
        given["command"] = _Given(option=option, origin=origin, where=where, raw=command, read=option.kind.from_items)
    return given


def _from_variables(env: Mapping[str, str]) -> dict[str, _Given]:
    return {
        option.name: _Given(
            option=option,
            origin=Origin(source=Source.VARIABLE, text=f"variable {option.variable}"),
            where=option.variable,
            raw=env[option.variable],
            read=option.kind.from_text,
        )
        for option in _command_line_options()
        if option.variable in env
    }


def _from_systemd(env: Mapping[str, str]) -> dict[str, _Given]:
    return {
        name: _Given(
            option=OPTIONS[name],
            origin=Origin(source=Source.SYSTEMD, text=f"${variable}"),
            where=f"${variable}",
            raw=env[variable].partition(":")[0],
            read=OPTIONS[name].kind.from_text,
        )
        for name, variable in _SYSTEMD.items()
        if env.get(variable)
    }


def _config_file(stated: Mapping[str, _Given], cwd: Path) -> Path | None:
    item = stated.get("config")
    if item is not None:
        path: Path | None = item.value()
        return path
    # Whatever lies there under the default name is meant to be read: what cannot be is an error, not a default.
    return Path(FILE_NAME) if os.path.lexists(cwd / FILE_NAME) else None


def _from_file(path: Path, cwd: Path, item: _Given | None) -> dict[str, _Given]:
    origin = Origin(source=Source.FILE, text=f"file {path}")
    table = read_table(cwd / path, shown=f"{item.where}: {path}" if item else str(path))
    return {
        name: _Given(
            option=OPTIONS[name],
            origin=origin,
            where=f"{OPTIONS[name].key} in {path}",
            raw=raw,
            read=OPTIONS[name].kind.from_toml,
        )
        for name, raw in table.items()
    }


#: The ways to say what the goal is; two of the first three on one level contradict each other.
_GOALS = ("goal_command", "goals", "goal_file", "goal")


def _let_higher_win(given: dict[str, _Given]) -> None:
    """Drop what another setting of a higher source replaces: the ways to say what runs, and those to say its goal."""
    _let_highest_goal_win(given)
    for word, replaced_by in (("command", "cycle_script"), ("command", "agent")):
        if word in given and replaced_by in given and given[replaced_by].origin.source > given[word].origin.source:
            del given[word]
    command, agent = given.get("command"), given.get("agent")
    if command and agent:
        if command.origin.source == agent.origin.source and agent.raw != "auto":
            raise agent.refuse(agent.raw, f"contradicts {command.where}; give one of the two")
        del given["agent"]


def _let_highest_goal_win(given: dict[str, _Given]) -> None:
    said = [name for name in _GOALS if name in given]
    highest = max((given[name].origin.source for name in said), default=Source.DEFAULT)
    for name in said:
        if given[name].origin.source < highest:
            del given[name]
    first, *others = [name for name in _GOALS[:3] if name in given] or [""]
    if others:
        other = given[others[0]]
        raise other.refuse(other.raw, f"contradicts {given[first].where}; give one of the two")


def _leave_outer_history(given: dict[str, _Given]) -> None:
    """Inside of a cycle the variable names the outer loop's history: not that of a loop with a state of its own."""
    history, state = given.get("history_path"), given.get("state_dir")
    if history and state and state.origin.source > history.origin.source is Source.VARIABLE:
        del given["history_path"]


def _join_continuous(values: dict[str, Any], origins: dict[str, Origin], given: Mapping[str, _Given]) -> None:
    """Make ``iterations`` 0 where ``continuous`` says so and no higher source gives a number."""
    origin = origins.pop("continuous")
    if not values.pop("continuous", False) or origin.source < origins["iterations"].source:
        return
    if origin.source == origins["iterations"].source and values["iterations"] > 0:
        item = given["iterations"]
        raise item.refuse(item.raw, f"contradicts {given['continuous'].where}; give one of the two")
    values["iterations"] = 0
    origins["iterations"] = origin


def _look_for_cycle_files(given: Mapping[str, _Given], values: Mapping[str, Any], cwd: Path) -> None:
    for name, item in given.items():
        if not item.option.cycle_file or values[name] is None:
            continue
        look: Callable[[Path], object] = goal_text if name == "goal_file" else look_for
        try:
            look(cwd / values[name])
        except ValueError as error:
            raise item.refuse(str(values[name]), str(error)) from error


def _spare_what_is_ours(settings: Settings, cwd: Path) -> None:
    """Refuse a sandbox whose reset would remove the working directory or the loop's own state."""
    if not settings.sandbox_reset:
        return
    sandbox = os.path.realpath(cwd / settings.sandbox_dir)
    for ours in (cwd, settings.state_dir, settings.log_dir, settings.history_path, settings.stop_file):
        if Path(os.path.realpath(cwd / ours)).is_relative_to(sandbox):
            raise ConfigError(
                f"sandbox-dir: {quoted(str(settings.sandbox_dir))} holds {quoted(str(ours))}, "
                "which --sandbox-reset would remove; name a folder of its own"
            )
