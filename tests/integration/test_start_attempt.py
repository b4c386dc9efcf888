"""``start_attempt`` as the engine starts it: what it leaves behind, whatever the workload does."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.model.records import timestamp
from run_cycle_loop.stores.audit import AuditChain
from tests.faults.lab import is_running, wait_until

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-9a8b7c6d5e"
PROMPT = "Be careful.\n"


class Attempt:
    """A workspace, and what one attempt in it leaves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = root / "workspace"
        self.workspace.mkdir()
        self.agent = root / "attempt" / ".agent"
        self.agent.mkdir(parents=True)
        self.spec_path = root / "attempt" / "agent-runner.json"
        self.run_path = root / "attempt" / "run.json"
        self.out = ""

    def spec(self, adapter: Mapping[str, Any], run: Mapping[str, Any] | None = None, **more: Any) -> None:
        self.run_path.write_text(json.dumps(run or {}))
        body = {
            "provider": "demo",
            "inputs": {"stage": "build"},
            "payloads": {"eventFilePath": "/workspace/run.json"},
            "artifacts": {"statusPath": "/workspace/.agent/status.json", "logPath": "/workspace/.agent/runner.log"},
            "adapter": adapter,
        }
        self.spec_path.write_text(json.dumps({**body, **more}))

    def command(self, script: str, **exec_: Any) -> None:
        self.spec({"type": "exec", "exec": {"binary": "/bin/sh", "argsTemplate": ["-c", script], **exec_}})

    def codex(self, run: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self.spec({"type": "codex-app-server", "codex": {"approval": "never", **settings}}, run)

    def script(self, *steps: Mapping[str, Any]) -> dict[str, str]:
        path = self.root / "script.jsonl"
        path.write_text("".join(json.dumps(step) + "\n" for step in steps))
        return {"RUN_CYCLE_AGENT": "scripted", "RUN_CYCLE_AGENT_SCRIPT": str(path)}

    @property
    def variables(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("RUN_CYCLE_")}
        mounts = [
            {"path": "/workspace", "folder": str(self.workspace)},
            {"path": "/workspace/.agent", "folder": str(self.agent)},
            {"path": "/workspace/run.json", "folder": str(self.run_path)},
            {"path": "/workspace/agent-runner.json", "folder": str(self.spec_path)},
        ]
        return {**ours, "PYTHONPATH": str(ROOT), "AGENT_RUN_MOUNTS": json.dumps(mounts), "RUN_CYCLE_GRACE": "2"}

    def start(self, *args: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "run_cycle_loop.start_attempt", *args],
            cwd=self.root,
            env={**self.variables, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *args: str, **more: str) -> int:
        process = self.start(*(args or (str(self.spec_path),)), **more)
        self.out, _ = process.communicate(timeout=60)
        return process.returncode

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.agent / "status.json").read_text())
        return found

    @property
    def log(self) -> str:
        return (self.agent / "runner.log").read_text()


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path)


BWRAP = pytest.param({"RUN_CYCLE_BWRAP": "/usr/bin/bwrap"}, id="bwrap")
PLAIN = pytest.param({}, id="plain")


# The command.


@pytest.mark.parametrize("how", [PLAIN, BWRAP])
@pytest.mark.parametrize(
    ("script", "code", "status"),
    [("echo done", 0, "succeeded"), ("exit 7", 7, "failed"), ("kill -9 $$", 137, "failed")],
)
def test_the_command_s_exit_code_is_the_attempt_s(
    attempt: Attempt, how: dict[str, str], script: str, code: int, status: str
) -> None:
    attempt.command(script)
    assert attempt.run(**how) == code
    found = attempt.status
    assert (found["status"], found["exitCode"], found["adapter"], found["binary"]) == (status, code, "exec", "/bin/sh")
    assert found["startedAt"] <= found["finishedAt"]
    assert ("error" in found) is bool(code)


def test_the_paths_of_the_container_are_true_with_bubblewrap(attempt: Attempt) -> None:
    attempt.command("pwd; echo x > /workspace/made; test -f /workspace/run.json && test ! -e /workspace/secret")
    assert attempt.run(RUN_CYCLE_BWRAP="/usr/bin/bwrap") == 0
    assert attempt.log == "/workspace\n"
    assert (attempt.workspace / "made").read_text() == "x\n"


@pytest.mark.parametrize(
    ("binary", "code", "how"),
    [
        ("no-such-command", 127, {}),
        ("/no/such/command", 127, {}),
        ("/etc/passwd", 126, {}),
        ("no-such-command", 127, {"RUN_CYCLE_BWRAP": "/usr/bin/bwrap"}),
        ("/no/such/command", 127, {"RUN_CYCLE_BWRAP": "/usr/bin/bwrap"}),
        ("/etc/passwd", 1, {"RUN_CYCLE_BWRAP": "/usr/bin/bwrap"}),  # that is bubblewrap's own word
    ],
)
def test_a_command_that_cannot_be_started_leaves_a_status(
    attempt: Attempt, binary: str, code: int, how: dict[str, str]
) -> None:
    attempt.spec({"type": "exec", "exec": {"binary": binary}})
    assert attempt.run(**how) == code
    assert (attempt.status["status"], attempt.status["exitCode"]) == ("failed", code)


def test_templates_are_filled_in_but_for_the_environment(attempt: Attempt) -> None:
    attempt.command(
        "echo '{{inputs.stage}} {{run.repository}} {{ env.TOP_SECRET }} {{env.TOP_SECRET}}' $MADE",
        envTemplate={"MADE": "made-{{inputs.stage}}"},
    )
    assert attempt.run(TOP_SECRET=CANARY) == 0
    assert "build  {{ env.TOP_SECRET }} {{env.TOP_SECRET}} made-build" in attempt.log
    assert "names the environment, which is not filled in here" in attempt.log


def test_input_files_are_written_where_they_belong(attempt: Attempt) -> None:
    attempt.command(
        "cat /workspace/conf/a.txt /etc/demo/b.txt",
        inputFiles=[
            {"path": "/workspace/conf/a.txt", "content": "a {{inputs.stage}}\n"},
            {"path": "/etc/demo/b.txt", "content": "b\n"},
        ],
    )
    assert attempt.run(RUN_CYCLE_BWRAP="/usr/bin/bwrap") == 0
    assert attempt.log == "a build\nb\n"
    assert attempt.run() != 0
    assert "the input file /etc/demo/b.txt lies in no mount and was not written" in attempt.log


def test_secrets_are_in_neither_log_nor_status(attempt: Attempt) -> None:
    (attempt.root / "login").mkdir()
    (attempt.root / "login" / "auth.json").write_text(f'{{"tokens": "{CANARY}-file"}}')
    mounts = json.loads(attempt.variables["AGENT_RUN_MOUNTS"])
    mounts.append({"path": "/login", "folder": str(attempt.root / "login"), "readOnly": True, "secret": True})
    attempt.command("echo $MY_TOKEN $LISTED; cat /login/auth.json; exit 3")
    told = {"AGENT_RUN_MOUNTS": json.dumps(mounts), "RUN_CYCLE_SECRET_ENV": "LISTED"}
    code = attempt.run(RUN_CYCLE_BWRAP="/usr/bin/bwrap", MY_TOKEN=f"{CANARY}-env", LISTED=f"{CANARY}-listed", **told)
    assert code == 3
    assert attempt.log == "[redacted] [redacted]\n[redacted]"
    assert CANARY not in attempt.log + attempt.out + json.dumps(attempt.status)


def test_the_log_is_bounded_and_one_of_an_earlier_try_is_kept(attempt: Attempt) -> None:
    (attempt.agent / "runner.log").write_text("earlier\n")
    attempt.command("head -c 40000000 /dev/zero | tr '\\0' x; echo; echo the end")
    assert attempt.run() == 0
    assert (attempt.agent / "runner.log").stat().st_size < 20 << 20
    assert attempt.log.endswith("the end\n")
    assert (attempt.agent / "runner.log.lost").read_text() == "earlier\n"


STUBBORN = (
    "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > daemon; sleep 600' & echo $$ > leader; wait; sleep 600"
)


@pytest.mark.parametrize("how", [PLAIN, BWRAP])
def test_a_signal_ends_the_whole_tree_and_is_told(attempt: Attempt, how: dict[str, str]) -> None:
    attempt.command(STUBBORN)
    process = attempt.start(str(attempt.spec_path), **{**how, "RUN_CYCLE_GRACE": "1"})
    paths = [attempt.workspace / name for name in ("daemon", "leader")]
    wait_until(lambda: all(path.exists() and path.stat().st_size for path in paths), "the tree")
    pids = [int(path.read_text()) for path in paths]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 1
    assert (attempt.status["status"], attempt.status["exitCode"]) == ("cancelled", 130)
    assert not [pid for pid in pids if is_running(pid)]


# Where the spec is.


def test_the_spec_is_the_argument_s_then_the_path_s_then_the_text(attempt: Attempt) -> None:
    attempt.command("echo from the file")
    text = attempt.spec_path.read_text().replace("the file", "the text")
    other = attempt.root / "other.json"
    other.write_text(text.replace("the text", "the argument"))
    told = {"AGENT_RUNNER_SPEC_PATH": "/workspace/agent-runner.json", "AGENT_RUNNER_SPEC": text}
    assert attempt.run(str(other), **told) == 0
    assert attempt.log == "from the argument\n"
    attempt.start(**told).communicate(timeout=60)
    assert attempt.log == "from the file\n"
    attempt.start(AGENT_RUNNER_SPEC=text).communicate(timeout=60)
    assert attempt.log == "from the text\n"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"adapter": {"type": "temporal"}}', '{"adapter": {"type": "exec", "exec": {}}}']
)
def test_a_spec_that_cannot_be_understood_fails_with_a_status(attempt: Attempt, text: str) -> None:
    attempt.spec_path.write_text(text)
    assert attempt.run() == 2
    assert (attempt.status["status"], attempt.status["exitCode"]) == ("failed", 2)
    assert attempt.status["error"] in attempt.out


def test_a_status_that_cannot_be_written_is_no_success(attempt: Attempt) -> None:
    attempt.command("rm -r .agent; touch .agent")
    mounts = [{"path": "/workspace", "folder": str(attempt.workspace)}]
    attempt.spec({**json.loads(attempt.spec_path.read_text())["adapter"]}, payloads={})
    assert attempt.run(AGENT_RUN_MOUNTS=json.dumps(mounts)) == 74
    assert "status.json cannot be written" in attempt.out


# A session of an agent.


@pytest.mark.parametrize("how", [PLAIN, BWRAP])
def test_a_session_works_in_the_workspace_and_is_told_as_the_runner_s(attempt: Attempt, how: dict[str, str]) -> None:
    attempt.codex(prompt="Do {{inputs.stage}}.")
    steps = attempt.script({"write": "made.txt", "text": "x"}, {"final": "All done."})
    assert attempt.run(**steps, **how) == 0, attempt.out
    found = attempt.status
    assert (found["status"], found["adapter"], found["agent"]) == ("succeeded", "codex-app-server", "scripted")
    assert found["cwd"] == "/workspace"
    assert (attempt.workspace / "made.txt").exists()


#: An agent that leaves what it was asked, in the workspace.
ASKED = {
    "RUN_CYCLE_CONSENT_GUARD": "off",
    "RUN_CYCLE_AGENT": "command",
    "RUN_CYCLE_AGENT_COMMAND": "sh -c 'cp $0 asked; env > told' {prompt_file}",
}


@pytest.mark.parametrize(
    ("settings", "run", "asked"),
    [
        ({"prompt": "From the adapter."}, {"prompt": "From run.json."}, "From the adapter."),
        ({}, {"prompt": "From run.json."}, "From run.json."),
        ({"prompt": "Stage {{inputs.stage}}{{nothing}}"}, {}, "Stage build"),
        ({"prompt": "Token {{env.TOP_SECRET}}"}, {}, "Token {{env.TOP_SECRET}}"),
        ({"prompt": "Go."}, {"systemPrompt": PROMPT}, f"# System prompt\n\n{PROMPT}\n# Task\n\nGo."),
    ],
)
@pytest.mark.parametrize("how", [PLAIN, BWRAP])
def test_what_the_agent_is_asked(
    attempt: Attempt, how: dict[str, str], settings: dict[str, Any], run: dict[str, Any], asked: str
) -> None:
    attempt.codex(run, **settings)
    assert attempt.run(TOP_SECRET=CANARY, RUN_CYCLE_ITERATION="3", **ASKED, **how) == 0, attempt.out
    assert (attempt.workspace / "asked").read_text() == asked
    told = (attempt.workspace / "told").read_text()
    assert "RUN_CYCLE_ITERATION=3" in told
    assert ("AGENT_RUN_MOUNTS" in told) is not bool(how)  # where paths are true, nobody needs others


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prompt": "  "}, "adapter.codex.prompt is required"),
        ({"prompt": "{{nothing}}"}, "adapter.codex.prompt is required"),
        ({"prompt": "Go.", "approval": "on-request"}, "waits for a person"),
    ],
)
def test_a_session_that_cannot_be_held_is_refused(attempt: Attempt, settings: dict[str, Any], told: str) -> None:
    attempt.codex(**settings)
    assert attempt.run(**ASKED) == 2
    assert told in attempt.status["error"]
    assert not (attempt.workspace / "asked").exists()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("where", "text", "expected", "told"),
    [
        ("file", PROMPT, digest(PROMPT), ""),
        ("file", PROMPT.strip(), digest(PROMPT), "system prompt hash mismatch"),
        ("file", "", digest(PROMPT), "is required and"),
        ("file", None, digest(PROMPT), "is required and"),
        ("run", PROMPT, digest(PROMPT), ""),
        ("run", "Be wild.", digest(PROMPT), "system prompt hash mismatch"),
        ("provider", "Own words.", digest(PROMPT), "system prompt hash mismatch"),
        ("run", None, "", "is required and"),
    ],
)
def test_the_system_prompt_is_checked_by_its_hash(
    attempt: Attempt, where: str, text: str | None, expected: str, told: str
) -> None:
    settings = {"prompt": "Go."} | ({"baseInstructions": text} if where == "provider" else {})
    attempt.codex({"systemPrompt": text} if where == "run" and text is not None else {}, **settings)
    variables = {"CODEX_SYSTEM_PROMPT_REQUIRED": "true", "CODEX_SYSTEM_PROMPT_EXPECTED_HASH": expected}
    if where == "file":
        variables["CODEX_SYSTEM_PROMPT_PATH"] = "/workspace/system-prompt.txt"
        if text is not None:
            (attempt.workspace / "system-prompt.txt").write_text(text)
    code = attempt.run(**ASKED, **variables)
    assert (code, told in attempt.status.get("error", "")) == (2 if told else 0, True)
    assert (attempt.workspace / "asked").exists() is not bool(told)


def test_a_signal_cancels_a_session(attempt: Attempt) -> None:
    attempt.codex(prompt="Go.")
    line = "sh -c 'echo $$ > pid; sleep 600'"
    told = {"RUN_CYCLE_CONSENT_GUARD": "off", "RUN_CYCLE_AGENT": "command", "RUN_CYCLE_AGENT_COMMAND": line}
    process = attempt.start(str(attempt.spec_path), **told)
    pid = attempt.workspace / "pid"
    wait_until(lambda: pid.exists() and pid.stat().st_size, "the session")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert (process.returncode, attempt.status["status"]) == (1, "cancelled")
    assert not is_running(int(pid.read_text()))


def granting(folder: Path, until: timedelta) -> None:
    """A grant in the audit of a state directory."""
    now = datetime.now(UTC)
    facts = {"grant": "a", "until": timestamp(now + until), "reason": "a test", "by": "a test", "agents": []}
    AuditChain(folder / "consent_audit.jsonl", lambda: now).append("grant", {**facts, "max_cycles": None})


@pytest.mark.parametrize(
    ("guard", "granted", "runs"),
    [("enforce", None, False), ("enforce", timedelta(hours=1), True), ("warn", None, True), ("nonsense", None, False)],
)
def test_a_coding_agent_works_only_where_somebody_has_allowed_it(
    attempt: Attempt, tmp_path: Path, guard: str, granted: timedelta | None, *, runs: bool
) -> None:
    state = tmp_path / "state-of-consent"
    state.mkdir()
    if granted is not None:
        granting(state, granted)
    attempt.codex(prompt="Go.")
    code = attempt.run(**ASKED | {"RUN_CYCLE_CONSENT_GUARD": guard, "RUN_CYCLE_HIDDEN": str(state)})
    assert (code == 0, (attempt.workspace / "asked").exists()) == (runs, runs), attempt.out
    if not runs:
        assert "consent grant" in attempt.status["error"]
