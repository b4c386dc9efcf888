"""Loops whose cycles are AgentRuns of this machine: the installed command, an `exec` provider with a shell script."""

import json
import os
import signal
from typing import Any

import pytest

from tests.acceptance.place import Place, is_running, wait_until

API = "agents.proompteng.ai/v1alpha1"


def manifest(script: str, *, loop: dict[str, Any] | None = None, retries: int = 0, **spec: Any) -> str:
    """A run with one step, whose provider runs a script with the shell; its folder outlives the attempts."""
    step = {"name": "work", "retries": retries, **({"loop": loop} if loop else {})}
    volume = {"type": "pvc", "name": "state", "mountPath": "/workspace", "claimName": "state"}
    run = {
        "agentRef": {"name": "worker"},
        "implementationSpecRef": {"name": "task"},
        "runtime": {"type": "workflow"},
        "workload": {"image": "runner:1", "volumes": [volume]},
        "workflow": {"steps": [step]},
        **spec,
    }
    objects = {
        ("AgentProvider", "shell"): {"binary": "sh", "argsTemplate": ["-c", script]},
        ("Agent", "worker"): {"providerRef": {"name": "shell"}, "defaults": {"systemPrompt": "Work."}},
        ("ImplementationSpec", "task"): {"text": "Do it."},
        ("AgentRun", "demo"): run,
    }
    documents = [
        {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": "agents"}, "spec": body}
        for (kind, name), body in objects.items()
    ]
    return "\n---\n".join(map(json.dumps, documents))


def conditional(maximum: int) -> dict[str, Any]:
    source = {"type": "file", "path": "/workspace/control.json"}
    condition = {"type": "cel", "expression": "iteration.last.control.continue", "source": source}
    return {"maxIterations": maximum, "condition": condition}


class Runs:
    """A loop of AgentRuns in a place of its own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._flags = ("--runner", "agentrun", "--manifest", "run.yaml", "--isolate", "none")

    def run(self, text: str, *args: str) -> Any:
        self.place.write("run.yaml", text)
        return self.place.run(*self._flags, *args)

    def start(self, text: str, *args: str) -> Any:
        self.place.write("run.yaml", text)
        return self.place.start(*self._flags, "--grace", "8s", *args)

    def log(self) -> str:
        folder = self.place.path / "logs" / "run_cycle"
        return "".join(file.read_text() for file in sorted(folder.glob("*.log")))

    def stored(self) -> list[dict[str, Any]]:
        """The status documents of all runs, oldest first."""
        files = (self.place.path / "state" / "agentruns").glob("*/*/status.json")
        return sorted((json.loads(file.read_text()) for file in files), key=lambda one: str(one["startedAt"]))


@pytest.fixture
def runs(place: Place) -> Runs:
    return Runs(place)


def test_each_cycle_is_a_run_of_its_own(runs: Runs) -> None:
    done = runs.run(manifest('echo "hello from $RUN_CYCLE_STEP, ${RUN_CYCLE_RUNNER-no runner}"'), "--iterations", "2")
    assert (done.returncode, runs.place.outcomes) == (0, ["success", "success"]), done.stderr + runs.log()
    assert runs.log().count("hello from work, no runner\n") == 2
    names = [record["control"]["run"]["name"] for record in runs.place.records]
    assert names == [f"demo-{record['cycle_id'][:12]}" for record in runs.place.records]
    assert [one["phase"] for one in runs.stored()] == ["Succeeded", "Succeeded"]


def test_a_loop_is_told_what_the_run_s_own_loop_was_told_last(runs: Runs) -> None:
    """Each run goes on while its control file says so; the loop around goes on while the last one said so."""
    script = """
    n=$(cat /workspace/count 2>/dev/null || echo 0); n=$((n + 1)); echo $n > /workspace/count
    test $n -lt 4 && go=true || go=false
    printf '{"continue": %s, "outputs": {"n": %s}}' $go $n > "$RUN_CYCLE_CONTROL_FILE"
    """
    script = script.replace("/workspace/", '$(dirname "$RUN_CYCLE_CONTROL_FILE")/')
    done = runs.run(
        manifest(script, loop=conditional(3)), "--while", "iteration.last.control.continue", "--iterations", "5"
    )
    assert (done.returncode, runs.place.outcomes) == (0, ["success", "success"]), done.stderr + runs.log()
    first, second = (record["control"] for record in runs.place.records)
    assert (first["continue"], first["outputs"]) == (True, {"n": 2})  # the third one's file is not looked at any more
    assert first["run"]["loops"] == [{"step": "work", "completed": 3, "maximum": 3, "stop": "LoopMaxIterationsReached"}]
    assert (second["continue"], second["outputs"]) == (False, {"n": 4})
    assert second["run"]["loops"][0]["stop"] == "LoopConditionFalse"


def test_a_run_that_fails_is_a_cycle_that_failed_for_its_reason(runs: Runs) -> None:
    done = runs.run(manifest("echo broken; exit 3", retries=1))
    (record,) = runs.place.records
    assert (done.returncode, record["status"], record["agent_class"]) == (1, "failed", "tool_error")
    assert "BackoffLimitExceeded" in record["reason"]
    assert runs.log().count("broken\n") == 2


def test_a_quota_that_is_used_up_is_waited_for_and_is_no_failure(runs: Runs) -> None:
    done = runs.run(manifest("echo 'You have hit your usage limit.'; exit 1"), "--profile", "current")
    assert (done.returncode, runs.place.outcomes) == (75, ["rate_limited"])
    assert "ProviderCapacityExhausted" in runs.place.records[0]["reason"]


def test_a_login_that_is_refused_ends_the_loop(runs: Runs) -> None:
    text = manifest("echo 'refresh token was revoked'; exit 1")
    done = runs.run(text, "--profile", "current", "--iterations", "3")
    assert (done.returncode, runs.place.outcomes) == (11, ["failed"])
    assert (runs.place.records[0]["agent_class"], runs.place.records[0]["permanent"]) == ("auth", True)


def test_what_the_run_s_agents_consumed_is_charged_to_the_loop(runs: Runs) -> None:
    text = manifest("").replace('{"binary": "sh", "argsTemplate": ["-c", ""]}', '{"binary": "/bin/agent-runner"}')
    steps = [{"usage": {"input_tokens": 40, "output_tokens": 2, "cost_usd": 0.5}}, {"final": "It is done."}]
    runs.place.write("steps.jsonl", "\n".join(map(json.dumps, steps)))
    done = runs.run(text, "--agent", "scripted", "--agent-script", "steps.jsonl")
    (record,) = runs.place.records
    assert (done.returncode, record["status"]) == (0, "success"), runs.log()
    assert (record["usage"]["input_tokens"], record["usage"]["cost_usd"]) == (40, 0.5)
    assert record["control"]["summary"] == "It is done."
    runs.place.write("steps.jsonl", '{"class": "rate_limited", "reason": "asked to wait"}')
    assert runs.run(text, "--agent", "scripted", "--agent-script", "steps.jsonl").returncode == 75
    assert runs.place.outcomes == ["success", "rate_limited"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runtime": {"type": "job"}}, "set spec.runtime.type: workflow"),
        ({"workflow": {"steps": []}}, "MissingWorkflowSteps"),
        ({"workflow": {"steps": [{"name": "w", "loop": {"maxIterations": 99}}]}}, "WorkflowLoopMaxIterationsExceeded"),
    ],
)
def test_a_manifest_with_errors_is_refused_before_anything_starts(
    runs: Runs, change: dict[str, Any], said: str
) -> None:
    done = runs.run(manifest("true", **change))
    assert (done.returncode, runs.place.records) == (2, [])
    assert said in done.stderr


def test_two_runs_in_one_manifest_are_refused_by_their_names(runs: Runs) -> None:
    other = manifest("true").replace('"name": "demo"', '"name": "other"')
    done = runs.run(f"{manifest('true')}\n---\n{other}")
    assert done.returncode == 2
    assert "2 AgentRuns (demo, other)" in done.stderr


UP = "trap 'echo asked; exit 0' TERM; echo up $$; while :; do sleep 0.05; done"


def pid_in(log: str) -> int | None:
    found = [line.split() for line in log.splitlines() if line.startswith("up ")]
    return int(found[-1][1]) if found else None


def test_a_run_past_the_timeout_is_cancelled(runs: Runs) -> None:
    done = runs.run(manifest(UP), "--timeout", "4s", "--grace", "8s")
    assert (done.returncode, runs.place.outcomes) == (1, ["timeout"]), runs.log()
    (status,) = runs.stored()
    assert (status["phase"], status["reason"]) == ("Cancelled", "RunnerStopped")
    pid = pid_in(runs.log())
    assert pid is not None
    assert not is_running(pid)


def test_the_stop_file_and_a_signal_take_the_run_with_them(runs: Runs) -> None:
    loop = runs.start(manifest(UP))
    pid = wait_until(lambda: pid_in(runs.log()), "the attempt")
    assert runs.place("stop", "--now").returncode == 0
    assert loop.wait() == 10
    assert runs.place.outcomes == ["interrupted"]
    assert [one["phase"] for one in runs.stored()] == ["Cancelled"]
    assert not is_running(pid)
    runs.place("resume")
    loop = runs.start(manifest(UP))
    second = wait_until(lambda: (found := pid_in(runs.log())) != pid and found, "the second attempt")
    loop.send(signal.SIGTERM)
    runs.place.wait_for_state("stopping")
    loop.send(signal.SIGTERM)
    loop.wait()
    assert runs.place.outcomes == ["interrupted", "interrupted"]
    assert [one["phase"] for one in runs.stored()] == ["Cancelled", "Cancelled"]
    assert not is_running(second)


def test_what_a_killed_supervisor_left_is_cancelled_before_the_next_run_begins(runs: Runs) -> None:
    loop = runs.start(manifest(UP))
    pid = wait_until(lambda: pid_in(runs.log()), "the attempt")
    loop.send(signal.SIGKILL)
    loop.wait()
    done = runs.run(manifest("echo next"))
    assert (done.returncode, runs.place.outcomes) == (0, ["lost", "success"]), done.stderr + runs.log()
    assert not is_running(pid)
    assert [one["phase"] for one in runs.stored()] == ["Cancelled", "Succeeded"]
    assert "which nobody ended, is cancelled" in runs.log()


def test_a_killed_cycle_leaves_nothing_to_the_next_one(runs: Runs) -> None:
    """The child is killed and the supervisor lives: what the cycle had begun ends, and its run with it."""
    loop = runs.start(manifest(UP), "--max-failures", "0")
    pid = wait_until(lambda: pid_in(runs.log()), "the attempt")
    os.kill(runs.place.latest["cycle"]["leader_pid"], signal.SIGKILL)
    second = wait_until(lambda: (found := pid_in(runs.log())) != pid and found, "the second attempt")
    assert not is_running(pid)
    assert runs.place.outcomes == ["failed"]
    assert [one["phase"] for one in runs.stored()] == ["Cancelled", "Running"]
    loop.end()
    assert second


def test_a_run_that_somebody_cancels_is_interrupted_and_says_why(runs: Runs) -> None:
    loop = runs.start(manifest(UP))
    wait_until(lambda: pid_in(runs.log()), "the attempt")
    name = next((runs.place.path / "state" / "agentruns" / "agents").iterdir()).name
    runs.place("agentrun", "cancel", name, "--message", "not today")
    wait_until(lambda: runs.place.records, "the record")
    (record, *_) = runs.place.records
    assert record["status"] == "interrupted"
    assert "not today" in record["reason"]
    loop.send(signal.SIGKILL)
    loop.wait()


def test_the_command_that_the_loop_starts_is_not_listed_and_says_what_it_is(place: Place) -> None:
    assert "start-cycle" not in place("--help").stdout
    assert "This is what `run --runner agentrun`" in " ".join(place("start-cycle", "--help").stdout.split())
    by_hand = place("start-cycle", "--runner", "job", "--image", "i")
    assert by_hand.returncode == 2
    assert "RUN_CYCLE_ID is ''" in by_hand.stderr


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ('{"kind": "CronJob", "spec": {"a": 1}}', "'CronJob'; give a Job or a Pod"),
        ("a: [", "cannot be read"),
        ("{}\n---\n{}", "holds 2 documents"),
    ],
)
def test_a_job_template_that_no_cycle_can_be_made_of_is_refused_at_the_start(
    place: Place, template: str, said: str
) -> None:
    place.write("job.yaml", template)
    done = place.run("--runner", "job", "--image", "i", "--job-template", "job.yaml")
    assert (done.returncode, place.records) == (2, [])
    assert said in done.stderr
