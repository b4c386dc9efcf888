"""Whether a coding agent may work in this attempt: nobody is there to ask, so somebody must have said so beforehand."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import ConfigError, StateError
from run_cycle_loop.policies import consent
from run_cycle_loop.start_attempt import view
from run_cycle_loop.stores.audit import AuditChain

AUDIT = "consent_audit.jsonl"  #: in the state directory
_GUARD, _CYCLE = "RUN_CYCLE_CONSENT_GUARD", "RUN_CYCLE_ID"


def require(agent: str, environ: Mapping[str, str], *, is_real: bool) -> str:
    """See that the agent may work; returns a warning, empty where there is none.

    Raises:
        ConfigError: it may not, or it cannot be told.
    """
    try:
        guard = GuardMode(environ.get(_GUARD) or GuardMode.ENFORCE)
    except ValueError:
        guard = GuardMode.ENFORCE
    if not is_real or guard is GuardMode.OFF:
        return ""
    trouble = _why_not(agent, environ)
    if trouble and guard is GuardMode.ENFORCE:
        raise ConfigError(trouble)
    return trouble


def _why_not(agent: str, environ: Mapping[str, str]) -> str:
    """Why no grant covers it; empty where one does."""
    state = environ.get(view.HIDDEN)
    if not state:
        return f"nobody says where consent to {agent} is kept; start the run with `run-cycle-loop agentrun run`"
    now = datetime.now(UTC)
    try:
        found = consent.fold(
            AuditChain(Path(state) / AUDIT, lambda: now).entries(), besides=environ.get(_CYCLE) or None
        )
    except StateError as error:
        return str(error)
    return "" if found.live(now, agent) else found.why_not(now, agent)
