from datetime import timedelta
from typing import Any

import pytest

from run_cycle_loop.model.decisions import Continue, Halt
from run_cycle_loop.model.enums import AgentClass, GuardMode, LoopState, Outcome, StopReason
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.findings import GuardFinding, TreeVerdict
from run_cycle_loop.model.ports import OutputLog, Settled
from run_cycle_loop.model.records import CheckResult, CycleSpec, RunResult, timestamp
from run_cycle_loop.policies.backoff import Backoff
from run_cycle_loop.policies.continuation import Rules
from run_cycle_loop.testing import NOON, FakeWorld, ScriptedCheck, ScriptedGuard, make_record, make_result, make_running

OK, FAILS = make_result(0), make_result(1)
SPENT = Halt(reason=StopReason.BUDGET_SPENT, why="usd 20 of 20 spent today")


def agent(ended: AgentClass, exit_code: int = 0, **more: Any) -> RunResult:
    """A cycle whose agent tells how it ended."""
    return make_result(exit_code, control={"class": str(ended), "agent": "codex", **more})


def limited(**more: Any) -> RunResult:
    return agent(AgentClass.RATE_LIMITED, 75, **more)


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


def endless(**changes: Any) -> Rules:
    return Rules(iterations=0, backoff=Backoff(jitter=0), **changes)


class StaleCheckout:
    def check(self, _spec: CycleSpec, _log: OutputLog) -> CheckResult:
        return CheckResult(name="git", ok=False, detail="2 behind", required=False, guard="git")


# Guards


def test_a_guard_learns_the_beginning_and_the_end_of_every_cycle(world: FakeWorld) -> None:
    guard = ScriptedGuard()
    world.run(OK, FAILS, guards=(guard,))
    assert guard.events == ["begin 1", "settle 1 success", "begin 2", "settle 2 failed"]


def test_a_cycle_that_was_kept_back_is_settled_as_not_launched(world: FakeWorld) -> None:
    guard = ScriptedGuard()
    world.run(OK, guards=(guard,), prerequisites=(ScriptedCheck(verdicts=[False]),))
    assert guard.events == ["begin 1", "settle 1 prereq_failed not launched"]


def test_a_cycle_whose_beginning_cannot_be_noted_is_given_back_by_every_guard(world: FakeWorld) -> None:
    first, second = ScriptedGuard(), ScriptedGuard()
    world.flight.refuse(99)
    with pytest.raises(StateError):
        world.run(OK, guards=(first, second))
    assert first.events == second.events == ["begin 1", "settle 1 skipped not launched"]
    assert (world.outcomes, world.runner.specs) == ([], [])


def test_a_guard_that_cannot_note_the_beginning_keeps_no_other_one_from_giving_it_back(world: FakeWorld) -> None:
    first, second = ScriptedGuard(), ScriptedGuard()
    second.refusals = 99
    with pytest.raises(StateError):
        world.run(OK, guards=(first, second))
    assert first.events == ["begin 1", "settle 1 skipped not launched"]


def test_a_guard_that_halts_is_heard_before_the_first_cycle(world: FakeWorld) -> None:
    finish = world.run(OK, guards=(ScriptedGuard(SPENT),))
    assert (finish.reason, finish.exit_code, world.outcomes) == (StopReason.BUDGET_SPENT, 12, [])


def test_a_guard_that_halts_after_a_cycle_spares_the_pause(world: FakeWorld) -> None:
    finish = world.run(OK, OK, guards=(ScriptedGuard(None, SPENT),))
    assert (finish.reason, world.stop.waits, world.outcomes) == (StopReason.BUDGET_SPENT, [], [Outcome.SUCCESS])
    assert world.history.lines
    assert (last := world.history.last()) is not None
    assert last.next_delay_seconds is None


def test_iterations_that_are_done_are_no_breaker(world: FakeWorld) -> None:
    assert world.run(OK, guards=(ScriptedGuard(None, SPENT),)).reason is StopReason.ITERATIONS_DONE


def test_the_longer_of_two_waits_holds_and_shows(world: FakeWorld) -> None:
    tomorrow = NOON + timedelta(hours=12)
    guard = ScriptedGuard(None, Continue(delay=0, why="until midnight", until=tomorrow))
    world.run(OK, OK, guards=(guard,))
    assert world.clock.now() == tomorrow
    waiting = next(shown for shown in world.snapshots.shown if shown.state is LoopState.WAITING)
    assert (waiting.next_run_at, waiting.note) == (timestamp(tomorrow), "until midnight")
    assert [record.next_delay_seconds for record in world.history.records()] == [43200.0, None]


def test_a_guard_is_asked_again_after_its_wait(world: FakeWorld) -> None:
    guard = ScriptedGuard(Continue(delay=10, why="not yet"), Continue(delay=20, why="not yet"))
    world.run(OK, OK, guards=(guard,), rules=Rules(iterations=2, sleep=0))
    assert (world.stop.waits, world.outcomes) == ([10, 20], [Outcome.SUCCESS] * 2)


def test_who_asked_for_one_cycle_is_not_made_to_wait(world: FakeWorld) -> None:
    spent = Continue(delay=10, why="usd 20 of 20", until=NOON + timedelta(days=1), instead=StopReason.BUDGET_SPENT)
    finish = world.run(OK, guards=(ScriptedGuard(spent),))
    assert (finish.reason, finish.exit_code, world.stop.waits) == (StopReason.BUDGET_SPENT, 12, [])


def test_a_wait_that_is_only_a_pace_does_not_keep_one_cycle_back(world: FakeWorld) -> None:
    world.run(OK, guards=(ScriptedGuard(Continue(delay=1800, why="half-open")),))
    assert (world.stop.waits, world.outcomes) == ([], [Outcome.SUCCESS])


def test_what_a_guard_allows_reaches_the_cycle_and_shortens_its_timeout(world: FakeWorld) -> None:
    world.run(OK, guards=(ScriptedGuard(allows={"allowed_usd": 1.5, "allowed_seconds": 7.0}),))
    spec = world.runner.specs[0]
    assert (spec.allowed_usd, spec.timeout) == (1.5, 7.0)


def test_a_wide_allowance_does_not_lengthen_the_timeout(world: FakeWorld) -> None:
    world.run(OK, guards=(ScriptedGuard(allows={"allowed_seconds": 7000.0}),))
    assert world.runner.specs[0].timeout == 300.0


def test_no_cycle_starts_that_a_guard_could_not_note(world: FakeWorld) -> None:
    guard = ScriptedGuard()
    guard.refusals = 2
    world.run(OK, guards=(guard,))
    held = [shown.note for shown in world.snapshots.shown if shown.state is LoopState.HELD]
    assert held == ["the guard's state cannot be written"] * 2
    assert guard.events == ["begin 1", "settle 1 success"]


def test_findings_and_charges_stand_in_the_record(world: FakeWorld) -> None:
    guard = ScriptedGuard()
    finding = GuardFinding(guard="budget", mode=GuardMode.WARN, ok=False, detail="over")
    guard.settles = Settled(findings=(finding,), changes={"charged": {"usd": 2.0}})
    world.run(OK, guards=(guard,))
    assert (last := world.history.last()) is not None
    assert (last.guards, last.charged) == ((finding.as_dict(),), {"usd": 2.0})


def test_a_check_that_a_guard_makes_stands_in_the_record_even_where_it_only_warns(world: FakeWorld) -> None:
    world.run(OK, prerequisites=(StaleCheckout(),))
    assert (last := world.history.last()) is not None
    assert last.guards == ({"guard": "git", "mode": "warn", "ok": False, "detail": "2 behind"},)
    assert last.status is Outcome.SUCCESS


def test_what_it_wrote_over_the_cap_decides_over_its_own_good_end(world: FakeWorld) -> None:
    finding = GuardFinding(guard="write_cap", mode=GuardMode.ENFORCE, ok=False, detail="9 files, 3 are allowed")
    tree = TreeVerdict(files=9, bytes=12, finding=finding)
    world.run(make_result(0, tree=tree))
    assert (last := world.history.last()) is not None
    assert (last.status, last.reason) == (Outcome.FAILED, "write_cap: 9 files, 3 are allowed")
    assert (last.files_changed, last.bytes_changed) == (9, 12)


# Rate limits


def test_a_rate_limit_is_waited_for_and_is_neither_failure_nor_iteration(world: FakeWorld) -> None:
    reset = NOON + timedelta(hours=3)
    finish = world.run(limited(retry_at=timestamp(reset)), OK, OK, rules=Rules(iterations=2))
    assert world.outcomes == [Outcome.RATE_LIMITED, Outcome.SUCCESS, Outcome.SUCCESS]
    assert (finish.reason, finish.exit_code) == (StopReason.ITERATIONS_DONE, 0)
    first, second, _ = world.history.records()
    assert (first.consecutive_failures, first.retry_at) == (0, timestamp(reset + timedelta(minutes=1)))
    assert second.consecutive_failures == 0
    assert max(world.stop.waits[:-1]) <= 60.0


def test_a_limit_that_does_not_say_when_is_waited_for_ever_longer(world: FakeWorld) -> None:
    world.run(limited(), limited(), limited(), OK, OK, rules=Rules(iterations=2))
    starts = [record.next_delay_seconds for record in world.history.records()]
    assert starts[:3] == [60.0, 120.0, 300.0]


def test_no_limit_holds_for_more_than_a_day(world: FakeWorld) -> None:
    world.run(limited(retry_at=timestamp(NOON + timedelta(days=400))), OK, OK, rules=Rules(iterations=2))
    assert world.clock.now() <= NOON + timedelta(days=1, minutes=10)


def test_a_wall_clock_that_is_set_back_does_not_prolong_the_wait(world: FakeWorld) -> None:
    world.stop.after(600, lambda: world.clock.step_wall(-86400 * 365))
    began = world.clock.monotonic()
    world.run(limited(retry_at=timestamp(NOON + timedelta(hours=1))), OK, OK, rules=Rules(iterations=2))
    assert world.clock.monotonic() - began <= 3600 + 60 + 300 + 1


def test_a_machine_that_slept_over_the_reset_goes_on_within_a_minute(world: FakeWorld) -> None:
    world.stop.after(600, lambda: world.clock.step_wall(7200))
    began = world.clock.monotonic()
    world.run(limited(retry_at=timestamp(NOON + timedelta(hours=2))), OK, OK, rules=Rules(iterations=2))
    assert world.clock.monotonic() - began <= 600 + 60 + 300 + 1


def test_who_asked_for_one_cycle_is_told_to_try_again_later(world: FakeWorld) -> None:
    finish = world.run(limited(retry_at=timestamp(NOON + timedelta(hours=1))))
    assert (finish.reason, finish.exit_code) == (StopReason.RATE_LIMITED, 75)


def test_a_limit_outlives_the_loop_that_met_it() -> None:
    record = make_record(1, Outcome.RATE_LIMITED, retry_at=timestamp(NOON + timedelta(minutes=30)))
    world = FakeWorld([record])
    world.run(OK, OK)
    assert (world.clock.now() - NOON) == timedelta(minutes=35)


def test_one_cycle_is_not_started_into_a_limit_that_is_known() -> None:
    record = make_record(1, Outcome.RATE_LIMITED, retry_at=timestamp(NOON + timedelta(minutes=30)))
    world = FakeWorld([record])
    finish = world.run(OK)
    assert (finish.exit_code, len(world.runner.specs)) == (75, 0)


@pytest.mark.parametrize("retry_at", ["9999-12-31T23:59:59+00:00", "nonsense", "2026-01-02T11:00:00Z"])
def test_no_line_of_the_history_holds_the_loop_for_ever(retry_at: str) -> None:
    world = FakeWorld([make_record(1, Outcome.RATE_LIMITED, retry_at=retry_at)])
    world.run(OK, OK)
    assert world.outcomes[1:] == [Outcome.SUCCESS] * 2
    assert world.clock.now() - NOON <= timedelta(days=1, minutes=10)


# What only a person can mend


def test_a_permanent_failure_ends_the_loop_at_once_with_what_to_do(world: FakeWorld) -> None:
    result = agent(AgentClass.AUTH, 77, reason="the key was refused", advice="run codex login", permanent=True)
    finish = world.run(result, OK, rules=endless(max_failures=0))
    assert (finish.reason, finish.exit_code) == (StopReason.PERMANENT_FAILURE, 11)
    assert "run codex login" in finish.why
    assert (last := world.history.last()) is not None
    assert (last.status, last.agent_class, last.advice) == (Outcome.FAILED, "auth", "run codex login")


def test_a_lost_cycle_tells_what_it_did_to_its_tree() -> None:
    class Tree:
        def recover(self) -> TreeVerdict:
            finding = GuardFinding(guard="write_cap", mode=GuardMode.ENFORCE, ok=False, detail="9 files, put back")
            return TreeVerdict(files=9, finding=finding)

    world = FakeWorld(in_flight=make_running(1, agent="codex"))
    world.run(OK, tree=Tree())
    lost = next(iter(world.history.records()))
    assert (lost.status, lost.agent, lost.files_changed) == (Outcome.LOST, "codex", 9)
    assert "9 files, put back" in lost.reason


@pytest.mark.parametrize(("instead", "asked"), [(None, 60.0), (StopReason.BUDGET_SPENT, 600.0)])
def test_a_trigger_ends_a_wait_that_is_only_a_pace_and_no_other(
    world: FakeWorld, instead: StopReason | None, asked: float
) -> None:
    wait = Continue(delay=0, why="not yet", until=NOON + timedelta(minutes=10), instead=instead)
    world.stop.after(60, world.stop.trigger)
    began = world.clock.monotonic()
    starts: list[float] = []

    def step(_spec: CycleSpec) -> RunResult:
        starts.append(world.clock.monotonic() - began)
        return OK

    world.run(step, OK, guards=(ScriptedGuard(wait, wait),), rules=Rules(iterations=2, sleep=0))
    assert starts == [asked]
