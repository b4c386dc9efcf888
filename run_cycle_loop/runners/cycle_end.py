"""What a cycle that ran elsewhere leaves for the loop: an exit code, a control payload, and a sentence for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from run_cycle_loop.model.enums import AgentClass

INTERRUPTED = 130
FAILED = 1
TIMED_OUT = 124
RATE_LIMITED = 75
NOT_ALLOWED = 77
_LONGEST = 1000  #: characters of a reason


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleEnd:
    """How a cycle ended."""

    exit_code: int
    control: Mapping[str, Any] = field(default_factory=dict)  #: empty: nothing is said beside the exit code
    sentence: str  #: for the cycle's log


def failed(
    reason: str,
    *,
    ended: AgentClass = AgentClass.TOOL_ERROR,
    permanent: bool = False,
    advice: str = "",
    more: Mapping[str, Any] | None = None,
) -> CycleEnd:
    """An end that is no success.

    Args:
        reason: one sentence.
        ended: which sort of failure it is.
        permanent: whether it would fail again until somebody has changed something.
        advice: what a person is to do.
        more: further keys of the control payload; those above win.
    """
    told = " ".join(reason.split())[:_LONGEST]
    control = {"class": str(ended), "reason": told, "permanent": permanent}
    if advice:
        control["advice"] = advice[:_LONGEST]
    code = {
        AgentClass.INTERRUPTED: INTERRUPTED,
        AgentClass.TIMEOUT: TIMED_OUT,
        AgentClass.RATE_LIMITED: RATE_LIMITED,
        AgentClass.AUTH: NOT_ALLOWED,
    }.get(ended, FAILED)
    return CycleEnd(exit_code=code, control={**(more or {}), **control}, sentence=f"{ended}: {told}")


def left_behind(why: str, removal: str, *, ended: AgentClass, more: Mapping[str, Any]) -> CycleEnd:
    """An end with something that may still run; it is warned of as well, whoever decides over the outcome."""
    told = f"{why}; to remove it: {removal}" if removal else why
    warnings = more.get("warnings")
    kept = warnings if isinstance(warnings, list) else []
    return failed(told, ended=ended, more={**more, "warnings": [*kept, told]})
