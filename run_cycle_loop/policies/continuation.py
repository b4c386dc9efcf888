"""Whether the loop goes on after a cycle, and what it leaves with when it does not."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from run_cycle_loop.model.decisions import Continue, Decision, Halt, StopRequest
from run_cycle_loop.model.enums import Outcome, StopReason
from run_cycle_loop.model.records import CycleRecord, timestamp
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
    limit_margin: float = 60.0  #: seconds waited beyond what a rate limit says
    longest_limit: float = 86400.0  #: seconds; the longest wait for one rate limit


def decide(rules: Rules, record: CycleRecord, index: int, chance: Callable[[], float]) -> Decision:
    """What follows a recorded cycle; whoever asked for a stop is heard elsewhere, and first.

    Args:
        rules: the operator's.
        record: the cycle, with its streak.
        index: how many cycles this run has completed, this one included where it counts.
        chance: gives a number from 0 to 1.
    """
    if halt := limit_reached(rules, record):
        return halt
    if record.status is Outcome.RATE_LIMITED:
        return _after_limit(rules, record)
    if rules.iterations and index >= rules.iterations:
        return Halt(reason=StopReason.ITERATIONS_DONE, why=f"{index} of {rules.iterations} iterations done")
    if rules.condition is not None and (halt := _heed(rules.condition, rules, record, index)):
        return halt
    if record.status.is_failure:
        delay = rules.backoff.delay(record.consecutive_failures, chance)
        return Continue(delay=delay, why=f"after {record.consecutive_failures} failures in a row", backoff=True)
    return Continue(delay=rules.sleep, why="by --sleep")


def limit_reached(rules: Rules, record: CycleRecord) -> Halt | None:
    """The end of the loop where a failure is for good, or fills the operator's limit."""
    if record.permanent and record.status.is_failure:
        return Halt(reason=StopReason.PERMANENT_FAILURE, why=f"{record.reason}; it would fail again")
    if not (rules.max_failures and record.status.is_failure and record.consecutive_failures >= rules.max_failures):
        return None
    why = f"{record.consecutive_failures} failures in a row, the last one: {record.status} ({record.reason})"
    return Halt(reason=StopReason.FAILURE_LIMIT, why=why)


def _after_limit(rules: Rules, record: CycleRecord) -> Decision:
    """A rate limit is waited for, except by who asked for one cycle, now: the caller's pace is not ours to change."""
    at = _moment(record.retry_at)
    if rules.iterations == 1:
        return Halt(reason=StopReason.RATE_LIMITED, why=f"{record.reason}; not before {record.retry_at}")
    return Continue(delay=0.0, why=f"rate limited, not before {record.retry_at}", until=at)


def held_by_limit(rules: Rules, record: CycleRecord, now: datetime) -> Decision | None:
    """What is left to wait of the limit that the last cycle of an earlier run met; None where it is over."""
    at = _moment(record.retry_at)
    if record.status is not Outcome.RATE_LIMITED or at is None or at <= now:
        return None
    # No line of the history, whoever wrote it, may hold the loop for longer than one limit may.
    return _after_limit(
        rules, replace(record, retry_at=timestamp(min(at, now + timedelta(seconds=rules.longest_limit))))
    )


def later(first: Continue, second: Continue) -> Continue:
    """The longer of two waits, with the reason for it."""
    if second.until and (first.until is None or second.until > first.until):
        return second
    return second if not first.until and second.delay > first.delay else first


def seconds_to_wait(decision: Decision, now: datetime) -> float | None:
    """How long a decision makes the loop wait, by the clock at that moment; None where it ends."""
    if isinstance(decision, Halt):
        return None
    if decision.until is None:
        return decision.delay
    return round(max(0.0, (decision.until - now).total_seconds()), 3)


def left_of(delay: float, since: str, now: datetime) -> float:
    """What is left of a delay that began at ``since``, never more than it was, whatever the clock did meanwhile."""
    began = _moment(since)
    try:
        return delay if began is None else min(delay, max(0.0, delay - (now - began).total_seconds()))
    except TypeError:  # a time without a zone
        return delay


def _moment(text: str | None) -> datetime | None:
    """The moment in a record; None where it names none, or does not say in which zone."""
    try:
        found = None if text is None else datetime.fromisoformat(text)
        return found.astimezone(UTC) if found and found.tzinfo else None
    except (ValueError, OverflowError):
        return None


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
        StopReason.PERMANENT_FAILURE: 11,
        StopReason.BREAKER_OPEN: 11,
        StopReason.BUDGET_SPENT: 12,
        StopReason.GOALS_DONE: 13,
        StopReason.STATE_UNWRITABLE: 74,
        StopReason.RATE_LIMITED: 75,
    }
    if reason in fixed:
        return fixed[reason]
    return 1 if last is not None and last.is_failure else 0
