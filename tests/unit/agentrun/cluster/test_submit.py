"""A run is submitted once: a refusal leaves nothing behind, and a lost answer makes no second run."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from run_cycle_loop.agentrun.cluster.status import look
from run_cycle_loop.agentrun.cluster.submit import (
    EXIT_CODES,
    ORDER,
    Action,
    Plan,
    Submission,
    SubmitResult,
    dependencies_of,
    plan,
    submit,
)
from run_cycle_loop.agentrun.looking.marks import DIGEST, LABEL, digest_of, free_name, key_of, mark_of
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    KubernetesError,
    ServerFault,
    Stopped,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.model.errors import ConfigError
from tests.unit.agentrun.cluster.stage import CLAIM, NAMESPACE, RUN, Stage, bundle, writes

AGENTS = "agents.proompteng.ai/v1alpha1"


def made(kind: str, name: str, api: str = AGENTS, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **rest}


CLAIM_BODY = made("PersistentVolumeClaim", "fresh", "v1", spec={"accessModes": ["ReadWriteOnce"]})
PROVIDER = made("AgentProvider", "fresh-provider", spec={"binary": "/bin/true"})
AGENT = made("Agent", "fresh-agent", spec={"providerRef": {"name": "fresh-provider"}})
SECRET = made("Secret", "fresh-secret", "v1", stringData={"token": "canary-token"})


@pytest.fixture
def stage() -> Stage:
    return Stage().with_world()


def planned(stage: Stage, *others: Mapping[str, Any], key: str = "", **changes: Any) -> Plan:
    run = stage.run(**changes)
    whole = bundle(run, *others)
    return plan(stage.cluster, whole, whole.runs[0], key=key)


def sent(stage: Stage, made_plan: Plan) -> Submission:
    return submit(stage.cluster, made_plan, wait=stage.wait)


def there(stage: Stage, kind: kinds.Kind, name: str) -> bool:
    with stage.others():
        return stage.cluster.get(kind, name) is not None


def runs_there(stage: Stage) -> list[str]:
    with stage.others():
        return [one["metadata"]["name"] for one in stage.cluster.list(kinds.AGENT_RUN).items]


def test_everything_is_made_in_the_order_of_dependence_and_the_run_last(stage: Stage) -> None:
    before = len(writes(stage))
    done = sent(stage, planned(stage, AGENT, SECRET, PROVIDER, CLAIM_BODY))
    assert done.result is SubmitResult.CREATED
    assert [one.kind for one in done.made] == ["PersistentVolumeClaim", "Secret", "AgentProvider", "Agent"]
    assert writes(stage)[before:][-1] == ("create", "AgentRun", RUN)
    assert all(there(stage, kinds.BY_NAME[one.kind], one.name) for one in done.made)
    json.dumps(done.as_json())


def test_the_run_bears_its_key_its_label_and_its_digest(stage: Stage) -> None:
    sent(stage, planned(stage, key="cycle-7"))
    with stage.others():
        run = stage.cluster.get(kinds.AGENT_RUN, RUN)
    assert run is not None
    assert run["spec"]["idempotencyKey"] == "cycle-7"
    assert run["metadata"]["labels"][LABEL] == mark_of("cycle-7")
    assert run["metadata"]["annotations"][DIGEST] == digest_of(stage.run())


def test_a_spec_that_is_edited_while_it_runs_is_hinted_at(stage: Stage) -> None:
    sent(stage, planned(stage))
    stage.finish(3)
    assert look(stage.cluster, RUN, NAMESPACE, clock=stage.clock).hints == ()
    stage.cluster.patch(kinds.AGENT_RUN, RUN, {"spec": {"parameters": {"head": "codex/other"}}})
    found = look(stage.cluster, RUN, NAMESPACE, clock=stage.clock)
    assert [one.reason for one in found.hints] == ["SpecChanged"]


def test_planning_changes_nothing(stage: Stage) -> None:
    planned(stage, AGENT, CLAIM_BODY)
    assert not there(stage, kinds.AGENT, "fresh-agent")
    assert runs_there(stage) == []


def test_what_is_there_already_is_not_touched(stage: Stage) -> None:
    sent(stage, planned(stage, PROVIDER, SECRET))
    body = stage.run()
    body["metadata"]["name"] = "second"
    whole = bundle(body, PROVIDER, SECRET)
    second = plan(stage.cluster, whole, whole.runs[0])
    assert [one.action for one in second.dependencies] == [Action.KEEP, Action.KEEP]
    assert submit(stage.cluster, second, wait=stage.wait).made == ()


def test_what_changes_is_said_before_field_by_field_and_secrets_are_hidden(stage: Stage) -> None:
    sent(stage, planned(stage, PROVIDER, SECRET))
    body = stage.run()
    body["metadata"]["name"] = "second"
    changed = {**PROVIDER, "spec": {"binary": "/bin/false"}}
    other = {**SECRET, "stringData": {"token": "another-canary"}}
    whole = bundle(body, changed, other)
    found = plan(stage.cluster, whole, whole.runs[0])
    told = {one.kind: [(each.path, each.before, each.after) for each in one.changes] for one in found.dependencies}
    assert told["AgentProvider"] == [("spec.binary", "/bin/true", "/bin/false")]
    assert told["Secret"] == [("data.token", "(hidden)", "(hidden)")]
    assert "canary" not in json.dumps(found.as_json())


def test_an_object_that_somebody_else_keeps_is_not_taken_over(stage: Stage) -> None:
    with pytest.raises(Conflict):
        planned(stage, made("AgentProvider", "codex", spec={"binary": "/bin/other"}))


REFUSED: list[KubernetesError] = [Invalid("bad"), Forbidden("no"), Unauthorized("who"), Unreachable("gone")]


@pytest.mark.parametrize("fault", REFUSED, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("method", ["create", "apply"])
def test_a_refusal_in_the_dry_run_leaves_nothing_behind(stage: Stage, fault: KubernetesError, method: str) -> None:
    stage.cluster.fail(method, fault)
    with pytest.raises(type(fault)):
        planned(stage, AGENT, PROVIDER)
    assert runs_there(stage) == []
    assert not there(stage, kinds.AGENT, "fresh-agent")


@pytest.mark.parametrize("fault", REFUSED[:3], ids=lambda one: type(one).__name__)
def test_a_refusal_after_all_takes_back_what_was_made(stage: Stage, fault: KubernetesError) -> None:
    found = planned(stage, AGENT, PROVIDER)
    stage.cluster.fail("create", fault)
    with pytest.raises(type(fault), match="nothing is left behind"):
        sent(stage, found)
    assert not there(stage, kinds.AGENT, "fresh-agent")
    assert not there(stage, kinds.AGENT_PROVIDER, "fresh-provider")


def test_a_dependency_that_fails_takes_back_those_before_it(stage: Stage) -> None:
    found = planned(stage, AGENT, PROVIDER)
    stage.cluster.fail("apply", None, Invalid("bad"))
    with pytest.raises(Invalid, match="nothing is left behind"):
        sent(stage, found)
    assert not there(stage, kinds.AGENT_PROVIDER, "fresh-provider")


def test_what_cannot_be_taken_back_is_named(stage: Stage) -> None:
    found = planned(stage, AGENT, PROVIDER)
    stage.cluster.fail("apply", None, Invalid("bad"))
    stage.cluster.fail("delete", Forbidden("no"))
    with pytest.raises(Invalid, match=r"left behind: AgentProvider/fresh-provider \(made\)"):
        sent(stage, found)


LOST: list[KubernetesError] = [Unreachable("no answer"), ServerFault("broken")]


@pytest.mark.parametrize("fault", LOST, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("was_made", [True, False])
def test_a_lost_answer_is_looked_for_and_makes_one_run(stage: Stage, fault: KubernetesError, was_made: bool) -> None:
    found = planned(stage)
    stage.cluster.fail("create", fault, after=was_made)
    done = sent(stage, found)
    assert done.result is SubmitResult.CREATED
    assert done.uid
    assert runs_there(stage) == [RUN]


def test_an_answer_that_arrives_late_makes_one_run(stage: Stage) -> None:
    found = planned(stage)
    stage.cluster.fail("create", Unreachable("no answer"))
    stage.cluster.after(1.5, lambda: stage.add(kinds.AGENT_RUN, found.run))
    stage.cluster.fail("get", None)
    assert sent(stage, found).result in (SubmitResult.CREATED, SubmitResult.ADOPTED)
    assert runs_there(stage) == [RUN]


def test_where_nobody_answers_it_is_uncertain_and_submitting_again_finds_out(stage: Stage) -> None:
    found = planned(stage, PROVIDER)
    stage.cluster.fail("create", Unreachable("no answer"), after=True)
    stage.cluster.fail("get", Unreachable("still none"))
    done = sent(stage, found)
    assert (done.result, EXIT_CODES[done.result]) == (SubmitResult.UNCERTAIN, 7)
    assert [one.name for one in done.made] == ["fresh-provider"]
    again = sent(stage, planned(stage, PROVIDER))
    assert again.result is SubmitResult.ADOPTED
    assert runs_there(stage) == [RUN]


def test_too_many_requests_are_waited_for_as_long_as_the_server_says(stage: Stage) -> None:
    found = planned(stage)
    stage.cluster.fail("create", TooManyRequests("later", retry_after=9.0))
    assert sent(stage, found).result is SubmitResult.CREATED
    assert 9.0 in stage.waits


def test_the_same_manifest_a_second_time_is_the_same_run(stage: Stage) -> None:
    first = sent(stage, planned(stage, PROVIDER))
    before = writes(stage)
    second = sent(stage, planned(stage, PROVIDER))
    assert (second.result, second.uid) == (SubmitResult.ADOPTED, first.uid)
    assert [one for one in writes(stage)[len(before) :] if one[1] == "AgentRun"] == []


def foreign(stage: Stage) -> None:
    stage.cluster.create(kinds.AGENT_RUN, stage.run())


def other_key(stage: Stage) -> None:
    sent(stage, planned(stage, key="another"))


def other_content(stage: Stage) -> None:
    sent(stage, planned(stage, key="mine", ttlSecondsAfterFinished=1))


def over(stage: Stage) -> None:
    sent(stage, planned(stage))
    stage.cluster.set_status(kinds.AGENT_RUN, RUN, {"phase": "Failed"})


@pytest.mark.parametrize(
    ("arrange", "key", "words"),
    [
        (foreign, "", "not by this submission"),
        (other_key, "mine", "not by this submission"),
        (other_content, "mine", "from another manifest"),
        (over, "", "is failed"),
    ],
    ids=["foreign", "other-key", "other-content", "over"],
)
def test_a_name_that_is_taken_is_refused_with_a_free_one(
    stage: Stage, arrange: Callable[[Stage], None], key: str, words: str
) -> None:
    arrange(stage)
    before = runs_there(stage)
    found = race(key)
    done = sent(stage, found)
    assert (done.result, done.proposed_name) == (SubmitResult.REFUSED, "demo-2")
    assert words in done.message
    assert (runs_there(stage), there(stage, kinds.AGENT_PROVIDER, "fresh-provider")) == (before, False)


def race(key: str) -> Plan:
    """A plan that was made before the name was taken."""
    fresh = Stage().with_world()
    return planned(fresh, PROVIDER, key=key)


def test_a_run_of_our_key_is_adopted_even_when_it_is_over(stage: Stage) -> None:
    sent(stage, planned(stage, key="cycle-7"))
    stage.cluster.set_status(kinds.AGENT_RUN, RUN, {"phase": "Failed"})
    assert sent(stage, planned(stage, key="cycle-7")).result is SubmitResult.ADOPTED


def test_a_stop_before_the_run_is_made_takes_everything_back(stage: Stage) -> None:
    found = planned(stage, AGENT, PROVIDER)
    asked: list[float] = []

    def wait(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) > 2

    done = submit(stage.cluster, found, wait=wait)
    assert (done.result, EXIT_CODES[done.result], done.made) == (SubmitResult.STOPPED, 130, ())
    assert "nothing is left behind" in done.message
    assert (runs_there(stage), there(stage, kinds.AGENT_PROVIDER, "fresh-provider")) == ([], False)


def test_a_stop_while_an_answer_is_waited_for_says_that_it_is_not_known(stage: Stage) -> None:
    found = planned(stage)
    stage.cluster.fail("create", Unreachable("no answer"), after=True)
    stage.stops_after = 0.5
    done = sent(stage, found)
    assert done.result is SubmitResult.UNCERTAIN
    assert runs_there(stage) == [RUN]


def test_a_patient_cluster_that_is_stopped_leaves_one_outcome(stage: Stage) -> None:
    found = planned(stage, PROVIDER)
    patient = PatientCluster(
        stage.cluster, wait=lambda _seconds: True, marks=(LABEL, DIGEST), monotonic=stage.clock.monotonic
    )
    stage.cluster.fail("apply", ServerFault("broken"))
    done = submit(patient, found, wait=lambda _seconds: False)
    assert done.result is SubmitResult.STOPPED
    assert runs_there(stage) == []
    assert issubclass(Stopped, Exception)


def test_an_already_exists_of_our_own_is_adopted(stage: Stage) -> None:
    found = planned(stage)
    stage.cluster.fail("create", AlreadyExists("there"), after=True)
    assert sent(stage, found).result is SubmitResult.ADOPTED


def test_a_kind_that_no_run_needs_is_left_to_others(stage: Stage) -> None:
    with pytest.raises(ConfigError, match=r"manifest.yaml:11 Deployment/web is not applied here"):
        planned(stage, made("Deployment", "web", "apps/v1", spec={}))


def test_the_order_is_that_of_what_needs_what(stage: Stage) -> None:
    bodies = [made(kind.kind, "x", kind.api_version) for kind in reversed(ORDER)]
    whole = bundle(stage.run(), *bodies)
    assert [one.kind for one in dependencies_of(whole)] == [kind.kind for kind in ORDER]


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [("", "", "demo-"), ("k", "", "k"), ("", "mine", "mine"), ("k", "k", "k")],
)
def test_the_key_is_given_or_the_manifests_or_made_of_its_content(given: str, own: str, expected: str) -> None:
    body = {"metadata": {"name": RUN}, "spec": {"idempotencyKey": own} if own else {}}
    assert key_of(body, given).startswith(expected)
    assert key_of(body, given) == key_of(body, given)


def test_two_keys_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="leave one of them out"):
        key_of({"metadata": {"name": RUN}, "spec": {"idempotencyKey": "a"}}, "b")


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("demo", (), "demo-2"),
        ("demo", ("demo-2", "demo-3"), "demo-4"),
        ("demo-7", (), "demo-8"),
        ("x" * 63, (), "x" * 61 + "-2"),
        ("a" + "-" * 62, (), "a-2"),
    ],
)
def test_a_free_name_stays_within_the_limit(name: str, taken: tuple[str, ...], expected: str) -> None:
    assert free_name(name, taken) == expected


def test_the_claim_of_the_world_is_left_alone(stage: Stage) -> None:
    claim = made("PersistentVolumeClaim", CLAIM, "v1", spec={"accessModes": ["ReadWriteOnce"]})
    assert planned(stage, claim).dependencies[0].action is Action.KEEP


def test_what_kubectl_keeps_of_a_secret_in_an_annotation_is_hidden_too(stage: Stage) -> None:
    def noted(value: str) -> dict[str, Any]:
        kept = json.dumps({"data": {"token": value}})
        metadata = {**SECRET["metadata"], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": kept}}
        return {**SECRET, "metadata": metadata}

    sent(stage, planned(stage, PROVIDER, noted("canary-1")))
    body = stage.run()
    body["metadata"]["name"] = "second"
    whole = bundle(body, noted("canary-2"))
    found = plan(stage.cluster, whole, whole.runs[0])
    assert found.dependencies[0].changes
    assert "canary" not in json.dumps(found.as_json())
