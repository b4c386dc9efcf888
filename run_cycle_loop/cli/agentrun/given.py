"""What every command of AgentRuns is given: manifests, a profile, where to look, how wide the screen is."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from run_cycle_loop.agentrun.manifests.documents import LARGEST, Bundle, Document, read_bundle
from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.report.text import Style

_FILES = "A manifest, a folder of them, or - for standard input; repeatable."


def files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``-f``, as ``sources``."""
    return click.option("-f", "--file", "sources", metavar="PATH", multiple=True, required=True, help=_FILES)(command)


def json_output(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="For scripts, as JSON.")(command)


def bundle_of(sources: Sequence[str]) -> Bundle:
    """The manifests.

    Raises:
        ConfigError: one cannot be read.
    """
    return read_bundle(sources, stdin=lambda: sys.stdin.buffer.read(LARGEST + 1))


def runs_of(bundle: Bundle, name: str | None = None) -> tuple[Document, ...]:
    """The AgentRuns, or the one of that name.

    Raises:
        ConfigError: there is none.
    """
    found = tuple(one for one in bundle.runs if name is None or one.name == name)
    if not found:
        names = ", ".join(one.name for one in bundle.runs)
        wanted = "no AgentRun" if name is None else f"no AgentRun called {name!r}"
        raise ConfigError(f"{wanted} is among the manifests; {f'there are {names}' if names else 'add one'}")
    return found


def one_run(bundle: Bundle, name: str | None) -> tuple[Document, AgentRun]:
    """The only AgentRun, or the one of that name.

    Raises:
        ConfigError: there is none, or there are several and none is named.
    """
    found = runs_of(bundle, name)
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise ConfigError(f"there are {len(found)} AgentRuns among the manifests ({names}); name one with --run")
    return found[0], read_run(found[0].body)


def screen() -> tuple[int, Style]:
    """How many columns standard output has, and what it can show."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return shutil.get_terminal_size((100, 24)).columns, Style.for_encoding(sys.stdout.encoding, colour=colour)


def show(lines: Sequence[str], style: Style) -> None:
    """Print them."""
    for line in lines:
        click.echo(line, color=style.colour)


def renamed(bundle: Bundle, document: Document, name: str | None, ending: str) -> tuple[Bundle, Document]:
    """The manifests with the run under another name: the given one, or its own with this ending.

    Raises:
        ConfigError: the ending cannot stand in a name.
    """
    from dataclasses import replace  # noqa: PLC0415 - only who renames

    from run_cycle_loop.agentrun.manifests.creation import unique_name  # noqa: PLC0415

    wanted = name or (unique_name(document.name, ending) if ending else document.name)
    if wanted == document.name:
        return bundle, document
    metadata = {**document.body["metadata"], "name": wanted}
    other = replace(document, body={**document.body, "metadata": metadata}, name=wanted)
    return Bundle(documents=tuple(other if one is document else one for one in bundle.documents)), other
