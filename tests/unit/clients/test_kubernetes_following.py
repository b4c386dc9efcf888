"""Following objects: each change once, across everything that can happen to a connection."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from run_cycle_loop.clients.kubernetes.api import Object
from run_cycle_loop.clients.kubernetes.errors import (
    Expired,
    Forbidden,
    KindNotServed,
    KubernetesError,
    ServerFault,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.clients.kubernetes.following import Change, follow
from run_cycle_loop.clients.kubernetes.kinds import CONFIG_MAP
from run_cycle_loop.testing import FakeClock
from run_cycle_loop.testing_cluster import InMemoryCluster, InMemoryWatch

Told = list[tuple[str, str]]


class Scene:
    """A cluster in memory and somebody who follows its config maps."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.waits: list[float] = []
        self.noticed: list[KubernetesError] = []
        self.stops_after = 10_000.0
        self.cluster = InMemoryCluster(clock=self.clock)
        self.changes: Iterator[Change | None] = follow(
            self.cluster,
            CONFIG_MAP,
            wait=self._wait,
            noticed=self.noticed.append,
            monotonic=self.clock.monotonic,
            chance=lambda: 1.0,
            **options,
        )

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.clock.move(seconds)
        return sum(self.waits) >= self.stops_after

    def add(self, name: str, **meta: Any) -> Object:
        return self.cluster.add(CONFIG_MAP, {"metadata": {"name": name, **meta}})

    def touch(self, name: str) -> None:
        self.cluster.patch(CONFIG_MAP, name, {"data": {"at": str(self.clock.monotonic())}})

    def told(self, turns: int) -> Told:
        """What is told in so many turns, ticks left out."""
        return [
            (change.type, change.object["metadata"]["name"])
            for change in islice(self.changes, turns)
            if change is not None
        ]

    def calls(self, method: str) -> int:
        return sum(1 for name, _ in self.cluster.asked if name == method)


def test_it_begins_with_what_is_there_and_goes_on_with_what_happens() -> None:
    scene = Scene()
    scene.add("one")
    assert scene.told(2) == [("ADDED", "one")]
    scene.add("two")
    scene.touch("one")
    scene.cluster.delete(CONFIG_MAP, "two")
    assert scene.told(3) == [("ADDED", "two"), ("MODIFIED", "one"), ("DELETED", "two")]


def test_nothing_to_tell_is_told_at_every_beat() -> None:
    scene = Scene(beat=0.5)
    began = scene.clock.monotonic()
    assert list(islice(scene.changes, 21)) == [None] * 21
    assert scene.clock.monotonic() - began == pytest.approx(10)
    assert (scene.calls("list"), scene.calls("watch")) == (1, 1)


def test_a_watch_that_ends_in_its_time_is_begun_again_at_once() -> None:
    scene = Scene(seconds_per_watch=10.0)
    scene.told(31)
    assert scene.calls("list") == 1
    assert scene.calls("watch") >= 3
    assert scene.waits == []


def test_a_cut_connection_loses_and_repeats_nothing() -> None:
    scene = Scene()
    scene.add("one")
    scene.told(4)
    scene.cluster.cut()
    scene.add("two")
    scene.touch("one")
    assert scene.told(4) == [("ADDED", "two"), ("MODIFIED", "one")]
    assert scene.calls("list") == 1


@pytest.mark.parametrize("error", [Unreachable("gone"), ServerFault("500"), TooManyRequests("429", retry_after=3.0)])
def test_what_passes_is_waited_for_and_noticed(error: KubernetesError) -> None:
    scene = Scene()
    scene.told(1)
    scene.cluster.fail("watch", error, error)
    scene.cluster.cut()
    scene.add("one")
    assert scene.told(12) == [("ADDED", "one")]
    assert scene.noticed == [error, error]
    assert sum(scene.waits) >= 2 * (error.retry_after or 0.5)
    assert max(scene.waits) <= 1, "a beat is never missed"


def test_a_forgotten_version_is_made_up_for_by_what_differs() -> None:
    scene = Scene()
    for name in ("same", "changed", "gone", "replaced"):
        scene.add(name)
    scene.told(6)
    scene.touch("changed")
    scene.cluster.delete(CONFIG_MAP, "gone")
    scene.cluster.delete(CONFIG_MAP, "replaced")
    scene.add("replaced")
    scene.add("new")
    scene.cluster.forget()
    scene.cluster.cut()
    told = scene.told(9)
    assert told[:2] == [("DELETED", "gone"), ("DELETED", "replaced")], "before its name is taken again"
    assert sorted(told[2:]) == [("ADDED", "new"), ("ADDED", "replaced"), ("MODIFIED", "changed")]
    assert [type(error) for error in scene.noticed] == [Expired]
    assert scene.told(5) == []


def test_what_vanished_is_told_as_it_was_seen_last() -> None:
    scene = Scene()
    scene.add("one", labels={"x": "y"})
    scene.told(2)
    scene.cluster.delete(CONFIG_MAP, "one")
    scene.cluster.forget()
    scene.cluster.cut()
    gone = next(change for change in scene.changes if change is not None)
    assert (gone.type, gone.object["metadata"]["labels"]) == ("DELETED", {"x": "y"})


def test_only_what_is_asked_for_is_told() -> None:
    scene = Scene(labels={"x": "1"}, name="one")
    scene.add("two", labels={"x": "1"})
    scene.add("one", labels={"x": "1"})
    assert scene.told(3) == [("ADDED", "one")]
    scene.touch("two")
    scene.cluster.patch(CONFIG_MAP, "one", {"metadata": {"labels": {"x": "2"}}})
    assert scene.told(3) == [("DELETED", "one")]


def test_watches_that_end_at_once_are_no_hot_loop() -> None:
    scene = Scene()

    class Breaking(InMemoryCluster):
        def watch(self, *where: Any, **how: Any) -> InMemoryWatch:
            watch = super().watch(*where, **how)
            self.cut()
            return watch

    cluster = Breaking(clock=scene.clock)
    changes = follow(cluster, CONFIG_MAP, wait=scene._wait, monotonic=scene.clock.monotonic, chance=lambda: 1.0)
    began = scene.clock.monotonic()
    list(islice(changes, 101))
    watches = sum(1 for method, _ in cluster.asked if method == "watch")
    assert scene.clock.monotonic() - began > 90
    assert watches < 15


def test_a_stop_ends_it_during_a_wait() -> None:
    scene = Scene()
    scene.told(1)
    scene.stops_after = 2.0
    scene.cluster.fail("watch", *[Unreachable("gone")] * 9)
    scene.cluster.cut()
    assert list(scene.changes) == [None] * len(scene.waits[:-1])
    assert scene.cluster.asked[-1][0] == "watch"


def test_patience_ends_with_the_last_error() -> None:
    scene = Scene(patience=60.0)
    scene.told(1)
    began = scene.clock.monotonic()
    scene.cluster.fail("watch", *[Unreachable("gone")] * 99)
    scene.cluster.cut()
    with pytest.raises(Unreachable, match=r"gone; tried \d+ times in \d+ s"):
        list(scene.changes)
    assert 60 < scene.clock.monotonic() - began < 90


def test_a_success_renews_the_patience() -> None:
    scene = Scene(patience=5.0)
    scene.told(1)
    for _ in range(10):
        scene.cluster.fail("watch", Unreachable("gone"), Unreachable("gone"))
        scene.cluster.cut()
        scene.told(8)
    assert len(scene.noticed) == 20


@pytest.mark.parametrize("error", [Forbidden("403"), KindNotServed("404")])
def test_what_is_refused_goes_out_where_it_never_worked_and_is_overcome_where_it_did(error: KubernetesError) -> None:
    scene = Scene()
    scene.cluster.fail("list", error)
    with pytest.raises(type(error)):
        next(scene.changes)
    later = Scene()
    later.told(1)
    later.cluster.fail("watch", error)
    later.cluster.cut()
    later.add("one")
    assert later.told(6) == [("ADDED", "one")]


def test_credentials_are_read_again_once() -> None:
    scene = Scene()
    scene.told(1)
    scene.cluster.fail("watch", Unauthorized("401"))
    scene.cluster.cut()
    scene.add("one")
    assert scene.told(6) == [("ADDED", "one")]
    assert scene.cluster.renewals == 1
    scene.cluster.fail("watch", Unauthorized("401"), Unauthorized("401"))
    scene.cluster.cut()
    with pytest.raises(Unauthorized):
        list(scene.changes)


def test_an_object_that_is_listed_unchanged_is_not_told_again() -> None:
    scene = Scene()
    scene.add("one")
    scene.told(2)
    for _ in range(3):
        scene.add(f"other-{len(scene.noticed)}")
        scene.cluster.forget()
        scene.cluster.cut()
        assert ("ADDED", "one") not in scene.told(6)


def test_a_server_that_wants_to_be_left_alone_for_longer_than_patience_is_given_up() -> None:
    scene = Scene(patience=300.0)
    scene.cluster.fail("list", *[ServerFault("503", retry_after=3600.0)] * 9)
    with pytest.raises(ServerFault, match="503"):
        list(islice(scene.changes, 10_000))
    assert sum(scene.waits) <= 700


def test_a_server_that_was_put_back_to_an_older_state_is_listed_again() -> None:
    scene = Scene(seconds_per_watch=300.0)
    scene.add("one")
    assert scene.told(3) == [("ADDED", "one")]
    for _ in range(9):
        scene.touch("one")
    scene.told(20)
    newest, scene.cluster._version = scene.cluster._version, 1
    scene.cluster.delete(CONFIG_MAP, "one")
    assert scene.cluster._version < newest
    told = [change for change in islice(scene.changes, 2000) if change is not None]
    assert ("DELETED", "one") in [(change.type, change.object["metadata"]["name"]) for change in told]
