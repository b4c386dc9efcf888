"""``stop``, ``resume`` and ``trigger``: what an operator tells a running loop."""

import signal
from typing import Any

import click

from run_cycle_loop.app.paths import Paths
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.controls import lock, stop_file
from run_cycle_loop.kit import process_tree
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.model.errors import RunCycleLoopError, StateError


@click.command(cls=SettingsCommand)
@click.option("--now", is_flag=True, help="End the running cycle too: TERM, grace, KILL.")
@options()
def stop(flags: dict[str, Any], *, now: bool) -> int:
    """Engage the kill switch: the loop stops and stays stopped until `resume`."""
    settings = settings_for_looking(flags)
    path = settings.stop_file
    try:
        stop_file.engage(path, now=now)
    except OSError as error:
        raise StateError(f"stop-file {path} cannot be written: {error.strerror or error}; mend its folder") from error
    click.echo(f"stop-file {path} is in place; `run-cycle-loop resume` removes it")
    running = lock.holder(Paths.of(settings).lock)
    if running is None:
        click.echo("no loop runs here at the moment; none will start a cycle until then")
    else:
        cycle = "ends its cycle now and stops" if now else "stops after its current cycle"
        click.echo(f"the loop (pid {running.pid}) {cycle}")
    return 0


@click.command(cls=SettingsCommand)
@options()
def resume(flags: dict[str, Any]) -> int:
    """Release the kill switch. A loop that it stopped is started again by you, or by systemd."""
    path = settings_for_looking(flags).stop_file
    try:
        found = stop_file.disengage(path)
    except OSError as error:
        raise StateError(f"stop-file {path} cannot be removed: {error.strerror or error}; remove it by hand") from error
    click.echo(f"stop-file {path} is removed" if found else f"there is no stop-file at {path}")
    return 0


@click.command(cls=SettingsCommand)
@options()
def trigger(flags: dict[str, Any]) -> int:
    """Start the next cycle now: whatever the loop waits for, it waits no longer."""
    path = Paths.of(settings_for_looking(flags)).lock
    running = lock.holder(path)
    if running is None or not process_tree.send(ProcessId(running.pid, running.start_ticks), signal.SIGUSR1):
        raise RunCycleLoopError(f"no loop runs here, by {path}; start one with `run-cycle-loop run --continuous`")
    click.echo(f"the loop (pid {running.pid}) starts its next cycle as soon as none runs")
    return 0
