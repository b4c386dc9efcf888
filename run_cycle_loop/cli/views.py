"""``status``, ``history``, ``logs`` and ``check``: what an operator looks at. They write nothing."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from run_cycle_loop.app.paths import Paths
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.cli.times import moment
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.config.sources import resolve
from run_cycle_loop.controls import lock, stop_file
from run_cycle_loop.kit import process_table
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import RunCycleLoopError
from run_cycle_loop.model.records import SupervisorIdentity
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.report import history as history_view
from run_cycle_loop.report import logs as logs_view
from run_cycle_loop.report import status as status_view
from run_cycle_loop.report.text import Style
from run_cycle_loop.stores.history import JsonlHistory
from run_cycle_loop.stores.snapshot import LatestJson

_ROWS = 20  #: of the history, where nothing narrows it


def _style() -> Style:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return Style.for_encoding(sys.stdout.encoding, colour=colour)


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


@click.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@options()
def status(flags: dict[str, Any], *, as_json: bool) -> int:
    """Show on one screen what the loop does and how it went."""
    settings = settings_for_looking(flags)
    snapshot = _snapshot(settings)
    found = status_view.status(
        snapshot,
        JsonlHistory(settings.history_path),
        is_alive=_is_alive,
        stop_file_present=stop_file.is_present(settings.stop_file),
        now=_now(),
        guards=_guards(settings, snapshot),
    )
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        click.echo(status_view.render(found, width=_width(), style=_style()), nl=False, color=_style().colour)
    return 0


def _guards(settings: Settings, snapshot: LoopSnapshot | None) -> Iterator[status_view.Row]:
    """How the guards stand, where there is anything to say; what cannot be read is said, and hides nothing else."""
    paths = Paths.of(settings)
    if paths.consent_audit.exists() or paths.consent_audit.with_suffix(".head").exists():
        from run_cycle_loop.report import consent as consent_view  # noqa: PLC0415 - only where there is any
        from run_cycle_loop.stores.audit import AuditChain  # noqa: PLC0415

        chain = AuditChain(paths.consent_audit, _now)
        yield from _row(
            "consent", lambda: consent_view.summary(chain.entries(), _now(), snapshot.agent if snapshot else None)
        )
    if paths.budget_ledger.exists() or settings.budget:
        from run_cycle_loop.cli.budget import standing as budgets  # noqa: PLC0415
        from run_cycle_loop.report import budget as budget_view  # noqa: PLC0415

        yield from _row("budget", lambda: budget_view.summary(budgets(settings, _now())))
    parked = sum(1 for _ in paths.quarantine.iterdir()) if paths.quarantine.is_dir() else 0
    if parked:
        yield "parked", f"{parked} in {paths.quarantine}: what was written over a cap, and undone", "yellow"
    if paths.breakers.exists():
        from run_cycle_loop.cli.breaker import standing as breakers  # noqa: PLC0415
        from run_cycle_loop.report import breakers as breaker_view  # noqa: PLC0415

        yield from _row("breaker", lambda: breaker_view.summary(breakers(settings)[0]))


def _row(label: str, look: Callable[[], tuple[str, str | None] | None]) -> Iterator[status_view.Row]:
    try:
        said = look()
    except RunCycleLoopError as error:
        said = str(error), "red"
    if said:
        yield label, *said


def _snapshot(settings: Settings) -> LoopSnapshot | None:
    paths = Paths.of(settings)
    try:
        found = LatestJson(paths.latest).read()
    except ValueError as error:
        click.echo(f"warning: {paths.latest} is damaged ({error}); the next start rebuilds it", err=True)
        return None
    if found is None and (running := lock.holder(paths.lock)) is not None:
        click.echo(f"warning: a loop runs (pid {running.pid}) without a {paths.latest}; give --log-dir too", err=True)
    return found


def _is_alive(identity: SupervisorIdentity) -> bool:
    """Whether exactly this supervisor still runs, on this machine and since its last start."""
    if identity.boot_id != process_table.boot_id():
        return False
    return process_table.is_alive(ProcessId(identity.pid, identity.start_ticks))


@click.command(cls=SettingsCommand)
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help=f"The last N; 0: all. [{_ROWS}, or all since]")
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice([word.value for word in Outcome]),
    multiple=True,
    help="Only these; repeatable.",
)
@click.option("--since", metavar="WHEN", help="Only what finished since: 24h ago, or 2026-01-31T08:00.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@options()
def history(
    flags: dict[str, Any], *, tail: int | None, outcomes: tuple[str, ...], since: str | None, as_json: bool
) -> int:
    """List recorded cycles, newest last."""
    start = None if since is None else moment(since, _now(), option="--since", ahead=False)
    if tail is None and start is None:
        tail = _ROWS
    records = history_view.select(
        JsonlHistory(settings_for_looking(flags).history_path),
        tail=tail or None,
        outcomes=tuple(Outcome(word) for word in outcomes),
        since=start,
    )
    style = _style()
    lines = (
        history_view.json_lines(records)
        if as_json
        else history_view.table(records, width=_width(), style=style, now=_now())
    )
    for line in lines:
        click.echo(line, color=style.colour)
    return 0


@click.command(cls=SettingsCommand)
@click.argument("cycle", default=logs_view.LATEST)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written, and with the cycles that follow.")
@options()
def logs(flags: dict[str, Any], cycle: str, *, follow: bool) -> int:
    """Print a cycle's log: CYCLE is a number, an id, or `latest`."""
    settings = settings_for_looking(flags)
    path = logs_view.find_log(settings.log_dir, cycle, JsonlHistory(settings.history_path))
    if path is None and not (follow and cycle == logs_view.LATEST):
        raise RunCycleLoopError(
            f"there is no log of cycle {cycle!r} in {settings.log_dir}; see `run-cycle-loop history`"
        )
    if follow:
        _print(logs_view.follow(settings.log_dir, path, wait=time.sleep))
    elif path is not None:
        _print(logs_view.read(path))
    return 0


def _print(blocks: Iterator[bytes]) -> None:
    """Raw into a pipe or a file; harmless on a terminal."""
    if sys.stdout.isatty():
        for text in logs_view.for_terminal(blocks):
            click.echo(text, nl=False)
        return
    for block in blocks:
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()


@click.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@options()
def check(flags: dict[str, Any], *, as_json: bool) -> int:
    """Check now what must hold before a cycle; exit code 0 where it does, 1 where it does not."""
    from run_cycle_loop.app.preview import preview  # noqa: PLC0415
    from run_cycle_loop.cli.checks import report_as_dict, show_report, with_guards  # noqa: PLC0415

    settings = resolve(flags, os.environ, Path.cwd()).settings
    report = with_guards(preview(settings, os.environ).report, settings)
    if as_json:
        click.echo(json.dumps(report_as_dict(report)))
    else:
        show_report(report)
    return 0 if report.ok else 1
