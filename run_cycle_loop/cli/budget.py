"""``budget``: what is spent of each budget, and what is left. It writes nothing."""

import json
import os
import shutil
import sys
from datetime import UTC, datetime
from typing import Any

import click

from run_cycle_loop.agents import registry
from run_cycle_loop.app.paths import Paths
from run_cycle_loop.app.plan import agent_of
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.spending import Account, Limit, Spending
from run_cycle_loop.policies import budgets
from run_cycle_loop.report import budget as view
from run_cycle_loop.report.text import Style
from run_cycle_loop.stores.ledger import JsonlLedger
from run_cycle_loop.stores.snapshot import LatestJson


@click.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@options()
def budget(flags: dict[str, Any], *, as_json: bool) -> int:
    """Show what is spent of each budget, what is left, and when it begins anew."""
    found = standing(settings_for_looking(flags), datetime.now(UTC).astimezone())
    if as_json:
        click.echo(json.dumps(found.as_dict()))
        return 0
    style = Style.for_encoding(sys.stdout.encoding, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    for line in view.render(found, width=shutil.get_terminal_size((100, 24)).columns, style=style):
        click.echo(line, color=style.colour)
    return 0


def standing(settings: Settings, now: datetime) -> view.Budgets:
    """How the budgets stand, by the ledger and the settings; those of the last run hold where none are set here.

    Raises:
        StateError: the ledger cannot be read.
    """
    found = JsonlLedger(Paths.of(settings).budget_ledger, _warn).load()
    limits, agent = _of_the_run(settings)
    expected = budgets.estimate(
        found.measured,
        limits,
        Spending(usd=settings.estimate_usd, tokens=settings.estimate_tokens),
        is_real=registry.is_real(agent),
    )
    account = (found.account or Account()).on(budgets.day_of(now)).adding(expected.times(found.damaged))
    enforced = settings.budget_guard == GuardMode.ENFORCE
    return view.standing(limits, account, expected, now=now, enforced=enforced)


def _of_the_run(settings: Settings) -> tuple[tuple[Limit, ...], str | None]:
    """The limits and the agent that are meant: those named here, else those that the loop runs or last ran with."""
    try:
        run = LatestJson(Paths.of(settings).latest).read()
        told = budgets.parse_limits(run.budget) if run else ()
    except ValueError:
        run, told = None, ()
    agent = run.agent if run and settings.agent == "auto" else agent_of(settings, os.environ)
    return settings.budget or told, agent


def _warn(sentence: str) -> None:
    click.echo(f"warning: {sentence}", err=True)
