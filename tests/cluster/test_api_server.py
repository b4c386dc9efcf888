"""The real server takes the project's kinds and refuses what they forbid; its Jobs run on the stand-in for a node."""

import re
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from run_cycle_loop.agentrun.checks.crds import PROFILES
from tests.cluster.apiserver import AGENTS, CRDS, ApiServer, until
from tests.cluster.client import ApiError
from tests.cluster.kubelet import Kubelet

pytestmark = pytest.mark.cluster

RUN: Mapping[str, Any] = {
    "agentRef": {"name": "codex-agent"},
    "runtime": {"type": "workflow"},
    "implementationSpecRef": {"name": "text"},
    "workflow": {"steps": [{"name": "implement", "loop": {"maxIterations": 5}}]},
}
PROMPT_REF = {"kind": "ConfigMap", "name": "prompt", "key": "text"}
TWO_DEFAULTS = {"providerRef": {"name": "codex"}, "defaults": {"systemPrompt": "a", "systemPromptRef": PROMPT_REF}}
PROMPT_IN_STEP = {"workflow": {"steps": [{"name": "implement", "parameters": {"prompt": "narrow"}}]}}

NO_TEXT = "spec.implementationSpecRef or spec.implementation is required"
TWO_PROMPTS = "Only one of spec.systemPrompt or spec.systemPromptRef may be set"
RUN_PROMPT = (
    "AgentRun-level systemPrompt/systemPromptRef overrides are not allowed; configure Agent.spec.defaults instead"
)
PARAMETER = "parameters.prompt is not allowed; use ImplementationSpec.spec.text"


def create(api: ApiServer, namespace: str, kind: str, spec: Mapping[str, Any]) -> Any:
    body = {"apiVersion": "agents.proompteng.ai/v1alpha1", "kind": kind, "metadata": {"name": "it"}, "spec": spec}
    return api.client().create(f"{AGENTS}/{namespace}/{kind.lower()}s", body, fieldValidation="Strict")


def job(script: str, *, image: str = "runner:1", backoff: int = 0, **container: Any) -> dict[str, Any]:
    only = {"name": "agent-runner", "image": image, "command": ["sh", "-c", script], **container}
    volumes = only.pop("volumes", [])
    pod = {"restartPolicy": "Never", "containers": [only], "volumes": volumes, "automountServiceAccountToken": False}
    return {
        "metadata": {"name": "it", "labels": {"agents.proompteng.ai/agent-run": "run"}},
        "spec": {"backoffLimit": backoff, "template": {"spec": pod}},
    }


class Jobs:
    """The Jobs of one namespace and their pods, as a client sees them."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self.client = api.client()
        self.namespace = namespace
        self.jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.pods = f"/api/v1/namespaces/{namespace}/pods"

    def start(self, body: Mapping[str, Any]) -> None:
        self.client.create(self.jobs, body)

    def status(self) -> Any:
        return self.client.get(f"{self.jobs}/it").get("status", {})

    def conditions(self) -> dict[str, str]:
        """By type, those that hold: their reason."""
        found = self.status().get("conditions", [])
        return {one["type"]: one.get("reason", "") for one in found if one["status"] == "True"}

    def wait_for(self, condition: str) -> Any:
        until(lambda: condition in self.conditions(), f"the Job is not {condition}", within=30)
        return self.status()

    def pod(self) -> Any:
        (pod,) = self.client.list(self.pods, labelSelector="job-name=it")
        return pod

    def wait_for_pod(self, state: str) -> Any:
        until(lambda: state in self._state(), f"no container is {state}", within=30)
        return self._state()[state]

    def _state(self) -> Any:
        pods = self.client.list(self.pods, labelSelector="job-name=it")
        statuses = [status for pod in pods for status in pod["status"].get("containerStatuses", [])]
        return statuses[0]["state"] if statuses else {}

    def log(self, **query: str) -> str:
        return self.client.text(f"{self.pods}/{self.pod()['metadata']['name']}/log", **query)


@pytest.fixture
def jobs(api: ApiServer, namespace: str) -> Jobs:
    return Jobs(api, namespace)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_kinds_of_both_profiles_are_taken_as_structural_and_within_the_cost_of_rules(
    api: ApiServer, profile: str
) -> None:
    api.install(profile)
    ours = [found for found in api.client().list(CRDS) if found["spec"]["group"] == "agents.proompteng.ai"]
    assert len(ours) == 6
    for found in ours:
        held = {one["type"]: one["status"] for one in found["status"]["conditions"]}
        assert held["Established"] == held["NamesAccepted"] == "True"
        assert held.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize(
    ("kind", "spec", "message", "in_guide"),
    [
        ("AgentRun", {"implementationSpecRef": None}, NO_TEXT, True),
        ("AgentRun", {"systemPrompt": "be terse", "systemPromptRef": PROMPT_REF}, TWO_PROMPTS, True),
        ("AgentRun", {"systemPrompt": "be terse"}, RUN_PROMPT, False),
        ("AgentRun", {"systemPromptRef": PROMPT_REF}, RUN_PROMPT, False),
        ("AgentRun", {"parameters": {"prompt": "narrow"}}, f"spec.{PARAMETER}", False),
        ("AgentRun", PROMPT_IN_STEP, f"spec.workflow.steps[].{PARAMETER}", False),
        ("Agent", TWO_DEFAULTS, TWO_PROMPTS.replace("spec.", "spec.defaults."), True),
    ],
)
@pytest.mark.parametrize("profile", PROFILES)
def test_each_rule_refuses_with_its_message_where_the_profile_has_it(
    api: ApiServer, namespace: str, profile: str, kind: str, spec: Mapping[str, Any], message: str, in_guide: bool
) -> None:
    api.install(profile)
    whole = {key: value for key, value in {**(RUN if kind == "AgentRun" else {}), **spec}.items() if value is not None}
    if profile == "guide" and not in_guide:
        create(api, namespace, kind, whole)
        return
    with pytest.raises(ApiError, match=re.escape(message)) as refused:
        create(api, namespace, kind, whole)
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"runtime": {"type": "cron"}}, "spec.runtime.type: Unsupported value"),
        ({"agentRef": {}}, "spec.agentRef.name: Required value"),
        ({"goal": {"objective": ""}}, "spec.goal.objective"),
        ({"workflow": {"steps": [{"name": "a", "loop": {"maxIterations": 0}}]}}, "maxIterations"),
        ({"workflow": {"steps": [{"name": "a", "timeoutSeconds": -1}]}}, "timeoutSeconds"),
        ({"parameters": {f"p{number}": "" for number in range(101)}}, "spec.parameters: Too many"),
        ({"vcsPolicy": {"mode": "write"}}, "spec.vcsPolicy.mode: Unsupported value"),
        ({"workload": {"volumes": [{"type": "nfs", "name": "a", "mountPath": "/a"}]}}, "volumes[0].type"),
        ({"implementation": {"inline": {"text": "x" * 131073}}}, "spec.implementation.inline.text: Too long"),
    ],
)
def test_what_the_schema_forbids_is_refused(api: ApiServer, namespace: str, spec: Mapping[str, Any], said: str) -> None:
    api.install("current")
    with pytest.raises(ApiError, match=re.escape(said)):
        create(api, namespace, "AgentRun", {**RUN, **spec})


def test_a_status_keeps_every_word_and_moves_no_generation(api: ApiServer, namespace: str) -> None:
    api.install("current")
    create(api, namespace, "AgentRun", RUN)
    iteration = {
        "index": 1,
        "phase": "Succeeded",
        "attempts": 2,
        "message": "LoopConditionFalse",
        "jobRef": {"name": "j"},
    }
    loop = {
        "currentIteration": 1,
        "completedIterations": 1,
        "maxIterations": 5,
        "stopReason": "LoopConditionFalse",
        "retainedIterations": 1,
        "prunedIterations": 0,
        "lastControl": {"continue": False, "outputs": {"left": [1, 2.5, None]}},
        "iterations": [iteration],
    }
    step = {"name": "implement", "phase": "Succeeded", "attempt": 1, "jobRef": {"name": "j", "uid": "u"}, "loop": loop}
    status = {
        "phase": "Succeeded",
        "observedGeneration": 1,
        "startedAt": "2026-03-01T10:00:00.000Z",
        "specHash": "00",
        "systemPromptHash": "11",
        "runtimeRef": {"type": "workflow", "name": "j", "runName": "it", "stepName": "implement", "other": "kept"},
        "vcs": {"provider": "github", "headBranch": "codex/it", "mode": "read-write"},
        "contract": {"requiredKeys": ["repository"], "missingKeys": []},
        "artifacts": [{"name": "log", "url": "https://artifacts.invalid/log"}],
        "conditions": [{"type": "Succeeded", "status": "True", "reason": "Completed", "message": ""}],
        "workflow": {"phase": "Succeeded", "steps": [step]},
    }
    path = f"{AGENTS}/{namespace}/agentruns/it"
    api.client().patch(f"{path}/status", {"status": status})
    kept = api.client().get(path)
    assert kept["status"] == status
    assert kept["metadata"]["generation"] == 1


def test_a_weaker_user_does_what_it_was_granted_and_an_unknown_token_nothing(api: ApiServer, namespace: str) -> None:
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    with pytest.raises(ApiError) as forbidden:
        api.client("weak").list(secrets)
    assert forbidden.value.code == 403
    api.grant(namespace, [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}])

    def is_allowed() -> bool:
        try:
            return api.client("weak").list(secrets) == []
        except ApiError:
            return False

    until(is_allowed, "the grant does not count", within=10)
    with pytest.raises(ApiError) as unknown:
        api.client("wrong").list(secrets)
    assert unknown.value.code == 401


@pytest.mark.usefixtures("kubelet")
def test_a_job_runs_to_its_end_and_its_log_is_read_through_the_server(jobs: Jobs) -> None:
    jobs.start(job("echo one; echo two >&2; echo three"))
    status = jobs.wait_for("Complete")
    assert jobs.conditions() == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    assert (status["succeeded"], status.get("active", 0), "completionTime" in status) == (1, 0, True)
    assert jobs.log() == "one\ntwo\nthree\n"
    assert jobs.log(tailLines="1") == "three\n"
    container = jobs.pod()["status"]["containerStatuses"][0]
    assert container["state"]["terminated"]["exitCode"] == 0
    assert container["imageID"].startswith("runner:1@sha256:")


@pytest.mark.usefixtures("kubelet")
def test_a_failing_job_reaches_its_backoff_limit(jobs: Jobs) -> None:
    jobs.start(job("echo broken; exit 3", backoff=1))
    status = jobs.wait_for("Failed")
    assert jobs.conditions() == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
    assert status["failed"] == 2
    pods = jobs.client.list(jobs.pods)
    codes = [pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in pods]
    assert codes == [3, 3]


@pytest.mark.usefixtures("kubelet")
def test_a_missing_secret_keeps_the_container_waiting_until_it_is_there(jobs: Jobs) -> None:
    jobs.start(job('echo "$TOKEN"', envFrom=[{"secretRef": {"name": "github-token"}}]))
    waiting = jobs.wait_for_pod("waiting")
    assert waiting == {"reason": "CreateContainerConfigError", "message": 'secret "github-token" not found'}
    with pytest.raises(ApiError, match="is waiting to start: CreateContainerConfigError"):
        jobs.log()
    secret = {"metadata": {"name": "github-token"}, "stringData": {"TOKEN": "canary"}}
    jobs.client.create(f"/api/v1/namespaces/{jobs.namespace}/secrets", secret)
    jobs.wait_for("Complete")
    assert jobs.log() == "canary\n"


@pytest.mark.usefixtures("kubelet")
def test_an_image_that_cannot_be_pulled_is_said(jobs: Jobs) -> None:
    jobs.start(job("true", image="runner:missing"))
    assert jobs.wait_for_pod("waiting")["reason"] == "ImagePullBackOff"


@pytest.mark.usefixtures("kubelet")
def test_a_program_that_is_not_there_fails_the_start(jobs: Jobs) -> None:
    body = job("")
    body["spec"]["template"]["spec"]["containers"][0]["command"] = ["no-such-program"]
    jobs.start(body)
    jobs.wait_for("Failed")
    assert jobs.wait_for_pod("terminated")["reason"] == "StartError"


def test_volumes_stand_at_their_true_paths_and_a_claim_outlives_its_pod(jobs: Jobs, kubelet: Kubelet) -> None:
    claim = {
        "metadata": {"name": "state"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    config = {"metadata": {"name": "run-spec"}, "data": {"run.json": '{"prompt": "do it"}'}}
    jobs.client.create(f"/api/v1/namespaces/{jobs.namespace}/configmaps", config)
    body = job(
        'cat run.json; echo; echo kept > notes; echo "$WHERE $(POD)"; echo said > .agent/status.json; ls -d ~/.codex',
        workingDir="/workspace",
        env=[
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['job-name']"}}},
            {"name": "WHERE", "value": "$(POD)/here"},
        ],
        volumeMounts=[
            {"name": "work", "mountPath": "/workspace"},
            {"name": "spec", "mountPath": "/workspace/run.json", "subPath": "run.json", "readOnly": True},
            {"name": "home", "mountPath": "/root/.codex"},
        ],
        volumes=[
            {"name": "work", "persistentVolumeClaim": {"claimName": "state"}},
            {"name": "spec", "configMap": {"name": "run-spec"}},
            {"name": "home", "emptyDir": {}},
        ],
        terminationMessagePath="/workspace/.agent/status.json",
    )
    jobs.start(body)
    until(lambda: _is_unscheduled(jobs), "the pod is not said to wait for its claim", within=30)
    jobs.client.create(f"/api/v1/namespaces/{jobs.namespace}/persistentvolumeclaims", claim)
    jobs.wait_for("Complete")
    assert jobs.log() == '{"prompt": "do it"}\nit/here it\n/root/.codex\n'
    assert jobs.wait_for_pod("terminated")["message"] == "said\n"
    assert (kubelet.claim("state") / "notes").read_text() == "kept\n"


def _is_unscheduled(jobs: Jobs) -> bool:
    pods = jobs.client.list(jobs.pods)
    conditions = [condition for pod in pods for condition in pod["status"].get("conditions", [])]
    said = 'persistentvolumeclaim "state" not found'
    return any(condition["type"] == "PodScheduled" and condition.get("message") == said for condition in conditions)


@pytest.mark.usefixtures("kubelet")
def test_a_followed_log_comes_as_it_is_written_and_ends_with_a_deleted_job(jobs: Jobs) -> None:
    jobs.start(job("trap 'echo asked; exit 9' TERM; echo up; while :; do sleep 0.05; done"))
    jobs.wait_for_pod("running")
    name = jobs.pod()["metadata"]["name"]
    lines: list[bytes] = []
    up = threading.Event()

    def follow() -> None:
        for line in jobs.client.lines(f"{jobs.pods}/{name}/log", lambda _: None, follow="true"):
            lines.append(line)
            up.set()

    reader = threading.Thread(target=follow)
    reader.start()
    assert up.wait(30)
    jobs.client.delete(f"{jobs.jobs}/it", {"propagationPolicy": "Background"})
    reader.join(30)
    assert lines == [b"up\n", b"asked\n"]
    until(lambda: jobs.client.list(jobs.pods) == [], "the pod is not gone", within=30)


@pytest.mark.usefixtures("kubelet")
@pytest.mark.parametrize(("policy", "left"), [("Foreground", 0), ("Orphan", 1)])
def test_a_job_that_waits_for_its_dependents_is_let_go(jobs: Jobs, policy: str, left: int) -> None:
    jobs.start(job("true"))
    jobs.wait_for("Complete")
    jobs.client.delete(f"{jobs.jobs}/it", {"propagationPolicy": policy})
    until(lambda: jobs.client.list(jobs.jobs) == [], "the Job is not gone", within=30)
    assert len(jobs.client.list(jobs.pods)) == left


@pytest.mark.usefixtures("kubelet")
def test_a_job_beyond_its_deadline_fails_and_its_pod_ends(jobs: Jobs) -> None:
    body = job("sleep 600")
    body["spec"]["activeDeadlineSeconds"] = 1
    jobs.start(body)
    jobs.wait_for("Failed")
    assert jobs.conditions() == {"FailureTarget": "DeadlineExceeded", "Failed": "DeadlineExceeded"}
    until(lambda: jobs.client.list(jobs.pods) == [], "the pod is not gone", within=30)


@pytest.mark.usefixtures("kubelet")
def test_a_pod_speaks_to_the_server_as_its_service_account(api: ApiServer, jobs: Jobs) -> None:
    account = {"kind": "ServiceAccount", "name": "default", "namespace": jobs.namespace}
    api.grant(jobs.namespace, [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["patch"]}], subject=account)
    script = """
import json, os, ssl, urllib.request
at = "/var/run/secrets/kubernetes.io/serviceaccount/"
read = lambda name: open(at + name).read()
url = "https://{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format(**os.environ)
url += f"/apis/batch/v1/namespaces/{read('namespace')}/jobs/it"
body = json.dumps({"metadata": {"annotations": {"agents.proompteng.ai/loop-control": "{}"}}}).encode()
headers = {"Authorization": "Bearer " + read("token"), "Content-Type": "application/merge-patch+json"}
asked = urllib.request.Request(url, body, headers, method="PATCH")
print(urllib.request.urlopen(asked, context=ssl.create_default_context(cafile=at + "ca.crt")).status)
"""
    body = job("", backoff=3)
    pod = body["spec"]["template"]["spec"]
    del pod["automountServiceAccountToken"]
    pod["containers"][0]["command"] = ["python3", "-c", script]
    jobs.start(body)
    jobs.wait_for("Complete")
    annotations = jobs.client.get(f"{jobs.jobs}/it")["metadata"]["annotations"]
    assert annotations["agents.proompteng.ai/loop-control"] == "{}"
