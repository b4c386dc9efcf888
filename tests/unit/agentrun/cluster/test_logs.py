"""What the attempts of a run printed: each line once, from attempt to attempt, and what is left where nothing is."""

from typing import Any

import pytest

from run_cycle_loop.agentrun.cluster.logs import logs
from run_cycle_loop.agentrun.looking.output import Choice, Piece
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.errors import (
    Forbidden,
    KubernetesError,
    NotFound,
    ServerFault,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from tests.unit.agentrun.cluster.stage import NAMESPACE, RUN, Ending, Stage

FIRST, SECOND = "demo-step-1-iter-1-attempt-1", "demo-step-1-iter-2-attempt-1"


@pytest.fixture
def stage() -> Stage:
    found = Stage().with_world()
    found.endings[FIRST] = Ending(printed=("one", "same", "same"))
    found.endings[SECOND] = Ending(printed=("two",))
    return found


def read(stage: Stage, **options: Any) -> list[Piece]:
    return list(logs(stage.cluster, RUN, NAMESPACE, clock=stage.clock, wait=stage.wait, **options))


def printed(pieces: list[Piece]) -> bytes:
    return b"".join(one.data for one in pieces)


def notes(pieces: list[Piece]) -> str:
    return "\n".join(one.note for one in pieces if one.note)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b"two\n"),
        ({"every": True}, b"one\nsame\nsame\ntwo\n"),
        ({"choice": Choice(iteration=1)}, b"one\nsame\nsame\n"),
        ({"choice": Choice(step="implement", iteration=2, attempt=1)}, b"two\n"),
        ({"choice": Choice(iteration=1), "tail": 1}, b"same\n"),
        ({"follow": True}, b"two\n"),
        ({"follow": True, "every": True}, b"one\nsame\nsame\ntwo\n"),
    ],
)
def test_the_attempts_that_are_meant_are_shown(stage: Stage, options: dict[str, Any], expected: bytes) -> None:
    stage.submitted(2)
    stage.finish(40)
    assert printed(read(stage, **options)) == expected


def test_each_attempt_is_announced(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(40)
    told = notes(read(stage, every=True))
    assert "step implement, iteration 1, attempt 1, Job demo-step-1-iter-1-attempt-1" in told


def test_following_goes_on_from_iteration_to_iteration_until_the_run_ends(stage: Stage) -> None:
    stage.submitted(2)
    stage.go_on()
    stage.wait(2)
    pieces = read(stage, follow=True)
    assert printed(pieces) == b"one\nsame\nsame\ntwo\n"
    assert stage.status()["phase"] == "Succeeded"


def test_following_begins_before_there_is_any_job(stage: Stage) -> None:
    stage.submitted(2)
    stage.go_on()
    assert printed(read(stage, follow=True)) == b"one\nsame\nsame\ntwo\n"


def test_lines_come_while_the_attempt_still_runs(stage: Stage) -> None:
    stage.endings[FIRST] = Ending(printed=("early",), after=10_000)
    stage.submitted(2)
    stage.go_on()
    stage.wait(2)
    reading = logs(stage.cluster, RUN, NAMESPACE, clock=stage.clock, wait=stage.wait, follow=True)
    assert next(one for one in reading if one.data).data == b"early\n"
    reading.close()


@pytest.mark.parametrize(
    "fault",
    [Unreachable("lost"), ServerFault("broken"), TooManyRequests("later", retry_after=9.0), Unauthorized("expired")],
    ids=lambda one: type(one).__name__,
)
def test_a_lost_connection_neither_loses_nor_repeats_a_line(stage: Stage, fault: KubernetesError) -> None:
    stage.endings[FIRST] = Ending(printed=("one", "same", "same"), after=30)
    stage.submitted(1)
    stage.go_on()
    stage.wait(2)
    pod = f"{FIRST}-pod"

    def say() -> None:
        for container in ("", "agent-runner"):
            stage.cluster.say(pod, "late", container=container)

    stage.cluster.after(10.0, say)
    stage.cluster.fail("log", fault, after=True)
    assert printed(read(stage, follow=True)) == b"one\nsame\nsame\nlate\n"


def test_without_following_a_fault_goes_out(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(3)
    stage.cluster.fail("log", Unreachable("lost"))
    with pytest.raises(Unreachable):
        read(stage)


def test_an_expired_login_that_is_refused_again_goes_out(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(3)
    stage.cluster.fail("log", Unauthorized("no"), Unauthorized("no"))
    with pytest.raises(Unauthorized):
        read(stage, follow=True)


def test_logs_that_may_not_be_read_are_an_error(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(3)
    stage.cluster.denied.add(("get", "pods/log"))
    with pytest.raises(Forbidden):
        read(stage)


def test_a_stop_ends_it(stage: Stage) -> None:
    stage.endings[FIRST] = Ending(printed=("one",), after=10_000)
    stage.submitted(1)
    stage.go_on()
    stage.wait(2)
    stage.stops_after = 0.0
    assert len(read(stage, follow=True)) <= 2


def test_a_pod_that_cannot_start_is_explained_while_it_is_waited_for(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(2)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}
    status = {"phase": "Pending", "containerStatuses": [{"name": "agent-runner", "state": {"waiting": waiting}}]}
    stage.cluster.set_status(kinds.POD, f"{FIRST}-pod", status)
    stage.stops_after = 5.0
    told = notes(read(stage, follow=True))
    assert 'CreateContainerConfigError: secret "x" not found' in told
    assert "make the Secret" in told
    assert 'secret "x" not found' in notes(read(stage))


def test_what_is_left_of_an_attempt_whose_pod_is_gone_is_said(stage: Stage) -> None:
    stage.endings[FIRST] = Ending(code=1)
    stage.submitted(1)
    stage.finish(8)
    stage.cluster.delete(kinds.POD, f"{FIRST}-pod")
    told = notes(read(stage))
    assert "it has no pod any more" in told
    assert "BackoffLimitExceeded: Job has reached the specified backoff limit" in told


def test_what_is_left_of_an_attempt_whose_job_is_gone_is_said(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(20)
    stage.cluster.delete(kinds.JOB, FIRST)
    assert f"Job {FIRST} is gone; its iteration is Succeeded" in notes(read(stage))


@pytest.mark.parametrize(
    ("name", "choice", "words"),
    [
        ("nobody", None, "there is no AgentRun nobody"),
        (RUN, Choice(iteration=7), "has no iteration 7: there are step implement, iteration 1"),
        (RUN, Choice(step="plan"), "has no step plan"),
    ],
)
def test_what_is_not_there_is_said(stage: Stage, name: str, choice: Choice | None, words: str) -> None:
    stage.submitted(1)
    stage.finish(20)
    with pytest.raises(NotFound, match=words):
        list(logs(stage.cluster, name, NAMESPACE, clock=stage.clock, wait=stage.wait, choice=choice))


def test_a_run_without_any_attempt_has_nothing_to_show(stage: Stage) -> None:
    stage.submitted(1)
    with pytest.raises(NotFound, match="has no attempt"):
        read(stage)


def test_a_run_that_is_deleted_meanwhile_ends_the_following(stage: Stage) -> None:
    stage.submitted(5)
    stage.go_on()
    stage.wait(2)
    stage.cluster.after(7.0, lambda: stage.cluster.delete(kinds.AGENT_RUN, RUN))
    assert b"one\n" in printed(read(stage, follow=True))


def test_times_are_kept_where_they_are_wanted(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(20)
    lines = printed(read(stage, timestamps=True)).splitlines()
    assert all(line.startswith(b"2026-") for line in lines)


def test_a_line_that_looks_like_a_time_loses_nothing(stage: Stage) -> None:
    stage.endings[FIRST] = Ending(printed=("2026 was a year", "no-space", ""))
    stage.submitted(1)
    stage.finish(20)
    assert printed(read(stage)) == b"2026 was a year\nno-space\n\n"


def test_a_stop_is_heard_without_following_too(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(40)
    pieces = logs(stage.cluster, RUN, NAMESPACE, clock=stage.clock, wait=lambda _: True, every=True)
    assert printed(list(pieces)).count(b"\n") < 3
