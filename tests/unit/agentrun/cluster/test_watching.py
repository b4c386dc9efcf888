"""A run watched on a cluster that misbehaves: each fault has one outcome, and the last word is always said."""

from collections.abc import Callable
from typing import Any

import pytest

from run_cycle_loop.agentrun.cluster.nudge import ANNOTATION, nudge
from run_cycle_loop.agentrun.cluster.watching import watch
from run_cycle_loop.agentrun.looking.outcomes import Result
from run_cycle_loop.agentrun.looking.progress import Progress
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.errors import (
    Expired,
    Forbidden,
    KindNotServed,
    KubernetesError,
    NotFound,
    ServerFault,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from tests.unit.agentrun.cluster.stage import NAMESPACE, RUN, Ending, Stage, writes

JOB = "demo-step-1-iter-1-attempt-1"


@pytest.fixture
def stage() -> Stage:
    found = Stage().with_world()
    found.submitted(2)
    found.go_on()
    return found


def watched(stage: Stage, **options: Any) -> list[Progress]:
    options = {"timeout": 1000.0, **options}
    return list(watch(stage.cluster, RUN, NAMESPACE, clock=stage.clock, wait=stage.wait, **options))


def test_every_step_of_a_loop_is_told_until_its_end(stage: Stage) -> None:
    seen = watched(stage)
    assert [one.iteration for one in seen if one.iteration] == sorted(one.iteration for one in seen if one.iteration)
    assert {one.iteration for one in seen} >= {"1/2", "2/2"}
    assert seen[-1].result is Result.SUCCEEDED
    assert all(one.result is None for one in seen[:-1])
    assert len(seen[-1].attempts) == 2


def test_nothing_is_told_twice_except_that_time_passes(stage: Stage) -> None:
    stage.endings[JOB] = Ending(after=100)
    quiet = watched(stage, tick=1000.0)
    loud = len(quiet)
    assert loud < 12


PASSING: list[KubernetesError] = [
    TooManyRequests("later", retry_after=7.0),
    ServerFault("broken"),
    Unreachable("no answer"),
    Expired("too old"),
    Unauthorized("token expired"),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("method", ["list", "watch"])
def test_what_passes_by_itself_is_overcome(stage: Stage, fault: KubernetesError, method: str) -> None:
    noticed: list[KubernetesError] = []
    stage.cluster.fail(method, fault)
    assert watched(stage, noticed=noticed.append)[-1].result is Result.SUCCEEDED
    assert noticed == [fault]


def test_a_lost_watch_and_a_forgotten_version_are_made_up_for(stage: Stage) -> None:
    stage.cluster.after(4.0, stage.cluster.cut)
    stage.cluster.after(8.0, stage.cluster.forget)
    stage.cluster.after(8.1, stage.cluster.cut)
    seen = watched(stage)
    assert seen[-1].result is Result.SUCCEEDED
    assert len(seen[-1].attempts) == 2


def test_a_failing_cluster_is_given_up_with_its_own_words(stage: Stage) -> None:
    stage.cluster.fail("list", *[Unreachable("no answer at all")] * 200)
    with pytest.raises(Unreachable, match="no answer at all"):
        watched(stage, patience=60.0)


def test_a_name_that_is_not_there_is_said_although_the_first_answer_was_lost(stage: Stage) -> None:
    stage.cluster.fail("list", ServerFault("broken"))
    with pytest.raises(NotFound, match="no AgentRun nobody"):
        list(watch(stage.cluster, "nobody", NAMESPACE, clock=stage.clock, wait=stage.wait))


@pytest.mark.parametrize(
    ("arrange", "error"),
    [
        (lambda stage: stage.cluster.denied.add(("list", "agentruns.agents.proompteng.ai")), Forbidden),
        (lambda stage: stage.cluster.unserved.add(kinds.AGENT_RUN), KindNotServed),
        (lambda stage: stage.cluster.fail("list", Unauthorized("no"), Unauthorized("no")), Unauthorized),
    ],
    ids=["forbidden", "not-served", "unauthorized-twice"],
)
def test_what_does_not_pass_by_itself_goes_out(
    stage: Stage, arrange: Callable[[Stage], object], error: type[KubernetesError]
) -> None:
    arrange(stage)
    with pytest.raises(error):
        watched(stage)


def test_jobs_and_pods_that_may_not_be_seen_do_not_end_it(stage: Stage) -> None:
    stage.cluster.denied |= {("list", "pods")}
    last = watched(stage)[-1]
    assert last.result is Result.SUCCEEDED
    assert [one.reason for one in last.hints] == ["NotAllowed"]


def test_a_run_that_is_deleted_meanwhile_is_its_own_result(stage: Stage) -> None:
    stage.cluster.after(7.0, lambda: stage.cluster.delete(kinds.AGENT_RUN, RUN))
    last = watched(stage)[-1]
    assert (last.result, last.phase) == (Result.DELETED, "Running")


def test_another_run_of_the_same_name_is_not_taken_for_it(stage: Stage) -> None:
    def replaced() -> None:
        stage.cluster.delete(kinds.AGENT_RUN, RUN)
        stage.turn()
        stage.submitted(2)

    stage.cluster.after(7.0, replaced)
    assert watched(stage)[-1].result is Result.DELETED


def test_a_stop_ends_the_watching_and_leaves_the_run_alone(stage: Stage) -> None:
    began = stage.clock.monotonic()
    seen = list(
        watch(
            stage.cluster,
            RUN,
            NAMESPACE,
            clock=stage.clock,
            wait=lambda seconds: stage.wait(seconds) or stage.clock.monotonic() - began > 3,
        )
    )
    assert seen[-1].result is Result.STOPPED
    assert stage.status()["phase"] == "Running"


@pytest.mark.parametrize(
    ("works", "result"), [(True, Result.TIMED_OUT), (False, Result.BLOCKED)], ids=["running", "untouched"]
)
def test_waiting_ends_when_its_time_is_over(stage: Stage, works: bool, result: Result) -> None:
    stage.is_working = works
    stage.endings[JOB] = Ending(after=100_000)
    assert watched(stage, timeout=30.0)[-1].result is result


def test_a_failed_attempt_that_nothing_explains_is_explained_by_what_it_printed(stage: Stage) -> None:
    stage.endings[JOB] = Ending(code=1, printed=("starting", "Error: spawn codex ENOENT"), after=2)
    fault = watched(stage)[-1].attempts[0].fault
    assert fault is not None
    assert fault.message == "spawn codex ENOENT"


def test_what_is_overdue_is_woken_at_a_pace_and_only_when_asked(stage: Stage) -> None:
    stage.endings[JOB] = Ending(code=1)
    list(_until(stage, lambda one: one.phase == "Running" and one.steps[0].phase == "Retrying"))
    stage.is_working = False
    before = len(writes(stage))
    watched(stage, timeout=120.0)
    assert len(writes(stage)) == before
    watched(stage, timeout=100.0, nudging=True)
    touched = [one for one in writes(stage)[before:] if one == ("patch", "AgentRun", RUN)]
    assert 2 <= len(touched) <= 4


def _until(stage: Stage, holds: Callable[[Progress], bool]) -> list[Progress]:
    seen = []
    for one in watch(stage.cluster, RUN, NAMESPACE, clock=stage.clock, wait=stage.wait):
        seen.append(one)
        if holds(one):
            break
    return seen


def test_watching_may_not_nudge_says_so_and_goes_on(stage: Stage) -> None:
    stage.endings[JOB] = Ending(code=1)
    _until(stage, lambda one: bool(one.steps) and one.steps[0].phase == "Retrying")
    stage.is_working = False
    stage.cluster.denied.add(("patch", "agentruns.agents.proompteng.ai"))
    last = watched(stage, timeout=100.0, nudging=True)[-1]
    assert "patch" in next(one.message for one in last.hints if one.reason == "Nudged")


def test_a_nudge_touches_one_annotation_and_waits_its_time(stage: Stage) -> None:
    first = nudge(stage.cluster, RUN, NAMESPACE, clock=stage.clock)
    second = nudge(stage.cluster, RUN, NAMESPACE, clock=stage.clock)
    stage.clock.move(31)
    third = nudge(stage.cluster, RUN, NAMESPACE, clock=stage.clock)
    assert [one.is_done for one in (first, second, third)] == [True, False, True]
    found = stage.cluster.get(kinds.AGENT_RUN, RUN)
    assert found is not None
    assert set(found["metadata"]["annotations"]) == {ANNOTATION}


def test_a_run_that_is_over_is_not_nudged(stage: Stage) -> None:
    watched(stage)
    before = writes(stage)
    assert not nudge(stage.cluster, RUN, NAMESPACE, clock=stage.clock).is_done
    assert writes(stage) == before
