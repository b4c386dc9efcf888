"""``consent``: who allows coding agents to work unattended, until when, and whether the record of it is whole."""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from run_cycle_loop.agents import registry
from run_cycle_loop.app.paths import Paths
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.cli.operator import require_own, who
from run_cycle_loop.cli.times import moment
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.errors import RunCycleLoopError, StateError
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.policies import consent as policy
from run_cycle_loop.policies.consent import Event, Grant
from run_cycle_loop.report import consent as view
from run_cycle_loop.report.text import Style
from run_cycle_loop.stores.audit import AuditChain

_LONGEST_REASON = 500  #: characters


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


def _warn(sentence: str) -> None:
    click.echo(f"warning: {sentence}", err=True)


def _chain(settings: Settings) -> AuditChain:
    return AuditChain(Paths.of(settings).consent_audit, _now, _warn)


def _chain_to_write(settings: Settings) -> AuditChain:
    """The audit, unless what root writes there would lock the loop's own user out."""
    require_own(settings.state_dir, "consent ...")
    return _chain(settings)


def _reason(text: str) -> str:
    words = printable(" ".join(text.split()))
    if not words:
        raise click.BadParameter("is blank; say in a few words why", param_hint="--reason")
    if len(words) > _LONGEST_REASON:
        raise click.BadParameter(f"is longer than {_LONGEST_REASON} characters; cut it", param_hint="--reason")
    return words


@click.group("consent")
def consent() -> None:
    """Grant, list, revoke and verify consent to unattended agents."""


@consent.command(cls=SettingsCommand)
@click.option("--until", metavar="WHEN", required=True, help="24h (from now) or 2026-01-31T08:00; 30 days at most.")
@click.option("--reason", metavar="TEXT", required=True, help="Why, in a few words; it stays in the audit.")
@click.option("--max-cycles", type=click.IntRange(min=1), metavar="N", help="No more cycles than these.")
@click.option(
    "--for-agent", "agents", metavar="NAME", multiple=True, help="Only for this agent, as --agent; repeatable."
)
@options()
def grant(flags: dict[str, Any], *, until: str, reason: str, max_cycles: int | None, agents: tuple[str, ...]) -> int:
    """Let coding agents work without anybody to ask, for a time."""
    words = _reason(reason)
    only = sorted({*agents, *((flags["agent"],) if "agent" in flags else ())})
    for name in only:
        registry.check(name)
    now = _now()
    end = moment(until, now, option="--until", ahead=True)
    if refusal := policy.why_refused(granted_at=now, until=end, now=now):
        raise click.BadParameter(refusal, param_hint="--until")
    chain = _chain_to_write(settings_for_looking(flags))
    facts = {
        "grant": uuid.uuid4().hex[:8],
        "until": timestamp(end),
        "reason": words,
        "by": who(),
        "max_cycles": max_cycles,
        "agents": only,
    }
    chain.append(Event.GRANT, facts)
    most = "" if max_cycles is None else f", {max_cycles} {'cycle' if max_cycles == 1 else 'cycles'} at most"
    whom = f" to {', '.join(only)}" if only else ""
    click.echo(f"consent {facts['grant']} is granted{whom} until {end:%Y-%m-%d %H:%M}{most}")
    click.echo(f"`run-cycle-loop consent revoke {facts['grant']} --reason ...` takes it back")
    return 0


@consent.command("list", cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON list.")
@options()
def list_command(flags: dict[str, Any], *, as_json: bool) -> int:
    """List the grants, newest last."""
    grants, now = policy.fold(_chain(settings_for_looking(flags)).entries()).grants, _now()
    if as_json:
        click.echo(json.dumps([view.as_dict(item, now) for item in grants]))
    elif not grants:
        click.echo(f"none was ever granted; {policy.HOW_TO_GRANT}")
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        style = Style.for_encoding(sys.stdout.encoding, colour=colour)
        for line in view.table(grants, width=shutil.get_terminal_size((100, 24)).columns, style=style, now=now):
            click.echo(line, color=style.colour)
    return 0


@consent.command(cls=SettingsCommand)
@click.argument("name", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="Revoke all of them.")
@click.option("--reason", metavar="TEXT", required=True, help="Why, in a few words; it stays in the audit.")
@options()
def revoke(flags: dict[str, Any], *, name: str | None, everything: bool, reason: str) -> int:
    """Take consent back. A cycle that runs goes on; `run-cycle-loop stop --now` ends it."""
    if bool(name) is everything:
        raise click.UsageError("name one grant by its ID (see `run-cycle-loop consent list`), or say --all")
    words = _reason(reason)
    chain = _chain_to_write(settings_for_looking(flags))
    for grant_id in _to_revoke(policy.fold(chain.entries()).grants, name):
        chain.append(Event.REVOKE, {"grant": grant_id, "reason": words, "by": who()})
        click.echo(f"consent {grant_id} is revoked")
    return 0


def _to_revoke(grants: Sequence[Grant], name: str | None) -> list[str]:
    standing = [item.id for item in grants if item.revoked_at is None]
    if name is None:
        if not standing:
            raise RunCycleLoopError("there is no consent to revoke; see `run-cycle-loop consent list`")
        return standing
    if name not in standing:
        known = any(item.id == name for item in grants)
        why = "is revoked already" if known else "does not exist"
        raise RunCycleLoopError(f"consent {name!r} {why}; see `run-cycle-loop consent list`")
    return [name]


@consent.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@options()
def verify(flags: dict[str, Any], *, as_json: bool) -> int:
    """Check that the audit is whole.

    Every entry is checked against the one before. The exit code is 0 where it is whole, 1 where it is not.
    """
    count, head, fault = _verified(_chain(settings_for_looking(flags)))
    if as_json:
        click.echo(json.dumps({"ok": fault is None, "entries": count, "head": head, "fault": fault}))
    elif fault is None:
        click.echo(f"{count} {'entry' if count == 1 else 'entries'}, chain whole, head {head or 'none yet'}")
    else:
        click.echo(f"after {count} good entries: {fault}")
    return 0 if fault is None else 1


def _verified(chain: AuditChain) -> tuple[int, str | None, str | None]:
    """How many entries are good, the hash of the newest of them, and what is wrong after it."""
    count, head = 0, None
    try:
        for entry in chain.entries():
            count, head = entry["seq"], entry["hash"]
    except StateError as error:
        return count, head, str(error)
    return count, head, None
