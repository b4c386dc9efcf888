"""Whether the loop goes on after a cycle, and what it leaves with when it does not."""

from collections.abc import Callable
from dataclasses import dataclass, field

from run_cycle_loop.model.enums import Outcome, StopReason
from run_cycle_loop.model.records import Continue, CycleRecord, Decision, Halt, StopRequest
from run_cycle_loop.policies.backoff import Backoff
from run_cycle_loop.policies.conditions import Condition, ConditionError


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What the operator wants of the loop."""

    iterations: int = 1  #: 0: until stopped
    sleep: float = 300.0  #: seconds between cycles that did not fail
    max_failures: int = 3  #: consecutive; 0: never give up
    backoff: Backoff = field(default_factory=Backoff)
    condition: Condition | None = None


def decide(rules: Rules, record: CycleRecord, index: int, chance: Callable[[], float]) -> Decision:
    """What follows a recorded cycle; whoever asked for a stop is heard elsewhere, and first.

    Args:
        rules: the operator's.
        record: the cycle, with its streak.
        index: how many cycles this run has completed, this one included.
        chance: gives a number from 0 to 1.
    """
    if halt := limit_reached(rules, record):
        return halt
    if rules.iterations and index >= rules.iterations:
        return Halt(reason=StopReason.ITERATIONS_DONE, why=f"{index} of {rules.iterations} iterations done")
    if rules.condition is not None and (halt := _heed(rules.condition, rules, record, index)):
        return halt
    if record.status.is_failure:
        delay = rules.backoff.delay(record.consecutive_failures, chance)
        return Continue(delay=delay, why=f"after {record.consecutive_failures} failures in a row", backoff=True)
    return Continue(delay=rules.sleep, why="by --sleep")


def limit_reached(rules: Rules, record: CycleRecord) -> Halt | None:
    """The end of the loop where a failure fills the operator's limit."""
    if not (rules.max_failures and record.status.is_failure and record.consecutive_failures >= rules.max_failures):
        return None
    why = f"{record.consecutive_failures} failures in a row, the last one: {record.status} ({record.reason})"
    return Halt(reason=StopReason.FAILURE_LIMIT, why=why)


def _heed(condition: Condition, rules: Rules, record: CycleRecord, index: int) -> Halt | None:
    try:
        wanted = condition.holds(index=index, limit=rules.iterations, outcome=record.status, control=record.control)
    except ConditionError as error:
        return Halt(reason=StopReason.CONDITION_ERROR, why=str(error))
    if wanted:
        return None
    return Halt(reason=StopReason.CONDITION_FALSE, why=f"--while {condition.expression!r} is false")


def halt_for(request: StopRequest) -> Halt:
    """The end that a stop request asks for."""
    return Halt(reason=request.reason, why=request.detail)


def exit_code(reason: StopReason, last: Outcome | None) -> int:
    """What the command leaves with; systemd's unit and the operator's scripts depend on these numbers.

    Args:
        reason: why the loop ended.
        last: what the last cycle of this run came to, if there was one.
    """
    fixed = {
        StopReason.SIGNAL: 0,
        StopReason.CONDITION_ERROR: 2,
        StopReason.STOP_FILE: 10,
        StopReason.FAILURE_LIMIT: 11,
        StopReason.STATE_UNWRITABLE: 74,
    }
    if reason in fixed:
        return fixed[reason]
    return 1 if last is not None and last.is_failure else 0
