"""The command ``run-cycle-loop``: its sub-commands, and how every ending becomes an exit code and one sentence."""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click

from run_cycle_loop import __version__
from run_cycle_loop.cli.lazy import LazyGroup
from run_cycle_loop.kit import descriptors
from run_cycle_loop.model.errors import RunCycleLoopError

_INTERNAL = 70  #: EX_SOFTWARE: a fault of ours
_INTERRUPTED = 130

#: name -> (module.attribute, what ``--help`` says); a module is imported when its command is called.
_COMMANDS = {
    "run": ("run.run", "Run cycles: once, N times, or until stopped."),
    "status": ("views.status", "Show on one screen what the loop does and how it went."),
    "history": ("views.history", "List recorded cycles."),
    "logs": ("views.logs", "Print or follow a cycle's log."),
    "check": ("views.check", "Check the prerequisites now."),
    "agents": ("agents.agents", "Show which agents are installed, and what they can do."),
    "consent": ("consent.consent", "Grant, list, revoke and verify consent to unattended agents."),
    "budget": ("budget.budget", "Show what is spent, and what is left."),
    "breaker": ("breaker.breaker", "Show and reset the breakers."),
    "agentrun": ("agentrun.group.agentrun", "Check, explain, run and watch AgentRuns, here or on a cluster."),
    "stop": ("steering.stop", "Engage the kill switch."),
    "resume": ("steering.resume", "Release the kill switch."),
    "trigger": ("steering.trigger", "Start the next cycle now."),
    "config": ("configuration.config", "Show the settings in force and where each comes from."),
    "start-cycle": ("start_cycle.start_cycle", ""),  # not listed: the loop starts it
    "install": ("install.install", "Install a systemd unit or a crontab line."),
}


_HELP = """Run agent cycles unattended: check, run, time out, record, back off, stop when told.

\b
run-cycle-loop run -- COMMAND       one cycle of COMMAND, here
run-cycle-loop run --continuous     cycles until stopped
run-cycle-loop status               what happened
run-cycle-loop stop                 the kill switch
"""


_SETTINGS = {"help_option_names": ["-h", "--help"]}


@click.group(cls=LazyGroup, commands_by_name=_COMMANDS, help=_HELP, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="run-cycle-loop")
def cli() -> None:
    """Every sub-command hangs below this one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. No ending is a traceback alone."""
    descriptors.settle()
    try:
        code = cli.main(args=None if argv is None else list(argv), prog_name="run-cycle-loop", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the last line of defence
        return _ending_of(error)
    return code if isinstance(code, int) else 0


def entry() -> NoReturn:
    """The process's way in and out.

    Everything that must be on disk is there by now, so the interpreter need not take itself apart: that would be most
    of the time between a stop and the end.
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _ending_of(error: BaseException) -> int:  # noqa: PLR0911 - one return for each way to end
    """The exit code of an ending, with its sentence said."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return 2
        case click.ClickException():
            return _complain(_usage(error), 2)
        case FileNotFoundError() if not _has_place():
            return _complain("the working directory was removed; change to one that exists", 2)
        case RunCycleLoopError():
            return _complain(str(error), error.exit_code)
        case KeyboardInterrupt() | click.Abort():
            return _INTERRUPTED
        case BrokenPipeError() | SystemExit():  # click's word for the same
            _abandon_output()  # its reader has gone
            return 0
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EIO, filename=None):
            # Only the standard streams are written to without anybody to catch it.
            _abandon_output()
            return _complain(f"what was asked for cannot be written out: {error.strerror}; redirect it elsewhere", 74)
        case _:
            _show_trace()
            kind = type(error).__name__
            return _complain(f"internal error: {kind}: {error}; please report it with the lines above", _INTERNAL)


def _abandon_output() -> None:
    """What is buffered for standard output goes nowhere: the interpreter must not complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _has_place() -> bool:
    """Whether the working directory still exists: a relative path means nothing without it."""
    try:
        return bool(os.getcwd())  # noqa: PTH109 - the question itself, not a path
    except OSError:
        return False


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "run-cycle-loop"
    return f"{error.format_message().rstrip('.')}; see '{path} --help'"


def _show_trace() -> None:
    import traceback  # noqa: PLC0415

    traceback.print_exc()


def _complain(sentence: str, code: int) -> int:
    from run_cycle_loop.kit.printable import printable  # noqa: PLC0415 - only for an error
    from run_cycle_loop.observers.lines import LineWriter  # noqa: PLC0415

    with suppress(OSError):  # where nobody listens any more, the exit code still tells
        LineWriter(sys.stderr).write(f"run-cycle-loop: {printable(_redacted(sentence))}")
    return code


def _redacted(sentence: str) -> str:
    """The sentence without secrets: an error may quote a value that was given in the wrong place."""
    from run_cycle_loop.kit.redact import Redactor  # noqa: PLC0415 - only for an error

    return Redactor.from_environment(os.environ).text(sentence)
