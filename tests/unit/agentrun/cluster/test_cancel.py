"""A cancelled run stays cancelled, whatever the controller is doing meanwhile."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.cancel import (
    EXIT_CODES,
    Cancellation,
    CancelResult,
    cancel_run,
    delete_run,
    never_started,
)
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.errors import Conflict, Forbidden, KubernetesError, NotFound, ServerFault
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from tests.unit.agentrun.cluster.stage import NAMESPACE, RUN, Ending, Stage, writes


@pytest.fixture
def stage() -> Stage:
    """A loop whose first iteration runs for long."""
    found = Stage().with_world()
    found.endings["demo-step-1-iter-1-attempt-1"] = Ending(after=10_000)
    found.submitted(3)
    found.finish(3)
    found.go_on()
    return found


def cancelled(stage: Stage, **options: Any) -> Cancellation:
    return cancel_run(stage.cluster, RUN, NAMESPACE, clock=stage.clock, wait=stage.wait, **options)


def test_the_status_says_so_before_the_jobs_go_and_nothing_comes_back(stage: Stage) -> None:
    done = cancelled(stage, reason="Enough", message="told to")
    assert (done.result, done.is_settled, done.jobs_left) == (CancelResult.CANCELLED, True, ())
    assert done.jobs_deleted == ("demo-step-1-iter-1-attempt-1",)
    assert [verb for verb, _, _ in writes(stage) if verb != "create"] == ["patch", "delete"]
    status = stage.status()
    assert (status["phase"], status["reason"], status["message"]) == ("Cancelled", "Enough", "told to")
    loop = status["workflow"]["steps"][0]["loop"]
    assert (loop["stopReason"], loop["iterations"][0]["phase"]) == ("LoopCancelled", "Cancelled")
    assert stage.jobs() == []
    assert done.snapshot["status"]["phase"] == "Running"


def test_a_second_time_it_only_says_that_it_was_done(stage: Stage) -> None:
    cancelled(stage)
    before = writes(stage)
    done = cancelled(stage)
    assert (done.result, writes(stage)) == (CancelResult.CANCELLED, before)
    assert "already" in done.message


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_run_that_is_over_is_left_as_it_is(stage: Stage, phase: str) -> None:
    stage.cluster.set_status(kinds.AGENT_RUN, RUN, {"phase": phase})
    before = writes(stage)
    done = cancelled(stage)
    assert (done.result, EXIT_CODES[done.result]) == (CancelResult.ALREADY_FINAL, 1)
    assert writes(stage) == before
    assert done.jobs_left == ("demo-step-1-iter-1-attempt-1",)
    assert "still running" in done.message


def put_back(stage: Stage, phase: str = "Running") -> Callable[[], object]:
    """A pass that was on its way writes what it had decided before."""
    old: Mapping[str, Any] = stage.status()
    return lambda: stage.cluster.set_status(kinds.AGENT_RUN, RUN, {**old, "phase": phase})


def test_a_pass_that_writes_running_once_more_is_answered(stage: Stage) -> None:
    stage.is_working = False
    stage.cluster.after(1.0, put_back(stage))
    done = cancelled(stage)
    assert (done.result, done.restored) == (CancelResult.CANCELLED, 1)
    assert stage.status()["phase"] == "Cancelled"


def test_a_job_that_is_started_after_all_goes_too(stage: Stage) -> None:
    stage.is_working = False
    body = {"metadata": {"name": "demo-late", "namespace": NAMESPACE, "labels": {names.LABEL_RUN: RUN}}}
    stage.cluster.after(2.0, lambda: stage.cluster.add(kinds.JOB, body))
    done = cancelled(stage)
    assert "demo-late" in done.jobs_deleted
    assert stage.jobs() == []


def test_a_failure_that_came_from_deleting_the_jobs_becomes_a_cancellation(stage: Stage) -> None:
    stage.is_working = False
    stage.cluster.after(1.0, put_back(stage, "Failed"))
    assert cancelled(stage).result is CancelResult.CANCELLED
    assert stage.status()["phase"] == "Cancelled"


def test_a_run_that_succeeded_at_that_moment_keeps_its_success(stage: Stage) -> None:
    stage.is_working = False
    stage.cluster.after(1.0, put_back(stage, "Succeeded"))
    assert cancelled(stage).result is CancelResult.ALREADY_FINAL
    assert stage.status()["phase"] == "Succeeded"


def test_a_controller_that_always_puts_it_back_is_said_to(stage: Stage) -> None:
    stage.is_working = False
    old = put_back(stage)

    def again() -> None:
        old()
        stage.cluster.after(0.7, again)

    stage.cluster.after(0.7, again)
    assert cancelled(stage).result is CancelResult.CONTESTED


def test_a_version_that_has_moved_is_read_again(stage: Stage) -> None:
    stage.cluster.fail("patch", Conflict("moved"), Conflict("moved"))
    assert cancelled(stage).result is CancelResult.CANCELLED


@pytest.mark.parametrize("moment", [0.0, 1.0])
def test_a_run_that_is_deleted_meanwhile_leaves_no_job(stage: Stage, moment: float) -> None:
    stage.is_working = False
    stage.cluster.patch(kinds.AGENT_RUN, RUN, {"metadata": {"finalizers": None}})
    if moment:
        stage.cluster.after(moment, lambda: stage.cluster.delete(kinds.AGENT_RUN, RUN))
    else:
        stage.cluster.fail("patch", NotFound("gone"))
    assert cancelled(stage).result is CancelResult.GONE
    assert stage.jobs() == []


def test_a_stop_cuts_the_looking_after_short_and_not_what_comes_before(stage: Stage) -> None:
    stage.stops_after = 0.0
    done = cancelled(stage)
    assert (done.result, done.is_settled) == (CancelResult.CANCELLED, False)
    assert (stage.status()["phase"], stage.jobs()) == ("Cancelled", [])


def test_a_stop_while_a_slow_cluster_is_waited_for_says_what_is_left(stage: Stage) -> None:
    patient = PatientCluster(stage.cluster, wait=lambda _seconds: True, monotonic=stage.clock.monotonic)
    stage.cluster.fail("delete", ServerFault("slow"))
    done = cancel_run(patient, RUN, NAMESPACE, clock=stage.clock, wait=stage.wait)
    assert (done.result, done.is_settled) == (CancelResult.CANCELLED, False)
    assert done.jobs_left == ("demo-step-1-iter-1-attempt-1",)
    assert "its Jobs are left: demo-step-1-iter-1-attempt-1" in done.message


@pytest.mark.parametrize(
    ("denied", "error"),
    [
        (("patch", "agentruns/status.agents.proompteng.ai"), Forbidden),
        (("get", "agentruns.agents.proompteng.ai"), Forbidden),
    ],
)
def test_without_the_right_nothing_is_changed(
    stage: Stage, denied: tuple[str, str], error: type[KubernetesError]
) -> None:
    stage.cluster.denied.add(denied)
    with pytest.raises(error):
        cancelled(stage)
    assert stage.status()["phase"] == "Running"
    assert len(stage.jobs()) == 1


def test_jobs_that_may_not_be_deleted_are_named(stage: Stage) -> None:
    stage.cluster.denied.add(("delete", "jobs.batch"))
    done = cancelled(stage)
    assert (done.result, done.jobs_left) == (CancelResult.CANCELLED, ("demo-step-1-iter-1-attempt-1",))
    assert "delete" in done.notes[0]


def test_a_cancellation_that_was_cut_off_goes_on_when_it_is_asked_again(stage: Stage) -> None:
    stage.cluster.fail("delete", ServerFault("broken"))
    with pytest.raises(ServerFault):
        cancelled(stage)
    assert cancelled(stage).jobs_deleted == ("demo-step-1-iter-1-attempt-1",)
    assert stage.jobs() == []


def test_a_name_that_is_not_there_is_said(stage: Stage) -> None:
    with pytest.raises(NotFound, match="there is no AgentRun nobody"):
        cancel_run(stage.cluster, "nobody", NAMESPACE, clock=stage.clock, wait=stage.wait)


def test_a_run_that_nobody_has_touched_is_cancelled_too() -> None:
    stage = Stage().with_world()
    stage.submitted()
    assert cancelled(stage).result is CancelResult.CANCELLED
    stage.finish(3)
    assert (stage.status()["phase"], stage.jobs()) == ("Cancelled", [])


def test_it_is_deleted_when_that_is_asked_for(stage: Stage) -> None:
    done = delete_run(stage.cluster, cancelled(stage), clock=stage.clock, wait=stage.wait)
    assert done.result is CancelResult.DELETED
    assert stage.cluster.get(kinds.AGENT_RUN, RUN) is None


def test_another_run_of_that_name_is_not_deleted(stage: Stage) -> None:
    done = cancelled(stage)
    stage.cluster.delete(kinds.AGENT_RUN, RUN)
    stage.turn()
    stage.submitted()
    with pytest.raises(Conflict):
        delete_run(stage.cluster, done, clock=stage.clock, wait=stage.wait)
    assert stage.cluster.get(kinds.AGENT_RUN, RUN) is not None


@pytest.mark.parametrize(
    ("starts", "drops", "result"),
    [
        (False, False, CancelResult.DELETING),
        (False, True, CancelResult.DELETED),
        (True, True, CancelResult.DELETING),  # it may have left something: the finalizer stays
    ],
)
def test_a_finalizer_is_only_taken_from_what_never_started(starts: bool, drops: bool, result: CancelResult) -> None:
    stage = Stage().with_world()
    body = stage.run()
    body["metadata"]["finalizers"] = [names.FINALIZER, "else/where"] if not drops else [names.FINALIZER]
    stage.cluster.create(kinds.AGENT_RUN, body)
    if starts:
        stage.finish(3)
    done = delete_run(stage.cluster, cancelled(stage), clock=stage.clock, wait=stage.wait, drop_finalizer=drops)
    assert done.result is result
    if starts:
        assert "not taken away" in done.message


def test_what_may_have_left_something_is_told_why() -> None:
    stage = Stage().with_world()
    body = stage.submitted()
    assert never_started(stage.cluster, body) == ""
    job = {"metadata": {"name": "j", "namespace": NAMESPACE, "labels": {names.LABEL_RUN: RUN}}}
    stage.cluster.add(kinds.JOB, job)
    assert never_started(stage.cluster, body) == "its Jobs are there: j"
