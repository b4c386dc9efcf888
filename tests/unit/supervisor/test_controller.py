import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.goals.single import SingleGoal
from run_cycle_loop.model.enums import Ending, LoopState, Outcome, StopReason, Urgency
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, RunnerError, StateError
from run_cycle_loop.model.ports import OutputLog
from run_cycle_loop.model.records import CheckResult, CycleSpec, RunResult, timestamp
from run_cycle_loop.policies.backoff import Backoff
from run_cycle_loop.policies.conditions import Condition
from run_cycle_loop.policies.continuation import Rules
from run_cycle_loop.testing import (
    NOON,
    FakeWorld,
    ScriptedArtifacts,
    ScriptedCheck,
    Step,
    make_record,
    make_result,
    make_running,
)

OK, FAILS = make_result(0), make_result(1)
EVEN = Backoff(jitter=0)
FRESH, STALE = True, False


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


def meanwhile(event: Callable[[], object], result: RunResult = OK) -> Step:
    """A cycle during which something happens."""

    def step(_spec: CycleSpec) -> RunResult:
        event()
        return result

    return step


def endless(**changes: Any) -> Rules:
    return Rules(iterations=0, backoff=EVEN, **changes)


# Cycles one after the other


def test_it_runs_so_many_cycles_and_sleeps_between_them_and_not_afterwards(world: FakeWorld) -> None:
    finish = world.run(OK, OK, OK)
    assert world.outcomes == [Outcome.SUCCESS] * 3
    assert world.stop.waits == [300.0, 300.0]
    assert (finish.reason, finish.exit_code) == (StopReason.ITERATIONS_DONE, 0)


def test_numbers_and_indices_count_up_and_no_id_comes_twice(world: FakeWorld) -> None:
    world.run(OK, FAILS, OK)
    specs = world.runner.specs
    assert [(spec.number, spec.index) for spec in specs] == [(1, 1), (2, 2), (3, 3)]
    assert len({spec.cycle_id for spec in specs}) == len({spec.control_file for spec in specs}) == 3


@pytest.mark.parametrize(("last", "number"), [(7, 8), (0, 3)], ids=["numbered lines", "an ancestor's two lines"])
def test_numbers_go_on_from_the_history(last: int, number: int) -> None:
    world = FakeWorld([make_record(last and last - 1), make_record(last)])
    world.run(OK)
    assert [spec.number for spec in world.runner.specs] == [number]


def test_each_state_is_shown_in_its_order(world: FakeWorld) -> None:
    world.run(OK, FAILS, OK)
    assert world.snapshots.states == [
        LoopState.STARTING,
        *(LoopState.CHECKING, LoopState.RUNNING, LoopState.WAITING),
        *(LoopState.CHECKING, LoopState.RUNNING, LoopState.BACKOFF),
        *(LoopState.CHECKING, LoopState.RUNNING, LoopState.STOPPING),
        LoopState.STOPPED,
    ]
    assert world.observer.states == world.snapshots.states


def test_a_cycle_is_named_in_its_slot_before_anything_of_it_runs(world: FakeWorld) -> None:
    named: list[str] = []

    def look(spec: CycleSpec) -> RunResult:
        slot = world.flight.read()
        assert slot is not None
        named.append(slot.cycle_id)
        assert slot.cycle_id == spec.cycle_id
        return OK

    world.run(look, look)
    assert named == [record.cycle_id for record in world.history.records()]


def test_a_record_is_in_the_history_before_anybody_is_shown_it(world: FakeWorld) -> None:
    known: list[tuple[int, int]] = []
    world.run(OK, meanwhile(lambda: known.append((len(world.history.lines), len(world.observer.records)))))
    assert known == [(1, 1)]
    counted = [snapshot.seq for snapshot in world.snapshots.shown if snapshot.state is LoopState.WAITING]
    assert counted == [1]


def test_the_snapshot_says_when_the_next_cycle_is_due(world: FakeWorld) -> None:
    world.run(OK, OK)
    waiting = next(shown for shown in world.snapshots.shown if shown.state is LoopState.WAITING)
    assert waiting.next_run_at == timestamp(NOON.replace(minute=5))
    assert world.snapshot.next_run_at is None


def test_a_record_says_what_follows_it(world: FakeWorld) -> None:
    world.run(OK, FAILS, OK)
    assert [record.next_delay_seconds for record in world.history.records()] == [300.0, 60.0, None]


def test_a_record_names_its_supervisor_and_what_was_asked(world: FakeWorld) -> None:
    world.run(OK, mode="careful", goals=SingleGoal(lambda: "tidy up"))
    record = world.history.last()
    assert record is not None
    assert record.supervisor is not None
    assert (record.supervisor.pid, record.mode, record.goal) == (4000, "careful", "tidy up")


def test_every_log_is_closed_and_names_the_command(world: FakeWorld) -> None:
    world.run(OK, RunnerError("no such command"))
    assert [log.closed for log in world.logs.opened] == [True, True]
    assert all("command ['scripted', 'experimental', 'plan']" in log.notes for log in world.logs.opened)


# Failures


def test_failures_back_off_and_a_success_ends_the_streak(world: FakeWorld) -> None:
    world.run(FAILS, FAILS, OK, FAILS, OK, rules=Rules(iterations=5, backoff=EVEN, sleep=0.0))
    assert [record.consecutive_failures for record in world.history.records()] == [1, 2, 0, 1, 0]
    assert world.stop.waits == [60.0, 300.0, 60.0]


@pytest.mark.parametrize("between", [make_result(0, ending=Ending.INTERRUPT)], ids=["interrupted"])
def test_what_is_neither_success_nor_failure_carries_the_streak_along(world: FakeWorld, between: RunResult) -> None:
    world.run(FAILS, between, FAILS)
    assert [record.consecutive_failures for record in world.history.records()] == [1, 1, 2]


def test_the_failure_limit_ends_the_loop(world: FakeWorld) -> None:
    finish = world.run(FAILS, FAILS, FAILS, rules=endless(max_failures=3))
    assert (finish.reason, finish.exit_code) == (StopReason.FAILURE_LIMIT, 11)
    assert world.snapshot.stop_reason is StopReason.FAILURE_LIMIT


def test_a_bounded_run_that_ends_on_a_failure_says_so(world: FakeWorld) -> None:
    assert world.run(OK, FAILS).exit_code == 1


def test_a_cycle_that_could_not_run_is_an_error_and_the_loop_goes_on(world: FakeWorld) -> None:
    world.run(RunnerError("no such command", exit_code=127), OK)
    first, second = world.history.records()
    assert (first.status, first.return_code, first.reason) == (Outcome.ERROR, 127, "no such command")
    assert second.status is Outcome.SUCCESS
    assert world.stop.waits == [60.0]


def test_a_condition_ends_the_loop_after_the_cycle_that_it_does_not_hold_for(world: FakeWorld) -> None:
    more = make_result(0, control={"continue": True})
    done = make_result(0, control={"continue": False})
    rules = endless(condition=Condition("iteration.last.control.continue"))
    assert world.run(more, more, done, rules=rules).reason is StopReason.CONDITION_FALSE


# What the cycle leaves


def test_usage_is_taken_from_the_control_payload(world: FakeWorld) -> None:
    world.run(
        make_result(0, control={"usage": {"tokens": 5}, "outputs": {"x": 1}}), make_result(0, control={"usage": 5})
    )
    first, second = world.history.records()
    assert (first.usage, first.control) == ({"tokens": 5}, {"usage": {"tokens": 5}, "outputs": {"x": 1}})
    assert second.usage is None


def test_why_a_control_file_could_not_be_taken_stands_in_the_reason(world: FakeWorld) -> None:
    world.run(make_result(0, control_error="it is no JSON"))
    assert [(record.status, record.reason) for record in world.history.records()] == [
        (Outcome.SUCCESS, "exit code 0; it is no JSON")
    ]


def test_stale_cycles_are_counted_until_a_fresh_archive(world: FakeWorld) -> None:
    world.run(OK, OK, OK, FAILS, artifacts=ScriptedArtifacts(STALE, STALE, FRESH, STALE))
    records = list(world.history.records())
    assert [record.status for record in records] == [
        *(Outcome.DEGRADED, Outcome.DEGRADED, Outcome.SUCCESS),
        Outcome.FAILED,
    ]
    assert [record.stale_cycles for record in records] == [1, 2, 0, 1]
    assert [record.archive_created for record in records] == [False, False, True, False]
    assert world.snapshot.last_archive == "archive-3.jsonl.gz"


def test_a_cycle_that_did_not_run_leaves_the_stale_count_alone(world: FakeWorld) -> None:
    check = ScriptedCheck(verdicts=[True, False, True])
    world.run(OK, OK, artifacts=ScriptedArtifacts(STALE, STALE), prerequisites=(check,), rules=Rules(iterations=3))
    assert [record.stale_cycles for record in world.history.records()] == [1, 1, 2]


def test_no_secret_reaches_a_record_or_the_slot_but_the_cycle_is_told_everything(world: FakeWorld) -> None:
    world.private = "hunter2"
    leaky = make_result(1, stderr_tail="hunter2", control={"usage": {"a": "hunter2"}}, control_error="hunter2")
    world.run(leaky, goals=SingleGoal(lambda: "use hunter2"), mode="m-hunter2")
    slot = world.flight.read()
    assert slot is not None
    assert "hunter2" not in world.history.lines[0] + slot.goal
    assert [spec.goal for spec in world.runner.specs] == ["use hunter2"]


def test_what_a_cycle_says_at_great_length_is_cut_and_no_half_of_a_secret_is_left_at_the_cut(world: FakeWorld) -> None:
    world.private = "hunter2"
    long = "x" * 3996 + "hunter2" * 100_000
    told = {"class": "auth", "reason": long, "advice": long, "warnings": [long] + ["again"] * 99_999}
    world.run(make_result(0, control=told))
    (record,) = world.history.records()
    assert max(len(text) for text in (record.reason, record.advice or "", record.guards[0]["detail"])) == 4000
    assert "hun" not in record.reason + (record.advice or "") + record.guards[0]["detail"]
    assert len(record.guards) == 21
    assert record.guards[-1]["detail"] == "and 99980 warnings more, which stand in its control payload"
    assert len(json.dumps(world.snapshot.as_dict())) < 200_000


# Prerequisites


def test_a_failed_prerequisite_skips_the_cycle_and_counts(world: FakeWorld) -> None:
    check = ScriptedCheck(name="disk", verdicts=[False, False, True])
    world.run(OK, rules=Rules(iterations=3, backoff=EVEN), prerequisites=(check,))
    records = list(world.history.records())
    assert [record.status for record in records] == [Outcome.PREREQ_FAILED, Outcome.PREREQ_FAILED, Outcome.SUCCESS]
    assert [record.prerequisites_ok for record in records] == [False, False, True]
    assert records[1].failed_checks == ("disk: does not hold",)
    assert world.stop.waits == [60.0, 300.0]


def test_every_check_is_made_and_noted_though_the_first_failed(world: FakeWorld) -> None:
    checks = [ScriptedCheck(name=name, verdicts=[False], required=name != "b") for name in "abc"]
    world.run(rules=Rules(iterations=1), prerequisites=tuple(checks))
    assert world.logs.opened[0].notes[:-1] == [
        "check a: FAILED, does not hold",
        "check b: missing (optional), does not hold",
        "check c: FAILED, does not hold",
    ]


def test_the_goal_is_read_before_every_cycle(world: FakeWorld) -> None:
    goals = iter(["first", "second"])
    world.run(OK, OK, goals=SingleGoal(lambda: next(goals)))
    assert [spec.goal for spec in world.runner.specs] == ["first", "second"]


def test_a_goal_that_cannot_be_read_is_a_failed_prerequisite_until_it_can(world: FakeWorld) -> None:
    goals: list[str] = []

    def goal() -> str:
        goals.append("found")
        if len(goals) == 1:
            raise ConfigError("the goal file is gone")
        return goals[0]

    world.run(OK, rules=Rules(iterations=2), goals=SingleGoal(goal))
    assert world.outcomes == [Outcome.PREREQ_FAILED, Outcome.SUCCESS]
    assert next(world.history.records()).failed_checks == ("goal: the goal file is gone",)


# Stopping, hurrying, reloading


@pytest.mark.parametrize(("reason", "code"), [(StopReason.SIGNAL, 0), (StopReason.STOP_FILE, 10)])
def test_a_stop_that_was_asked_before_the_start_runs_nothing(world: FakeWorld, reason: StopReason, code: int) -> None:
    world.stop.ask(reason=reason)
    finish = world.run(rules=endless())
    assert (world.outcomes, finish.reason, finish.exit_code) == ([], reason, code)


def test_a_stop_during_a_cycle_is_heeded_after_its_record(world: FakeWorld) -> None:
    finish = world.run(OK, meanwhile(world.stop.ask, FAILS), rules=endless())
    assert world.outcomes == [Outcome.SUCCESS, Outcome.FAILED]
    assert (finish.reason, finish.exit_code) == (StopReason.SIGNAL, 0)


@pytest.mark.parametrize(("first", "seconds"), [(OK, 300.0), (FAILS, 60.0)], ids=["sleep", "backoff"])
def test_a_stop_cuts_a_wait_short(world: FakeWorld, first: RunResult, seconds: float) -> None:
    world.stop.after(5.0, world.stop.ask)
    began = world.clock.monotonic()
    assert world.run(first, rules=endless()).exit_code == 0
    assert world.stop.waits == [seconds]
    assert world.clock.monotonic() == began + 5.0


def test_a_stop_comes_before_the_last_iterations_own_reason(world: FakeWorld) -> None:
    finish = world.run(meanwhile(lambda: world.stop.ask(reason=StopReason.STOP_FILE)))
    assert finish.exit_code == 10


def test_a_stop_is_shown_while_the_cycle_still_runs(world: FakeWorld) -> None:
    def stop(_spec: CycleSpec) -> RunResult:
        world.stop.ask()
        request = world.stop.requested()
        assert request is not None
        supervisor.hear(request)
        return FAILS

    supervisor = world.supervisor(world.plan(stop, rules=endless()))
    supervisor.run()
    assert world.snapshots.states[-3:] == [LoopState.STOPPING, LoopState.STOPPING, LoopState.STOPPED]
    assert all(shown.next_run_at is None for shown in world.snapshots.shown)


def test_a_cycle_that_is_launched_after_a_stop_is_shown_as_the_last(world: FakeWorld) -> None:
    class Stopping(ScriptedCheck):
        def check(self, spec: CycleSpec, log: OutputLog) -> CheckResult:
            world.stop.ask()
            request = world.stop.requested()
            assert request is not None
            supervisor.hear(request)
            return super().check(spec, log)

    supervisor = world.supervisor(world.plan(OK, rules=endless(), prerequisites=(Stopping(),)))
    supervisor.run()
    assert LoopState.RUNNING not in world.snapshots.states
    launched = [shown.cycle for shown in world.snapshots.shown if shown.cycle and shown.cycle.leader_pid]
    assert len(launched) == 1


def test_a_stop_between_cycles_shows_no_cycle_as_the_last(world: FakeWorld) -> None:
    supervisor = world.supervisor(world.plan(OK))
    world.stop.ask()
    request = world.stop.requested()
    assert request is not None
    supervisor.hear(request)
    assert LoopState.STOPPING not in world.snapshots.states


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("urgency", [Urgency.NOW, Urgency.KILL])
def test_an_urgent_stop_during_the_checks_launches_nothing_and_is_no_failure_of_a_check(
    world: FakeWorld, urgency: Urgency, holds: bool
) -> None:
    class Stopping(ScriptedCheck):
        def check(self, spec: CycleSpec, log: OutputLog) -> CheckResult:
            world.stop.ask(urgency)
            return super().check(spec, log)

    world.run(rules=endless(), prerequisites=(Stopping(verdicts=[holds]),))
    record = world.history.last()
    assert record is not None
    assert (record.status, record.reason) == (Outcome.INTERRUPTED, "stopped by SIGTERM before it was launched")


@pytest.mark.parametrize("urgency", [Urgency.NOW, Urgency.KILL])
def test_a_cycle_that_could_not_start_because_of_an_urgent_stop_is_no_failure(
    world: FakeWorld, urgency: Urgency
) -> None:
    def given_up(_spec: CycleSpec) -> RunResult:
        world.stop.ask(urgency)
        raise RunnerError("the workdir was not taken to its end")

    world.run(given_up, rules=endless())
    record = world.history.last()
    assert record is not None
    assert (record.status, record.reason) == (Outcome.INTERRUPTED, "stopped by SIGTERM before it was launched")


@pytest.mark.parametrize("urgency", Urgency)
def test_a_stop_while_the_goal_is_looked_for_begins_no_cycle(world: FakeWorld, urgency: Urgency) -> None:
    def goal() -> str:
        world.stop.ask(urgency)
        raise ConfigError("it was ended")

    assert world.run(rules=endless(), goals=SingleGoal(goal)).reason is StopReason.SIGNAL
    assert world.outcomes == []


def test_a_patient_stop_during_the_checks_lets_the_cycle_run(world: FakeWorld) -> None:
    class Stopping(ScriptedCheck):
        def check(self, spec: CycleSpec, log: OutputLog) -> CheckResult:
            world.stop.ask()
            return super().check(spec, log)

    world.run(OK, rules=endless(), prerequisites=(Stopping(),))
    assert world.outcomes == [Outcome.SUCCESS]


def test_a_trigger_starts_the_next_cycle_now(world: FakeWorld) -> None:
    world.stop.after(1.0, world.stop.trigger)
    began = world.clock.monotonic()
    world.run(OK, OK)
    assert world.clock.monotonic() == began + 1.0


def test_a_reload_changes_the_next_cycle(world: FakeWorld) -> None:
    second = FakeWorld().plan(OK, mode="new", rules=Rules(iterations=2))
    plan = world.plan(meanwhile(world.stop.reload), rules=Rules(iterations=2))
    world.supervisor(plan, reload=lambda: second).run()
    assert [record.mode for record in world.history.records()] == ["experimental", "new"]


def test_a_reload_that_gives_no_plan_leaves_the_old_one(world: FakeWorld) -> None:
    asked: list[None] = []
    plan = world.plan(meanwhile(world.stop.reload), OK, OK)
    world.supervisor(plan, reload=lambda: asked.append(None)).run()
    assert world.outcomes == [Outcome.SUCCESS] * 3
    assert len(asked) == 1


def test_who_lost_the_lock_starts_no_further_cycle(world: FakeWorld) -> None:
    def taken() -> None:
        raise AlreadyRunning("another instance holds it")

    step = meanwhile(lambda: setattr(world, "hold_instance", taken))
    with pytest.raises(AlreadyRunning):
        world.run(step, OK)
    assert world.outcomes == [Outcome.SUCCESS]


# Clocks that step


@pytest.mark.parametrize("step", [-3600.0, 3600.0, 86400.0 * 365 * 10])
def test_a_step_of_the_wall_clock_changes_no_duration_and_no_delay(world: FakeWorld, step: float) -> None:
    def stepping(_spec: CycleSpec) -> RunResult:
        world.clock.step_wall(step)
        world.clock.move(2.0)
        return FAILS

    world.run(stepping, OK, rules=Rules(iterations=2, backoff=EVEN))
    assert [record.duration_seconds for record in world.history.records()] == [2.0, 0.0]
    assert world.stop.waits == [60.0]


# What a dead supervisor left


def lost_world(*records: Any, **cycle: Any) -> FakeWorld:
    return FakeWorld(records, in_flight=make_running(len(records) + 1, boot_id="before the restart", **cycle))


def test_a_cycle_without_a_record_is_closed_as_lost(world: FakeWorld) -> None:
    world = lost_world(make_record(1), supervisor_pid=77, goal="the lost goal", leader_pid=5)
    world.run(OK)
    lost = list(world.history.records())[1]
    assert (lost.status, lost.cycle_id, lost.number, lost.goal) == (Outcome.LOST, "cycle-2", 2, "the lost goal")
    assert lost.reason == "its supervisor (pid 77) did not survive it"
    assert (lost.prerequisites_ok, lost.return_code) == (True, None)
    assert world.outcomes == [Outcome.SUCCESS, Outcome.LOST, Outcome.SUCCESS]
    assert [spec.number for spec in world.runner.specs] == [3]


def test_a_cycle_that_was_never_launched_did_not_pass_its_checks() -> None:
    world = lost_world()
    world.run(OK)
    assert next(world.history.records()).prerequisites_ok is False


def test_a_cycle_that_has_its_record_is_not_lost(world: FakeWorld) -> None:
    world.run(OK)
    world.run(OK)
    assert world.outcomes == [Outcome.SUCCESS] * 2


def test_a_cycle_whose_record_was_rotated_away_is_not_lost(world: FakeWorld) -> None:
    world.run(OK)
    world.history.lines.clear()
    world.run(OK)
    assert world.outcomes == [Outcome.SUCCESS]


def test_a_lost_cycle_is_a_failure_and_is_backed_off() -> None:
    world = lost_world(make_record(1, Outcome.FAILED, consecutive_failures=1, stale_cycles=2))
    world.run(OK, OK)
    lost = list(world.history.records())[1]
    assert (lost.consecutive_failures, lost.stale_cycles, lost.next_delay_seconds) == (2, 2, 300.0)
    assert world.stop.waits == [300.0, 300.0]
    assert world.snapshots.states[:3] == [LoopState.STARTING, LoopState.STARTING, LoopState.BACKOFF]


def test_a_one_shot_runs_at_once_after_a_lost_cycle() -> None:
    world = lost_world()
    world.run(OK)
    assert world.stop.waits == []


def test_a_lost_cycle_can_fill_the_failure_limit() -> None:
    world = lost_world(make_record(1, Outcome.FAILED, consecutive_failures=2))
    finish = world.run(rules=endless(max_failures=3))
    assert (finish.reason, finish.exit_code) == (StopReason.FAILURE_LIMIT, 11)
    assert world.outcomes == [Outcome.FAILED, Outcome.LOST]


def test_without_its_slot_a_lost_cycle_is_known_by_the_snapshot(world: FakeWorld) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        world.run(meanwhile(die))
    world.flight = type(world.flight)()
    world.snapshots.shown[:] = [shown for shown in world.snapshots.shown if shown.cycle]
    world.run(OK)
    assert world.outcomes == [Outcome.LOST, Outcome.SUCCESS]


# The backoff across a restart


@pytest.mark.parametrize(
    ("passed", "waits"),
    [(100.0, [200.0]), (0.0, [300.0]), (299.0, [1.0]), (300.0, []), (9999.0, []), (-3600.0, [300.0])],
)
def test_the_rest_of_a_backoff_is_waited_for(passed: float, waits: list[float]) -> None:
    world = FakeWorld([make_record(status=Outcome.FAILED, next_delay_seconds=300.0)])
    world.clock.step_wall(passed)
    world.run(OK, OK)
    assert world.stop.waits == [*waits, 300.0]


@pytest.mark.parametrize(
    "record",
    [
        make_record(status=Outcome.SUCCESS),
        make_record(status=Outcome.DEGRADED),
        make_record(status=Outcome.FAILED, next_delay_seconds=None),
    ],
    ids=["success", "degraded", "loop had ended"],
)
def test_nothing_else_is_waited_for_at_the_start(record: Any) -> None:
    world = FakeWorld([record])
    world.run(OK, OK)
    assert world.stop.waits == [300.0]


def test_a_one_shot_waits_for_no_backoff() -> None:
    world = FakeWorld([make_record(status=Outcome.FAILED)])
    world.run(OK)
    assert world.stop.waits == []


def test_a_backoff_of_unknown_age_is_waited_for_whole() -> None:
    world = FakeWorld([make_record(status=Outcome.FAILED, finished_at="yesterday")])
    world.run(OK, OK)
    assert world.stop.waits == [300.0, 300.0]


def test_the_streak_goes_on_after_a_restart() -> None:
    world = FakeWorld([make_record(status=Outcome.FAILED, consecutive_failures=2)])
    finish = world.run(FAILS, rules=endless(max_failures=3))
    assert finish.exit_code == 11


# State that cannot be written


def test_a_full_disk_holds_the_loop_until_there_is_room(world: FakeWorld) -> None:
    world.history.refuse(2)
    world.run(OK)
    assert world.outcomes == [Outcome.SUCCESS]
    assert world.stop.waits == [0.5, 1.0]
    assert world.snapshots.states.count(LoopState.HELD) == 2
    assert world.snapshot.state_errors == 2


def test_a_bounded_run_gives_up_after_four_attempts_with_last_words(world: FakeWorld) -> None:
    world.history.refuse(99)
    with pytest.raises(StateError):
        world.run(FAILS, OK)
    assert [record.status for record in world.last_words] == [Outcome.FAILED]
    assert world.stop.waits == [0.5, 1.0, 2.0]
    assert (world.snapshot.state, world.snapshot.stop_reason) == (LoopState.STOPPED, StopReason.STATE_UNWRITABLE)
    assert "No space left" in world.snapshot.note


def test_an_unbounded_run_is_held_ever_longer_and_never_gives_up(world: FakeWorld) -> None:
    world.history.refuse(8)
    world.run(OK, meanwhile(world.stop.ask), rules=endless())
    assert world.stop.waits == [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0, 300.0, 300.0]
    assert len(world.outcomes) == 2


def test_a_stop_while_the_loop_is_held_tries_once_more(world: FakeWorld) -> None:
    world.history.refuse(2)
    world.stop.after(0.1, world.stop.ask)
    with pytest.raises(StateError):
        world.run(OK, rules=endless())
    assert world.stop.waits == [0.5]
    assert len(world.last_words) == 1


def test_nothing_is_launched_before_it_could_be_announced(world: FakeWorld) -> None:
    world.flight.refuse(99)
    with pytest.raises(StateError):
        world.run(OK)
    assert world.runner.specs == []
    assert [log.closed for log in world.logs.opened] == [True]


def test_a_snapshot_that_cannot_be_written_stops_nothing_and_is_counted(world: FakeWorld) -> None:
    world.snapshots.refuse(3)
    world.run(OK)
    assert world.outcomes == [Outcome.SUCCESS]
    assert world.snapshot.state_errors == 3


def test_an_observer_that_fails_stops_nothing_and_is_counted(world: FakeWorld) -> None:
    world.observer.fault = RuntimeError("no network")
    world.run(OK, OK)
    assert world.outcomes == [Outcome.SUCCESS] * 2
    assert len(world.observer.records) == 2
    assert world.snapshot.observer_errors > 2


def test_an_error_of_ours_closes_the_log_and_comes_out(world: FakeWorld) -> None:
    with pytest.raises(AssertionError, match="one more than was scripted"):
        world.run(rules=Rules(iterations=1))
    assert [log.closed for log in world.logs.opened] == [True]


def test_the_limits_of_the_plan_are_those_of_the_cycle(world: FakeWorld) -> None:
    world.run(OK, timeout=7.0, idle_timeout=3.0, grace=1.0, control_dir=Path("here"))
    spec = world.runner.specs[0]
    assert (spec.timeout, spec.idle_timeout, spec.grace) == (7.0, 3.0, 1.0)
    assert spec.control_file.startswith("here/")
