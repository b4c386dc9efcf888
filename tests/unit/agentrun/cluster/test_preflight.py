"""What stands in the way of a run is found before it is submitted; what cannot be seen is said, never passed over."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.checks.findings import Severity
from run_cycle_loop.agentrun.cluster.detect import CRD, detect
from run_cycle_loop.agentrun.cluster.flags import Origin, controller_flags
from run_cycle_loop.agentrun.cluster.permissions import rights
from run_cycle_loop.agentrun.cluster.preflight import Preflight, preflight
from run_cycle_loop.agentrun.cluster.storage import STORAGE_CLASS
from run_cycle_loop.agentrun.cluster.submit import plan, submit
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.errors import Unreachable
from tests.unit.agentrun import guide_runs
from tests.unit.agentrun.cluster.stage import CLAIM, NAMESPACE, RUN, Stage, bundle

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
Arrange = Callable[[Stage], object]


def checked(stage: Stage, *others: Mapping[str, Any], key: str = "", body: dict[str, Any] | None = None) -> Preflight:
    whole = bundle(body or stage.run(), *others)
    return preflight(stage.cluster, whole, whole.runs[0], profile=stage.controller.profile, clock=stage.clock, key=key)


def said(found: Preflight) -> set[tuple[Severity, str]]:
    return {(one.severity, one.reason) for one in found.findings}


@pytest.fixture
def stage() -> Stage:
    return Stage().with_world()


@pytest.mark.parametrize("profile", list(Profile))
def test_the_guides_loop_may_start_in_a_complete_world(profile: Profile) -> None:
    stage = Stage(profile=profile).with_world(profile)
    text = {"spec": {"text": "Write notes into ${artifactPath}."}}
    stage.cluster.patch(kinds.IMPLEMENTATION_SPEC, "torghut-v5-uncertainty-gates-priority", text)
    found = checked(stage)
    assert found.errors == ()
    assert found.capacity is not None
    assert not found.is_submitted
    json.dumps(found.as_json())


def gone(kind: kinds.Kind, name: str) -> Arrange:
    return lambda stage: stage.cluster.delete(kind, name)


def put(kind: kinds.Kind, name: str, **patch: Any) -> Arrange:
    return lambda stage: stage.cluster.patch(kind, name, patch)


def status(kind: kinds.Kind, name: str, **given: Any) -> Arrange:
    return lambda stage: stage.cluster.set_status(kind, name, given)


def denied(verb: str, resource: str) -> Arrange:
    return lambda stage: stage.cluster.denied.add((verb, resource))


def deployed(*entries: Mapping[str, Any], **flags: str) -> Arrange:
    return lambda stage: stage.deploy(Profile.GUIDE, *entries, **flags)


def claimed(phase: str, *, storage_class: str = "", mode: str = "") -> Arrange:
    def arrange(stage: Stage) -> None:
        stage.cluster.set_status(kinds.PERSISTENT_VOLUME_CLAIM, CLAIM, {"phase": phase})
        if storage_class:
            spec = {"spec": {"storageClassName": storage_class}}
            stage.cluster.patch(kinds.PERSISTENT_VOLUME_CLAIM, CLAIM, spec)
            stage.cluster.add(STORAGE_CLASS, {"metadata": {"name": storage_class}, "volumeBindingMode": mode})

    return arrange


def another(name: str = "other", phase: str = "Running", **spec: Any) -> Arrange:
    def arrange(stage: Stage) -> None:
        body = stage.run(**spec)
        body["metadata"]["name"] = name
        stage.cluster.add(kinds.AGENT_RUN, {**body, "status": {"phase": phase} if phase else {}})

    return arrange


def leftover(kind: kinds.Kind) -> Arrange:
    body = {"metadata": {"name": "left", "labels": {names.LABEL_RUN: RUN}}}
    return lambda stage: stage.add(kind, body)


def without_loops(stage: Stage) -> None:
    stage.deploy(Profile.GUIDE, WORKFLOW_LOOPS_ENABLED="false")


LOOPS = "JANGAR_AGENTS_CONTROLLER_WORKFLOW_LOOPS_ENABLED"
FROM_ELSEWHERE = {"name": LOOPS, "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "loops"}}}
IMAGE = {"name": "JANGAR_AGENT_RUNNER_IMAGE", "value": "runner:1"}
NO_VOLUMES: dict[str, Any] = {"resources": {"requests": {"cpu": "1"}}, "volumes": []}


@pytest.mark.parametrize(
    ("arrange", "severity", "reason"),
    [
        # The controller.
        (without_loops, ERROR, "WorkflowLoopsDisabled"),
        (deployed(WORKFLOW_LOOP_MAX_ITERATIONS="4"), ERROR, "WorkflowLoopMaxIterationsExceeded"),
        (deployed(NAMESPACES="somewhere"), ERROR, "NamespaceNotWatched"),
        (denied("get", "deployments.apps"), WARNING, "FlagsUnknown"),
        (gone(kinds.DEPLOYMENT, "agents-controllers"), WARNING, "FlagsUnknown"),
        (status(kinds.DEPLOYMENT, "agents-controllers", availableReplicas=0), WARNING, "ControllerNotRunning"),
        # The definition.
        (gone(kinds.CUSTOM_RESOURCE_DEFINITION, CRD), ERROR, "MissingDefinition"),
        (status(kinds.CUSTOM_RESOURCE_DEFINITION, CRD), ERROR, "DefinitionNotEstablished"),
        (denied("get", "customresourcedefinitions.apiextensions.k8s.io"), NOTE, "DefinitionUnknown"),
        # What the run leads to.
        (gone(kinds.AGENT, "codex-spark-agent"), ERROR, "MissingAgent"),
        (gone(kinds.AGENT_PROVIDER, "codex"), ERROR, "MissingProvider"),
        (gone(kinds.IMPLEMENTATION_SPEC, "torghut-v5-uncertainty-gates-priority"), ERROR, "MissingImplementation"),
        (gone(kinds.CONFIG_MAP, "codex-agent-system-prompt"), ERROR, "MissingConfigMap"),
        (put(kinds.CONFIG_MAP, "codex-agent-system-prompt", data=None), ERROR, "MissingSystemPromptRef"),
        (gone(kinds.SECRET, "codex-auth"), ERROR, "MissingSecret"),
        (denied("get", "secrets"), WARNING, "SecretUnknown"),
        (denied("get", "agents.agents.proompteng.ai"), WARNING, "AgentUnknown"),
        (denied("get", "configmaps"), WARNING, "ConfigMapUnknown"),
        (denied("get", "persistentvolumeclaims"), WARNING, "PersistentVolumeClaimUnknown"),
        # Claims.
        (gone(kinds.PERSISTENT_VOLUME_CLAIM, CLAIM), ERROR, "MissingPersistentVolumeClaim"),
        (claimed("Lost"), ERROR, "ClaimLost"),
        (claimed("Pending"), WARNING, "ClaimNotBound"),
        (claimed("Pending", storage_class="slow", mode="Immediate"), WARNING, "ClaimNotBound"),
        (another(), ERROR, "ClaimInUse"),
        (another(phase=""), ERROR, "ClaimInUse"),
        # The name and the key.
        (another(RUN, "Running"), ERROR, "NameTaken"),
        (another(RUN, "Failed"), ERROR, "NameTaken"),
        (leftover(kinds.JOB), ERROR, "StaleObjects"),
        (leftover(kinds.CONFIG_MAP), ERROR, "StaleObjects"),
        (another(idempotencyKey="the-key"), ERROR, "IdempotencyKeyInUse"),
        (another(phase="Succeeded", idempotencyKey="the-key"), ERROR, "IdempotencyKeyCompleted"),
        (denied("list", "agentruns.agents.proompteng.ai"), WARNING, "RunsUnknown"),
        (denied("list", "jobs.batch"), WARNING, "LeftoversUnknown"),
        # Room.
        (deployed(CONCURRENCY_AGENT="0"), None, ""),
        # What we may do.
        (denied("create", "agentruns.agents.proompteng.ai"), ERROR, "NotAllowed"),
        (denied("patch", "agentruns/status.agents.proompteng.ai"), WARNING, "NotAllowed"),
        (denied("get", "pods/log"), WARNING, "NotAllowed"),
        (lambda stage: setattr(stage.cluster, "reviews_access", False), WARNING, "PermissionUnknown"),
    ],
)
def test_each_obstacle_is_found(stage: Stage, arrange: Arrange, severity: Severity | None, reason: str) -> None:
    arrange(stage)
    found = checked(stage, key="the-key")
    if severity is None:
        assert found.errors == ()
    else:
        assert (severity, reason) in said(found), found.findings
    if severity is not ERROR:
        assert found.errors == (), found.errors


@pytest.mark.parametrize(
    "arrange",
    [
        claimed("Pending", storage_class="late", mode="WaitForFirstConsumer"),
        another(phase="Succeeded"),
        another(workload=NO_VOLUMES),
        another(idempotencyKey="the-key", agentRef={"name": "codex-agent"}, workload=NO_VOLUMES),
    ],
    ids=["binds-late", "over", "no-claim", "other-agents-key"],
)
def test_what_is_no_obstacle_is_none(stage: Stage, arrange: Arrange) -> None:
    arrange(stage)
    assert checked(stage, key="the-key").errors == ()


def test_a_shared_claim_that_many_may_write_to_is_a_warning(stage: Stage) -> None:
    stage.cluster.patch(kinds.PERSISTENT_VOLUME_CLAIM, CLAIM, {"spec": {"accessModes": ["ReadWriteMany"]}})
    another()(stage)
    assert (WARNING, "ClaimInUse") in said(checked(stage))


def test_a_loop_flag_that_stands_elsewhere_is_not_taken_for_off(stage: Stage) -> None:
    container = {"name": "controller", "env": [FROM_ELSEWHERE, IMAGE]}
    spec = {"template": {"spec": {"containers": [container]}}}
    stage.cluster.patch(kinds.DEPLOYMENT, "agents-controllers", {"spec": spec})
    found = checked(stage)
    assert (WARNING, "FlagsUnknown") in said(found)
    assert found.errors == ()


def test_variables_that_come_from_a_whole_object_are_not_taken_for_defaults(stage: Stage) -> None:
    container = {"name": "controller", "env": [], "envFrom": [{"configMapRef": {"name": "settings"}}]}
    spec = {"template": {"spec": {"containers": [container]}}}
    stage.cluster.patch(kinds.DEPLOYMENT, "agents-controllers", {"spec": spec})
    found = checked(stage)
    assert "ConfigMap settings" in next(one.message for one in found.findings if one.reason == "FlagsUnknown")
    assert found.errors == ()


def test_a_rule_that_is_not_installed_is_noted(stage: Stage) -> None:
    definition = stage.cluster.get(kinds.CUSTOM_RESOURCE_DEFINITION, CRD)
    assert definition is not None
    versions = definition["spec"]["versions"]
    del versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"]
    stage.cluster.patch(kinds.CUSTOM_RESOURCE_DEFINITION, CRD, {"spec": {"versions": versions}})
    assert (NOTE, "RuleNotInstalled") in said(checked(stage))


def test_what_the_bundle_brings_need_not_be_there_yet(stage: Stage) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "codex-auth", "namespace": NAMESPACE},
        "stringData": {"key": "value"},
    }
    stage.cluster.delete(kinds.PERSISTENT_VOLUME_CLAIM, CLAIM)
    stage.cluster.delete(kinds.SECRET, "codex-auth")
    assert checked(stage, claim, secret).errors == ()


def test_a_key_that_a_secret_lacks_is_found(stage: Stage) -> None:
    wanted = {"spec": {"secretEnv": [{"name": "KEY", "secretName": "codex-auth", "key": "absent"}]}}
    stage.cluster.patch(kinds.AGENT_PROVIDER, "codex", wanted)
    assert (ERROR, "MissingKey") in said(checked(stage))


def test_a_free_name_is_proposed_of_which_nothing_is_left(stage: Stage) -> None:
    another(RUN, "Failed")(stage)
    stage.add(kinds.JOB, {"metadata": {"name": "left", "labels": {names.LABEL_RUN: "demo-2"}}})
    assert checked(stage).proposed_name == "demo-3"


def test_a_submission_that_is_there_already_is_no_obstacle_to_itself(stage: Stage) -> None:
    whole = bundle(stage.run())
    submit(stage.cluster, plan(stage.cluster, whole, whole.runs[0]), wait=stage.wait)
    stage.finish(3)
    found = checked(stage)
    assert found.is_submitted
    assert found.errors == ()
    assert (NOTE, "AlreadySubmitted") in said(found)


@pytest.mark.parametrize(
    ("running", "pending", "limits", "expected"),
    [
        (4, 0, {}, (NOTE, "ConcurrencyLimit")),
        (5, 0, {}, (WARNING, "ConcurrencyLimit")),
        (3, 0, {"CONCURRENCY_NAMESPACE": "3"}, (WARNING, "ConcurrencyLimit")),
        (3, 0, {"CONCURRENCY_CLUSTER": "3"}, (WARNING, "ConcurrencyLimit")),
        (0, 6, {"QUEUE_NAMESPACE": "6"}, (ERROR, "QueueLimit")),
        (0, 6, {"QUEUE_CLUSTER": "6"}, (ERROR, "QueueLimit")),
        (2, 0, {"REPO_CONCURRENCY_ENABLED": "true", "REPO_CONCURRENCY_DEFAULT": "2"}, (WARNING, "ConcurrencyLimit")),
        (3, 0, {"RATE_NAMESPACE": "3"}, (WARNING, "RateLimit")),
    ],
)
def test_a_full_controller_is_said_before(
    stage: Stage, running: int, pending: int, limits: dict[str, str], expected: tuple[Severity, str]
) -> None:
    stage.deploy(Profile.GUIDE, **limits)
    for number in range(running):
        another(f"running-{number}", "Running", workload=NO_VOLUMES)(stage)
    for number in range(pending):
        another(f"pending-{number}", "Pending", workload=NO_VOLUMES)(stage)
    assert expected in said(checked(stage))


def test_runs_of_other_namespaces_count_only_where_they_may_be_listed(stage: Stage) -> None:
    found = checked(stage)
    assert found.capacity is not None
    assert found.capacity.running_cluster == 0
    stage.clock.move(timedelta(days=1).total_seconds())
    assert found.capacity.recent_namespace == 0


def test_findings_about_the_manifest_have_its_file_and_line(stage: Stage) -> None:
    stage.cluster.delete(kinds.SECRET, "codex-auth")
    found = next(one for one in checked(stage).findings if one.reason == "MissingSecret")
    assert (found.path, found.place) == ("spec.secrets[1]", "manifest.yaml:1")


def test_the_whole_of_validation_is_called_too(stage: Stage) -> None:
    body = stage.run(runtime={"type": "job"})
    assert any(one.path.startswith("spec.") for one in checked(stage, body=body).findings)


def test_a_cluster_that_does_not_answer_is_no_finding(stage: Stage) -> None:
    stage.cluster.fail("get", Unreachable("no answer"))
    with pytest.raises(Unreachable):
        checked(stage)


def test_preflight_changes_nothing(stage: Stage) -> None:
    checked(stage)
    assert {one.verb for _, one in stage.cluster.asked} <= {"get", "list", "create", "watch", "patch", "delete"}
    assert {method for method, _ in stage.cluster.asked} <= {"get", "list", "allowed"}


def test_rights_are_named_as_rbac_names_them() -> None:
    assert "agentruns/status.agents.proompteng.ai" in {one.resource for one in rights(())}
    assert {one.verb for one in rights([kinds.SECRET]) if one.kind == kinds.SECRET} == {"get", "create", "patch"}


# The controller's flags and generation.


def test_flags_say_what_is_set_what_is_default_and_what_stands_elsewhere(stage: Stage) -> None:
    elsewhere = {
        "name": "JANGAR_AGENTS_CONTROLLER_QUEUE_REPO",
        "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
    }
    stage.deploy(Profile.GUIDE, elsewhere, WORKFLOW_LOOP_MAX_ITERATIONS="7", CONCURRENCY_AGENT="many")
    found = controller_flags(stage.cluster, Profile.GUIDE)
    rows = {one.name: one for one in found.rows}
    assert found.flags.known
    assert (rows["max_iterations"].value, rows["max_iterations"].origin) == (7, Origin.SET)
    assert (rows["queue_namespace"].value, rows["queue_namespace"].origin) == (200, Origin.DEFAULT)
    assert (rows["queue_repository"].origin, rows["queue_repository"].note) == (Origin.REFERENCE, "in Secret s[k]")
    assert (rows["concurrency_agent"].value, rows["concurrency_agent"].note) == (5, "written as 'many'")
    assert rows["loops_enabled"].variable == LOOPS
    json.dumps(found.as_json())


def test_flags_that_may_not_be_read_are_unknown_and_not_off(stage: Stage) -> None:
    stage.cluster.denied.add(("get", "deployments.apps"))
    found = controller_flags(stage.cluster, Profile.GUIDE)
    assert (found.flags.known, {one.origin for one in found.rows}) == (False, {Origin.UNKNOWN})
    assert "deployments" in found.note


def variables(*names_given: str) -> Arrange:
    env = [{"name": name, "value": "1"} for name in names_given]
    spec = {"template": {"spec": {"containers": [{"name": "controller", "env": env}]}}}
    return put(kinds.DEPLOYMENT, "agents-controllers", spec=spec)


def made_job(**container: Any) -> Arrange:
    spec = {"template": {"spec": {"containers": [{"name": "agent-runner", **container}]}}}
    body = {"metadata": {"name": "j", "labels": {names.LABEL_RUN: "r"}}, "spec": spec}
    return lambda stage: stage.add(kinds.JOB, body)


def nothing(stage: Stage) -> None:
    for kind, name in ((kinds.DEPLOYMENT, "agents-controllers"), (kinds.CUSTOM_RESOURCE_DEFINITION, CRD)):
        stage.cluster.delete(kind, name)


@pytest.mark.parametrize(
    ("installed", "arrange", "profile", "is_certain"),
    [
        (Profile.GUIDE, lambda _: None, Profile.GUIDE, True),
        (Profile.CURRENT, lambda _: None, Profile.CURRENT, True),
        (Profile.GUIDE, variables("AGENTS_CONTROLLER_ENABLED"), Profile.CURRENT, False),
        (Profile.CURRENT, variables("JANGAR_AGENT_IMAGE", "AGENTS_AGENT_RUNNER_IMAGE"), Profile.CURRENT, True),
        (Profile.CURRENT, variables("PATH"), Profile.CURRENT, True),
        (Profile.CURRENT, denied("get", "deployments.apps"), Profile.CURRENT, True),
        (Profile.GUIDE, made_job(terminationMessagePath="/workspace/.agent/status.json"), Profile.GUIDE, False),
        (Profile.GUIDE, made_job(terminationMessagePath="/dev/termination-log"), Profile.GUIDE, True),
        (Profile.CURRENT, nothing, Profile.GUIDE, False),
    ],
)
def test_the_generation_is_told_by_what_can_be_seen(
    installed: Profile, arrange: Arrange, profile: Profile, is_certain: bool
) -> None:
    stage = Stage(profile=installed).with_world(installed)
    arrange(stage)
    found = detect(stage.cluster, NAMESPACE)
    assert (found.profile, found.is_certain) == (profile, is_certain), found
    assert bool(found.note) is not is_certain
    json.dumps(found.as_json())


def test_nothing_that_tells_is_said_with_what_was_looked_at(stage: Stage) -> None:
    nothing(stage)
    found = detect(stage.cluster, NAMESPACE)
    assert "no Deployment agents-controllers" in found.note
    assert guide_runs.loop_body()["metadata"]["name"] not in found.note
