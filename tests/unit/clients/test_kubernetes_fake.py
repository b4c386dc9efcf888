"""What the cluster in memory can do for a test beyond what every cluster does."""

from contextlib import closing

import pytest

from run_cycle_loop.clients.kubernetes.api import DELETED, MODIFIED, QUIET, ExecResult
from run_cycle_loop.clients.kubernetes.errors import Conflict, Forbidden, Unreachable
from run_cycle_loop.clients.kubernetes.kinds import BY_NAME, CONFIG_MAP, JOB, POD
from run_cycle_loop.testing import FakeClock, FakeStop
from run_cycle_loop.testing_cluster import InMemoryCluster


@pytest.fixture
def cluster() -> InMemoryCluster:
    return InMemoryCluster("here")


def _owned(name: str, *uids: str, **meta: object) -> dict[str, object]:
    owners = [{"kind": "Job", "name": "owner", "uid": uid} for uid in uids]
    return {"metadata": {"name": name, "ownerReferences": owners, **meta}}


def test_what_is_owned_goes_with_its_last_owner(cluster: InMemoryCluster) -> None:
    first, second = (cluster.add(JOB, {"metadata": {"name": name}})["metadata"]["uid"] for name in ("a", "b"))
    cluster.add(POD, _owned("both", first, second))
    pod = cluster.add(POD, _owned("one", first))["metadata"]["uid"]
    cluster.add(CONFIG_MAP, _owned("of-the-pod", pod))
    cluster.add(POD, _owned("held", first, finalizers=["example.org/hold"]))
    cluster.delete(JOB, "a")
    assert cluster.get(POD, "both") is not None
    assert cluster.get(POD, "one") is cluster.get(CONFIG_MAP, "of-the-pod") is None
    held = cluster.get(POD, "held")
    assert held is not None
    assert "deletionTimestamp" in held["metadata"]
    cluster.delete(JOB, "b")
    assert cluster.get(POD, "both") is None


def test_faults_come_in_turn_before_or_after_the_deed(cluster: InMemoryCluster) -> None:
    lost = Unreachable("lost")
    cluster.fail("create", Conflict("first"), None)
    cluster.fail("create", lost, after=True)
    with pytest.raises(Conflict):
        cluster.create(CONFIG_MAP, {"metadata": {"name": "one"}})
    assert cluster.create(CONFIG_MAP, {"metadata": {"name": "one"}})
    with pytest.raises(Unreachable) as raised:
        cluster.create(CONFIG_MAP, {"metadata": {"name": "two"}})
    assert raised.value is lost
    assert cluster.get(CONFIG_MAP, "two") is not None
    assert [method for method, _ in cluster.asked] == ["create", "create", "create", "get"]


def test_a_watch_may_fail_after_what_waits(cluster: InMemoryCluster) -> None:
    cluster.add(CONFIG_MAP, {"metadata": {"name": "one"}})
    cluster.fail("watch", Unreachable("gone"), after=True)
    with closing(cluster.watch(CONFIG_MAP, resource_version="1", seconds=60)) as watch:
        assert next(watch).object["metadata"]["name"] == "one"
        with pytest.raises(Unreachable):
            next(watch)
        assert list(watch) == []


def test_others_act_while_time_passes_in_a_watch() -> None:
    clock = FakeClock()
    stop = FakeStop(clock)
    cluster = InMemoryCluster("here", clock=clock, pass_time=stop.wait)
    version = cluster.add(JOB, {"metadata": {"name": "one"}})["metadata"]["resourceVersion"]
    cluster.after(2.5, lambda: cluster.set_status(JOB, "one", {"succeeded": 1}))
    cluster.after(4.0, lambda: cluster.delete(JOB, "one"))
    began = clock.monotonic()
    told = [
        (event.type, clock.monotonic() - began)
        for event in cluster.watch(JOB, resource_version=version, seconds=5.5, beat=1.0)
    ]
    assert [item for item in told if item[0] != QUIET] == [(MODIFIED, 2.5), (DELETED, 4.0)]
    assert clock.monotonic() - began == 5.5


def test_a_watch_under_a_stop_does_not_spin() -> None:
    clock = FakeClock()
    stop = FakeStop(clock)
    stop.ask()
    cluster = InMemoryCluster(clock=clock, pass_time=stop.wait)
    watch = cluster.watch(JOB, resource_version="1", seconds=60, beat=1.0)
    assert next(watch).type == QUIET
    assert list(cluster.watch(JOB, resource_version="1", seconds=60)) == []


def test_a_status_is_set_and_a_generation_stays(cluster: InMemoryCluster) -> None:
    cluster.add(JOB, {"metadata": {"name": "one"}, "status": {"active": 1}})
    found = cluster.set_status(JOB, "one", {"succeeded": 1})
    assert (found["status"], found["metadata"]["generation"]) == ({"succeeded": 1}, 1)


def test_a_log_is_followed_until_its_pod_ends(cluster: InMemoryCluster) -> None:
    cluster.add(POD, {"metadata": {"name": "p"}, "status": {"phase": "Running"}})
    cluster.say("p", "one")
    cluster.say("p", "two")
    assert b"".join(cluster.log("p")) == b"one\ntwo\n"
    assert b"".join(cluster.log("p", tail=1)) == b"two\n"
    assert b"".join(cluster.log("p", tail=0)) == b""
    stamped = b"".join(cluster.log("p", timestamps=True, tail=1))
    assert stamped == b"2026-01-02T12:00:00.000000000Z two\n"
    cluster.after(1.5, lambda: cluster.say("p", "three"))
    cluster.after(2.5, lambda: cluster.set_status(POD, "p", {"phase": "Succeeded"}))
    pieces = list(cluster.log("p", follow=True, beat=1.0))
    assert b"".join(pieces) == b"one\ntwo\nthree\n"
    assert b"" in pieces
    assert b"".join(cluster.log("p", since_time="2026-01-02T12:00:01Z")) == b"three\n"


def test_a_command_leaves_what_the_test_says(cluster: InMemoryCluster) -> None:
    cluster.add(POD, {"metadata": {"name": "p"}})
    cluster.command = lambda pod, argv: ExecResult(f"{pod}: {' '.join(argv)}".encode(), 3)
    assert cluster.exec("p", ["cat", "x"]) == ExecResult(b"p: cat x", 3)


def test_what_is_denied_is_refused_and_told(cluster: InMemoryCluster) -> None:
    cluster.denied.add(("watch", "jobs.batch"))
    with pytest.raises(Forbidden, match=r'"watch" on "jobs\.batch"'):
        cluster.watch(JOB, resource_version="1", seconds=1)
    assert cluster.allowed("watch", JOB) is False
    cluster.reviews_access = False
    assert cluster.allowed("watch", JOB) is None


def test_a_closed_cluster_answers_nobody(cluster: InMemoryCluster) -> None:
    with cluster:
        pass
    with pytest.raises(RuntimeError):
        cluster.get(JOB, "one")


def test_every_kind_is_known_by_its_name() -> None:
    assert all(name == kind.kind and kind.plural == kind.plural.lower() for name, kind in BY_NAME.items())
    assert (JOB.api_version, JOB.resource, POD.api_version, POD.resource) == ("batch/v1", "jobs.batch", "v1", "pods")
    assert [kind.kind for kind in BY_NAME.values() if not kind.namespaced] == ["Namespace", "CustomResourceDefinition"]
