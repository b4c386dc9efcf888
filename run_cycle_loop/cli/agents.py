"""``agents``: which coding agents are installed here, and what they can do. It writes nothing and asks no far end."""

import json
import os
import shutil
import sys
from pathlib import Path

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def agents(*, as_json: bool) -> int:
    """List the coding agents: installed or not, which version, logged in, and what they can do.

    Each installed program is asked for its version, which takes a second or two. Whether it is logged in is told from
    its files and from variables alone; the keys in them are never shown.
    """
    from run_cycle_loop.agents import registry  # noqa: PLC0415 - as the other commands' views
    from run_cycle_loop.agents.discovery import survey  # noqa: PLC0415
    from run_cycle_loop.kit.process_tree import adopt_orphans  # noqa: PLC0415
    from run_cycle_loop.report.agents import table  # noqa: PLC0415
    from run_cycle_loop.report.text import Style  # noqa: PLC0415

    adopt_orphans()  # nothing that a program starts to say its version outlives the question
    default = registry.default_agent(os.environ.get("PATH"))
    found = survey(os.environ, Path.home())
    if as_json:
        click.echo(json.dumps({"default": default, "agents": [agent.as_dict() for agent in found]}))
        return 0
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    style = Style.for_encoding(sys.stdout.encoding, colour=colour)
    width = shutil.get_terminal_size((100, 24)).columns
    for line in table(found, default=default, width=width, style=style):
        click.echo(line, color=style.colour)
    return 0
