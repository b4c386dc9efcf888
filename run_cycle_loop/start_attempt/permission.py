"""Whether a coding agent may work in this attempt, by what the attempt's environment says."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from run_cycle_loop.guards.attempts import require_consent
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.policies import consent
from run_cycle_loop.start_attempt import view
from run_cycle_loop.stores.audit import FILE_NAME, AuditChain

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
    if not is_real:
        return ""
    now = datetime.now(UTC)

    def standing() -> consent.Consent:
        state = environ.get(view.HIDDEN)
        if not state:
            raise StateError(
                f"nobody says where consent to {agent} is kept; start the run with `run-cycle-loop agentrun run`"
            )
        audit = AuditChain(Path(state) / FILE_NAME, lambda: now)
        return consent.fold(audit.entries(), besides=environ.get(_CYCLE) or None)

    return require_consent(agent, guard=guard, standing=standing, now=now)
