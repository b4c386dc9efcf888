"""Jobs followed on a cluster in memory, whose nodes are scripted."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.errors import (
    Expired,
    Forbidden,
    Invalid,
    KubernetesError,
    ServerFault,
    Stopped,
    Unreachable,
)
from run_cycle_loop.model.errors import ConfigError, RunnerError
from run_cycle_loop.runners.job import clear_jobs, run_job
from run_cycle_loop.runners.job_following import Following
from run_cycle_loop.runners.job_manifest import Wanted, job_manifest
from run_cycle_loop.runners.job_result import JobEnd, JobResult
from run_cycle_loop.runners.marks import LABEL_CYCLE, LABEL_LOOP, Marks
from run_cycle_loop.testing import FakeClock
from run_cycle_loop.testing_cluster import InMemoryCluster

MARKS = Marks(loop="a" * 16, cycle="b" * 32)
NAME, POD = "cycle-bbbbbbbbbbbb", "cycle-bbbbbbbbbbbb-xyz"
FAILED = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "limit"}
COMPLETE = {"type": "Complete", "status": "True"}


class Stage:
    """A cluster, what happens on it, and what the cycle hears and says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = InMemoryCluster("here", clock=self.clock)
        self.asked = 0
        self.printed = b""
        self.said: list[str] = []
        self.manifest = job_manifest(
            Wanted(image="i:1", command=("c",)), marks=MARKS, told={}, default_namespace="here"
        )

    def wait(self, seconds: float, times: int = 1) -> bool:
        until = self.clock.monotonic() + seconds
        while self.asked < times and self.clock.monotonic() < until:
            self.cluster._let_pass(until)
        return self.asked >= times

    def hurry(self, seconds: float) -> bool:
        return self.wait(seconds, 2)

    def ask(self) -> None:
        self.asked += 1

    def at(self, seconds: float, event: Callable[[], object]) -> None:
        self.cluster.after(seconds, event)

    def print(self, data: bytes) -> None:
        self.printed += data

    def run(self, **how: float) -> JobResult:
        following = Following(output=self.print, say=self.said.append, **how)
        return run_job(self.cluster, self.manifest, following, clock=self.clock, wait=self.wait, hurry=self.hurry)

    # What the cluster does.

    def pod(self, status: Mapping[str, Any], name: str = POD, **metadata: Any) -> None:
        job = self.cluster.get(kinds.JOB, NAME)
        assert job is not None
        owner = {"kind": "Job", "name": NAME, "uid": job["metadata"]["uid"]}
        given = {"name": name, "namespace": "here", "labels": dict(MARKS.labels), "ownerReferences": [owner]}
        spec = {"containers": [{"name": "cycle"}], "nodeName": "node-1"}
        if self.cluster.get(kinds.POD, name) is None:
            self.cluster.add(kinds.POD, {"metadata": {**given, **metadata}, "spec": spec, "status": dict(status)})
        else:
            self.cluster.set_status(kinds.POD, name, dict(status))

    def job(self, *conditions: Mapping[str, Any]) -> None:
        self.cluster.set_status(kinds.JOB, NAME, {"conditions": [dict(one) for one in conditions]})

    def starts(self, at: float = 1.0) -> None:
        self.at(at, lambda: self.pod(running()))

    def ends(self, at: float, code: int, *, message: str = "") -> None:
        def end() -> None:
            self.pod(terminated(code, message=message))
            self.job(FAILED if code else COMPLETE)

        self.at(at, end)

    def says(self, at: float, line: str, pod: str = POD) -> None:
        self.at(at, lambda: self.cluster.say(pod, line, container="cycle"))


def running() -> dict[str, Any]:
    return {"phase": "Running", "containerStatuses": [{"name": "cycle", "state": {"running": {"startedAt": "t"}}}]}


def terminated(code: int, *, reason: str = "", message: str = "", **pod: Any) -> dict[str, Any]:
    state = {
        "terminated": {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": message}
    }
    statuses = [{"name": "side", "state": {"running": {}}}, {"name": "cycle", "state": state, "imageID": "i@sha256:1"}]
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": statuses, **pod}


def waiting(reason: str) -> dict[str, Any]:
    statuses = [{"name": "cycle", "state": {"waiting": {"reason": reason, "message": "m"}}}]
    return {"phase": "Pending", "containerStatuses": statuses}


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize(("code", "end"), [(0, JobEnd.SUCCEEDED), (3, JobEnd.FAILED)])
def test_a_job_is_followed_to_its_end_with_all_that_it_prints(stage: Stage, code: int, end: JobEnd) -> None:
    stage.starts()
    stage.says(2.0, "one")
    stage.says(3.0, "two")
    stage.ends(4.0, code, message='{"continue": true}')
    result = stage.run()
    assert (result.end, result.exit_code, result.reason) == (end, code, "")
    assert (result.pod, result.image, result.said) == (POD, "i@sha256:1", '{"continue": true}')
    assert stage.printed == b"one\ntwo\n"
    assert result.notes == ()


def test_a_pod_that_ends_before_anybody_looks_loses_nothing_of_its_output(stage: Stage) -> None:
    def all_at_once() -> None:
        stage.pod(terminated(0))
        stage.cluster.say(POD, "quick", container="cycle")
        stage.job(COMPLETE)

    stage.at(0.5, all_at_once)
    assert stage.run().end is JobEnd.SUCCEEDED
    assert stage.printed == b"quick\n"


@pytest.mark.parametrize(
    ("status", "conditions", "reason"),
    [
        (terminated(137, reason="OOMKilled"), [FAILED], "OOMKilled"),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, [FAILED], "Evicted"),
        (terminated(143), [FAILED | {"reason": "DeadlineExceeded"}], "DeadlineExceeded"),
        (terminated(128, reason="StartError"), [FAILED], "StartError"),
        (
            terminated(
                143, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]
            ),
            [FAILED],
            "DeletionByTaintManager",
        ),
        (terminated(127), [FAILED], ""),
    ],
)
def test_what_took_a_pod_away_is_named(
    stage: Stage, status: dict[str, Any], conditions: list[dict[str, Any]], reason: str
) -> None:
    stage.at(1.0, lambda: stage.pod(status))
    stage.at(2.0, lambda: stage.job(*conditions))
    result = stage.run()
    assert (result.end, result.reason) == (JobEnd.FAILED, reason)


def test_a_pod_that_is_deleted_under_its_job_is_named(stage: Stage) -> None:
    stage.starts()
    stage.at(2.0, lambda: stage.cluster.delete(kinds.POD, POD))
    stage.at(3.0, lambda: stage.job(FAILED))
    result = stage.run()
    assert (result.end, result.reason) == (JobEnd.FAILED, "PodDeleted")


@pytest.mark.parametrize("reason", ["ErrImagePull", "CreateContainerConfigError", "InvalidImageName"])
def test_a_pod_that_cannot_start_is_said_once_and_given_up(stage: Stage, reason: str) -> None:
    stage.at(1.0, lambda: stage.pod(waiting(reason)))
    result = stage.run(starting=30.0)
    assert (result.end, result.reason) == (JobEnd.STUCK, reason)
    assert result.advice
    assert sum(reason in sentence for sentence in stage.said) == 1
    assert stage.cluster.get(kinds.JOB, NAME) is None
    assert stage.clock.monotonic() - 1000 < (15 if reason == "InvalidImageName" else 45)


def test_a_pod_that_no_node_takes_is_given_up(stage: Stage) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    stage.at(1.0, lambda: stage.pod({"phase": "Pending", "conditions": [condition]}))
    assert (stage.run(starting=30.0).reason, stage.cluster.list(kinds.POD).items) == ("Unschedulable", ())


def test_a_job_that_nobody_makes_a_pod_for_is_given_up(stage: Stage) -> None:
    assert stage.run(starting=30.0).reason == "NoPod"


def test_a_pod_that_gets_over_it_goes_on(stage: Stage) -> None:
    stage.at(1.0, lambda: stage.pod(waiting("ErrImagePull")))
    stage.starts(20.0)
    stage.ends(25.0, 0)
    assert stage.run(starting=30.0).end is JobEnd.SUCCEEDED


def test_a_stop_deletes_the_job_and_sees_its_pod_gone(stage: Stage) -> None:
    stage.starts()
    stage.says(2.0, "one")
    stage.at(3.0, stage.ask)
    result = stage.run()
    assert (result.end, stage.printed) == (JobEnd.CANCELLED, b"one\n")
    assert stage.cluster.list(kinds.POD).items == stage.cluster.list(kinds.JOB).items == ()


@pytest.mark.parametrize("asked_again", [False, True])
def test_a_pod_that_does_not_go_is_left_by_name(stage: Stage, asked_again: bool) -> None:
    stage.at(1.0, lambda: stage.pod(running(), finalizers=["held"]))
    stage.at(3.0, stage.ask)
    if asked_again:
        stage.at(4.0, stage.ask)
    result = stage.run(ending=8.0)
    assert (result.end, POD in result.message) == (JobEnd.LEFT, True)
    assert stage.clock.monotonic() - 1000 < (6 if asked_again else 13)


def test_a_job_that_cannot_be_deleted_is_left_by_name(stage: Stage) -> None:
    stage.starts()
    stage.at(3.0, stage.ask)
    stage.cluster.fail("delete", Forbidden("may not"))
    result = stage.run()
    assert (result.end, result.removal) == (JobEnd.LEFT, f"kubectl delete job {NAME} -n here")
    assert any("may not" in sentence for sentence in stage.said)


def test_a_job_that_somebody_deletes_is_named(stage: Stage) -> None:
    stage.starts()
    stage.at(3.0, lambda: stage.cluster.delete(kinds.JOB, NAME))
    assert (stage.run().reason, stage.cluster.list(kinds.POD).items) == ("JobDeleted", ())


def test_another_job_that_takes_the_name_is_left_alone(stage: Stage) -> None:
    def swap() -> None:
        stage.cluster.delete(kinds.JOB, NAME)
        stage.cluster.add(kinds.JOB, {"metadata": {"name": NAME, "namespace": "here"}})

    stage.starts()
    stage.at(3.0, swap)
    assert stage.run().end is JobEnd.DELETED
    assert stage.cluster.get(kinds.JOB, NAME) is not None


@pytest.mark.parametrize(
    "error", [Unreachable("cut"), ServerFault("500"), Expired("old")], ids=["unreachable", "fault", "expired"]
)
def test_a_lost_connection_loses_nothing_and_prints_nothing_twice(stage: Stage, error: KubernetesError) -> None:
    stage.starts()
    stage.says(2.0, "one")
    stage.at(2.5, lambda: stage.cluster.fail("watch", error, error))
    stage.at(2.5, lambda: stage.cluster.fail("log", Unreachable("cut")))
    stage.at(2.5, stage.cluster.cut)
    stage.says(3.0, "two")
    stage.ends(6.0, 0)
    assert stage.run().end is JobEnd.SUCCEEDED
    assert stage.printed == b"one\ntwo\n"


def test_a_cluster_that_stays_silent_is_given_up_and_the_job_is_named(stage: Stage) -> None:
    stage.starts()
    stage.at(2.0, lambda: stage.cluster.fail("watch", *[Unreachable("gone")] * 200))
    stage.at(2.0, stage.cluster.cut)
    result = stage.run()
    assert (result.end, "gone" in result.message) == (JobEnd.UNSEEN, True)


def test_a_create_whose_answer_was_lost_makes_one_job(stage: Stage) -> None:
    stage.cluster.fail("create", Unreachable("cut", may_have_happened=True), after=True)
    stage.starts()
    stage.ends(3.0, 0)
    assert stage.run().end is JobEnd.SUCCEEDED
    assert len(stage.cluster.list(kinds.JOB).items) == 1


def test_a_cycle_that_is_started_again_takes_its_job_up(stage: Stage) -> None:
    stage.cluster.create(kinds.JOB, stage.manifest)
    stage.pod(terminated(0))
    stage.job(COMPLETE)
    assert stage.run().end is JobEnd.SUCCEEDED
    assert "is there already" in stage.said[0]


def test_a_name_that_another_cycle_has_is_not_touched(stage: Stage) -> None:
    other = {**stage.manifest, "metadata": {**stage.manifest["metadata"], "labels": {LABEL_CYCLE: "c" * 32}}}
    stage.cluster.create(kinds.JOB, other)
    with pytest.raises(RunnerError, match="not this cycle's"):
        stage.run()


@pytest.mark.parametrize("error", [Invalid("bad"), Forbidden("not you")], ids=["invalid", "forbidden"])
def test_a_refusal_of_the_server_goes_out(stage: Stage, error: KubernetesError) -> None:
    stage.cluster.fail("create", error)
    with pytest.raises(type(error)):
        stage.run()


@pytest.mark.parametrize("right", [("delete", "jobs.batch"), ("watch", "pods")])
def test_nothing_is_made_that_could_not_be_followed_and_ended(stage: Stage, right: tuple[str, str]) -> None:
    stage.cluster.denied.add(right)
    with pytest.raises(ConfigError, match=f'allow "{right[0]}" on "{right[1]}" in namespace here'):
        stage.run()
    assert stage.cluster.asked[-1][0] == "allowed"


def test_a_stop_before_the_job_is_made_makes_none(stage: Stage) -> None:
    stage.ask()
    stage.cluster.fail("create", Unreachable("down", may_have_happened=False))
    with pytest.raises(Stopped):
        stage.run()
    assert stage.cluster.list(kinds.JOB).items == ()


# --- what earlier cycles left ---------------------------------------------------------------------------------------


def add_job(stage: Stage, name: str, labels: Mapping[str, str], *conditions: Mapping[str, Any]) -> None:
    stage.cluster.add(
        kinds.JOB,
        {
            "metadata": {"name": name, "namespace": "here", "labels": dict(labels)},
            "status": {"conditions": list(conditions), "failed": len(conditions), "succeeded": 0},
        },
    )


def clear(stage: Stage) -> None:
    clear_jobs(stage.cluster, MARKS, "here", clock=stage.clock, wait=stage.wait, say=stage.said.append)


def test_only_what_this_loop_left_on_its_way_is_deleted(stage: Stage) -> None:
    mine = {LABEL_LOOP: MARKS.loop, LABEL_CYCLE: "c" * 32}
    add_job(stage, "left", mine)
    add_job(stage, "over", mine, FAILED)
    add_job(stage, "this", MARKS.labels)
    add_job(stage, "other", {LABEL_LOOP: "d" * 16, LABEL_CYCLE: "c" * 32})
    add_job(stage, "nobodys", {})
    clear(stage)
    kept = [job["metadata"]["name"] for job in stage.cluster.list(kinds.JOB).items]
    assert kept == ["nobodys", "other", "over", "this"]
    assert stage.said == [f"Job here/left of cycle {'c' * 32}, which nobody ended, is deleted"]


@pytest.mark.parametrize(("gone_after", "ok"), [(10.0, True), (500.0, False)])
def test_nothing_is_begun_beside_a_pod_that_still_ends(stage: Stage, gone_after: float, ok: bool) -> None:
    labels = {LABEL_LOOP: MARKS.loop, LABEL_CYCLE: "c" * 32}
    metadata = {"name": "old", "namespace": "here", "labels": labels}
    stage.cluster.add(kinds.POD, {"metadata": metadata, "status": {"phase": "Running"}})
    end = stage.clock.monotonic() + gone_after

    def wait(seconds: float) -> bool:
        stage.clock.move(seconds)
        if stage.clock.monotonic() >= end:
            stage.cluster.set_status(kinds.POD, "old", {"phase": "Failed"})
        return False

    if ok:
        clear_jobs(stage.cluster, MARKS, "here", clock=stage.clock, wait=wait, say=stage.said.append)
        return
    with pytest.raises(RunnerError, match="pod old of an earlier cycle does not end"):
        clear_jobs(stage.cluster, MARKS, "here", clock=stage.clock, wait=wait, say=stage.said.append)


@pytest.mark.parametrize("error", [ServerFault("503"), Unreachable("cut"), ServerFault("504", retry_after=30.0)])
def test_a_first_look_that_fails_is_no_job_that_was_deleted(stage: Stage, error: KubernetesError) -> None:
    stage.cluster.fail("list", error, error)
    stage.starts()
    stage.says(2.0, "out")
    stage.ends(40.0, 0)
    assert (stage.run().end, stage.printed) == (JobEnd.SUCCEEDED, b"out\n")


def test_a_stop_after_a_create_whose_answer_was_lost_ends_what_was_made(stage: Stage) -> None:
    stage.cluster.fail("create", Unreachable("cut"), after=True)
    stage.at(0.1, stage.ask)
    result = stage.run()
    assert result.end is JobEnd.CANCELLED
    assert stage.cluster.get(kinds.JOB, NAME) is None


def test_what_nobody_says_was_made_is_told_with_how_to_remove_it(stage: Stage) -> None:
    stage.cluster.fail("create", Unreachable("cut"), after=True)
    stage.cluster.fail("get", *[Unreachable("refused", may_have_happened=False)] * 99)
    result = stage.run()
    assert result.end is JobEnd.UNSEEN
    assert "not known" in result.message
    assert NAME in result.removal
