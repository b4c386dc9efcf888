"""``config show``: every setting in force, and who gave it."""

import json
import os
from pathlib import Path
from typing import Any

import click

from run_cycle_loop.app.redaction import redactor_for
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.config.sources import resolve, unknown_variables
from run_cycle_loop.kit.printable import printable


@click.group()
def config() -> None:
    """Show the settings in force and where each comes from."""


@config.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object: {setting: {value, source}}.")
@options()
def show(flags: dict[str, Any], *, as_json: bool) -> int:
    """Print every value and its source; flags given here count as they would for `run`."""
    resolved = resolve(flags, os.environ, Path.cwd(), cycle_files=False)
    rows = resolved.rows(redactor_for(resolved.settings, os.environ).text)
    if as_json:
        click.echo(json.dumps({name: {"value": value, "source": source} for name, value, source in rows}, indent=1))
        return 0
    names, values = max(len(row[0]) for row in rows), 44
    for name, value, source in rows:
        shown = printable(value)
        shown = shown if len(shown) <= values else shown[: values - 3] + "..."
        colour = None if source == "default" else "cyan"
        click.echo(f"{name:<{names}}  {shown:<{values}}  {click.style(source, fg=colour)}")
    for name, meant in unknown_variables(os.environ):
        click.echo(f"warning: variable {name} sets nothing" + (f"; did you mean {meant}?" if meant else ""), err=True)
    return 0
