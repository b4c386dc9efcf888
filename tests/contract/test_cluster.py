"""What every cluster promises: the one in memory, the patient one in front of it, and a real kube-apiserver."""

import base64
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest

from run_cycle_loop.clients.kubernetes.api import (
    ADDED,
    ALL_NAMESPACES,
    DELETED,
    MODIFIED,
    QUIET,
    Cluster,
    Event,
    Watching,
)
from run_cycle_loop.clients.kubernetes.connecting import connect
from run_cycle_loop.clients.kubernetes.errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KindNotServed,
    KubernetesError,
    NotFound,
)
from run_cycle_loop.clients.kubernetes.kinds import AGENT_RUN, CONFIG_MAP, NAMESPACE, POD, SECRET, Kind
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.testing_cluster import InMemoryCluster
from tests.cluster.apiserver import ApiServer
from tests.cluster.conftest import api as api  # noqa: PLC0414 - the fixture itself, for one more folder

THING = Kind("example.org", "v1", "Thing", "things")
EVENT = Kind("", "v1", "Event", "events")  # the one kind whose past an API server does not keep in its own memory
FINALIZER = "example.org/hold"
_numbers = count(1)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A cluster, and what the suite cannot do through its port."""

    cluster: Cluster
    other: str  #: a second namespace
    forget: Callable[[], None]  #: all that happened so far
    weaker: Callable[[], Cluster]  #: the same one for somebody who may read config maps and nothing else


def _in_memory(wrap: Callable[[Cluster], Cluster] = lambda cluster: cluster) -> Iterator[Place]:
    cluster = InMemoryCluster("here", namespaces=["there"])
    cluster.unserved.add(THING)

    def weaken() -> Cluster:
        cluster.denied |= {("create", "configmaps"), ("patch", "agentruns/status.agents.proompteng.ai")}
        return wrap(cluster)

    yield Place(cluster=wrap(cluster), other="there", weaker=weaken, forget=cluster.forget)


def _patient(plain: Cluster) -> Cluster:
    return PatientCluster(plain, wait=lambda _: True, budget=0.0)


def _real(api: ApiServer) -> Iterator[Place]:
    api.install("current")
    here, there = api.namespace(), api.namespace()
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]
    api.grant(here, rules)
    with (
        connect(kubeconfig=api.kubeconfigs["admin"], context=None, namespace=here) as cluster,
        connect(kubeconfig=api.kubeconfigs["weak"], context=None, namespace=here) as weak,
    ):

        def forget() -> None:
            _compact(api, cluster.list(CONFIG_MAP).resource_version)

        yield Place(cluster=cluster, other=there, weaker=lambda: weak, forget=forget)


def _compact(api: ApiServer, version: str) -> None:
    """What an API server has done with its etcd every few minutes."""
    with closing(http.client.HTTPConnection(urlsplit(api._etcd[0]).netloc, timeout=10)) as etcd:
        etcd.request("POST", "/v3/kv/compaction", json.dumps({"revision": version, "physical": True}))
        assert etcd.getresponse().status == 200


@pytest.fixture(params=["memory", "patient", pytest.param("real", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield from _in_memory()
    elif request.param == "patient":
        yield from _in_memory(_patient)
    else:
        yield from _real(request.getfixturevalue("api"))


@pytest.fixture
def cluster(place: Place) -> Cluster:
    return place.cluster


def _map(name: str, data: Mapping[str, str] | None = None, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **meta}, "data": dict(data or {"a": "1"})}


def _run(name: str, **more: Any) -> dict[str, Any]:
    spec = {"agentRef": {"name": "smith"}, "runtime": {"type": "job"}, "implementationSpecRef": {"name": "work"}}
    return {"metadata": {"name": name}, "spec": spec, **more}


def _watch(cluster: Cluster, version: str, **more: Any) -> Watching:
    return cluster.watch(CONFIG_MAP, resource_version=version, **({"seconds": 1.0} | more))


def _told(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.object["metadata"]["name"]) for event in events if event.type != QUIET]


def test_what_was_created_is_found_with_what_the_server_adds(cluster: Cluster) -> None:
    body = _map("one", labels={"x": "y"})
    made = cluster.create(CONFIG_MAP, body)
    assert made == cluster.get(CONFIG_MAP, "one")
    assert made["data"] == {"a": "1"}
    assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")
    meta = made["metadata"]
    assert meta["namespace"] == cluster.namespace
    assert meta["uid"]
    assert meta["resourceVersion"].isdecimal()
    assert meta["creationTimestamp"].endswith("Z")
    assert body == _map("one", labels={"x": "y"}), "what is handed in stays as it is"


def test_what_is_handed_out_belongs_to_the_caller(cluster: Cluster) -> None:
    cluster.create(CONFIG_MAP, _map("one"))["data"]["a"] = "changed"
    cluster.list(CONFIG_MAP, name="one").items[0]["data"]["a"] = "changed"
    found = cluster.get(CONFIG_MAP, "one")
    assert found is not None
    assert found["data"] == {"a": "1"}


def test_what_is_not_there_is_none(place: Place) -> None:
    assert place.cluster.get(CONFIG_MAP, "nothing") is None
    assert place.cluster.get(CONFIG_MAP, "nothing", "no-such-namespace") is None
    assert place.cluster.get(NAMESPACE, "no-such-namespace") is None


def test_a_name_is_taken_once(cluster: Cluster) -> None:
    cluster.create(CONFIG_MAP, _map("one"))
    with pytest.raises(AlreadyExists, match=f"cannot create ConfigMap {cluster.namespace}/one: ") as raised:
        cluster.create(CONFIG_MAP, _map("one"))
    assert (raised.value.status, raised.value.reason) == (409, "AlreadyExists")


def test_the_server_finds_a_name(cluster: Cluster) -> None:
    body = {"metadata": {"generateName": "run-"}}
    names = {cluster.create(CONFIG_MAP, body)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


def test_a_dry_run_leaves_nothing(cluster: Cluster) -> None:
    assert cluster.create(CONFIG_MAP, _map("one"), dry_run=True)["data"] == {"a": "1"}
    assert cluster.apply(CONFIG_MAP, _map("two"), dry_run=True)["data"] == {"a": "1"}
    assert cluster.list(CONFIG_MAP, name="one").items == cluster.list(CONFIG_MAP, name="two").items == ()
    before = cluster.create(CONFIG_MAP, _map("one"))
    with pytest.raises(AlreadyExists):
        cluster.create(CONFIG_MAP, _map("one"), dry_run=True)
    assert cluster.apply(CONFIG_MAP, _map("one", {"b": "2"}), dry_run=True)["data"] == {"a": "1", "b": "2"}
    assert cluster.get(CONFIG_MAP, "one") == before


def test_a_dry_run_finds_what_is_invalid(cluster: Cluster) -> None:
    with pytest.raises(Invalid):
        cluster.create(CONFIG_MAP, _map("No_Name"), dry_run=True)


@pytest.mark.parametrize("name", ["Upper", "under_score", "-front", "x" * 254])
def test_a_bad_name_is_invalid(cluster: Cluster, name: str) -> None:
    with pytest.raises(Invalid) as raised:
        cluster.create(CONFIG_MAP, _map(name))
    assert raised.value.status == 422


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb"])
def test_what_is_no_name_is_asked_for_by_nobody(cluster: Cluster, name: str) -> None:
    for call in (
        lambda: cluster.get(CONFIG_MAP, name),
        lambda: cluster.delete(CONFIG_MAP, name),
        lambda: cluster.patch(CONFIG_MAP, name, {}),
    ):
        with pytest.raises(Invalid):
            call()


def test_an_object_of_another_kind_is_invalid(cluster: Cluster) -> None:
    with pytest.raises(Invalid):
        cluster.create(CONFIG_MAP, _map("one") | {"apiVersion": "v1", "kind": "Secret"})


def test_nothing_is_created_in_a_namespace_that_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="no-such-namespace") as raised:
        cluster.create(CONFIG_MAP, _map("one", namespace="no-such-namespace"))
    assert not isinstance(raised.value, KindNotServed)


def test_a_listing_has_what_carries_every_label(cluster: Cluster) -> None:
    cluster.create(CONFIG_MAP, _map("one", labels={"x": "1", "y": "1"}))
    cluster.create(CONFIG_MAP, _map("two", labels={"x": "1"}))
    cluster.create(CONFIG_MAP, _map("three"))

    def names(**selection: Any) -> list[str]:
        return [item["metadata"]["name"] for item in cluster.list(CONFIG_MAP, **selection).items]

    assert names(labels={"x": "1"}) == ["one", "two"]
    assert names(labels={"x": "1", "y": "1"}) == ["one"]
    assert names(labels={"x": "2"}) == []
    assert names(name="two") == ["two"]
    assert names(name="two", labels={"y": "1"}) == []
    assert {"one", "two", "three"} <= set(names())
    found = cluster.list(CONFIG_MAP, labels={"y": "1"})
    assert found.items[0] == cluster.get(CONFIG_MAP, "one"), "a listed object says of itself what it is"
    assert int(found.resource_version) >= int(found.items[0]["metadata"]["resourceVersion"])


def test_namespaces_are_apart_and_can_be_listed_together(place: Place) -> None:
    mark = {"mark": f"m{next(_numbers)}"}
    place.cluster.create(CONFIG_MAP, _map("one", labels=mark))
    place.cluster.create(CONFIG_MAP, _map("one", labels=mark, namespace=place.other))
    assert len(place.cluster.list(CONFIG_MAP, labels=mark).items) == 1
    assert len(place.cluster.list(CONFIG_MAP, place.other, mark).items) == 1
    assert len(place.cluster.list(CONFIG_MAP, ALL_NAMESPACES, mark).items) == 2


def test_a_patch_merges_and_null_takes_away(cluster: Cluster) -> None:
    before = cluster.create(CONFIG_MAP, _map("one", {"a": "1", "b": "2"}))
    after = cluster.patch(CONFIG_MAP, "one", {"data": {"a": None, "c": "3"}, "metadata": {"labels": {"x": "y"}}})
    assert after["data"] == {"b": "2", "c": "3"}
    assert after["metadata"]["labels"] == {"x": "y"}
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    assert cluster.get(CONFIG_MAP, "one") == after


def test_a_patch_that_changes_nothing_makes_no_version(cluster: Cluster) -> None:
    before = cluster.create(CONFIG_MAP, _map("one"))
    after = cluster.patch(CONFIG_MAP, "one", {"data": {"a": "1"}})
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_a_patch_with_a_version_in_it_compares_and_sets(cluster: Cluster) -> None:
    first = cluster.create(CONFIG_MAP, _map("one"))["metadata"]["resourceVersion"]
    second = cluster.patch(CONFIG_MAP, "one", {"metadata": {"resourceVersion": first}, "data": {"a": "2"}})
    with pytest.raises(Conflict) as raised:
        cluster.patch(CONFIG_MAP, "one", {"metadata": {"resourceVersion": first}, "data": {"a": "3"}})
    assert (raised.value.status, raised.value.reason) == (409, "Conflict")
    assert cluster.get(CONFIG_MAP, "one") == second


def test_a_patch_with_another_uid_in_it_is_a_conflict(cluster: Cluster) -> None:
    cluster.create(CONFIG_MAP, _map("one"))
    with pytest.raises(Conflict):
        cluster.patch(CONFIG_MAP, "one", {"metadata": {"uid": "another"}, "data": {"a": "2"}})


def test_nothing_cannot_be_patched(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="nothing"):
        cluster.patch(CONFIG_MAP, "nothing", {"data": {}})


def test_a_status_is_changed_as_such_and_only_as_such(cluster: Cluster) -> None:
    made = cluster.create(AGENT_RUN, _run("one", status={"phase": "Succeeded"}))
    assert "phase" not in made.get("status", {})
    assert made["metadata"]["generation"] == 1
    ignored = cluster.patch(AGENT_RUN, "one", {"status": {"phase": "Failed"}})
    assert "phase" not in ignored.get("status", {})
    noted = cluster.patch(
        AGENT_RUN, "one", {"status": {"phase": "Running"}, "spec": {"ttlSecondsAfterFinished": 5}}, subresource="status"
    )
    assert (noted["status"]["phase"], noted["spec"]) == ("Running", made["spec"])
    assert noted["metadata"]["generation"] == 1
    changed = cluster.patch(AGENT_RUN, "one", {"spec": {"ttlSecondsAfterFinished": 5}})
    assert (changed["status"]["phase"], changed["metadata"]["generation"]) == ("Running", 2)


def test_applying_sets_fields_and_takes_back_what_it_no_longer_names(cluster: Cluster) -> None:
    made = cluster.apply(CONFIG_MAP, _map("one", {"a": "1", "b": "2"}))
    cluster.patch(CONFIG_MAP, "one", {"data": {"others": "9"}})
    after = cluster.apply(CONFIG_MAP, _map("one", {"a": "1", "c": "3"}))
    assert after["data"] == {"a": "1", "c": "3", "others": "9"}
    assert after["metadata"]["uid"] == made["metadata"]["uid"]
    again = cluster.apply(CONFIG_MAP, _map("one", {"a": "1", "c": "3"}))
    assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


def test_applying_over_what_others_have_set_is_a_conflict(cluster: Cluster) -> None:
    cluster.create(CONFIG_MAP, _map("one", {"a": "1"}))
    cluster.apply(CONFIG_MAP, _map("one", {"a": "1"}))
    with pytest.raises(Conflict, match="data"):
        cluster.apply(CONFIG_MAP, _map("one", {"a": "2"}))
    found = cluster.get(CONFIG_MAP, "one")
    assert found is not None
    assert found["data"] == {"a": "1"}


def test_a_delete_says_whether_there_was_something(cluster: Cluster) -> None:
    cluster.create(CONFIG_MAP, _map("one"))
    assert cluster.delete(CONFIG_MAP, "one")
    assert not cluster.delete(CONFIG_MAP, "one")
    assert cluster.get(CONFIG_MAP, "one") is None


def test_a_delete_with_a_uid_spares_a_namesake(cluster: Cluster) -> None:
    first = cluster.create(CONFIG_MAP, _map("one"))["metadata"]["uid"]
    cluster.delete(CONFIG_MAP, "one")
    second = cluster.create(CONFIG_MAP, _map("one"))["metadata"]["uid"]
    with pytest.raises(Conflict):
        cluster.delete(CONFIG_MAP, "one", uid=first)
    assert cluster.get(CONFIG_MAP, "one") is not None
    assert cluster.delete(CONFIG_MAP, "one", uid=second)


def test_a_finalizer_keeps_what_is_deleted_until_it_is_taken_off(cluster: Cluster) -> None:
    made = cluster.create(CONFIG_MAP, _map("one", finalizers=[FINALIZER]))
    version = made["metadata"]["resourceVersion"]
    assert cluster.delete(CONFIG_MAP, "one")
    assert cluster.delete(CONFIG_MAP, "one"), "it is still there"
    kept = cluster.get(CONFIG_MAP, "one")
    assert kept is not None
    assert kept["metadata"]["deletionTimestamp"]
    cluster.patch(CONFIG_MAP, "one", {"metadata": {"finalizers": None}})
    assert cluster.get(CONFIG_MAP, "one") is None
    assert _told(list(_watch(cluster, version, name="one"))) == [(MODIFIED, "one"), (DELETED, "one")]


def test_a_watch_tells_in_order_what_happened_after_a_version(cluster: Cluster) -> None:
    cluster.create(CONFIG_MAP, _map("before"))
    version = cluster.list(CONFIG_MAP).resource_version
    cluster.create(CONFIG_MAP, _map("one"))
    cluster.create(CONFIG_MAP, _map("two"))
    cluster.patch(CONFIG_MAP, "one", {"data": {"a": "2"}})
    cluster.delete(CONFIG_MAP, "two")
    with closing(_watch(cluster, version, seconds=10)) as watch:
        events = [next(watch) for _ in range(3)]
        resumed = watch.resource_version
    assert _told(events) == [(ADDED, "one"), (ADDED, "two"), (MODIFIED, "one")]
    assert events[2].object == cluster.get(CONFIG_MAP, "one")
    rest = list(_watch(cluster, resumed))
    assert _told(rest) == [(DELETED, "two")]
    assert int(rest[0].object["metadata"]["resourceVersion"]) > int(resumed)


def test_a_watch_hears_of_what_happens_while_it_runs(cluster: Cluster) -> None:
    version = cluster.list(CONFIG_MAP).resource_version
    watch = _watch(cluster, version, seconds=20, beat=0.2)
    assert next(watch).type == QUIET
    cluster.create(CONFIG_MAP, _map("one"))
    assert _told([next(event for event in watch if event.type != QUIET)]) == [(ADDED, "one")]
    watch.close()
    assert list(watch) == []


def test_a_watch_ends_by_itself_and_beats_meanwhile(cluster: Cluster) -> None:
    version = cluster.list(CONFIG_MAP).resource_version
    events = list(_watch(cluster, version, beat=0.25, seconds=1.0, name="nothing"))
    assert {event.type for event in events} == {QUIET}
    assert 2 <= len(events) <= 4
    assert list(_watch(cluster, version, seconds=0.5, name="nothing")) == []


def test_what_loses_the_label_is_gone_for_a_watch(cluster: Cluster) -> None:
    version = cluster.list(CONFIG_MAP).resource_version
    cluster.create(CONFIG_MAP, _map("one", labels={"x": "1"}))
    cluster.create(CONFIG_MAP, _map("two", labels={"x": "2"}))
    for name, value in (("one", "2"), ("two", "1"), ("two", None)):
        cluster.patch(CONFIG_MAP, name, {"metadata": {"labels": {"x": value}}})
    events = list(_watch(cluster, version, labels={"x": "1"}))
    assert _told(events) == [(ADDED, "one"), (DELETED, "one"), (ADDED, "two"), (DELETED, "two")]


def test_a_watch_on_one_name_hears_of_no_other(cluster: Cluster) -> None:
    version = cluster.list(CONFIG_MAP).resource_version
    cluster.create(CONFIG_MAP, _map("one"))
    cluster.create(CONFIG_MAP, _map("two"))
    assert _told(list(_watch(cluster, version, name="two"))) == [(ADDED, "two")]


def test_a_watch_hears_of_every_namespace_it_is_to_hear_of(place: Place) -> None:
    version = place.cluster.list(CONFIG_MAP).resource_version
    mark = {"mark": f"m{next(_numbers)}"}
    place.cluster.create(CONFIG_MAP, _map("one", labels=mark))
    place.cluster.create(CONFIG_MAP, _map("two", labels=mark, namespace=place.other))

    def heard(namespace: str | None) -> list[tuple[str, str]]:
        return _told(list(_watch(place.cluster, version, namespace=namespace, labels=mark)))

    assert heard(None) == [(ADDED, "one")]
    assert heard(place.other) == [(ADDED, "two")]
    assert heard(ALL_NAMESPACES) == [(ADDED, "one"), (ADDED, "two")]


def test_a_forgotten_version_has_expired(place: Place) -> None:
    def note(name: str) -> str:
        involved = {"namespace": place.cluster.namespace, "name": "one"}
        made = place.cluster.create(EVENT, {"metadata": {"name": name}, "involvedObject": involved})
        return str(made["metadata"]["resourceVersion"])

    def watch(version: str) -> list[Event]:
        return list(place.cluster.watch(EVENT, resource_version=version, seconds=1.0))

    version = note("one")
    note("two")
    note("three")
    assert _told(watch(version)) == [(ADDED, "two"), (ADDED, "three")]
    place.forget()
    with pytest.raises(Expired, match="list it again") as raised:
        watch(version)
    assert raised.value.status == 410
    assert watch(place.cluster.list(EVENT).resource_version) == []


def test_what_is_no_version_is_refused(cluster: Cluster) -> None:
    with pytest.raises(KubernetesError):
        list(_watch(cluster, "latest"))


def test_a_kind_that_is_not_served_is_told_from_an_object_that_is_not_there(cluster: Cluster) -> None:
    for call in (
        lambda: cluster.get(THING, "one"),
        lambda: cluster.list(THING),
        lambda: cluster.create(THING, {"metadata": {"name": "one"}}),
        lambda: cluster.patch(THING, "one", {}),
        lambda: cluster.apply(THING, {"metadata": {"name": "one"}}),
        lambda: cluster.delete(THING, "one"),
        lambda: list(cluster.watch(THING, resource_version="1", seconds=1.0)),
    ):
        with pytest.raises(KindNotServed, match=r"install the CustomResourceDefinition things\.example\.org"):
            call()


def test_a_secret_keeps_its_plain_text_in_base64(cluster: Cluster) -> None:
    cluster.create(SECRET, {"metadata": {"name": "one"}, "stringData": {"token": "canary"}})
    found = cluster.get(SECRET, "one")
    assert found is not None
    assert base64.b64decode(found["data"]["token"]) == b"canary"
    assert "stringData" not in found


def test_a_refused_secret_is_not_quoted(cluster: Cluster) -> None:
    with pytest.raises(Invalid) as raised:
        cluster.create(SECRET, {"metadata": {"name": "One"}, "stringData": {"not a key": "canary"}})
    assert "canary" not in repr([raised.value, raised.value.causes])


def test_a_pod_that_is_not_there_prints_and_runs_nothing(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match=f"get Pod/log {cluster.namespace}/nothing"):
        list(cluster.log("nothing"))
    with pytest.raises(NotFound, match=f"create Pod/exec {cluster.namespace}/nothing"):
        cluster.exec("nothing", ["true"])


def test_who_may_not_is_told_what_to_allow(place: Place) -> None:
    weak = place.weaker()
    with pytest.raises(
        Forbidden, match=f'let a Role allow the verb "create" on "configmaps" in namespace {weak.namespace}'
    ):
        weak.create(CONFIG_MAP, _map("one"))
    place_of_status = f'"patch" on "agentruns/status.agents.proompteng.ai" in namespace {weak.namespace}'
    with pytest.raises(Forbidden, match=place_of_status):
        weak.patch(AGENT_RUN, "one", {"status": {}}, subresource="status")
    assert weak.list(CONFIG_MAP, name="one").items == ()


def test_what_is_allowed_can_be_asked(place: Place) -> None:
    assert place.cluster.allowed("create", POD, subresource="exec") is True
    weak = place.weaker()
    assert weak.allowed("get", CONFIG_MAP) is True
    assert weak.allowed("create", CONFIG_MAP) is False
    assert weak.allowed("patch", AGENT_RUN, subresource="status", name="one") is False


def test_the_version_is_told(cluster: Cluster) -> None:
    assert cluster.version().startswith("v1.")
