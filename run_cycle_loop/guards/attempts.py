"""Whether an agent may work where nobody is there to ask: somebody must have allowed it before."""

from collections.abc import Callable
from datetime import datetime

from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import ConfigError, StateError
from run_cycle_loop.policies.consent import Consent


def require_consent(agent: str, *, guard: GuardMode, standing: Callable[[], Consent], now: datetime) -> str:
    """See that a grant covers the agent; returns a warning, empty where there is none.

    Args:
        agent: one that works by itself, and costs money.
        guard: what to do where nothing covers it.
        standing: reads the grants.
        now: the moment.

    Raises:
        ConfigError: it may not work, or it cannot be told.
    """
    if guard is GuardMode.OFF:
        return ""
    try:
        found = standing()
        trouble = "" if found.live(now, agent) else found.why_not(now, agent)
    except StateError as error:
        trouble = str(error)
    if trouble and guard is GuardMode.ENFORCE:
        raise ConfigError(trouble)
    return trouble
