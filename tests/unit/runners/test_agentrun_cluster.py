"""A cycle's AgentRun on a cluster in memory, with a controller and a node that misbehave as they are told."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.errors import (
    Forbidden,
    Invalid,
    KubernetesError,
    ServerFault,
    Stopped,
    Unreachable,
)
from run_cycle_loop.model.errors import ConfigError, RunnerError
from run_cycle_loop.runners.agentrun import RunEnd, RunResult, run_of_cycle
from run_cycle_loop.runners.agentrun_cluster import Place, carry_out, clear_runs, of_cycle
from run_cycle_loop.runners.job_following import Following
from run_cycle_loop.runners.marks import LABEL_CYCLE, LABEL_LOOP, Marks
from tests.unit.agentrun.cluster.stage import NAMESPACE, Ending, Stage, bundle, conditional, looping

MARKS = Marks(loop="a" * 16, cycle="b" * 32)
NAME = "demo-bbbbbbbbbbbb"
JOB = f"{NAME}-step-1-iter-1-attempt-1"


class Scene(Stage):
    """The stage with a cycle on it, which is asked to end at some time."""

    def __init__(self, **stage: Any) -> None:
        super().__init__(**stage)
        self.with_world()
        self.go_on()
        self.asked = 0
        self.printed = b""
        self.said: list[str] = []
        self.place = Place(cluster=self.cluster, clock=self.clock, wait=self.pause, hurry=self.hurry)
        self.manifest = looping(self.run(), 2)

    def pause(self, seconds: float, times: int = 1) -> bool:
        until = self.clock.monotonic() + seconds
        while self.asked < times and self.clock.monotonic() < until:
            self.cluster._let_pass(until)
        return self.asked >= times

    def hurry(self, seconds: float) -> bool:
        return self.pause(seconds, 2)

    def ask(self) -> None:
        self.asked += 1

    def print(self, data: bytes) -> None:
        self.printed += data

    def carry(self, **how: float) -> RunResult:
        whole = bundle(self.manifest)
        run = run_of_cycle(self.manifest, MARKS)
        following = Following(output=self.print, say=self.said.append, **how)
        return carry_out(self.place, *of_cycle(whole, whole.runs[0], run), following)

    def clear(self) -> None:
        clear_runs(self.place, MARKS, NAMESPACE, say=self.said.append)

    def phase(self) -> str:
        return str(self.status(NAME).get("phase"))

    def left(self) -> list[str]:
        """Jobs that still run."""
        with self.others():
            jobs = self.cluster.list(kinds.JOB).items
        return [job["metadata"]["name"] for job in jobs if not job.get("status", {}).get("conditions")]


def waiting(scene: Scene) -> None:
    """Its image cannot be pulled."""
    status = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, "name": "agent-runner"}
    with scene.others():
        for pod in scene.cluster.list(kinds.POD).items:
            held = {"phase": "Pending", "containerStatuses": [status]}
            scene.cluster.set_status(kinds.POD, pod["metadata"]["name"], held)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_run_is_followed_to_its_end_with_all_that_its_attempts_print(scene: Scene) -> None:
    scene.endings[JOB] = Ending(printed=("one", "two"))
    scene.endings[f"{NAME}-step-1-iter-2-attempt-1"] = Ending(printed=("three",))
    result = scene.carry()
    assert (result.end, result.status.phase, result.agent) == (RunEnd.FINAL, "Succeeded", "codex-spark-agent")
    assert scene.printed == b"one\ntwo\nthree\n"
    assert any("iteration 2/2" in sentence for sentence in scene.said)
    with scene.others():
        (run,) = scene.cluster.list(kinds.AGENT_RUN).items
    assert run["spec"]["idempotencyKey"] == MARKS.cycle
    assert run["metadata"]["labels"].items() >= MARKS.labels.items()


def test_the_last_control_payload_comes_with_the_status(scene: Scene) -> None:
    scene.manifest = looping(scene.run(), 5, **conditional("iteration.last.control.continue"))
    scene.endings[JOB] = Ending(control={"continue": False, "outputs": {"n": 1}})
    (step,) = scene.carry().status.steps
    assert step.loop is not None
    assert step.loop.last_control == {"continue": False, "outputs": {"n": 1}}


def test_a_failed_run_tells_its_reason(scene: Scene) -> None:
    for attempt in (1, 2):
        scene.endings[f"{NAME}-step-1-iter-1-attempt-{attempt}"] = Ending(code=3)
    result = scene.carry()
    assert (result.end, result.status.reason) == (RunEnd.FINAL, "BackoffLimitExceeded")


def test_a_stop_cancels_the_run_so_that_it_stays_cancelled(scene: Scene) -> None:
    scene.endings[JOB] = Ending(after=500)
    scene.cluster.after(5.0, scene.ask)
    result = scene.carry()
    assert (result.end, scene.phase(), scene.left()) == (RunEnd.CANCELLED, "Cancelled", [])
    scene.finish(60)
    assert (scene.phase(), scene.left()) == ("Cancelled", [])


def test_a_second_stop_ends_the_waiting_and_names_what_is_left(scene: Scene) -> None:
    scene.endings[JOB] = Ending(after=500)
    scene.cluster.after(5.0, scene.ask)
    scene.cluster.after(5.0, scene.ask)
    with_finalizer = {"metadata": {"finalizers": ["held"]}}

    def hold() -> None:
        with scene.others():
            scene.cluster.patch(kinds.POD, f"{JOB}-pod", with_finalizer)

    scene.cluster.after(4.0, hold)
    result = scene.carry()
    assert (result.end, f"{JOB}-pod" in result.message) == (RunEnd.LEFT, True)
    assert NAME in result.removal


@pytest.mark.parametrize(
    "error", [Forbidden("may not"), Unreachable("gone"), ServerFault("500")], ids=["forbidden", "silent", "fault"]
)
def test_a_run_that_cannot_be_cancelled_is_left_by_name(scene: Scene, error: KubernetesError) -> None:
    scene.endings[JOB] = Ending(after=500)
    scene.cluster.after(5.0, scene.ask)
    scene.cluster.after(5.0, lambda: scene.cluster.fail("patch", *[error] * 50))
    result = scene.carry()
    where = f"--where cluster --namespace {NAMESPACE}"
    assert (result.end, result.removal) == (RunEnd.LEFT, f"run-cycle-loop agentrun cancel {NAME} {where}")


def test_what_somebody_else_does_is_named(scene: Scene) -> None:
    def cancel() -> None:
        with scene.others():
            managers = [{"manager": "kubectl-edit", "subresource": "status", "time": scene.at(0)}]
            scene.cluster.patch(kinds.AGENT_RUN, NAME, {"metadata": {"managedFields": managers}})
            status = {"phase": "Cancelled", "reason": "CancelledByUser", "message": "not today"}
            scene.cluster.patch(kinds.AGENT_RUN, NAME, {"status": status}, subresource="status")

    scene.endings[JOB] = Ending(after=500)
    scene.cluster.after(5.0, cancel)
    result = scene.carry()
    assert (result.end, result.status.phase, result.who) == (RunEnd.FINAL, "Cancelled", "kubectl-edit")


def test_a_run_that_is_deleted_in_mid_run_is_named(scene: Scene) -> None:
    def delete() -> None:
        with scene.others():
            scene.cluster.delete(kinds.AGENT_RUN, NAME)

    scene.endings[JOB] = Ending(after=500)
    scene.cluster.after(5.0, delete)
    assert (scene.carry().reason, scene.left()) == ("AgentRunDeleted", [])


@pytest.mark.parametrize(
    ("hinder", "reason"),
    [
        (lambda scene: scene.cluster.after(2.0, lambda: waiting(scene)), "ErrImagePull"),
        (lambda scene: setattr(scene, "is_working", False), "Untouched"),
    ],
)
def test_a_run_that_does_not_start_is_cancelled_and_named(
    scene: Scene, hinder: Callable[[Scene], object], reason: str
) -> None:
    scene.endings[JOB] = Ending(after=5000)
    hinder(scene)
    result = scene.carry(starting=30.0)
    assert (result.end, result.reason, scene.phase()) == (RunEnd.STUCK, reason, "Cancelled")
    assert result.advice


def test_a_run_that_is_not_let_in_is_cancelled_and_named() -> None:
    flags = ControllerFlags(
        known=True, loops_enabled=True, runner_image="r:1", runner_image_variable="v", concurrency_agent=0
    )
    scene = Scene(flags=flags)
    result = scene.carry(starting=30.0)
    assert (result.end, result.reason, scene.phase()) == (RunEnd.STUCK, "ConcurrencyLimit", "Cancelled")


def test_a_create_whose_answer_was_lost_makes_one_run(scene: Scene) -> None:
    scene.cluster.fail("create", None, Unreachable("cut", may_have_happened=True), after=True)
    assert scene.carry().status.phase == "Succeeded"
    with scene.others():
        assert len(scene.cluster.list(kinds.AGENT_RUN).items) == 1


def test_a_cycle_that_is_started_again_takes_its_run_up(scene: Scene) -> None:
    scene.endings[JOB] = Ending(after=50)
    scene.cluster.after(10.0, scene.ask)
    first = scene.carry()
    assert first.end is RunEnd.CANCELLED
    scene.asked = 0
    again = scene.carry()
    assert (again.end, again.status.phase) == (RunEnd.FINAL, "Cancelled")


def test_a_refusal_of_the_server_goes_out_and_a_taken_name_is_said(scene: Scene) -> None:
    scene.cluster.fail("create", Invalid("bad field"))
    with pytest.raises(Invalid):
        scene.carry()
    body = run_of_cycle(scene.manifest, MARKS)
    scene.add(kinds.AGENT_RUN, {**body, "spec": {**body["spec"], "idempotencyKey": "another"}})
    assert scene.carry().end is RunEnd.REFUSED


def test_nothing_is_made_that_could_not_be_cancelled(scene: Scene) -> None:
    scene.cluster.denied.add(("patch", "agentruns/status.agents.proompteng.ai"))
    with pytest.raises(ConfigError, match=r'"patch" on "agentruns/status\.agents\.proompteng\.ai"'):
        scene.carry()
    with scene.others():
        assert scene.cluster.list(kinds.AGENT_RUN).items == ()


def test_a_stop_before_the_run_is_made_makes_none(scene: Scene) -> None:
    scene.ask()
    with pytest.raises(Stopped):
        scene.carry()
    with scene.others():
        assert scene.cluster.list(kinds.AGENT_RUN).items == ()


def test_a_cluster_that_stays_silent_is_given_up_and_the_run_is_named(scene: Scene) -> None:
    scene.endings[JOB] = Ending(after=5000)
    scene.cluster.after(5.0, lambda: scene.cluster.fail("watch", *[Unreachable("gone")] * 500))
    scene.cluster.after(5.0, scene.cluster.cut)
    result = scene.carry()
    assert (result.end, "gone" in result.message) == (RunEnd.UNSEEN, True)


# --- what earlier cycles left ---------------------------------------------------------------------------------------


def add_run(scene: Scene, name: str, labels: Mapping[str, str]) -> None:
    body = looping(scene.run(), 2)
    metadata = {"name": name, "namespace": NAMESPACE, "labels": dict(labels)}
    scene.add(kinds.AGENT_RUN, {**body, "metadata": metadata})


def test_only_what_this_loop_left_on_its_way_is_cancelled(scene: Scene) -> None:
    mine = {LABEL_LOOP: MARKS.loop, LABEL_CYCLE: "c" * 32}
    others = {"over": mine, "this": dict(MARKS.labels), "other": {LABEL_LOOP: "d" * 16}, "nobodys": {}}
    for name, labels in {"left": mine, **others}.items():
        scene.endings[f"{name}-step-1-iter-1-attempt-1"] = Ending(after=1.0 if name == "over" else 5000)
        add_run(scene, name, labels)
    scene.endings["over-step-1-iter-2-attempt-1"] = Ending(after=1.0)
    scene.pause(20.0)
    scene.clear()
    phases = {name: scene.status(name).get("phase") for name in ("left", *others)}
    assert phases == {
        "left": "Cancelled",
        "over": "Succeeded",
        "this": "Running",
        "other": "Running",
        "nobodys": "Running",
    }
    assert [job for job in scene.left() if job.startswith("left")] == []
    assert scene.said == [f"AgentRun {NAMESPACE}/left of cycle {'c' * 32}, which nobody ended, is cancelled"]
    scene.clear()
    assert len(scene.said) == 1  # what is cancelled is not cancelled again


def test_a_run_that_was_cancelled_by_half_is_ended(scene: Scene) -> None:
    add_run(scene, "half", {LABEL_LOOP: MARKS.loop, LABEL_CYCLE: "c" * 32})
    scene.endings["half-step-1-iter-1-attempt-1"] = Ending(after=5000)
    scene.pause(5.0)
    with scene.others():
        scene.cluster.patch(kinds.AGENT_RUN, "half", {"status": {"phase": "Cancelled"}}, subresource="status")
    assert scene.left() != []
    scene.clear()
    assert scene.left() == []


def test_nothing_is_begun_beside_a_run_that_does_not_end(scene: Scene) -> None:
    add_run(scene, "left", {LABEL_LOOP: MARKS.loop, LABEL_CYCLE: "c" * 32})
    scene.endings["left-step-1-iter-1-attempt-1"] = Ending(after=5000)
    scene.pause(5.0)
    with scene.others():
        scene.cluster.patch(kinds.POD, "left-step-1-iter-1-attempt-1-pod", {"metadata": {"finalizers": ["held"]}})
    with pytest.raises(RunnerError, match="does not end"):
        scene.clear()


def timing_out(scene: Scene) -> None:
    (step,) = scene.manifest["spec"]["workflow"]["steps"]
    step.update({"timeoutSeconds": 10, "retries": 0})
    scene.endings[JOB] = Ending(after=5000)


def test_an_attempt_that_is_out_of_time_does_not_outlive_the_cycle(scene: Scene) -> None:
    timing_out(scene)
    result = scene.carry()
    assert (result.end, result.status.phase, scene.left()) == (RunEnd.FINAL, "Failed", [])
    assert any("still ran" in sentence for sentence in scene.said)


def test_nothing_is_begun_beside_what_a_failed_run_left_running(scene: Scene) -> None:
    timing_out(scene)
    run = run_of_cycle(scene.manifest, Marks(loop=MARKS.loop, cycle="c" * 32))
    scene.endings["demo-cccccccccccc-step-1-iter-1-attempt-1"] = Ending(after=5000)
    scene.add(kinds.AGENT_RUN, run)
    scene.cluster.after(1.0, lambda: None)
    scene.pause(60.0)
    with scene.others():
        scene.cluster.patch(kinds.AGENT_RUN, "demo-cccccccccccc", {"metadata": {"annotations": {"n": "1"}}}, NAMESPACE)
    scene.pause(10.0)
    assert scene.left()
    scene.clear()
    assert scene.left() == []
