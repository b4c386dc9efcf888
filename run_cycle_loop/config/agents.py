"""What must hold among the settings of agents and budgets, before anything starts."""

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from run_cycle_loop.agents import registry
from run_cycle_loop.config.kinds import quoted
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.policies.budgets import parse_limits, show_limit


def check_agent(settings: Settings) -> None:
    """See that the agent is known, and that it has what it needs to be told.

    Raises:
        ConfigError: one sentence with the value and the next step.
    """
    if settings.agent != "auto":
        registry.check(settings.agent)
    if settings.agent == "command" and settings.agent_command is None:
        raise ConfigError("--agent command needs the command line to run; add --agent-command 'TOOL {prompt_file}'")
    if settings.agent == "command" and settings.agent_command is not None:
        from run_cycle_loop.agents.command import check_template  # noqa: PLC0415 - only who has one

        check_template(settings.agent_command, model=settings.model)
    if settings.agent == "scripted" and settings.agent_script is None:
        raise ConfigError("--agent scripted needs the steps to replay; add --agent-script FILE")
    if settings.agent == "planner" and settings.role == "read-only":
        raise ConfigError("--role read-only is for coding agents; the planner writes its plan, unless --cap-writes 0")
    for name in ("agent_command", "agent_args"):
        _check_words(name, getattr(settings, name))


def check_budget(settings: Settings) -> None:
    """See that no unit has two limits for one period.

    Raises:
        ConfigError: one has.
    """
    try:
        parse_limits([show_limit(limit) for limit in settings.budget])
    except ValueError as error:
        raise ConfigError(f"budget: {error}") from None


def _check_words(name: str, line: str | None) -> None:
    try:
        words = shlex.split(line or "")
    except ValueError as error:
        raise ConfigError(f"--{name.replace('_', '-')} is no command line: {error}; quote it as for a shell") from None
    if line is not None and not words:
        raise ConfigError(f"--{name.replace('_', '-')} holds no word; write one, or leave it out")


def check_workdir(settings: Settings, cwd: Path) -> None:
    """See that a workdir that was named is a real folder in the tree that the loop runs in, and none of the loop's own.

    Raises:
        ConfigError: one sentence with the value and the next step.
    """
    shown = quoted(str(settings.workdir))
    tree = Path(os.path.realpath(cwd))
    for step in _steps(settings.workdir, cwd, tree):
        try:
            mode = os.lstat(step).st_mode
        except OSError as error:
            raise ConfigError(
                f"workdir {shown} cannot be used: {error.strerror}; make the folder, or name another"
            ) from None
        if stat.S_ISLNK(mode):
            raise ConfigError(f"workdir {shown} leads through the link {quoted(str(step))}; name the folder itself")
        if not stat.S_ISDIR(mode):
            raise ConfigError(f"workdir {shown} is no folder; name one")
    workdir = tree / os.path.normpath(cwd / settings.workdir)
    for name, ours in (("state-dir", settings.state_dir), ("log-dir", settings.log_dir)):
        if workdir.is_relative_to(os.path.realpath(cwd / ours)):
            raise ConfigError(
                f"workdir {shown} lies in {name} {quoted(str(ours))}, which is the loop's own; name another"
            )


def check_sandbox(settings: Settings, cwd: Path) -> None:
    """See that the sandbox, where it is the workdir, is no folder of the loop's own: to undo a cycle would undo that.

    Raises:
        ConfigError: one sentence with the value and the next step.
    """
    sandbox = os.path.realpath(cwd / settings.sandbox_dir)
    for name, ours in (("state-dir", settings.state_dir), ("log-dir", settings.log_dir)):
        if sandbox == os.path.realpath(cwd / ours):
            raise ConfigError(
                f"sandbox-dir {quoted(str(settings.sandbox_dir))} is the {name} {quoted(str(ours))}, which is the "
                "loop's own; name another"
            )


def _steps(workdir: Path, cwd: Path, tree: Path) -> Iterator[Path]:
    """Every folder on the way from the tree to the workdir, the workdir included."""
    wanted = Path(os.path.normpath(cwd / workdir))
    root = next((base for base in (cwd, tree) if wanted.is_relative_to(base)), None)
    if root is None:
        raise ConfigError(
            f"workdir {quoted(str(workdir))} lies outside of {quoted(str(cwd))}; name a folder in it, "
            "or start the loop in a folder above both"
        )
    step = root
    for part in wanted.relative_to(root).parts:
        step = step / part
        yield step
