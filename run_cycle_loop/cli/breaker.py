"""``breaker``: whether a breaker is open, and the reset after a person has looked."""

import json
import os
import shutil
import sys
from datetime import UTC, datetime
from typing import Any

import click

from run_cycle_loop.agents import registry
from run_cycle_loop.app.guards import thresholds
from run_cycle_loop.app.paths import Paths
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.cli.operator import require_own, who
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, Opened, Reset
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.policies import breakers as policy
from run_cycle_loop.policies.breakers import Verdict
from run_cycle_loop.report import breakers as view
from run_cycle_loop.report.text import Style
from run_cycle_loop.stores.breakers import BreakerFile
from run_cycle_loop.stores.history import JsonlHistory

_LONGEST_REASON = 500  #: characters


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


def _file(settings: Settings) -> BreakerFile:
    return BreakerFile(Paths.of(settings).breakers, _now, lambda sentence: click.echo(f"warning: {sentence}", err=True))


@click.group("breaker")
def breaker() -> None:
    """Show and reset the breakers: what ends a loop that gets nowhere."""


@breaker.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@options()
def show(flags: dict[str, Any], *, as_json: bool) -> int:
    """Show what each breaker has counted, and whether it is open."""
    settings = settings_for_looking(flags)
    verdicts, marks = standing(settings)
    if as_json:
        click.echo(json.dumps(view.as_dict(verdicts, marks)))
        return 0
    style = Style.for_encoding(sys.stdout.encoding, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    width = shutil.get_terminal_size((100, 24)).columns
    for line in view.render(verdicts, marks, width=width, style=style, now=_now()):
        click.echo(line, color=style.colour)
    return 0


def standing(settings: Settings) -> tuple[tuple[Verdict, ...], BreakerMarks]:
    """What each breaker says, by the history and by what is kept; nothing is written."""
    wanted, file = thresholds(settings), _file(settings)
    try:
        marks = file.read()
    except (OSError, ValueError) as fault:
        why = f"{file.path.name} is damaged ({fault})"
        marks = BreakerMarks(opened=Opened(name=BreakerName.STATE, at="", number=0, why=why))
    history = JsonlHistory(settings.history_path)
    watch = policy.watched(history.newest_first(), wanted, marks, registry.is_real)
    return policy.judge(watch, wanted, marks), marks


@breaker.command(cls=SettingsCommand)
@click.option("--reason", metavar="TEXT", default="", help="Why, in a few words; it is shown until the next reset.")
@options()
def reset(flags: dict[str, Any], *, reason: str) -> int:
    """Close the breakers: what was recorded until now counts no more."""
    settings = settings_for_looking(flags)
    words = " ".join(printable(reason).split())
    if len(words) > _LONGEST_REASON:
        raise click.BadParameter(f"is longer than {_LONGEST_REASON} characters; cut it", param_hint="--reason")
    require_own(settings.state_dir, "breaker reset")
    file = _file(settings)
    file.load()  # what is damaged is set aside before it is replaced
    last = JsonlHistory(settings.history_path).last()
    number = last.number if last else 0
    file.save(BreakerMarks(reset=Reset(at=timestamp(_now()), by=who(), number=number, reason=words)))
    click.echo(f"the breakers are closed; what was recorded up to cycle {number} counts no more")
    return 0
