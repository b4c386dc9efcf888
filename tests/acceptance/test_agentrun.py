"""The commands of AgentRuns as somebody types them: both guides' manifests, from the first check to the last look."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.place import COMMAND, wait_until
from tests.unit.agentrun import guide_runs as guides

CONDITION = "iteration.index < iteration.maxIterations && iteration.last.control.continue == true"
STEPS = [
    {"write": "note.md", "text": "a note\n"},
    {"write": ".agentrun/loop-control.json", "text": '{"continue": true}'},
    {"final": "Wrote a note."},
]


def conditional() -> dict[str, Any]:
    body = guides.loop_body()
    loop = body["spec"]["workflow"]["steps"][0]["loop"]
    source = {
        "type": "file",
        "path": "/workspace/.agentrun/loop-control.json",
        "onMissing": "stop",
        "onInvalid": "fail",
    }
    loop |= {"maxIterations": 3, "condition": {"type": "cel", "expression": CONDITION, "source": source}}
    return body


#: The guides' three runs, with how many iterations they come to.
RUNS: dict[str, tuple[Callable[[], dict[str, Any]], int | None]] = {
    "single": (guides.single_body, None),
    "fixed": (guides.loop_body, 5),
    "conditional": (conditional, 3),
}


def bundle(run: Mapping[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """A run with all that the guides say must exist."""
    secrets = [
        guides.made("Secret", name, data={"key": "e30="})
        for name in ("codex-auth", "codex-github-token", "codex-openai-key")
    ]
    claim = guides.made(
        "PersistentVolumeClaim",
        "torghut-loop-workspace",
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
    )
    objects = [*guides.around().objects.values(), *secrets, claim, *more]
    return {"apiVersion": "v1", "kind": "List", "items": [*map(_complete, objects), dict(run)]}


def _complete(one: Mapping[str, Any]) -> dict[str, Any]:
    core = one["kind"] in ("ConfigMap", "Secret", "PersistentVolumeClaim")
    version = "v1" if core else "agents.proompteng.ai/v1alpha1"
    return {"apiVersion": version, **one, "metadata": {**one["metadata"], "namespace": "agents"}}


def shell_run(script: str, *, name: str = "demo", retries: int = 0, **step: Any) -> dict[str, Any]:
    """A run whose agent is a shell."""
    provider = guides.made("AgentProvider", "shell", {"binary": "/bin/sh", "argsTemplate": ["-euc", script]})
    agent = guides.made("Agent", "shell", {"providerRef": {"name": "shell"}})
    spec = {
        "agentRef": {"name": "shell"},
        "implementation": {"inline": {"text": "Do it."}},
        "runtime": {"type": "workflow"},
        "workflow": {"steps": [{"name": "work", "retries": retries, **step}]},
        "workload": {
            "volumes": [{"name": "w", "type": "pvc", "claimName": name, "mountPath": "/workspace"}],
        },
    }
    run = guides.body_of(name, spec)
    return {"apiVersion": "v1", "kind": "List", "items": [*map(_complete, (provider, agent)), run]}


class Desk:
    """A directory with manifests in it, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = {name: value for name, value in os.environ.items() if not name.startswith("RUN_CYCLE_")}
        self.env = {**names, "COLUMNS": "100", "PYTHONUTF8": "1"}
        self.write("steps.jsonl", "".join(json.dumps(step) + "\n" for step in STEPS))

    def write(self, name: str, content: str | Mapping[str, Any]) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.folder / name).write_text(text)
        return name

    def argv(self, *words: str) -> list[str]:
        return [str(COMMAND), "agentrun", *words]

    def __call__(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words),
            cwd=self.folder,
            env=self.env,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json").stdout)

    def status(self, name: str) -> dict[str, Any]:
        path = self.folder / "state" / "agentruns" / "agents" / name / "status.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*words),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("which", RUNS)
def test_the_guides_manifests_validate(which: str, desk: Desk) -> None:
    done = desk("validate", "--json", "-f", desk.write("run.json", bundle(RUNS[which][0]())))
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"], [one for one in found["findings"] if one["severity"] == "error"]) == (
        0,
        True,
        [],
    )


@pytest.mark.parametrize("which", RUNS)
def test_the_guides_manifests_are_explained_and_rendered(which: str, desk: Desk) -> None:
    path = desk.write("run.json", bundle(RUNS[which][0]()))
    (explained,) = desk.json("explain", "-f", path)
    assert explained["systemPrompt"]["sha256"] == guides.SYSTEM_HASH
    rendered = json.loads(desk("render", "-f", path).stdout)
    text = "Implement leader election." if which == "single" else guides.TASK
    assert rendered["run.json"]["prompt"] == text
    assert desk("render", "-f", path, "--diff").returncode == 1
    assert "agents.proompteng.ai/agent-run" in desk("render", "-f", path, "--objects").stdout


@pytest.mark.parametrize("which", RUNS)
def test_the_guides_manifests_run_on_this_machine(which: str, desk: Desk) -> None:
    body, iterations = RUNS[which]
    path, name = desk.write("run.json", bundle(body())), body()["metadata"]["name"]
    done = desk("run", "-f", path, "--agent", "scripted", "--agent-script", "steps.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = desk.json("status", name)
    assert (seen["phase"], seen["steps"][0]["completed"]) == ("Succeeded", iterations)
    verified = desk("verify", name)
    assert (verified.returncode, verified.stdout.split()[0]) == (0, "PASS"), verified.stdout
    assert "Wrote a note." in desk("logs", name).stdout
    assert name in desk("list").stdout
    watched = desk("watch", name)
    assert (watched.returncode, "Succeeded" in watched.stdout) == (0, True)
    assert guides.CANARY not in done.stdout + watched.stdout
    leaked = [file for file in desk.folder.rglob("*") if file.is_file() and guides.CANARY.encode() in file.read_bytes()]
    assert [file.name for file in leaked] == []


def looping(expression: str = "true", **source: str) -> dict[str, Any]:
    return {"loop": {"maxIterations": 3, "condition": {"expression": expression, "source": source}}}


LEAVE = "mkdir -p .agentrun; echo '%s' > .agentrun/loop-control.json"
STOPS = [
    ("true", {"loop": {"maxIterations": 2}}, 0, "Succeeded", "LoopMaxIterationsReached"),
    (LEAVE % "{}", looping("has(iteration.last.control.more)"), 0, "Succeeded", "LoopConditionFalse"),
    ("true", looping(), 0, "Succeeded", "LoopConditionFalse"),
    ("true", looping(onMissing="fail"), 1, "Failed", "LoopConditionError"),
    (LEAVE % "[", looping(), 1, "Failed", "LoopConditionError"),
    ("exit 3", {"loop": {"maxIterations": 3}}, 1, "Failed", "LoopIterationFailed"),
]


@pytest.mark.parametrize(("script", "step", "code", "phase", "stop"), STOPS)
def test_each_stop_reason_is_reached_and_told(
    script: str, step: Mapping[str, Any], code: int, phase: str, stop: str, desk: Desk
) -> None:
    done = desk("run", "-f", desk.write("run.json", shell_run(script, **step)))
    assert (done.returncode, stop in done.stdout) == (code, True), done.stdout + done.stderr
    status = desk.status("demo")
    assert (status["phase"], status["workflow"]["steps"][0]["loop"]["stopReason"]) == (phase, stop)
    assert desk("status", "demo").returncode == code


@pytest.mark.parametrize("by", ["signal", "command"])
def test_a_run_that_is_ended_says_so(by: str, desk: Desk) -> None:
    path = desk.write("run.json", shell_run("touch begun; exec sleep 60", loop={"maxIterations": 2}))
    running = desk.begin("run", "-f", path)
    wait_until((desk.folder / "state/volumes/agents/demo/begun").exists, "the first attempt")
    if by == "signal":
        running.send_signal(signal.SIGTERM)
    else:
        assert desk("cancel", "demo", "--message", "no longer wanted").returncode == 0
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 3, out
    status = desk.status("demo")
    assert (status["phase"], status["workflow"]["steps"][0]["loop"]["stopReason"]) == ("Cancelled", "LoopCancelled")
    assert desk("cancel", "demo").returncode == 1


@pytest.mark.parametrize("way", ["again", "resume"])
def test_a_run_goes_on_after_its_engine_was_killed(way: str, desk: Desk) -> None:
    script = 'n=$(ls | grep -c "^turn" || true); touch "turn$n"; [ "$n" -gt 0 ] || until [ -e go ]; do sleep 0.05; done'
    path = desk.write("run.json", shell_run(script, loop={"maxIterations": 2}))
    running = desk.begin("run", "-f", path)
    claim = desk.folder / "state/volumes/agents/demo"
    wait_until((claim / "turn0").exists, "the first attempt")
    running.kill()
    running.communicate(timeout=60)
    assert "no engine drives it" in desk("status", "demo").stdout
    assert [row["reason"] for row in desk.json("list")] == ["NotDriven"]
    (claim / "go").touch()
    done = desk("run", *(("-f", path) if way == "again" else ("--resume", "demo")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(file.name for file in claim.iterdir() if file.name.startswith("turn")) == ["turn0", "turn1"]
    assert desk.status("demo")["workflow"]["steps"][0]["loop"]["completedIterations"] == 2


def test_a_name_is_used_once_and_a_unique_one_is_made(desk: Desk) -> None:
    path = desk.write("run.json", shell_run("true"))
    assert desk("run", "-f", path).returncode == 0
    again = desk("run", "-f", path)
    assert (again.returncode, "demo" in again.stderr) == (2, True)
    assert desk("run", "-f", path, "--unique").returncode == 0
    assert len(desk.json("list")) == 2


BAD = [
    ({"name": "x" * 64}, {}, "NameTooLong"),
    ({}, {"runtime": {"type": "job"}}, "LoopIgnored"),
    ({}, {"parameters": {"token": "{{env.GH_TOKEN}}"}}, "EnvironmentInParameter"),
]


@pytest.mark.parametrize(("metadata", "spec", "reason"), BAD)
def test_what_is_wrong_is_caught_before_anything_starts(
    metadata: Mapping[str, Any], spec: Mapping[str, Any], reason: str, desk: Desk
) -> None:
    whole = shell_run("touch started", loop={"maxIterations": 2})
    run = whole["items"][-1]
    run["metadata"] |= metadata
    run["spec"] |= spec
    path = desk.write("run.json", whole)
    for command in ("validate", "run"):
        done = desk(command, "-f", path)
        assert (done.returncode, reason in done.stdout) == (2, True), done.stdout + done.stderr
    assert not (desk.folder / "state").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: [", "x.yaml:2:1 is no YAML"),
        ("a: 1\na: 2", "x.yaml:2"),
        ("- 1", "no object"),
        ("", "no object"),
        ("kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}", "no AgentRun"),
    ],
)
def test_a_file_that_is_no_manifest_is_one_sentence(text: str, words: str, desk: Desk) -> None:
    done = desk("explain", "-f", desk.write("x.yaml", text))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_manifest_may_come_by_standard_input(desk: Desk) -> None:
    done = desk("validate", "--quiet", "-f", "-", given=json.dumps(shell_run("true")))
    assert (done.returncode, "3 objects" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    "flags",
    [
        ("--implementation", "fix-it"),
        ("--text", "Do it.", "--loop", "5", "--claim", "work", "--claim-size", "20Gi"),
        (
            "--text",
            "Do it.",
            "--loop",
            "8",
            "--while-continue",
            "--claim",
            "work",
            "--retries",
            "1",
            "--timeout",
            "90m",
        ),
        (
            "--text",
            "Do it.",
            "--step",
            "plan",
            "--step",
            "do",
            "--secret",
            "a",
            "--param",
            "stage=x",
            "--vcs",
            "github",
            "--repository",
            "a/b",
        ),
    ],
)
def test_what_create_writes_is_valid(flags: tuple[str, ...], desk: Desk) -> None:
    made = desk("create", "--agent", "coder", *flags)
    assert made.returncode == 0, made.stderr
    done = desk("validate", "-f", "-", given=made.stdout)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("status", "nobody"), 2, "nothing has run on this machine yet"),
        (("run",), 2, "-f"),
        (("validate",), 2, "--file"),
        (("run", "-f", "x", "--name", "a", "--unique"), 2, "contradict"),
        (("create", "--agent", "a"), 2, "--implementation"),
        (("create", "--agent", "a", "--text", "x", "--volume", "w:pvc"), 2, "name:pvc"),
        (("cancel", "a", "--drop-finalizer"), 2, "--delete"),
        (("create", "--agent", "a", "--text", "x", "--timeout", "3s", "--cpu", "many"), 2, "many"),
        (("list", "--kubeconfig", "/nowhere"), 2, "--where cluster"),
        (("flags", "--kubeconfig", "/nowhere"), 2, "/nowhere"),
        (("watcch",), 2, "did you mean 'watch'"),
    ],
)
def test_a_wrong_call_is_one_sentence(words: tuple[str, ...], code: int, told: str, desk: Desk) -> None:
    done = desk(*words)
    assert (done.returncode, told in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


COSTLY = ("--agent", "command", "--agent-command", "touch begun", "--isolate", "none")


def test_a_coding_agent_needs_consent_before_anything_starts(desk: Desk) -> None:
    path = desk.write("run.json", bundle(guides.single_body()))
    done = desk("run", "-f", path, *COSTLY)
    assert (done.returncode, "no consent to unattended agents" in done.stderr) == (2, True), done.stdout + done.stderr
    assert not (desk.folder / "state").exists()
    warned = desk("run", "-f", path, *COSTLY, "--consent-guard", "warn")
    assert (warned.returncode, "warning: " in warned.stderr) == (0, True), warned.stdout + warned.stderr


def test_a_loop_of_runs_needs_consent_before_its_first_cycle(desk: Desk) -> None:
    path = desk.write("run.json", bundle(guides.single_body()))
    line = [str(COMMAND), "run", "--runner", "agentrun", "--manifest", path, "--where", "local"]
    done = subprocess.run([*line, *COSTLY], cwd=desk.folder, env=desk.env, capture_output=True, text=True, check=False)
    assert (done.returncode, "no consent to unattended agents" in done.stderr) == (2, True), done.stdout + done.stderr
    assert not list(desk.folder.rglob("begun"))


def test_an_agent_that_is_not_installed_uses_no_name_up(desk: Desk) -> None:
    desk.env["PATH"] = "/usr/bin:/bin"
    path = desk.write("run.json", bundle(guides.single_body()))
    done = desk("run", "-f", path, "--agent", "opencode")
    assert (done.returncode, "opencode is not installed" in done.stderr) == (2, True), done.stdout + done.stderr
    assert not (desk.folder / "state").exists()
