"""How far a run is, folded from the objects of a cluster and a moment."""

import json
from datetime import timedelta
from typing import Any

import pytest

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.listing import runs
from run_cycle_loop.agentrun.cluster.status import look
from run_cycle_loop.agentrun.lifecycle.reconcile import cancel
from run_cycle_loop.agentrun.lifecycle.status import read_status, write_status
from run_cycle_loop.agentrun.looking.attempts import AttemptState
from run_cycle_loop.agentrun.looking.faults import FaultKind
from run_cycle_loop.agentrun.looking.outcomes import EXIT_CODES, Result
from run_cycle_loop.agentrun.looking.progress import Progress, Waiting, progress
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.errors import NotFound
from tests.unit.agentrun.cluster.stage import NAMESPACE, RUN, Ending, Stage, conditional


def seen(stage: Stage, **more: Any) -> Progress:
    body = stage.cluster.get(kinds.AGENT_RUN, RUN)
    assert body is not None
    labels = {names.LABEL_RUN: RUN}
    jobs = stage.cluster.list(kinds.JOB, NAMESPACE, labels).items
    pods = stage.cluster.list(kinds.POD, NAMESPACE, labels).items
    return progress(body, jobs, pods, stage.clock.now(), **more)


@pytest.fixture
def stage() -> Stage:
    return Stage().with_world()


def test_a_running_loop_shows_its_iteration_and_the_job_that_runs(stage: Stage) -> None:
    stage.submitted(3)
    stage.finish(9)
    found = seen(stage)
    assert (found.phase, found.step, found.iteration) == ("Running", "implement", "2/3")
    assert [(row.iteration, row.attempt, row.state) for row in found.attempts] == [
        (1, 1, AttemptState.SUCCEEDED),
        (2, 1, AttemptState.ACTIVE),
    ]
    pod = found.attempts[1].pod
    assert pod is not None
    assert (pod.phase, pod.image_id) == ("Running", "runner@sha256:1")
    assert found.attempts[0].seconds == 5.0
    assert found.result is None
    json.dumps(found.as_json())


def test_a_finished_loop_says_why_it_stopped_and_no_stale_message(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(40)
    found = seen(stage)
    assert found.result is Result.SUCCEEDED
    assert (found.steps[0].stop_reason, found.steps[0].completed, found.steps[0].message) == (
        "LoopMaxIterationsReached",
        2,
        "",
    )


@pytest.mark.parametrize(
    ("control", "detail"),
    [
        (None, "no control payload was found, or none that could be read"),
        ({"continue": False}, "the expression is false for the last control payload"),
    ],
)
def test_a_false_condition_says_which_of_its_cases_it_is(stage: Stage, control: Any, detail: str) -> None:
    stage.endings["demo-step-1-iter-1-attempt-1"] = Ending(control=control)
    run = stage.run()
    run["spec"]["workflow"]["steps"][0]["loop"] |= conditional("iteration.last.control.continue == true")
    stage.cluster.create(kinds.AGENT_RUN, run)
    stage.finish(20)
    assert seen(stage).steps[0].stop_reason == "LoopConditionFalse"
    assert seen(stage).steps[0].stop_detail == detail


def test_a_retry_is_overdue_once_its_time_is_over_and_nobody_looks(stage: Stage) -> None:
    stage.endings["demo-step-1-iter-1-attempt-1"] = Ending(code=1)
    stage.submitted()
    stage.finish(8)
    assert seen(stage).overdue == ()
    stage.clock.move(40)
    (late,) = seen(stage).overdue
    assert (late.what, late.step) == (Waiting.RETRY, "implement")
    assert 10 < late.seconds < 20


def test_a_timeout_is_overdue_once_its_time_is_over_and_nobody_looks(stage: Stage) -> None:
    stage.endings["demo-step-1-iter-1-attempt-1"] = Ending(after=100_000)
    stage.submitted()
    stage.finish(3)
    stage.clock.move(5400)
    (late,) = seen(stage).overdue
    assert (late.what, "5400 s" in late.message) == (Waiting.TIMEOUT, True)


@pytest.mark.parametrize(
    ("name", "age", "words"),
    [
        (RUN, 119, ""),
        (RUN, 121, "check that the controller runs"),
        ("x" * 70, 121, "70 characters"),
    ],
)
def test_a_run_that_nobody_touches_is_said_after_two_minutes(stage: Stage, name: str, age: int, words: str) -> None:
    body = stage.run()
    body["metadata"]["name"] = name
    made = stage.cluster.create(kinds.AGENT_RUN, body)
    found = progress(made, (), (), stage.clock.now() + timedelta(seconds=age)).overdue
    assert [one.what for one in found] == ([Waiting.UNTOUCHED] if words else [])
    assert all(words in one.message for one in found)


def test_why_a_run_is_blocked_comes_before_any_older_reason(stage: Stage) -> None:
    made = stage.submitted()
    blocked = {"type": "Blocked", "status": "True", "reason": "QueueLimit", "message": "full"}
    status = {"phase": "Pending", "reason": "Old", "message": "older", "conditions": [blocked], "observedGeneration": 1}
    found = progress({**made, "status": status}, (), (), stage.clock.now())
    assert (found.blocked, found.reason, found.message) == ("QueueLimit", "QueueLimit", "full")
    assert Waiting.BLOCKED in [one.what for one in found.overdue]


def test_a_timed_out_job_beside_its_successor_is_an_overlap(stage: Stage) -> None:
    stage.endings["demo-step-1-iter-1-attempt-1"] = Ending(after=100_000)
    stage.submitted()
    stage.finish(3)
    stage.clock.move(5400)
    stage.finish(33)
    found = seen(stage)
    assert len(found.active) == 2
    assert "AttemptsOverlap" in [one.reason for one in found.hints]


def test_a_job_of_an_earlier_run_is_said_to_be_stale(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(20)
    old = stage.cluster.get(kinds.AGENT_RUN, RUN)
    assert old is not None
    new = {**old, "metadata": {**old["metadata"], "uid": "another"}}
    found = progress(new, stage.cluster.list(kinds.JOB).items, (), stage.clock.now())
    assert [one.reason for one in found.hints] == ["StaleJob"]


def test_a_prompt_that_was_changed_meanwhile_is_hinted_at(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(3)
    prompt = {"data": {"system-prompt.md": "be bad\n"}}
    stage.cluster.patch(kinds.CONFIG_MAP, "codex-agent-system-prompt", prompt)
    stage.finish(9)
    assert [one.reason for one in seen(stage).hints] == ["PromptDrift"]


def test_a_job_that_is_gone_keeps_its_row_with_what_the_status_remembers(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(40)
    stage.cluster.delete(kinds.JOB, "demo-step-1-iter-1-attempt-1")
    first = seen(stage).attempts[0]
    assert (first.state, first.phase, first.iteration) == (AttemptState.GONE, "Succeeded", 1)


def test_a_hashed_job_name_still_tells_its_attempt(stage: Stage) -> None:
    long = "a-run-whose-name-makes-its-jobs-names-too-long-by-far"
    body = stage.run()
    body["metadata"]["name"] = long
    stage.cluster.create(kinds.AGENT_RUN, body)
    stage.endings[names.job_name(long, 1, 1, 1)] = Ending(code=1)
    stage.finish(40)
    found = look(stage.cluster, long, NAMESPACE, clock=stage.clock)
    assert [(row.iteration, row.attempt) for row in found.attempts][:2] == [(1, 1), (1, 2)]


WAITING = {"reason": "ImagePullBackOff", "message": "no such image"}
UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
UNBOUND = {**UNSCHEDULED, "message": "pod has unbound immediate PersistentVolumeClaims"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ({"containerStatuses": [{"state": {"waiting": WAITING}}]}, FaultKind.IMAGE),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, None),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "s"}}}]},
            FaultKind.CONFIGURATION,
        ),
        ({"phase": "Pending", "conditions": [UNSCHEDULED]}, FaultKind.SCHEDULING),
        ({"phase": "Pending", "conditions": [UNBOUND]}, FaultKind.VOLUME),
        (
            {"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
            FaultKind.MEMORY,
        ),
        ({"containerStatuses": [{"state": {"terminated": {"exitCode": 127, "reason": "Error"}}}]}, FaultKind.IMAGE),
        (
            {"containerStatuses": [{"state": {"terminated": {"exitCode": 128, "reason": "StartError"}}}]},
            FaultKind.IMAGE,
        ),
        ({"containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}, None),
        ({"reason": "Evicted", "message": "disk"}, FaultKind.NODE),
        ({}, None),
    ],
)
def test_what_a_pod_suffers_from_is_told_apart(stage: Stage, status: dict[str, Any], kind: FaultKind | None) -> None:
    stage.submitted()
    stage.finish(2)
    pod = "demo-step-1-iter-1-attempt-1-pod"
    stage.cluster.set_status(kinds.POD, pod, status)
    (row,) = seen(stage).attempts
    assert (row.fault.kind if row.fault else None) == kind


@pytest.mark.parametrize(
    ("printed", "seconds", "is_fault"),
    [
        ("Error: spawn codex ENOENT", 2, True),
        ('exec: "rg": executable file not found in $PATH', 2, True),
        ("Error: Cannot find module '/app/x.js'", 2, True),
        ("the tests failed", 2, False),
        ("Error: spawn codex ENOENT", 60, False),  # it had been at work for long
    ],
)
def test_an_early_exit_that_names_a_missing_part_is_the_images_fault(
    stage: Stage, printed: str, seconds: float, is_fault: bool
) -> None:
    stage.endings["demo-step-1-iter-1-attempt-1"] = Ending(code=1, after=seconds)
    stage.submitted()
    stage.finish(seconds + 4)
    row = seen(stage, printed={"demo-step-1-iter-1-attempt-1-pod": printed}).attempts[0]
    assert (row.fault is not None) is is_fault


def test_the_runners_status_is_read_from_the_termination_message(stage: Stage) -> None:
    said = json.dumps({"status": "failed", "exitCode": 1, "error": "hash mismatch"})
    stage.endings["demo-step-1-iter-1-attempt-1"] = Ending(code=1, message=said)
    stage.submitted()
    stage.finish(8)
    pod = seen(stage).attempts[0].pod
    assert pod is not None
    assert pod.runner == {"status": "failed", "exitCode": 1, "error": "hash mismatch"}


@pytest.mark.parametrize("message", ['{"status": "succ', "[" * 5000, "plain words", '{"other": 1}', '["status"]'])
def test_a_termination_message_that_is_no_runners_status_is_only_a_message(stage: Stage, message: str) -> None:
    stage.endings["demo-step-1-iter-1-attempt-1"] = Ending(code=1, message=message)
    stage.submitted()
    stage.finish(8)
    pod = seen(stage).attempts[0].pod
    assert pod is not None
    assert (pod.runner, pod.message) == (None, message)


@pytest.mark.parametrize(
    ("status", "result", "code"),
    [
        ({"phase": "Succeeded"}, Result.SUCCEEDED, 0),
        ({"phase": "Failed"}, Result.FAILED, 1),
        ({"phase": "Failed", "conditions": [{"type": "InvalidSpec", "status": "True"}]}, Result.INVALID, 2),
        ({"phase": "Failed", "conditions": [{"type": "Duplicate", "status": "True"}]}, Result.INVALID, 2),
        ({"phase": "Cancelled"}, Result.CANCELLED, 3),
        ({"phase": "Template"}, Result.TEMPLATE, 2),
        ({"phase": "Running"}, None, None),
        ({"phase": "Pending"}, None, None),
        ({}, None, None),
    ],
)
def test_each_ending_has_its_exit_code(
    stage: Stage, status: dict[str, Any], result: Result | None, code: int | None
) -> None:
    made = stage.submitted()
    found = progress({**made, "status": status}, (), (), stage.clock.now())
    assert (found.result, found.as_json()["exit_code"]) == (result, code)


def test_exit_codes_clash_with_none_of_the_products() -> None:
    assert set(EXIT_CODES.values()).isdisjoint({10, 11, 12, 13, 70, 74, 75})


def test_a_cancelled_loop_says_so_in_its_step_and_iteration(stage: Stage) -> None:
    stage.submitted()
    stage.finish(3)
    ended = cancel(read_status(stage.status()), stage.clock.now(), reason="R", message="enough")
    stage.cluster.set_status(kinds.AGENT_RUN, RUN, write_status(ended))
    found = seen(stage)
    assert (found.result, found.reason, found.message) == (Result.CANCELLED, "R", "enough")
    assert found.steps[0].stop_reason == "LoopCancelled"


def test_garbage_in_every_field_is_survived(stage: Stage) -> None:
    made = stage.submitted()
    status = {"phase": 3, "workflow": {"steps": [None, {"loop": 7, "phase": "What"}]}, "conditions": "none"}
    job = {"metadata": {"name": 1, "labels": []}, "status": {"succeeded": "x", "conditions": {}}}
    pod = {"metadata": {}, "status": {"containerStatuses": [{"state": 1}]}}
    found = progress({**made, "status": status}, [job], [pod], stage.clock.now())
    assert found.result is None


def test_one_look_says_what_it_may_not_see(stage: Stage) -> None:
    stage.submitted()
    stage.finish(3)
    stage.cluster.denied |= {("list", "jobs.batch"), ("list", "pods")}
    found = look(stage.cluster, RUN, NAMESPACE, clock=stage.clock)
    assert [one.reason for one in found.hints] == ["NotAllowed", "NotAllowed"]
    assert found.attempts[0].state is AttemptState.GONE
    with pytest.raises(NotFound, match="there is no AgentRun other"):
        look(stage.cluster, "other", NAMESPACE, clock=stage.clock)


def test_the_list_of_runs_has_the_newest_first_with_progress_and_reason(stage: Stage) -> None:
    stage.submitted(3)
    stage.finish(9)
    body = stage.run()
    body["metadata"]["name"] = "later"
    body["spec"]["agentRef"] = {"name": "nobody"}
    stage.cluster.create(kinds.AGENT_RUN, body)
    stage.finish(2)
    rows = runs(stage.cluster, NAMESPACE, clock=stage.clock)
    assert [(one.name, one.phase, one.iteration) for one in rows] == [
        ("later", "Failed", ""),
        (RUN, "Running", "2/3"),
    ]
    assert (rows[0].reason, rows[0].result) == ("MissingAgent", Result.INVALID)
    json.dumps([one.as_json() for one in rows])
