"""A patient cluster: what is tried again, how often, and what is never done twice."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from run_cycle_loop.clients.kubernetes.api import ExecResult, Object
from run_cycle_loop.clients.kubernetes.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    KubernetesError,
    NotFound,
    ServerFault,
    Stopped,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.clients.kubernetes.kinds import CONFIG_MAP, POD
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.testing import FakeClock
from run_cycle_loop.testing_cluster import InMemoryCluster

MARK = "agents.proompteng.ai/delivery-id"
LOST = Unreachable("the answer was lost")
REFUSED = Unreachable("connection refused", may_have_happened=False)


class Scene:
    """A cluster in memory, somebody patient in front of it, and the waits between."""

    def __init__(self, *, budget: float = 60.0, stop_at: float | None = None) -> None:
        self.clock = FakeClock()
        self.waits: list[float] = []
        self.plain = InMemoryCluster(clock=self.clock)
        self.stop_at = stop_at
        self.patient = PatientCluster(
            self.plain,
            wait=self._wait,
            budget=budget,
            marks=[MARK],
            monotonic=self.clock.monotonic,
            chance=lambda: 1.0,
        )

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.clock.move(seconds)
        return self.stop_at is not None and sum(self.waits) >= self.stop_at

    def methods(self) -> list[str]:
        return [method for method, _ in self.plain.asked]


def _map(mark: str | None = "d1", **data: str) -> Object:
    annotations = {MARK: mark} if mark else {}
    return {"metadata": {"name": "one", "annotations": annotations}, "data": data}


def test_what_passes_is_waited_for_with_longer_and_longer_pauses() -> None:
    scene = Scene()
    scene.plain.fail("get", LOST, ServerFault("500"), REFUSED, TooManyRequests("429"))
    assert scene.patient.get(CONFIG_MAP, "one") is None
    assert scene.waits == [0.5, 1, 2, 4]


def test_a_server_that_says_when_is_asked_then() -> None:
    scene = Scene()
    scene.plain.fail("list", TooManyRequests("429", retry_after=7.0), ServerFault("503", retry_after=0.1))
    scene.patient.list(CONFIG_MAP)
    assert scene.waits == [7.0, 1.0], "never sooner than the pause"


def test_patience_ends_with_its_budget_and_the_last_error() -> None:
    scene = Scene(budget=10)
    scene.plain.fail("get", *[ServerFault("the server answers 503", status=503, reason="Down")] * 99)
    with pytest.raises(ServerFault, match=r"the server answers 503; tried 5 times in 8 s") as raised:
        scene.patient.get(CONFIG_MAP, "one")
    assert (raised.value.status, raised.value.reason) == (503, "Down")
    assert sum(scene.waits) <= 10


def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    scene = Scene(budget=60)
    scene.plain.fail("get", TooManyRequests("429", retry_after=61.0))
    with pytest.raises(TooManyRequests) as raised:
        scene.patient.get(CONFIG_MAP, "one")
    assert raised.value.retry_after == 61
    assert scene.waits == []


def test_a_stop_ends_the_waiting() -> None:
    scene = Scene(stop_at=1.5)
    scene.plain.fail("get", *[LOST] * 9)
    with pytest.raises(Stopped, match="a stop was asked for"):
        scene.patient.get(CONFIG_MAP, "one")
    assert scene.waits == [0.5, 1.0]


@pytest.mark.parametrize("error", [Forbidden("403"), Invalid("422"), Conflict("409"), NotFound("404")])
def test_what_is_refused_for_good_goes_out_at_once(error: KubernetesError) -> None:
    scene = Scene()
    scene.plain.fail("patch", error)
    with pytest.raises(type(error)) as raised:
        scene.patient.patch(CONFIG_MAP, "one", {})
    assert raised.value is error
    assert scene.waits == []


def test_credentials_are_read_again_once() -> None:
    scene = Scene()
    scene.plain.fail("get", Unauthorized("401"))
    assert scene.patient.get(CONFIG_MAP, "one") is None
    assert (scene.plain.renewals, scene.waits) == (1, [])
    scene.plain.fail("get", Unauthorized("401"), Unauthorized("401"))
    with pytest.raises(Unauthorized):
        scene.patient.get(CONFIG_MAP, "one")
    assert scene.plain.renewals == 2


def test_a_create_whose_answer_was_lost_is_found_to_be_done() -> None:
    scene = Scene()
    scene.plain.fail("create", LOST, after=True)
    made = scene.patient.create(CONFIG_MAP, _map())
    assert made == scene.plain.get(CONFIG_MAP, "one")
    assert scene.methods()[:2] == ["create", "get"]
    assert scene.methods().count("create") == 1


def test_a_create_that_never_arrived_is_done_again() -> None:
    scene = Scene()
    scene.plain.fail("create", LOST, REFUSED)
    scene.patient.create(CONFIG_MAP, _map())
    assert scene.methods() == ["create", "get", "create", "get", "create"]


def test_a_create_that_arrives_late_is_taken_for_our_own() -> None:
    scene = Scene()

    class Late(InMemoryCluster):
        """The first create arrives right after it was looked for."""

        def get(self, *where: Any) -> Object | None:
            found = super().get(*where)
            if found is None:
                self.add(CONFIG_MAP, _map())
            return found

    plain = Late(clock=scene.clock)
    plain.fail("create", LOST)
    patient = PatientCluster(plain, wait=lambda _: False, marks=[MARK], monotonic=scene.clock.monotonic)
    assert patient.create(CONFIG_MAP, _map())["metadata"]["annotations"] == {MARK: "d1"}
    assert [method for method, _ in plain.asked] == ["create", "get", "create", "get"]


def test_a_namesake_of_somebody_else_is_not_our_success() -> None:
    scene = Scene()
    scene.plain.add(CONFIG_MAP, _map("d2"))
    scene.plain.fail("create", LOST)
    with pytest.raises(AlreadyExists):
        scene.patient.create(CONFIG_MAP, _map("d1"))


@pytest.mark.parametrize(
    "body",
    [_map(None), {"metadata": {"generateName": "run-", "annotations": {MARK: "d1"}}}],
    ids=["without a mark", "without a name"],
)
def test_a_create_that_cannot_be_recognised_is_not_done_twice(body: Object) -> None:
    scene = Scene()
    scene.plain.fail("create", LOST, after=True)
    with pytest.raises(Unreachable):
        scene.patient.create(CONFIG_MAP, body)
    assert len(scene.plain.list(CONFIG_MAP).items) == 1
    scene.plain.fail("create", REFUSED, TooManyRequests("429"))
    if "name" in body["metadata"]:
        scene.plain.delete(CONFIG_MAP, "one")
    assert scene.patient.create(CONFIG_MAP, body), "what was never sent may be sent again"


def test_a_dry_run_may_be_repeated() -> None:
    scene = Scene()
    scene.plain.fail("create", LOST, after=True)
    assert scene.patient.create(CONFIG_MAP, _map(None), dry_run=True)
    assert scene.methods() == ["create", "create"]


def test_a_compare_and_set_whose_answer_was_lost_is_found_to_be_done() -> None:
    scene = Scene()
    version = scene.plain.add(CONFIG_MAP, _map(a="1"))["metadata"]["resourceVersion"]
    scene.plain.fail("patch", LOST, after=True)
    patch = {"metadata": {"resourceVersion": version}, "data": {"a": "2"}}
    assert scene.patient.patch(CONFIG_MAP, "one", patch)["data"] == {"a": "2"}


def test_a_compare_and_set_that_somebody_else_won_is_a_conflict() -> None:
    scene = Scene()
    version = scene.plain.add(CONFIG_MAP, _map(a="1"))["metadata"]["resourceVersion"]
    scene.plain.patch(CONFIG_MAP, "one", {"data": {"a": "3"}})
    scene.plain.fail("patch", LOST)
    with pytest.raises(Conflict):
        scene.patient.patch(CONFIG_MAP, "one", {"metadata": {"resourceVersion": version}, "data": {"a": "2"}})


def test_a_delete_whose_answer_was_lost_was_ours() -> None:
    scene = Scene()
    scene.plain.add(CONFIG_MAP, _map())
    scene.plain.fail("delete", LOST, after=True)
    assert scene.patient.delete(CONFIG_MAP, "one")
    assert not scene.patient.delete(CONFIG_MAP, "one")


def test_an_apply_is_repeated() -> None:
    scene = Scene()
    scene.plain.fail("apply", LOST, after=True)
    assert scene.patient.apply(CONFIG_MAP, _map(a="1"))["data"] == {"a": "1"}


def test_a_command_is_not_run_twice() -> None:
    scene = Scene()
    runs: list[str] = []

    def command(pod: str, _argv: Sequence[str]) -> ExecResult:
        runs.append(pod)
        return ExecResult(b"", 0)

    scene.plain.command = command
    scene.plain.add(POD, {"metadata": {"name": "p"}})
    scene.plain.fail("exec", REFUSED)
    assert scene.patient.exec("p", ["true"]).code == 0
    scene.plain.fail("exec", LOST, after=True)
    with pytest.raises(Unreachable):
        scene.patient.exec("p", ["true"])
    assert runs == ["p", "p"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda cluster: cluster.version(),
        lambda cluster: cluster.allowed("get", CONFIG_MAP),
        lambda cluster: cluster.list(CONFIG_MAP, labels={"a": "b"}).items == (),
    ],
)
def test_every_question_is_patient(ask: Callable[[PatientCluster], object]) -> None:
    scene = Scene()
    for method in ("version", "allowed", "list"):
        scene.plain.fail(method, LOST)
    assert ask(scene.patient)
    assert scene.waits == [0.5]


def test_closing_closes_the_plain_one() -> None:
    scene = Scene()
    with scene.patient as patient:
        assert patient.namespace == "default"
    assert scene.plain.closed


@pytest.mark.parametrize(
    "later", [[REFUSED] * 99, [Forbidden("no")], [Unauthorized("401"), Unauthorized("401")]], ids=["down", "403", "401"]
)
def test_a_create_that_was_once_in_doubt_stays_so_whatever_comes_last(later: list[KubernetesError]) -> None:
    scene = Scene()
    scene.plain.fail("create", LOST, *later)
    with pytest.raises(type(later[0])) as raised:
        scene.patient.create(CONFIG_MAP, _map())
    assert raised.value.may_have_happened


@pytest.mark.parametrize(("error", "in_doubt"), [(LOST, True), (REFUSED, False)])
def test_a_stop_says_whether_something_may_have_been_made_before(error: KubernetesError, in_doubt: bool) -> None:
    scene = Scene(stop_at=0.1)
    scene.plain.fail("create", Unreachable("x", may_have_happened=error.may_have_happened))
    with pytest.raises(Stopped) as raised:
        scene.patient.create(CONFIG_MAP, _map())
    assert raised.value.may_have_happened is in_doubt
