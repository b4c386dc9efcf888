"""``start_agent`` as the loop starts it: what it leaves behind, whatever the agent does."""

import gzip
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

from run_cycle_loop.agents import digests
from run_cycle_loop.agents.planner import Request, plan_cycle
from run_cycle_loop.agents.session_report import EXIT_CODES
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.model.sessions import AgentReport
from run_cycle_loop.stores.audit import AuditChain

ROOT = Path(__file__).resolve().parents[2]
USED = {"input_tokens": 900, "output_tokens": 100, "cost_usd": 0.25}
#: What a shell script needs to answer as the agent ``command``.
LINE = "sh agent.sh {prompt_file} {result_file}"


class Cycle:
    """A tree, and what one cycle in it leaves."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.state = tree / "state"
        self.control_file = self.state / "control" / "1.json"
        self.control_file.parent.mkdir(parents=True)
        self.done: subprocess.CompletedProcess[str] | None = None

    @property
    def variables(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("RUN_CYCLE_")}
        told = {"ID": "abc", "NUMBER": "1", "STATE_DIR": str(self.state), "ASSUME_YES": "true", "ISOLATE": "none"}
        told |= {"CONTROL_FILE": str(self.control_file), "SANDBOX_DIR": str(self.tree / "sandbox")}
        return {**ours, "PYTHONPATH": str(ROOT), **{f"RUN_CYCLE_{name}": value for name, value in told.items()}}

    def start(self, *args: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "run_cycle_loop.start_agent", *(args or ("--cycle", "review", "-- do it"))],
            cwd=self.tree,
            env={**self.variables, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, **more: str) -> int:
        process = self.start(*args, **more)
        out, err = process.communicate(timeout=120)
        self.done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        return process.returncode

    def play(self, *steps: Mapping[str, Any], **more: str) -> int:
        return self.run(**self.script(*steps), **more)

    def script(self, *steps: Mapping[str, Any]) -> dict[str, str]:
        path = self.tree / "script.jsonl"
        path.write_text("".join(json.dumps(step) + "\n" for step in steps))
        return {"RUN_CYCLE_AGENT": "scripted", "RUN_CYCLE_AGENT_SCRIPT": str(path)}

    def shell(self, code: str, **more: str) -> int:
        (self.tree / "sandbox").mkdir(exist_ok=True)
        (self.tree / "sandbox" / "agent.sh").write_text(code)
        return self.run(**{"RUN_CYCLE_AGENT": "command", "RUN_CYCLE_AGENT_COMMAND": LINE, **more})

    def grant(self, **more: Any) -> None:
        facts = {
            "grant": "g1",
            "until": timestamp(datetime.now(UTC) + timedelta(hours=1)),
            "reason": "a test",
            "by": "me",
        }
        AuditChain(self.state / "consent_audit.jsonl", lambda: datetime.now(UTC)).append("grant", {**facts, **more})

    @property
    def told(self) -> str:
        assert self.done is not None
        return self.done.stdout + self.done.stderr

    @property
    def control(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.control_file.read_text())
        AgentReport.from_control(value)
        return value

    @property
    def digest(self) -> dict[str, Any]:
        (line,) = (self.state / digests.DIGESTS).read_text().splitlines()
        value: dict[str, Any] = json.loads(line)
        return value


@pytest.fixture
def cycle(tmp_path: Path) -> Cycle:
    tree = tmp_path / "a tree"
    tree.mkdir()
    return Cycle(tree)


# What a session leaves


def test_a_session_leaves_its_work_a_digest_an_archive_and_a_control_payload(cycle: Cycle) -> None:
    code = cycle.play({"write": "a.txt", "text": "x"}, {"usage": USED}, {"final": "Made a.txt.\nNext: b.txt."})
    assert code == 0, cycle.told
    assert (cycle.tree / "sandbox" / "a.txt").read_text() == "x"
    control, digest = cycle.control, cycle.digest
    assert (control["class"], control["agent"], control["continue"]) == ("ok", "scripted", True)
    assert (control["usage"]["input_tokens"], control["usage"]["cost_usd"]) == (900, 0.25)
    assert (control["tool_calls"], control["isolation"], control["warnings"]) == (1, "none", [])
    assert (digest["kind"], digest["cycle_id"], digest["number"], digest["class"]) == ("agent", "abc", 1, "ok")
    assert (digest["mode"], digest["goal"]) == ("review", "-- do it")
    assert digest["summary"] == control["summary"] == "Made a.txt.\nNext: b.txt."
    (archive,) = (cycle.state / digests.ARCHIVES).iterdir()
    assert control["outputs"]["archive"] == str(archive)
    (line,) = gzip.decompress(archive.read_bytes()).splitlines()
    assert json.loads(line) == digest
    assert "done" not in control
    assert "Agent scripted: ok, it finished" in cycle.told
    assert f"Archive: {archive}" in cycle.told


@pytest.mark.parametrize("ended", list(AgentClass))
def test_every_ending_has_its_exit_code_and_its_report(cycle: Cycle, ended: AgentClass) -> None:
    code = cycle.play(
        {"class": ended, "reason": "because", "retry_after": 60, "advice": "see to it", "permanent": True}
    )
    assert code == EXIT_CODES[ended]
    report = AgentReport.from_control(cycle.control)
    assert report is not None
    assert (report.ended, report.reason, report.advice, report.permanent) == (ended, "because", "see to it", True)
    assert report.retry_at is not None
    assert cycle.digest["class"] == ended


def test_the_planner_goes_on_where_an_agent_was(cycle: Cycle) -> None:
    cycle.play({"write": "a.txt"}, {"final": "Made a.txt."})
    planned = plan_cycle(
        Request(
            mode="review",
            goal="plan",
            sandbox=cycle.tree / "sandbox",
            state_dir=cycle.state,
            history_path=cycle.state / "history",
            cap_writes=3,
        ),
        datetime.now(UTC),
    )
    assert planned.recap[1] == "Experiments: none is on record yet."
    assert "- scripted ok (Made a.txt.)" in (cycle.tree / "sandbox" / "plan.md").read_text()


def test_a_secret_that_it_says_is_kept_nowhere(cycle: Cycle) -> None:
    cycle.play({"final": "the key is hunter2-hunter2"}, MY_API_KEY="hunter2-hunter2")
    kept = [path.read_bytes() for path in cycle.state.rglob("*") if path.is_file() and path.suffix != ".gz"]
    kept += [gzip.decompress(path.read_bytes()) for path in cycle.state.rglob("*.gz")]
    assert len(kept) == 3
    assert not any(b"hunter2" in content for content in kept)
    assert cycle.control["summary"] == "the key is [redacted]"


@pytest.mark.parametrize(("answer", "done"), [("All there.\n\n**DONE**", True), ("It is not DONE yet.", False)])
def test_a_goal_is_done_by_the_last_line_of_the_answer(cycle: Cycle, answer: str, done: bool) -> None:
    cycle.play({"write": "a"}, {"final": answer}, RUN_CYCLE_GOAL_ORDER="until-done")
    assert cycle.control["done"] is done


def test_an_answer_as_an_object_is_handed_on(cycle: Cycle) -> None:
    (cycle.tree / "schema.json").write_text('{"type": "object", "required": ["score"]}')
    cycle.play({"write": "a"}, {"final": '{"score": 7}'}, RUN_CYCLE_AGENT_SCHEMA=str(cycle.tree / "schema.json"))
    assert cycle.control["outputs"]["answer"] == {"score": 7}


@pytest.mark.parametrize("answer", ['{"score": ' + "[" * 60 + "]" * 60 + "}", '{"score": NaN}'])
def test_an_object_that_the_loop_would_not_take_is_left_out(cycle: Cycle, answer: str) -> None:
    (cycle.tree / "schema.json").write_text('{"required": ["score"]}')
    cycle.play({"write": "a"}, {"final": answer}, RUN_CYCLE_AGENT_SCHEMA=str(cycle.tree / "schema.json"))
    assert cycle.control["outputs"]["answer"] is None
    assert any("was left out" in warning for warning in cycle.control["warnings"])


def test_what_it_is_allowed_comes_from_the_loop(cycle: Cycle) -> None:
    code = cycle.play({"usage": USED}, {"wait": 600}, RUN_CYCLE_ALLOWED_TOKENS="999")
    assert (code, cycle.control["class"], cycle.control["usage"]["complete"]) == (12, "budget", False)
    code = cycle.play({"wait": 600}, RUN_CYCLE_SESSION_TIMEOUT="500ms")
    assert (code, cycle.control["class"]) == (124, "timeout")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_agent_and_its_usage_is_told(cycle: Cycle, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have it ignored, and that is handed on
    try:
        process = cycle.start(**cycle.script({"usage": USED}, {"print": "up\n"}, {"child": 600}, {"wait": 600}))
    finally:
        signal.signal(number, before)
    assert process.stdout is not None
    while "up" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=9)  # within the supervisor's grace
    assert process.returncode == 130
    control = cycle.control
    assert (control["class"], control["usage"]["input_tokens"], control["usage"]["complete"]) == (
        "interrupted",
        900,
        False,
    )
    assert cycle.digest["class"] == "interrupted"


def test_where_nobody_listens_any_more_it_works_on(cycle: Cycle) -> None:
    process = cycle.start(**cycle.script({"print": "x\n", "repeat": 1 << 20}, {"write": "a"}, {"final": "x"}))
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=60)
    assert process.stderr is not None
    process.stderr.close()
    assert cycle.control["class"] == "ok"


def test_what_stands_in_the_way_of_its_records_is_set_aside(cycle: Cycle) -> None:
    (cycle.state / digests.DIGESTS).mkdir()
    (cycle.state / digests.ARCHIVES).symlink_to("/proc/1/nowhere")
    assert cycle.play({"write": "a"}, {"final": "x"}) == 0, cycle.told
    assert (cycle.control["class"], cycle.digest["class"]) == ("ok", "ok")


def test_what_cannot_be_recorded_is_no_success(cycle: Cycle) -> None:
    missing = cycle.state / "none" / "1.json"
    assert cycle.play({"write": "a"}, {"final": "x"}, RUN_CYCLE_CONTROL_FILE=str(missing)) == 74
    assert f"start_agent: {missing} cannot be written: No such file or directory" in cycle.told
    (cycle.state / digests.ARCHIVES / ".planner_digests.draft").mkdir()
    assert cycle.play({"write": "a"}, {"final": "x"}) == 74
    assert cycle.control["class"] == "ok"
    assert "cannot be written" in cycle.control["warnings"][0]


# What it needs


def test_the_agent_is_told_goal_terms_and_nothing_of_the_loop(cycle: Cycle) -> None:
    cycle.grant()
    assert cycle.shell('{ cat "$1"; env; } > told; echo ok > "$2"', RUN_CYCLE_CAP_WRITES="5") == 0, cycle.told
    told = (cycle.tree / "sandbox" / "told").read_text()
    assert told.startswith("-- do it\n")
    assert "change at most 5 files" in told
    assert str(cycle.control_file) not in told
    assert "RUN_CYCLE_ID=abc" in told


def test_without_a_grant_no_coding_agent_works_unattended(cycle: Cycle) -> None:
    assert cycle.shell("echo ok > ran") == 2
    assert cycle.told == f"start_agent: {cycle.control['reason']}\n"
    assert (cycle.control["class"], cycle.control["permanent"]) == ("permission_denied", False)
    assert "consent grant --until" in cycle.control["reason"]
    assert not (cycle.tree / "sandbox" / "ran").exists()
    assert not (cycle.state / digests.DIGESTS).exists()


@pytest.mark.parametrize(("facts", "code"), [({}, 0), ({"agents": ["command"]}, 0), ({"agents": ["codex"]}, 2)])
def test_a_grant_is_for_the_agents_that_it_names(cycle: Cycle, facts: dict[str, Any], code: int) -> None:
    cycle.grant(**facts)
    assert cycle.shell('echo ok > "$2"') == code, cycle.told


def test_the_cycle_that_uses_a_grant_up_is_covered_by_it(cycle: Cycle) -> None:
    cycle.grant(max_cycles=1)
    chain = AuditChain(cycle.state / "consent_audit.jsonl", lambda: datetime.now(UTC))
    chain.append("cycle", {"cycle_id": "abc", "grant": "g1"})
    assert cycle.shell('echo ok > "$2"') == 0, cycle.told
    assert cycle.shell('echo ok > "$2"', RUN_CYCLE_ID="another") == 2


@pytest.mark.parametrize(("guard", "warnings"), [("warn", 1), ("off", 0)])
def test_a_guard_that_is_off_or_only_warns_lets_it_work(cycle: Cycle, guard: str, warnings: int) -> None:
    assert cycle.shell('echo ok > "$2"', RUN_CYCLE_CONSENT_GUARD=guard) == 0
    assert len(cycle.control["warnings"]) == warnings


def test_without_assume_yes_and_a_terminal_it_is_refused(cycle: Cycle) -> None:
    cycle.grant()
    assert cycle.shell('echo ok > "$2"', RUN_CYCLE_ASSUME_YES="false") == 2
    assert "there is no terminal to ask for consent on: add --assume-yes" in cycle.told


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/", "is not inside"),
        ("..", "is not inside"),
        ("missing", "No such file or directory; make it"),
        ("file", "is no folder"),
        ("link", "is reached by the link"),
        ("link/inner", "is reached by the link"),
    ],
)
def test_a_workdir_is_a_real_folder_inside_the_tree(cycle: Cycle, name: str, said: str) -> None:
    (cycle.tree / "file").touch()
    (cycle.tree / "real" / "inner").mkdir(parents=True)
    (cycle.tree / "link").symlink_to("real")
    assert cycle.play({"write": "a"}, RUN_CYCLE_WORKDIR=name) == 2
    assert said in cycle.told
    assert (cycle.control["class"], cycle.control["permanent"]) == ("tool_error", True)


@pytest.mark.parametrize("name", [".", "real/inner"])
def test_the_tree_itself_and_any_folder_in_it_will_do(cycle: Cycle, name: str) -> None:
    (cycle.tree / "real" / "inner").mkdir(parents=True)
    assert cycle.play({"write": "made", "text": "x"}, {"final": "x"}, RUN_CYCLE_WORKDIR=name) == 0, cycle.told
    assert (cycle.tree / name / "made").exists()


def test_a_tree_behind_a_link_is_the_same_tree(cycle: Cycle) -> None:
    (cycle.tree.parent / "link").symlink_to(cycle.tree)
    (cycle.tree / "work").mkdir()
    code = cycle.play({"write": "made", "text": "x"}, RUN_CYCLE_WORKDIR=str(cycle.tree.parent / "link" / "work"))
    assert code == 0, cycle.told
    assert (cycle.tree / "work" / "made").exists()


@pytest.mark.parametrize(
    "variables",
    [
        {"RUN_CYCLE_AGENT": "nobody"},
        {"RUN_CYCLE_ISOLATE": "chroot"},
        {"RUN_CYCLE_PRICES": "cheap"},
        {"RUN_CYCLE_ALLOWED_USD": "nan"},
        {"RUN_CYCLE_SESSION_TIMEOUT": "soon"},
        {"RUN_CYCLE_AGENT_ARGS": "'open"},
    ],
)
def test_a_value_that_cannot_be_used_is_a_usage_error(cycle: Cycle, variables: dict[str, str]) -> None:
    (name,) = variables
    assert cycle.run(**variables) == 2
    assert variables[name] in cycle.told or name in cycle.told


def test_the_loops_own_call_wants_a_mode_and_a_goal(cycle: Cycle) -> None:
    assert cycle.run("--cycle", "review") == 2
    assert cycle.told == "usage: start_agent --cycle MODE GOAL\n"


# Isolated


@pytest.mark.root
def test_in_isolation_the_loops_records_cannot_be_reached(cycle: Cycle) -> None:
    (cycle.state / "run_cycle_history.jsonl").write_text("kept\n")
    (cycle.tree / "work").mkdir()
    (cycle.tree / "work" / "agent.sh").write_text(
        'cd ..; ls state; cat state/*; echo "{}" > state/control/1.json; rm -rf state; touch work/made; echo ok > "$2"'
    )
    cycle.grant()
    code = cycle.run(
        RUN_CYCLE_ISOLATE="bwrap",
        RUN_CYCLE_WORKDIR="work",
        RUN_CYCLE_AGENT="command",
        RUN_CYCLE_AGENT_COMMAND=LINE,
    )
    assert code == 0, cycle.told
    assert (cycle.tree / "work" / "made").exists()
    assert (cycle.state / "run_cycle_history.jsonl").read_text() == "kept\n"
    assert (cycle.control["class"], cycle.control["isolation"]) == ("ok", "bwrap")
    assert "kept" not in cycle.told


@pytest.mark.root
def test_the_scripted_agent_works_in_isolation(cycle: Cycle) -> None:
    code = cycle.play(
        {"write": "a.txt", "text": "x"}, {"final": "done"}, RUN_CYCLE_ISOLATE="bwrap", RUN_CYCLE_WORKDIR="."
    )
    assert code == 0, cycle.told
    assert (cycle.tree / "a.txt").exists()
    assert cycle.control["warnings"] == []


def test_where_it_cannot_be_isolated_the_loop_hears_of_it(cycle: Cycle) -> None:
    tools = cycle.tree / "bin"
    tools.mkdir()
    code = cycle.play({"write": "a"}, {"final": "x"}, RUN_CYCLE_ISOLATE="auto", PATH=str(tools))
    assert code == 0, cycle.told
    (warning,) = cycle.control["warnings"]
    assert warning.startswith("the agent is not isolated, since bubblewrap (bwrap) is not installed")
    assert cycle.play({"write": "a"}, RUN_CYCLE_ISOLATE="bwrap", PATH=str(tools)) == 2
