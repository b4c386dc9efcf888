"""Whether the agent may work now: a person at the terminal says so, or somebody has said so beforehand."""

import argparse
import sys
from collections.abc import Callable
from datetime import datetime

from run_cycle_loop.agents.registry import PLANNER
from run_cycle_loop.guards.attempts import require_consent
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.policies import consent
from run_cycle_loop.stores.audit import FILE_NAME, AuditChain


class Refused(ConfigError):  # noqa: N818 - the word that it is known by; it is an answer, not a fault
    """Nobody has allowed this."""


def require(
    options: argparse.Namespace, agent: str, *, is_real: bool, cycle_id: str, now: Callable[[], datetime]
) -> tuple[str, ...]:
    """See that the agent may work; returns warnings, one sentence each.

    Raises:
        Refused: it may not.
    """
    if not options.assume_yes:
        _ask(options, agent)
        return ()
    guard = GuardMode(options.consent_guard)
    if not is_real:
        return ()
    audit = AuditChain(options.state_dir / FILE_NAME, now)

    def standing() -> consent.Consent:
        # The loop has noted this cycle already: it does not use its own grant up.
        return consent.fold(audit.entries(), besides=cycle_id or None)

    try:
        warning = require_consent(agent, guard=guard, standing=standing, now=now())
    except ConfigError as error:
        raise Refused(str(error)) from error
    return (warning,) if warning else ()


def _ask(options: argparse.Namespace, agent: str) -> None:
    """Ask on the terminal; without one, refuse."""
    if not sys.stdin.isatty():
        raise Refused("there is no terminal to ask for consent on: add --assume-yes")
    print(f"{_question(options, agent)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Refused("not agreed, so nothing was written")


def _question(options: argparse.Namespace, agent: str) -> str:
    if agent == PLANNER:
        return f"Write at most {options.cap_writes} files in {options.sandbox} and records in {options.state_dir}?"
    workdir = options.workdir or options.sandbox
    return f"Let {agent} work in {workdir} with nobody to ask, and write records in {options.state_dir}?"
