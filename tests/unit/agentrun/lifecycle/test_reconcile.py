"""The state machine of a workflow run: each stop reason, each retry, and what the status says of them."""

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from run_cycle_loop.agentrun.lifecycle.actions import LookAgain, StartAttempt, StopAttempt
from run_cycle_loop.agentrun.lifecycle.control import MISSING, Control
from run_cycle_loop.agentrun.lifecycle.observed import Observed, ObservedJob, Refusal
from run_cycle_loop.agentrun.lifecycle.reconcile import cancel, reconcile, refuse
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus, StepStatus, read_status, write_status
from tests.unit.agentrun.simulation import ACTIVE, START, Simulation, failed, run_with, step, succeeded

BROKEN = Control(fault="invalid loop control annotation JSON: no")
CONTINUE = "iteration.last.control.continue == true"


def condition(expression: str = CONTINUE, **source: Any) -> dict[str, Any]:
    return {"expression": expression, **({"source": source} if source else {})}


def ending(simulation: Simulation) -> tuple[str, str, int, int]:
    """Phase of the run, the first step's stop reason, its completed and its current iteration."""
    status = simulation.to_the_end()
    loop = status.steps[0].loop
    assert loop is not None
    return status.phase, loop.stop, loop.completed, loop.current


@pytest.mark.parametrize(
    ("loop", "attempts", "expected"),
    [
        ({"maxIterations": 1}, [succeeded()], ("Succeeded", "LoopMaxIterationsReached", 1, 1)),
        ({"maxIterations": 3}, [succeeded()] * 3, ("Succeeded", "LoopMaxIterationsReached", 3, 3)),
        (
            {"maxIterations": 3, "condition": condition("true")},
            [succeeded({})] * 3,
            ("Succeeded", "LoopMaxIterationsReached", 3, 3),
        ),
        (
            {"maxIterations": 8, "condition": condition()},
            [succeeded({"continue": True}), succeeded({"continue": False})],
            ("Succeeded", "LoopConditionFalse", 2, 2),
        ),
        (
            {"maxIterations": 8, "condition": condition()},
            [succeeded(MISSING)],
            ("Succeeded", "LoopConditionFalse", 1, 1),
        ),
        (
            {"maxIterations": 8, "condition": condition(onMissing="fail")},
            [succeeded(MISSING)],
            ("Failed", "LoopConditionError", 1, 1),
        ),
        ({"maxIterations": 8, "condition": condition()}, [succeeded(BROKEN)], ("Failed", "LoopConditionError", 1, 1)),
        (
            {"maxIterations": 8, "condition": condition(onInvalid="stop")},
            [succeeded(BROKEN)],
            ("Succeeded", "LoopConditionFalse", 1, 1),
        ),
        # An error of the expression is no invalid payload: onInvalid does not apply to it.
        (
            {"maxIterations": 8, "condition": condition("iteration.last.control.missing", onInvalid="stop")},
            [succeeded({})],
            ("Failed", "LoopConditionError", 1, 1),
        ),
        (
            {"maxIterations": 8, "condition": condition("iteration.index")},
            [succeeded({})],
            ("Failed", "LoopConditionError", 1, 1),
        ),
        ({"maxIterations": 8, "condition": condition("1 <")}, [succeeded({})], ("Failed", "LoopConditionError", 1, 1)),
        # The maximum is looked at first, so nobody ever sees that the expression is broken.
        (
            {"maxIterations": 1, "condition": condition("1 <")},
            [succeeded({})],
            ("Succeeded", "LoopMaxIterationsReached", 1, 1),
        ),
        # Without a payload, and with onMissing: stop, it is not looked at either.
        (
            {"maxIterations": 9, "condition": condition("1 <")},
            [succeeded(MISSING)],
            ("Succeeded", "LoopConditionFalse", 1, 1),
        ),
        ({"maxIterations": 5}, [succeeded(), failed()], ("Failed", "LoopIterationFailed", 1, 2)),
        (
            {"maxIterations": 2, "condition": condition("true")},
            [succeeded({})] * 2,
            ("Succeeded", "LoopMaxIterationsReached", 2, 2),
        ),
    ],
)
def test_each_stop_reason(
    loop: Mapping[str, Any], attempts: list[ObservedJob], expected: tuple[str, str, int, int]
) -> None:
    simulation = Simulation(run_with(step(loop=loop)), lambda number, _: attempts[number])
    assert ending(simulation) == expected
    assert len(simulation.started) == len(attempts)


def test_a_finished_fixed_loop_reads_as_on_a_cluster() -> None:
    """Three iterations, the second needed a retry; the Job's own times stand where it has some."""
    script = [succeeded(), failed(), succeeded(), succeeded()]
    run = run_with(step(loop={"maxIterations": 3}, retries=1, retryBackoffSeconds=30))
    simulation = Simulation(run, lambda number, _: replace(script[number], started_at="", uid=f"uid-{number}"))
    status = write_status(simulation.to_the_end())
    assert [one.name for one in simulation.started] == [
        "demo-step-1-iter-1-attempt-1",
        "demo-step-1-iter-2-attempt-1",
        "demo-step-1-iter-2-attempt-2",
        "demo-step-1-iter-3-attempt-1",
    ]
    only = status["workflow"]["steps"][0]
    assert status["phase"] == status["workflow"]["phase"] == only["phase"] == "Succeeded"
    assert only["message"] == "Loop continuing"
    assert only["jobRef"] == {"name": "demo-step-1-iter-3-attempt-1", "namespace": "agents", "uid": "uid-3"}
    loop = only["loop"]
    assert {key: loop[key] for key in loop if key != "iterations"} == {
        "currentIteration": 3,
        "completedIterations": 3,
        "maxIterations": 3,
        "stopReason": "LoopMaxIterationsReached",
        "retainedIterations": 3,
        "prunedIterations": 0,
    }
    assert [(one["index"], one["phase"], one["attempts"], one.get("message")) for one in loop["iterations"]] == [
        (1, "Succeeded", 1, None),
        (2, "Succeeded", 2, None),
        (3, "Succeeded", 1, "LoopMaxIterationsReached"),
    ]
    assert [one["type"] for one in status["conditions"]] == [
        "Accepted",
        "InProgress",
        "Ready",
        "Progressing",
        "Degraded",
        "Blocked",
        "Succeeded",
    ]
    assert status["runtimeRef"] == {
        "type": "workflow",
        "name": "demo-step-1-iter-3-attempt-1",
        "namespace": "agents",
        "runName": "demo",
        "stepName": "implement",
    } | ({"uid": status["runtimeRef"]["uid"]} if "uid" in status["runtimeRef"] else {})


def test_the_last_control_is_the_one_that_decided() -> None:
    script = [succeeded({"continue": True, "n": 1}), succeeded({"continue": False, "n": 2})]
    simulation = Simulation(run_with(step(loop={"maxIterations": 8, "condition": condition()})), lambda n, _: script[n])
    loop = simulation.to_the_end().steps[0].loop
    assert loop is not None
    assert loop.last_control == {"continue": False, "n": 2}


def test_the_control_of_the_iteration_at_the_maximum_is_never_read() -> None:
    script = [succeeded({"n": 1}), succeeded({"n": 2})]
    loop = {"maxIterations": 2, "condition": condition("true")}
    status = Simulation(run_with(step(loop=loop)), lambda n, _: script[n]).to_the_end().steps[0].loop
    assert status is not None
    assert status.last_control == {"n": 1}


def test_a_missing_payload_clears_the_last_control() -> None:
    script = [succeeded({"n": 1}), succeeded(MISSING)]
    loop = {"maxIterations": 8, "condition": condition("true")}
    status = Simulation(run_with(step(loop=loop)), lambda n, _: script[n]).to_the_end().steps[0].loop
    assert status is not None
    assert (status.stop, status.last_control) == ("LoopConditionFalse", None)


@pytest.mark.parametrize(
    ("settings", "script", "reason", "message", "attempts"),
    [
        ({}, [failed()], "BackoffLimitExceeded", "workflow step implement: Job has failed", 1),
        ({"retries": 2}, [failed()] * 3, "BackoffLimitExceeded", "workflow step implement: Job has failed", 3),
        (
            {"retries": 2},
            [failed(retryable=False)],
            "BackoffLimitExceeded",
            "workflow step implement: Job has failed",
            1,
        ),
        ({}, [failed("", "")], "WorkflowStepFailed", "workflow step implement: Step failed", 1),
        ({"timeoutSeconds": 5}, [ACTIVE], "WorkflowStepTimedOut", "workflow step implement: Step timed out", 1),
        (
            {"timeoutSeconds": 5, "retries": 1},
            [ACTIVE] * 2,
            "WorkflowStepTimedOut",
            "workflow step implement: Step timed out",
            2,
        ),
        (
            {"retries": "1", "retryBackoffSeconds": -3},
            [failed()] * 2,
            "BackoffLimitExceeded",
            "workflow step implement: Job has failed",
            2,
        ),
    ],
)
def test_a_step_that_fails(
    settings: Mapping[str, Any], script: list[ObservedJob], reason: str, message: str, attempts: int
) -> None:
    simulation = Simulation(run_with(step(**settings)), lambda number, _: script[number])
    status = simulation.to_the_end()
    assert (status.phase, status.reason, status.message) == ("Failed", reason, message)
    assert len(simulation.started) == attempts
    assert status.condition("Failed") is not None
    assert status.condition("Degraded") is not None


def test_a_retry_waits_for_its_backoff_and_not_longer() -> None:
    simulation = Simulation(run_with(step(retries=1, retryBackoffSeconds=30)), lambda n, _: [failed(), succeeded()][n])
    simulation.pass_once()
    (look,) = simulation.pass_once()
    assert look == LookAgain(at=START + timedelta(seconds=30), why="step implement is tried again")
    assert simulation.status.steps[0].phase is Phase.RETRYING
    assert simulation.status.steps[0].message == "Job has failed; retrying"
    simulation.now = START + timedelta(seconds=29, milliseconds=999)
    simulation.pass_once()
    assert len(simulation.started) == 1
    simulation.now = START + timedelta(seconds=30)
    simulation.pass_once()
    assert len(simulation.started) == 2


def test_a_moment_that_cannot_be_read_counts_as_past() -> None:
    waiting = StepStatus(name="implement", phase=Phase.RETRYING, attempt=1, next_retry_at="soon")
    run = run_with(step(retries=1))
    result = reconcile(run, RunStatus(phase="Running", steps=(waiting,)), Observed(now=START))
    assert [type(one) for one in result.actions] == [StartAttempt]


@pytest.mark.parametrize("seconds", [0, 4])
def test_a_job_that_is_over_has_not_timed_out(seconds: int) -> None:
    simulation = Simulation(run_with(step(timeoutSeconds=seconds)), lambda *_: succeeded())
    simulation.pass_once()
    simulation.now += timedelta(days=1)
    simulation.pass_once()
    assert simulation.status.phase == "Succeeded"
    assert simulation.stopped == []


def test_an_attempt_that_timed_out_is_asked_to_end_before_its_successor() -> None:
    simulation = Simulation(run_with(step(timeoutSeconds=5, retries=1)), lambda *_: ACTIVE)
    simulation.pass_once()
    simulation.now += timedelta(seconds=5)
    actions = simulation.pass_once()
    assert actions[0] == StopAttempt(name="demo-step-1-attempt-1", why="timed out after 5 s")
    assert simulation.status.steps[0].message == "Step timed out; retrying"


def test_a_job_that_is_not_there_is_waited_for_once() -> None:
    simulation = Simulation(run_with(step(retries=1)), lambda *_: succeeded())
    simulation.pass_once()
    simulation.jobs.clear()
    simulation.pass_once()
    assert simulation.status.steps[0].message == "Waiting for job to be created"
    simulation.pass_once()
    assert simulation.status.steps[0].message == "Job missing; retrying"
    warning = simulation.status.condition("Warning")
    assert warning is not None
    assert warning["reason"] == "WorkflowJobMissing"


def test_a_config_map_that_is_gone_costs_an_attempt() -> None:
    gone = replace(ACTIVE, missing_config_maps=("demo-spec",))
    status = Simulation(run_with(step()), lambda *_: gone).to_the_end()
    assert (status.phase, status.reason) == ("Failed", "WorkflowConfigMapMissing")
    assert "demo-spec" in (status.condition("Warning") or {})["message"]


def test_a_step_that_cannot_be_started_has_neither_an_iteration_nor_a_stop_reason() -> None:
    simulation = Simulation(run_with(step(loop={"maxIterations": 3})), lambda *_: succeeded())
    simulation.refusals[1] = Refusal(reason="MissingWorkloadImage", message="no image")
    status = simulation.to_the_end()
    loop = status.steps[0].loop
    assert (status.phase, status.reason, simulation.started) == ("Failed", "MissingWorkloadImage", [])
    assert loop is not None
    assert (loop.stop, loop.iterations) == ("", ())


def test_steps_run_one_after_the_other_and_each_by_its_own_rules() -> None:
    run = run_with(step("plan"), step("build", loop={"maxIterations": 2}), step("check"))
    simulation = Simulation(run, lambda *_: succeeded())
    assert simulation.to_the_end().phase == "Succeeded"
    assert [one.name for one in simulation.started] == [
        "demo-step-1-attempt-1",
        "demo-step-2-iter-1-attempt-1",
        "demo-step-2-iter-2-attempt-1",
        "demo-step-3-attempt-1",
    ]


def test_what_follows_a_failed_step_is_not_started() -> None:
    simulation = Simulation(run_with(step("plan"), step("build")), lambda *_: failed())
    status = simulation.to_the_end()
    assert (len(simulation.started), status.steps[1].phase) == (1, Phase.PENDING)


def test_of_many_iterations_the_newest_are_kept_and_the_rest_is_counted() -> None:
    simulation = Simulation(run_with(step(loop={"maxIterations": 6})), lambda *_: succeeded(), history_limit=3)
    loop = simulation.to_the_end().steps[0].loop
    assert loop is not None
    assert ([one.index for one in loop.iterations], loop.retained, loop.pruned, loop.completed) == ([4, 5, 6], 3, 3, 6)


def test_a_status_that_is_final_is_left_alone() -> None:
    final = RunStatus(phase="Cancelled", reason="Cancelled")
    result = reconcile(run_with(step()), final, Observed(now=START))
    assert (result.actions, result.status) == ((), final)


def test_steps_of_the_status_are_found_by_name_and_strangers_are_dropped() -> None:
    old = RunStatus(
        phase="Running",
        steps=(StepStatus(name="gone", phase=Phase.FAILED), StepStatus(name="plan", phase=Phase.SUCCEEDED)),
    )
    result = reconcile(run_with(step("plan"), step("build")), old, Observed(now=START))
    assert [one.name for one in result.status.steps] == ["plan", "build"]
    assert [one.name for one in result.actions if isinstance(one, StartAttempt)] == ["demo-step-2-attempt-1"]


def test_the_limit_of_a_loop_follows_the_spec() -> None:
    simulation = Simulation(run_with(step(loop={"maxIterations": 5})), lambda *_: succeeded())
    simulation.pass_once()
    simulation.run = run_with(step(loop={"maxIterations": 1}))
    assert ending(simulation) == ("Succeeded", "LoopMaxIterationsReached", 1, 1)


def test_a_rejected_run_says_so_in_its_condition_alone() -> None:
    run = run_with(step())
    refusal = Refusal(reason="WorkflowLoopsDisabled", message="workflow loops are disabled", condition="InvalidSpec")
    status = write_status(refuse(run, RunStatus(), refusal, START))
    assert status["phase"] == "Failed"
    assert status["finishedAt"] == "2026-03-01T10:00:00.000Z"
    assert "reason" not in status
    assert "workflow" not in status
    assert read_status(status).cause == ("WorkflowLoopsDisabled", "workflow loops are disabled")


def test_a_cancelled_loop_names_its_end() -> None:
    simulation = Simulation(run_with(step(loop={"maxIterations": 3}), step("after")), lambda *_: ACTIVE)
    simulation.pass_once()
    status = cancel(simulation.status, START, reason="CancelledByUser", message="cancelled")
    loop = status.steps[0].loop
    assert loop is not None
    assert (status.phase, loop.stop, loop.iterations[0].phase) == ("Cancelled", "LoopCancelled", Phase.CANCELLED)
    assert status.steps[1].phase is Phase.PENDING
    assert cancel(status, START + timedelta(1), reason="again", message="again") is status


def test_the_same_arguments_give_the_same_answer() -> None:
    run, seen = run_with(step(loop={"maxIterations": 2})), Observed(now=START)
    assert reconcile(run, RunStatus(), seen) == reconcile(run, RunStatus(), seen)


def test_what_others_write_into_a_status_is_kept() -> None:
    before = read_status({"phase": "Running", "specHash": "c0de", "vcs": {"mode": "read-write"}})
    after = write_status(reconcile(run_with(step()), before, Observed(now=START)).status)
    assert (after["specHash"], after["vcs"]) == ("c0de", {"mode": "read-write"})


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_a_run_ends_and_no_attempt_is_made_twice(seed: int) -> None:
    """Random specs, random endings, Jobs that vanish, passes that are repeated: each run ends within its bounds."""
    chance = random.Random(seed)
    limit = chance.randint(1, 4)
    settings: dict[str, Any] = {"retries": chance.randint(0, 2), "retryBackoffSeconds": chance.choice([0, 7])}
    settings |= {"timeoutSeconds": chance.choice([3, 60])}
    loop = (
        {"maxIterations": limit, "condition": condition("iteration.last.control.go")} if chance.random() < 0.7 else None
    )
    run = run_with(step(loop=loop, **settings), step("last", **settings))
    choices = [
        succeeded({"go": True}),
        succeeded({"go": True}),
        succeeded({"go": False}),
        succeeded(MISSING),
        succeeded(BROKEN),
        failed(),
        failed(retryable=False),
        ACTIVE,
    ]
    simulation = Simulation(run, lambda *_: chance.choice(choices))
    for _ in range(400):
        simulation.pass_once()
        if simulation.status.is_final:
            break
        if chance.random() < 0.1 and simulation.jobs:
            simulation.jobs.pop(chance.choice(sorted(simulation.jobs)))
        simulation.now += timedelta(seconds=chance.choice([0, 1, 10]))
    names = [one.name for one in simulation.started]
    assert simulation.status.is_final
    assert len(names) == len(set(names))
    assert len(names) <= (limit + 1) * (settings["retries"] + 1)
    first = simulation.status.steps[0]
    assert first.loop is None or first.loop.stop
