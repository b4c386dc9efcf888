from typing import Any

import pytest

from run_cycle_loop.model.decisions import Continue, Decision, Halt, StopRequest
from run_cycle_loop.model.enums import Outcome, StopReason, Urgency
from run_cycle_loop.policies.backoff import Backoff
from run_cycle_loop.policies.conditions import Condition
from run_cycle_loop.policies.continuation import Rules, decide, exit_code, halt_for, held_by_limit, limit_reached
from run_cycle_loop.testing import NOON, make_record

FAILURES = [outcome for outcome in Outcome if outcome.is_failure]
OTHERS = [outcome for outcome in Outcome if not outcome.is_failure and outcome is not Outcome.RATE_LIMITED]


def after(
    outcome: Outcome, *, streak: int = 0, index: int = 1, control: dict[str, Any] | None = None, **rules: Any
) -> Decision:
    known: dict[str, Any] = {"iterations": 0, "sleep": 300.0, "backoff": Backoff(jitter=0)}
    record = make_record(status=outcome, consecutive_failures=streak, reason="why", control=control)
    return decide(Rules(**known | rules), record, index, lambda: 0.5)


@pytest.mark.parametrize("outcome", OTHERS)
def test_what_is_no_failure_is_followed_by_the_sleep(outcome: Outcome) -> None:
    decision = after(outcome)
    assert decision == Continue(delay=300.0, why="by --sleep")


@pytest.mark.parametrize("outcome", FAILURES)
def test_every_failure_is_followed_by_the_backoff_of_its_streak(outcome: Outcome) -> None:
    assert after(outcome, streak=2) == Continue(delay=300.0, why="after 2 failures in a row", backoff=True)


def test_a_sleep_of_zero_still_backs_off() -> None:
    decision = after(Outcome.FAILED, streak=1, sleep=0.0)
    assert isinstance(decision, Continue)
    assert decision.delay == 60.0


@pytest.mark.parametrize(
    ("index", "ends"), [(1, False), (2, False), (3, True), (4, True)], ids=["first", "second", "last", "beyond"]
)
def test_the_loop_ends_with_the_last_iteration(index: int, ends: bool) -> None:
    assert isinstance(after(Outcome.SUCCESS, index=index, iterations=3), Halt) is ends


def test_zero_iterations_never_end() -> None:
    assert isinstance(after(Outcome.SUCCESS, index=10**6, iterations=0), Continue)


@pytest.mark.parametrize(
    ("streak", "limit", "ends"), [(2, 3, False), (3, 3, True), (4, 3, True), (1, 1, True), (99, 0, False)]
)
def test_the_loop_gives_up_where_the_streak_fills_the_limit(streak: int, limit: int, ends: bool) -> None:
    decision = after(Outcome.TIMEOUT, streak=streak, max_failures=limit)
    assert isinstance(decision, Halt) is ends
    if isinstance(decision, Halt):
        assert decision.reason is StopReason.FAILURE_LIMIT
        assert f"{streak} failures in a row, the last one: timeout (why)" in decision.why


@pytest.mark.parametrize("outcome", [Outcome.DEGRADED, Outcome.INTERRUPTED])
def test_what_is_no_failure_never_fills_the_limit(outcome: Outcome) -> None:
    record = make_record(status=outcome, consecutive_failures=5)
    assert limit_reached(Rules(max_failures=3), record) is None


def test_the_failure_limit_is_named_before_the_last_iteration() -> None:
    decision = after(Outcome.FAILED, streak=3, index=3, iterations=3)
    assert isinstance(decision, Halt)
    assert decision.reason is StopReason.FAILURE_LIMIT


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("false", StopReason.CONDITION_FALSE),
        ("iteration.last.control.continue", StopReason.CONDITION_FALSE),
        ("iteration.last.control.more", StopReason.CONDITION_ERROR),
        ("1", StopReason.CONDITION_ERROR),
    ],
)
def test_a_condition_that_does_not_hold_ends_the_loop_with_its_reason(expression: str, reason: StopReason) -> None:
    decision = after(Outcome.SUCCESS, condition=Condition(expression), control={"continue": False})
    assert isinstance(decision, Halt)
    assert (decision.reason, expression in decision.why) == (reason, True)


def test_a_condition_that_holds_lets_the_loop_go_on() -> None:
    decision = after(Outcome.FAILED, streak=1, condition=Condition("iteration.last.phase == 'Failed'"))
    assert isinstance(decision, Continue)
    assert decision.backoff


def test_a_condition_is_not_asked_after_the_last_iteration() -> None:
    decision = after(Outcome.SUCCESS, iterations=1, condition=Condition("1"))
    assert isinstance(decision, Halt)
    assert decision.reason is StopReason.ITERATIONS_DONE


def test_a_condition_knows_the_limit_of_iterations() -> None:
    decision = after(Outcome.SUCCESS, index=2, iterations=9, condition=Condition("iteration.maxIterations == 9"))
    assert isinstance(decision, Continue)


def test_a_stop_request_halts_for_its_own_reason() -> None:
    request = StopRequest(reason=StopReason.STOP_FILE, urgency=Urgency.NOW, detail="the file is there")
    assert halt_for(request) == Halt(reason=StopReason.STOP_FILE, why="the file is there")


@pytest.mark.parametrize(
    ("reason", "last", "code"),
    [
        (StopReason.ITERATIONS_DONE, None, 0),
        (StopReason.ITERATIONS_DONE, Outcome.SUCCESS, 0),
        (StopReason.ITERATIONS_DONE, Outcome.DEGRADED, 0),
        (StopReason.ITERATIONS_DONE, Outcome.FAILED, 1),
        (StopReason.ITERATIONS_DONE, Outcome.PREREQ_FAILED, 1),
        (StopReason.CONDITION_FALSE, Outcome.SUCCESS, 0),
        (StopReason.CONDITION_FALSE, Outcome.TIMEOUT, 1),
        (StopReason.CONDITION_ERROR, Outcome.SUCCESS, 2),
        (StopReason.SIGNAL, None, 0),
        (StopReason.SIGNAL, Outcome.FAILED, 0),
        (StopReason.STOP_FILE, None, 10),
        (StopReason.STOP_FILE, Outcome.FAILED, 10),
        (StopReason.FAILURE_LIMIT, Outcome.FAILED, 11),
        (StopReason.STATE_UNWRITABLE, Outcome.SUCCESS, 74),
    ],
)
def test_the_exit_code_is_the_one_of_the_table(reason: StopReason, last: Outcome | None, code: int) -> None:
    assert exit_code(reason, last) == code


@pytest.mark.parametrize("reason", StopReason)
def test_every_reason_has_an_exit_code_that_its_table_documents(reason: StopReason) -> None:
    assert {exit_code(reason, last) for last in (None, *Outcome)} <= {0, 1, 2, 10, 11, 12, 13, 74, 75}


@pytest.mark.parametrize("moment", ["9999-12-31", "9999-12-31T23:59:59-14:00", "later", "0001-01-01T00:00:00+14:00"])
def test_a_limit_of_which_nobody_can_tell_when_it_ends_holds_no_new_run(moment: str) -> None:
    record = make_record(status=Outcome.RATE_LIMITED, retry_at=moment)
    assert held_by_limit(Rules(iterations=0), record, NOON) is None
