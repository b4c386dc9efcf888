"""A cycle that is an AgentRun or a Job: what the loop's child process does between its start and its exit code."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.digests import write_control
from run_cycle_loop.app.cycle import Cycle, CycleStops, ignored_signals
from run_cycle_loop.clients.kubernetes.errors import (
    Forbidden,
    Invalid,
    KindNotServed,
    NotFound,
    Stopped,
    Unauthorized,
)
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError, RunCycleLoopError, RunnerError
from run_cycle_loop.model.reading import is_deeper
from run_cycle_loop.runners.cycle_end import CycleEnd, failed
from run_cycle_loop.runners.marks import Marks, marks

_LARGEST = 900 << 10  #: bytes of a payload; the loop takes a little more
_LONGEST_ID = 100  #: bytes
_DEEPEST = 60  #: levels; the same
_OWN = ("class", "reason", "permanent", "advice")  #: what is always of our own making
_FOREIGN = ("outputs", "run", "warnings")  #: what somebody else may have made too large
_FAREWELL = 0.8  #: the part of the grace in which a cycle ends what it started


def run_cycle(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run one cycle to its end, and leave its control payload; the exit code.

    Raises:
        RunCycleLoopError: it could not be run; the loop has been told why.
    """
    ignored = ignored_signals()
    with SignalInbox() as inbox:
        try:
            cycle = Cycle(
                settings=settings,
                environ=environ,
                marks=_marks(settings, environ),
                stops=CycleStops(inbox, ignored),
                ending=settings.grace * _FAREWELL,
            )
            end = _runner(settings)(cycle)
        except RunCycleLoopError as error:
            _leave_control(environ, end_of(error).control)
            raise
        except OSError as error:
            wrapped = RunnerError(
                f"{error.filename or 'a file'} cannot be used: {error.strerror or error}; see the log"
            )
            _leave_control(environ, end_of(wrapped).control)
            raise wrapped from error
        cycle.say(end.sentence)
        _leave_control(environ, end.control)
    return end.exit_code


def end_of(error: RunCycleLoopError) -> CycleEnd:
    """What the loop is told where nothing came about: what only a person can mend ends it."""
    match error:
        case Stopped():
            return failed("ended before anything was started", ended=AgentClass.INTERRUPTED)
        case Unauthorized():
            return failed(str(error), ended=AgentClass.AUTH)
        case Forbidden():
            # A quota lets it in once something else has ended.
            return failed(str(error), permanent="exceeded quota" not in str(error))
        case Invalid() | KindNotServed() | NotFound() | ConfigError():
            return failed(str(error), permanent=True)
        case _:
            return failed(str(error))


def _runner(settings: Settings) -> Callable[[Cycle], CycleEnd]:
    if settings.runner == "job":
        from run_cycle_loop.app.job_cycles import run_as_job  # noqa: PLC0415 - one of the two is needed

        return run_as_job
    if settings.runner == "agentrun":
        from run_cycle_loop.app.agentrun_cycles import run_as_agentrun  # noqa: PLC0415 - the same

        return run_as_agentrun
    raise ConfigError(f"--runner {settings.runner} has no cycle of this kind; it is agentrun or job")


def _marks(settings: Settings, environ: Mapping[str, str]) -> Marks:
    return marks(
        host=loop_id(settings.state_dir),
        state_dir=os.path.realpath(settings.state_dir),
        cycle_id=environ.get("RUN_CYCLE_ID", ""),
    )


def loop_id(state_dir: Path) -> str:
    """What a loop is known by on a cluster: kept with its state, as the name of a machine changes with every pod.

    Raises:
        OSError: it can neither be read nor kept.
    """
    path = state_dir / "loop_id"
    with suppress(FileNotFoundError, ValueError):
        if found := files.read_bounded(path, _LONGEST_ID).decode().strip():
            return found
    made = secrets.token_hex(16)
    files.make_folder(state_dir)
    files.replace_file(path, f"{made}\n".encode(), durable=True)
    return made


def _leave_control(environ: Mapping[str, str], control: Mapping[str, Any]) -> None:
    path = environ.get("RUN_CYCLE_CONTROL_FILE")
    if path and control:
        write_control(Path(path), fitting(control))


def fitting(control: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload without what others made too large or too deep for the loop to take."""
    if _is_fit(control):
        return control
    left = {name: value for name, value in control.items() if name not in _FOREIGN}
    if not _is_fit(left):
        left = {name: value for name, value in left.items() if name in _OWN}
    return {**left, "warnings": ["what it left is too large, too deep or no JSON, and was left out"]}


def _is_fit(control: Mapping[str, Any]) -> bool:
    try:
        return not is_deeper(control, _DEEPEST) and len(json.dumps(control, allow_nan=False)) <= _LARGEST
    except (ValueError, TypeError, RecursionError):
        return False
