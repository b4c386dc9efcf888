"""A loop whose cycles are Jobs or AgentRuns of a real API server: the installed command, from start to record."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.clients.kubernetes.connecting import connect
from run_cycle_loop.kit.clock import SystemClock
from tests.acceptance.place import Loop as Supervisor
from tests.acceptance.place import Place, wait_until
from tests.cluster.apiserver import AGENTS, ApiServer, free_ports
from tests.cluster.client import Client
from tests.cluster.controller import Running
from tests.cluster.kubelet import Kubelet

pytestmark = pytest.mark.cluster

LABEL = "run-cycle-loop/loop"
UP = "echo up; trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done"


class Loop:
    """One operator's loop, and what it makes in its namespace."""

    def __init__(self, api: ApiServer, namespace: str, place: Place) -> None:
        self.client: Client = api.client()
        self.namespace, self.place = namespace, place
        self.jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self.agentruns = f"{AGENTS}/{namespace}/agentruns"
        self.where = ("--kubeconfig", str(api.kubeconfigs["admin"]), "--namespace", namespace)

    def run(self, *args: str, script: str, image: str = "runner:1") -> subprocess.CompletedProcess[str]:
        return self.place.run(*self._job(image), *args, "--", "sh", "-c", script)

    def start(self, script: str) -> Supervisor:
        return self.place.start(*self._job("runner:1"), "--timeout", "60s", "--grace", "8s", "--", "sh", "-c", script)

    def _job(self, image: str) -> tuple[str, ...]:
        return ("--runner", "job", "--image", image, *self.where)

    def of_label(self, path: str) -> list[dict[str, Any]]:
        """What a loop has made there, and is still there."""
        return [one for one in self.client.list(path) if LABEL in one["metadata"].get("labels", {})]

    def living(self) -> list[str]:
        """The pods that are not over."""
        pods = self.client.list(self.pods)
        return [one["metadata"]["name"] for one in pods if one["status"]["phase"] not in {"Succeeded", "Failed"}]

    def log(self) -> str:
        """What all cycles left in their logs."""
        files = sorted((self.place.path / "logs" / "run_cycle").glob("*.log"))
        return "".join(file.read_text() for file in files)

    def wait_for_log(self, word: str) -> None:
        wait_until(lambda: word in self.log(), f"{word!r} in the log")

    def stop_now(self, running: Supervisor) -> None:
        """As an operator who is in a hurry."""
        running.send(signal.SIGTERM)
        self.place.wait_for_state("stopping")
        running.send(signal.SIGTERM)
        running.wait()

    def crash(self) -> None:
        """The machine goes down, and comes up again with what was on its disk.

        A pod is a process of this machine here: only after a restart of it the next supervisor lets such a one alone.
        """
        self.place.end()
        slot = self.place.path / "state" / "run_cycle_in_flight.json"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        slot.write_text(slot.read_text().replace(boot, boot[::-1]))


class Runs(Loop):
    """The same, of AgentRuns."""

    def write(self, script: str, *, image: str = "runner:1", **step: Any) -> None:
        objects = {
            ("AgentProvider", "shell"): {"binary": "sh", "argsTemplate": ["-c", script]},
            ("Agent", "worker"): {"providerRef": {"name": "shell"}, "defaults": {"systemPrompt": "Work."}},
            ("ImplementationSpec", "task"): {"text": "Do it."},
            ("AgentRun", "demo"): {
                "agentRef": {"name": "worker"},
                "implementationSpecRef": {"name": "task"},
                "runtime": {"type": "workflow"},
                "workload": {"image": image},
                "workflow": {"steps": [{"name": "work", **step}]},
            },
        }
        api = "agents.proompteng.ai/v1alpha1"
        documents = [
            {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}
            for (kind, name), spec in objects.items()
        ]
        self.place.write("run.yaml", "\n---\n".join(map(json.dumps, documents)))

    def run_them(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.place.run(*self._them(), *args)

    def start_them(self) -> Supervisor:
        return self.place.start(*self._them(), "--timeout", "60s", "--grace", "10s")

    def _them(self) -> tuple[str, ...]:
        return ("--runner", "agentrun", "--where", "cluster", "--manifest", "run.yaml", *self.where)

    def phases(self) -> list[str]:
        made = sorted(self.of_label(self.agentruns), key=lambda one: str(one["metadata"]["creationTimestamp"]))
        return [one.get("status", {}).get("phase", "") for one in made]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "place")
    yield made
    made.end()


@pytest.fixture
def loop(api: ApiServer, namespace: str, place: Place, kubelet: Kubelet) -> Loop:
    del kubelet
    return Loop(api, namespace, place)


@pytest.fixture
def runs(api: ApiServer, namespace: str, place: Place, kubelet: Kubelet) -> Iterator[Runs]:
    """With a controller that takes runs up."""
    del kubelet
    api.install("guide")
    kubeconfig = api.kubeconfigs["admin"]
    reach = partial(connect, kubeconfig=kubeconfig, context=None, namespace=namespace)
    with Running(reach, [namespace], clock=SystemClock()):
        yield Runs(api, namespace, place)


def test_each_cycle_is_a_job_of_its_own_whose_output_and_payload_come_back(loop: Loop) -> None:
    script = """
    echo "cycle $RUN_CYCLE_NUMBER: $RUN_CYCLE_GOAL $$"; echo done >&2
    echo '{"continue": true, "outputs": {"n": 7}}' > "$RUN_CYCLE_CONTROL_FILE"
    """
    done = loop.run("--iterations", "2", "--goal", "Pay $5, $(RUN_CYCLE_ID) or $$.", script=script)
    assert (done.returncode, loop.place.outcomes) == (0, ["success", "success"]), done.stderr + loop.log()
    assert "cycle 2: Pay $5, $(RUN_CYCLE_ID) or $$. " in loop.log()
    assert [record["control"]["outputs"] for record in loop.place.records] == [{"n": 7}, {"n": 7}]
    names = {job["metadata"]["name"] for job in loop.of_label(loop.jobs)}
    assert names == {f"cycle-{record['cycle_id'][:12]}" for record in loop.place.records}


def test_the_exit_code_of_the_pod_is_that_of_the_cycle(loop: Loop) -> None:
    assert loop.run(script="echo broken; exit 3").returncode == 1
    (record,) = loop.place.records
    assert (record["status"], record["return_code"], record["reason"]) == ("failed", 3, "exit code 3")
    assert "broken\n" in loop.log()


def test_while_hears_what_the_pod_left(loop: Loop) -> None:
    script = """
    test "$RUN_CYCLE_NUMBER" = 2 && go=false || go=true
    printf '{"continue": %s}' $go > "$RUN_CYCLE_CONTROL_FILE"
    """
    done = loop.run("--iterations", "5", "--while", "iteration.last.control.continue", script=script)
    assert (done.returncode, loop.place.outcomes) == (0, ["success", "success"])


def test_an_image_that_cannot_be_pulled_is_named_and_the_job_is_gone(loop: Loop) -> None:
    done = loop.run("--timeout", "6s", script="true", image="runner:missing")
    assert (done.returncode, loop.place.outcomes) == (1, ["failed"])
    assert "ImagePullBackOff" in loop.place.records[0]["reason"]
    assert loop.of_label(loop.jobs) == []


def test_a_cycle_past_its_timeout_leaves_no_job_and_no_pod(loop: Loop) -> None:
    done = loop.run("--timeout", "3s", "--grace", "8s", script=UP)
    assert (done.returncode, loop.place.outcomes) == (1, ["timeout"])
    assert (loop.of_label(loop.jobs), loop.living()) == ([], [])
    assert "up\n" in loop.log()
    assert "asked\n" in loop.log()


def test_a_stopped_loop_takes_its_job_with_it(loop: Loop) -> None:
    running = loop.start(UP)
    loop.wait_for_log("up\n")
    loop.stop_now(running)
    assert loop.place.outcomes == ["interrupted"]
    assert (loop.of_label(loop.jobs), loop.living()) == ([], [])


def test_what_a_killed_supervisor_left_is_gone_before_the_next_cycle_begins(loop: Loop) -> None:
    loop.start(UP)
    loop.wait_for_log("up\n")
    (left,) = loop.of_label(loop.jobs)
    loop.crash()
    assert loop.living() != []
    done = loop.run("--iterations", "1", script="echo next")
    assert (done.returncode, loop.place.outcomes) == (0, ["lost", "success"]), done.stderr
    name, cycle = left["metadata"]["name"], left["metadata"]["labels"]["run-cycle-loop/cycle"]
    assert f"Job {loop.namespace}/{name} of cycle {cycle}, which nobody ended, is deleted" in loop.log()
    assert name not in {job["metadata"]["name"] for job in loop.of_label(loop.jobs)}
    assert loop.living() == []


def test_what_a_killed_cycle_left_is_gone_before_the_next_one_begins(loop: Loop) -> None:
    """The child is killed in mid run, and the supervisor lives."""
    running = loop.start(UP)
    loop.wait_for_log("up\n")
    (first,) = loop.of_label(loop.jobs)
    os.kill(loop.place.latest["cycle"]["leader_pid"], signal.SIGKILL)
    wait_until(lambda: loop.log().count("up\n") == 2, "the second cycle")
    assert loop.place.outcomes == ["failed"]
    (second,) = loop.of_label(loop.jobs)
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert len(loop.living()) == 1
    running.end()


def test_a_job_that_somebody_deletes_is_said_to_be_deleted(loop: Loop) -> None:
    running = loop.start(UP)
    loop.wait_for_log("up\n")
    (job,) = loop.of_label(loop.jobs)
    loop.client.delete(f"{loop.jobs}/{job['metadata']['name']}", {"propagationPolicy": "Background"})
    wait_until(lambda: loop.place.records, "the record")
    assert "JobDeleted" in loop.place.records[0]["reason"]
    running.end()


def test_a_job_that_admission_refuses_ends_the_loop_at_once(loop: Loop) -> None:
    template = {"kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "Not A Name", "image": "i"}]}}}}
    path = loop.place.write("job.yaml", json.dumps(template))
    done = loop.place.run(*loop.where, "--runner", "job", "--job-template", str(path), "--iterations", "3")
    assert (done.returncode, len(loop.place.records)) == (11, 1), done.stderr
    assert loop.place.records[0]["permanent"]
    assert "Not A Name" in loop.place.records[0]["reason"]


@pytest.mark.parametrize(
    ("user", "code", "word", "said"),
    [("weak", 11, "tool_error", "let a Role allow"), ("wrong", 1, "auth", "log in again")],
)
def test_who_may_not_or_is_not_known_makes_nothing_and_is_told_why(
    loop: Loop, api: ApiServer, user: str, code: int, word: str, said: str
) -> None:
    done = loop.run("--kubeconfig", str(api.kubeconfigs[user]), script="true")
    (record,) = loop.place.records
    assert (done.returncode, record["agent_class"], loop.client.list(loop.jobs)) == (code, word, []), done.stderr
    assert said in record["reason"]


def test_a_cluster_that_is_not_there_is_a_cycle_that_failed(loop: Loop) -> None:
    path = Path(loop.where[1])
    port = free_ports(1)[0]
    text = re.sub(r"https://127.0.0.1:[0-9]+", f"https://127.0.0.1:{port}", path.read_text())
    elsewhere = loop.place.write("kubeconfig", text)
    done = loop.run("--kubeconfig", str(elsewhere), "--timeout", "8s", script="true")
    assert (done.returncode, loop.place.outcomes) == (1, ["failed"])
    assert "connection refused" in loop.place.records[0]["reason"]


def test_each_cycle_is_an_agentrun_of_its_own_keyed_by_the_cycle(runs: Runs) -> None:
    runs.write('echo "hello from $(hostname)"', loop={"maxIterations": 2})
    done = runs.run_them("--iterations", "2", "--timeout", "60s")
    assert (done.returncode, runs.place.outcomes) == (0, ["success", "success"]), done.stderr + runs.log()
    assert runs.phases() == ["Succeeded", "Succeeded"]
    assert runs.log().count("hello from demo-") == 4
    made = {one["metadata"]["name"]: one["spec"]["idempotencyKey"] for one in runs.of_label(runs.agentruns)}
    assert made == {f"demo-{one['cycle_id'][:12]}": one["cycle_id"] for one in runs.place.records}
    stops = [record["control"]["run"]["loops"][0]["stop"] for record in runs.place.records]
    assert stops == ["LoopMaxIterationsReached"] * 2


def test_a_run_that_fails_on_the_cluster_is_a_cycle_that_failed_for_its_reason(runs: Runs) -> None:
    runs.write("echo broken; exit 3")
    done = runs.run_them()
    (record,) = runs.place.records
    assert (done.returncode, record["status"]) == (1, "failed"), done.stderr
    assert "BackoffLimitExceeded" in record["reason"]
    assert "broken\n" in runs.log()


def test_a_run_past_the_timeout_is_cancelled_and_stays_so(runs: Runs) -> None:
    runs.write(UP, retries=3)
    done = runs.run_them("--timeout", "8s", "--grace", "10s")
    assert (done.returncode, runs.place.outcomes, runs.phases()) == (1, ["timeout"], ["Cancelled"]), runs.log()
    assert (runs.client.list(runs.jobs), runs.living()) == ([], [])
    assert "up\n" in runs.log()


def test_a_stopped_loop_cancels_its_run(runs: Runs) -> None:
    runs.write(UP, retries=3)
    running = runs.start_them()
    runs.wait_for_log("up\n")
    runs.stop_now(running)
    assert (runs.place.outcomes, runs.phases()) == (["interrupted"], ["Cancelled"])
    assert (runs.client.list(runs.jobs), runs.living()) == ([], [])


def test_a_run_that_a_killed_supervisor_left_is_cancelled_before_the_next_one_is_made(runs: Runs) -> None:
    runs.write(UP, retries=3)
    runs.start_them()
    runs.wait_for_log("up\n")
    runs.crash()
    assert runs.living() != []
    runs.write("echo next")
    done = runs.run_them("--timeout", "60s")
    assert (done.returncode, runs.place.outcomes) == (0, ["lost", "success"]), done.stderr + runs.log()
    assert (runs.phases(), runs.living()) == (["Cancelled", "Succeeded"], [])
    assert "which nobody ended, is cancelled" in runs.log()


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_what_somebody_else_does_to_a_run_is_named(runs: Runs, how: str) -> None:
    runs.write(UP)
    running = runs.start_them()
    runs.wait_for_log("up\n")
    (run,) = runs.of_label(runs.agentruns)
    name = run["metadata"]["name"]
    if how == "delete":
        runs.client.delete(f"{runs.agentruns}/{name}")
    else:
        where = (*runs.where, "--where", "cluster")
        done = runs.place("agentrun", "cancel", name, *where, "--message", "not today")
        assert done.returncode == 0, done.stderr
    wait_until(lambda: runs.place.records, "the record")
    (record, *_) = runs.place.records
    if how == "delete":
        assert record["status"] == "failed"
        assert "AgentRunDeleted" in record["reason"]
    else:
        assert record["status"] == "interrupted"
        assert "not today" in record["reason"]
    running.end()


def test_a_run_whose_image_cannot_be_pulled_is_given_up_by_name(runs: Runs) -> None:
    runs.write("true", image="runner:missing")
    done = runs.run_them("--timeout", "12s", "--grace", "8s")
    assert (done.returncode, runs.place.outcomes, runs.phases()) == (1, ["failed"], ["Cancelled"]), runs.log()
    assert "ImagePullBackOff" in runs.place.records[0]["reason"]
