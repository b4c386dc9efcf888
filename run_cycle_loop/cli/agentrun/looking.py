"""``agentrun watch``, ``status``, ``logs``, ``list``, ``verify``, ``cancel``, ``flags``: runs that are on their way."""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from run_cycle_loop.cli.agentrun.given import json_output, screen, show
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.kit.durations import parse_duration
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.report import runs as view
from run_cycle_loop.report.logs import for_terminal

if TYPE_CHECKING:
    from run_cycle_loop.agentrun.looking.output import Piece
    from run_cycle_loop.agentrun.looking.progress import Progress
    from run_cycle_loop.app.runs import Runs

_SETTINGS = ("where", "namespace", "kubeconfig", "kube_context", "state_dir", "config")
LOCAL = "on this machine"
_name = click.argument("name", metavar="NAME")


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


def looking(flags: dict[str, Any], stack: ExitStack) -> "Runs":
    """The runs of the place that the settings name."""
    from run_cycle_loop.app.runs import runs_of  # noqa: PLC0415 - a usage error need not load a cluster's client

    settings = settings_for_looking(flags)
    if settings.where != "cluster" and (flags.get("kubeconfig") or flags.get("kube_context")):
        raise click.UsageError("--kubeconfig and --kube-context name a cluster; add --where cluster")
    return runs_of(settings, stack)


@click.command(cls=SettingsCommand)
@_name
@json_output
@options(*_SETTINGS)
def status(flags: dict[str, Any], *, name: str, as_json: bool) -> int:
    """Show how far a run is: phase, step, iteration, stop reason, its attempts, and what is overdue.

    The exit code says what became of it: 0 succeeded, or still on its way; 1 failed, 2 refused, 3 cancelled.
    """
    with ExitStack() as stack:
        place = looking(flags, stack)
        seen = place.look(name)
    if as_json:
        click.echo(json.dumps(seen.as_json(), default=str))
    else:
        width, style = screen()
        show([*view.screen(seen, where=place.where, width=width, style=style, now=_now())], style)
    return seen.result.exit_code if seen.result else 0


def duration(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """A click callback: seconds, None for 0."""
    if text is None:
        return None
    try:
        return parse_duration(text) or None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=SettingsCommand)
@_name
@click.option("--timeout", metavar="DURATION", callback=duration, help="Watch no longer than this; the run goes on.")
@click.option("--nudge", is_flag=True, help="Wake the controller for what is overdue: it has no timers of its own.")
@json_output
@options(*_SETTINGS)
def watch(flags: dict[str, Any], *, name: str, timeout: float | None, nudge: bool, as_json: bool) -> int:
    """Follow a run until it is over, and leave with what became of it.

    0 succeeded, 1 failed, 2 refused, 3 cancelled, 4 deleted meanwhile, 5 not let in and 6 not over when the time was.
    With --json one object for each change.
    """
    with ExitStack() as stack:
        place = looking(flags, stack)
        return followed(place.watch(name, timeout=timeout, nudge=nudge), where=place.where, as_json=as_json)


def followed(seen: "Iterable[Progress]", *, where: str, as_json: bool) -> int:
    """Show each state of a run, on a terminal in the place of the one before; the exit code of the last."""
    width, style = screen()
    last, drawn, told = None, 0, ""
    is_live = sys.stdout.isatty() and not as_json
    for last in seen:
        if as_json:
            click.echo(json.dumps(last.as_json(), default=str))
        elif is_live:
            lines = [*view.screen(last, where=where, width=width - 1, style=style, now=_now())]
            if last.result is None:  # it is drawn again over itself, which takes a picture that is all on the screen
                lines = view.within(lines, shutil.get_terminal_size((100, 24)).lines - 1)
            click.echo(f"\x1b[{drawn}F\x1b[J" if drawn else "", nl=False)
            show(lines, style)
            drawn = len(lines)
        else:
            line = view.one_line(last)
            if line != told:
                click.echo(f"{_now():%H:%M:%S}  {line}")
            told = line
        sys.stdout.flush()
    if last is None or last.result is None:
        return 130  # it was given up before anything was seen
    if not as_json and not is_live:
        show([*view.screen(last, where=where, width=width, style=style, now=_now())], style)
    if not as_json and not last.result.is_final:
        there = "" if where == LOCAL else f" --where cluster --namespace {last.namespace}"
        click.echo(f"it goes on; `run-cycle-loop agentrun status {last.name}{there}` shows how far it is", err=True)
    return last.result.exit_code


_POSITIVE = click.IntRange(min=1)


@click.command(cls=SettingsCommand)
@_name
@click.option("--step", metavar="NAME", default="", help="Only this step.")
@click.option("--iteration", metavar="N", type=_POSITIVE, help="Only this iteration.")
@click.option("--attempt", metavar="N", type=_POSITIVE, help="Only this attempt.")
@click.option("--all", "every", is_flag=True, help="Every attempt; left out: the newest.")
@click.option("--tail", metavar="N", type=click.IntRange(min=0), help="Begin with so many lines of each.")
@click.option("--follow", is_flag=True, help="Go on until the run is over, from one attempt to the next.")
@options(*_SETTINGS)
def logs(
    flags: dict[str, Any],
    *,
    name: str,
    step: str,
    iteration: int | None,
    attempt: int | None,
    every: bool,
    tail: int | None,
    follow: bool,
) -> int:
    """Print what the attempts of a run print: of the newest one, or of those that are named."""
    from run_cycle_loop.agentrun.looking.output import Choice  # noqa: PLC0415

    with ExitStack() as stack:
        choice = Choice(step=step, iteration=iteration, attempt=attempt)
        _print(looking(flags, stack).logs(name, choice, follow=follow, every=every, tail=tail))
    return 0


def _print(pieces: "Iterable[Piece]") -> None:
    """Raw into a pipe or a file; harmless on a terminal."""
    blocks = _told(pieces)
    if sys.stdout.isatty():
        for text in for_terminal(blocks):
            click.echo(text, nl=False)
        return
    for block in blocks:
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()


def _told(pieces: "Iterable[Piece]") -> Iterator[bytes]:
    """What was printed; what is to be said beside it goes to standard error on the way."""
    for piece in pieces:
        if piece.note:
            sys.stdout.flush()
            click.echo(printable(piece.note), err=True)
        if piece.data:
            yield piece.data


@click.command("list", cls=SettingsCommand)
@click.option("--all-namespaces", "-A", "everywhere", is_flag=True, help="Those of all namespaces.")
@json_output
@options(*_SETTINGS)
def list_runs(flags: dict[str, Any], *, everywhere: bool, as_json: bool) -> int:
    """List the runs, the newest first."""
    with ExitStack() as stack:
        place = looking(flags, stack)
        rows = place.rows(everywhere=everywhere)
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], default=str))
        return 0
    if not rows:
        click.echo(f"there is no run {place.where} in {'any namespace' if everywhere else place.namespace}")
        return 0
    width, style = screen()
    show([*view.table(rows, width=width, style=style, everywhere=everywhere)], style)
    return 0


@click.command(cls=SettingsCommand)
@_name
@click.option("--no-exec", is_flag=True, help="Do not ask running pods for the file itself.")
@json_output
@options("profile", *_SETTINGS)
def verify(flags: dict[str, Any], *, name: str, no_exec: bool, as_json: bool) -> int:
    """Check that every attempt had the system prompt that was meant; each fact is shown.

    PASS 0, DRIFT 20 (it was changed in mid run), STALE SOURCE 21 (it was changed since), NOT ENFORCED 22 (nothing
    checks it), UNKNOWN 23 (what would tell is gone).
    """
    with ExitStack() as stack:
        found = looking(flags, stack).verify(name, ask_pods=not no_exec)
    if as_json:
        click.echo(json.dumps(found.as_json(), default=str))
    else:
        width, style = screen()
        show([*view.verification(found, width=width, style=style)], style)
    return found.verdict.exit_code


@click.command(cls=SettingsCommand)
@_name
@click.option("--message", metavar="TEXT", default="cancelled on request", help="Why; it stands in the run's status.")
@click.option("--delete", is_flag=True, help="Delete the run as well, once it is cancelled.")
@click.option("--drop-finalizer", is_flag=True, help="With --delete: let go a run that no controller ever started.")
@json_output
@options(*_SETTINGS)
def cancel(flags: dict[str, Any], *, name: str, message: str, delete: bool, drop_finalizer: bool, as_json: bool) -> int:
    """End a run so that it stays ended: first its status, then its Jobs, then a look whether it stays so."""
    from run_cycle_loop.agentrun.cluster.cancel import EXIT_CODES  # noqa: PLC0415

    if drop_finalizer and not delete:
        raise click.UsageError("--drop-finalizer goes with --delete; add that")
    with ExitStack() as stack:
        done = looking(flags, stack).cancel(name, message=message, delete=delete, drop_finalizer=drop_finalizer)
    if as_json:
        click.echo(json.dumps(done.as_json(), default=str))
    else:
        click.echo(f"{done.name}: {done.message}")
        for note in done.notes:
            click.echo(f"  {note}")
        if done.jobs_deleted:
            click.echo(f"  ended: {', '.join(done.jobs_deleted)}")
        if done.jobs_left:
            click.echo(f"  still there: {', '.join(done.jobs_left)}")
    return EXIT_CODES[done.result]


@click.command(cls=SettingsCommand)
@click.option("--controller-namespace", metavar="NAME", default="agents", show_default=True, help="Where it is.")
@click.option(
    "--deployment", metavar="NAME", default="agents-controllers", show_default=True, help="What it is called."
)
@click.option("--all", "every", is_flag=True, help="All of them; left out: those of loops, and those that are set.")
@json_output
@options("profile", "namespace", "kubeconfig", "kube_context", "config")
def flags(flags: dict[str, Any], *, controller_namespace: str, deployment: str, every: bool, as_json: bool) -> int:
    """Show the flags of the cluster's controller: what is set, what is a default, what cannot be seen.

    The exit code is 0 where loops are enabled, 1 where they are not, 2 where that cannot be seen.
    """
    from run_cycle_loop.app.runs import cluster_runs  # noqa: PLC0415

    with ExitStack() as stack:
        place = cluster_runs(settings_for_looking(flags), stack)
        found = place.flags(controller_namespace=controller_namespace, deployment=deployment)
    if as_json:
        click.echo(json.dumps(found.as_json(), default=str))
    else:
        width, style = screen()
        show([*view.flags(found, width=width, style=style, every=every)], style)
    if not found.flags.known:
        return 2
    return 0 if found.flags.loops_enabled else 1
