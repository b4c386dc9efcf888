"""The commands of AgentRuns as somebody types them, on a real API server: the guides' manifests and checks."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.connecting import connect
from run_cycle_loop.kit.clock import SystemClock
from tests.acceptance.place import COMMAND, wait_until
from tests.acceptance.test_agentrun import RUNS, bundle
from tests.cluster.apiserver import ApiServer
from tests.cluster.client import Client
from tests.cluster.controller import Running
from tests.cluster.kubelet import Kubelet
from tests.unit.agentrun import guide_runs as guides

pytestmark = pytest.mark.cluster

PREFIX = "JANGAR_AGENTS_CONTROLLER_WORKFLOW_LOOP"
SHELL = "echo working; date >> /workspace/notes; wc -l < /workspace/notes"


class Bench:
    """A directory, a namespace, and the command between them."""

    def __init__(self, api: ApiServer, namespace: str, folder: Path) -> None:
        self.api, self.namespace, self.folder = api, namespace, folder
        self.client: Client = api.client()
        names = {name: value for name, value in os.environ.items() if not name.startswith(("RUN_CYCLE_", "KUBE"))}
        self.env = {
            **names,
            "COLUMNS": "120",
            "KUBECONFIG": str(api.kubeconfigs["admin"]),
            "RUN_CYCLE_NAMESPACE": namespace,
            "RUN_CYCLE_WHERE": "cluster",
        }

    def __call__(self, *words: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
        env = {**self.env, "KUBECONFIG": str(self.api.kubeconfigs[user])}
        return subprocess.run(
            [str(COMMAND), "agentrun", *words],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json").stdout)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        # Whoever runs the tests in the background has SIGINT ignored, and that would be handed on.
        argv = ["env", "--default-signal=INT", str(COMMAND), "agentrun", *words]
        return subprocess.Popen(argv, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, text=True)

    def submit(self, path: str, *more: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
        return self("submit", "-f", path, "--controller-namespace", self.namespace, *more, user=user)

    def write(self, run: Mapping[str, Any], script: str = SHELL) -> str:
        """A guide's run with all that it needs; a shell stands in for the agent, an image for the runner's."""
        shell = {"binary": "sh", "argsTemplate": ["-c", script], "adapter": {"type": "codex-app-server"}}
        whole = bundle(run)
        for one in whole["items"]:
            one["metadata"]["namespace"] = self.namespace
            if one["kind"] == "AgentProvider":
                one["spec"] = shell
        (self.folder / "run.json").write_text(json.dumps(whole))
        return "run.json"

    def deploy(self) -> None:
        """The controller's Deployment, as the guide's first check reads it."""
        said = {
            f"{PREFIX}S_ENABLED": "true",
            "JANGAR_AGENTS_CONTROLLER_NAMESPACES": json.dumps([self.namespace]),
            "JANGAR_AGENT_RUNNER_IMAGE": "runner:1",
        }
        env = [{"name": name, "value": value} for name, value in said.items()]
        pod = {"containers": [{"name": "controller", "image": "controller:1", "env": env}]}
        labels = {"app": "agents-controllers"}
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "agents-controllers"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
        }
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        self.client.create(path, body)
        status = {"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}}
        self.client.patch(f"{path}/agents-controllers/status", status)


@pytest.fixture
def desk(api: ApiServer, namespace: str, tmp_path: Path, kubelet: Kubelet) -> Iterator[Bench]:
    del kubelet  # it runs what is started
    api.install("guide")

    def reach() -> Cluster:
        return connect(kubeconfig=api.kubeconfigs["admin"], context=None, namespace=namespace)

    with Running(reach, [namespace], clock=SystemClock()):
        found = Bench(api, namespace, tmp_path)
        found.deploy()
        yield found


@pytest.mark.parametrize("which", ["single", "fixed"])
def test_the_guides_manifests_are_sent_watched_and_looked_at(which: str, desk: Bench) -> None:
    body, iterations = RUNS[which]
    run = body()
    name = run["metadata"]["name"]
    done = desk.submit(desk.write(run), "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "create  PersistentVolumeClaim/torghut-loop-workspace" in done.stdout
    seen = desk.json("status", name)
    assert (seen["phase"], seen["steps"][0]["completed"]) == ("Succeeded", iterations)
    assert name in desk("list").stdout
    verified = desk("verify", name, "--no-exec")
    assert (verified.returncode, verified.stdout.split()[0]) == (0, "PASS"), verified.stdout
    assert guides.SYSTEM_HASH in verified.stdout
    printed = desk("logs", name, "--all").stdout
    assert printed.count("working") == (iterations or 1)
    over = desk("cancel", name)
    assert (over.returncode, "over already" in over.stdout) == (1, True)
    assert guides.CANARY not in done.stdout + done.stderr + verified.stdout + json.dumps(seen)


def test_a_conditional_loop_whose_workload_says_nothing_ends_after_its_first_iteration(desk: Bench) -> None:
    run = RUNS["conditional"][0]()
    done = desk.submit(desk.write(run), "--watch")
    assert (done.returncode, "LoopControlHasNoWriter" in done.stdout) == (0, True), done.stdout
    seen = desk.json("status", run["metadata"]["name"])
    step = seen["steps"][0]
    assert (step["stop_reason"], step["completed"]) == ("LoopConditionFalse", 1)


def test_flags_are_those_of_the_guides_first_check(desk: Bench) -> None:
    done = desk("flags", "--controller-namespace", desk.namespace)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split()[1:3] for line in done.stdout.splitlines()}
    assert lines[f"{PREFIX}S_ENABLED"] == ["true", "set"]
    assert lines[f"{PREFIX}_MAX_ITERATIONS"] == ["20", "default"]


def test_sent_twice_it_runs_once_and_under_a_taken_name_not_at_all(desk: Bench) -> None:
    path = desk.write(guides.single_body(), script="until test -e /workspace/never; do sleep 0.05; done")
    name = guides.single_body()["metadata"]["name"]
    assert [desk.submit(path).returncode for _ in range(2)] == [0, 0]
    assert [one["name"] for one in desk.json("list")] == [name]
    other = desk.submit(desk.write(guides.single_body(parameters={"stage": "other"})))
    assert (other.returncode, "--name" in other.stdout) == (2, True), other.stdout
    done = desk("cancel", name, "--message", "no longer wanted")
    assert (done.returncode, desk("status", name).returncode) == (0, 3), done.stdout
    assert desk.client.list(f"/apis/batch/v1/namespaces/{desk.namespace}/jobs") == []


def test_watching_that_is_interrupted_leaves_the_run_alone(desk: Bench) -> None:
    run = guides.single_body()
    name = run["metadata"]["name"]
    assert desk.submit(desk.write(run, script="until test -e /workspace/never; do sleep 0.05; done")).returncode == 0
    watching = desk.begin("watch", name, "--json")
    assert watching.stdout is not None
    wait_until(lambda: json.loads(watching.stdout.readline())["phase"] == "Running", "the run")  # type: ignore[union-attr]
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert desk("watch", name, "--timeout", "1s").returncode == 6
    assert desk("status", name).returncode == 0
    assert desk("cancel", name, "--delete").returncode == 0
    gone = desk("status", name)
    assert (gone.returncode, "there is no AgentRun" in gone.stderr) == (8, True), gone.stderr


def test_a_dry_run_sends_nothing(desk: Bench) -> None:
    done = desk.submit(desk.write(guides.single_body()), "--dry-run")
    assert (done.returncode, "nothing was sent" in done.stdout) == (0, True), done.stdout + done.stderr
    assert desk.json("list") == []


@pytest.mark.parametrize("user", ["weak", "wrong"])
def test_who_may_not_is_told_so_in_one_sentence(user: str, desk: Bench) -> None:
    for call in (("list",), ("status", "nobody")):
        done = desk(*call, user=user)
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "Traceback" not in done.stderr
    refused = desk.submit(desk.write(guides.single_body()), user=user)
    assert refused.returncode != 0
    assert desk.json("list") == []


def test_auto_finds_out_which_controllers_these_are(desk: Bench) -> None:
    path = desk.write(guides.loop_body())
    found = desk.json("validate", "--profile", "auto", "-f", path)
    assert (found["profile"], found["ok"]) == ("guide", True)
