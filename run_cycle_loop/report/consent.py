"""Consent as an operator sees it: one line for ``status``, a table for ``consent list``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from run_cycle_loop.model.errors import StateError
from run_cycle_loop.policies import consent
from run_cycle_loop.policies.consent import Grant
from run_cycle_loop.report.text import Style, pad

_ID = 8
_STAMP = len("2026-01-31 08:00")
_STATE = len("revoked")


def summary(
    entries: Iterable[Mapping[str, Any]], now: datetime, agent: str | None = None
) -> tuple[str, str | None] | None:
    """What ``status`` says of consent, and its colour; None where none was ever granted."""
    try:
        found = consent.fold(entries)
    except StateError as error:
        return f"{error}; `run-cycle-loop consent verify`", "red"
    if not found.grants:
        return None
    grant = found.live(now, agent)
    return (consent.summary(grant, now), None) if grant else (f"none, {found.why_not(now, agent)}", "yellow")


def state_of(grant: Grant, now: datetime) -> str:
    """One word: ``live revoked expired used`` or ``doubt``."""
    fault = grant.fault(now)
    if fault is None:
        return "live"
    if grant.revoked_at is not None:
        return "revoked"
    if now < grant.granted_at:
        return "doubt"
    return "used" if fault.startswith("is used up") else "expired"


def as_dict(grant: Grant, now: datetime) -> dict[str, Any]:
    """The JSON object of a grant."""
    return {
        "id": grant.id,
        "state": state_of(grant, now),
        "granted_at": grant.granted_at.isoformat(),
        "until": grant.until.isoformat(),
        "used": grant.used,
        "max_cycles": grant.max_cycles,
        "agents": list(grant.agents),
        "reason": grant.reason,
        "by": grant.by,
        "revoked_at": grant.revoked_at and grant.revoked_at.isoformat(),
        "revoked_why": grant.revoked_why,
    }


def table(grants: Sequence[Grant], *, width: int, style: Style, now: datetime) -> Iterator[str]:
    """A header and a line for each grant; the reason takes what is left of the width."""
    head = f"{'grant':<{_ID}}  {'state':<{_STATE}}  {'until':<{_STAMP}}  {'used':>7}  {'agents':<12}  reason, by"
    yield style.paint(style.fit(head, width).rstrip(), bold=True)
    for grant in grants:
        used = f"{grant.used}/{grant.max_cycles}" if grant.max_cycles is not None else str(grant.used)
        until = f"{grant.until.astimezone(now.tzinfo):%Y-%m-%d %H:%M}"
        agents = pad(style.fit(", ".join(grant.agents) or "any", 12), 12)
        name = pad(style.fit(grant.id, _ID), _ID)
        line = f"{name}  {state_of(grant, now):<{_STATE}}  {until}  {used:>7}  {agents}  {grant.reason}, {grant.by}"
        yield style.fit(line, width)
