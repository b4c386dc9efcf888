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
from run_cycle_loop.model.spending import Account, Spending
from run_cycle_loop.policies import budgets
from run_cycle_loop.report import budget as view
from run_cycle_loop.report.text import Style
from run_cycle_loop.stores.history import JsonlHistory
from run_cycle_loop.stores.ledger import JsonlLedger


@click.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@options
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
    """How the budgets stand, by the ledger and the settings.

    Raises:
        StateError: the ledger cannot be read.
    """
    found = JsonlLedger(Paths.of(settings).budget_ledger, _warn).load()
    expected = budgets.estimate(
        found.measured,
        settings.budget,
        Spending(usd=settings.estimate_usd, tokens=settings.estimate_tokens),
        is_real=registry.is_real(_agent(settings)),
    )
    account = (found.account or Account()).on(budgets.day_of(now)).adding(expected.times(found.damaged))
    enforced = settings.budget_guard == GuardMode.ENFORCE
    return view.standing(settings.budget, account, expected, now=now, enforced=enforced)


def _agent(settings: Settings) -> str | None:
    """Whose next cycle it is about: the agent that is named here, else that of the last cycle."""
    last = JsonlHistory(settings.history_path).last() if settings.agent == "auto" else None
    return last.agent if last else agent_of(settings, os.environ)


def _warn(sentence: str) -> None:
    click.echo(f"warning: {sentence}", err=True)
