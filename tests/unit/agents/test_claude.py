import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents.adapter import Reader
from run_cycle_loop.agents.claude import Claude
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.sessions import Usage
from tests.unit.agents.recordings import READ_ONLY, ended, feed, output, play, request, twisted

ENV = {"HOME": "/home/op"}
BASE = ("claude", "-p", "--output-format", "stream-json", "--verbose")
WRITING = ("--permission-mode", "bypassPermissions")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


# --- what is started ---


def test_the_prompt_goes_in_by_a_file_and_not_by_the_command_line(scratch: Path) -> None:
    prompt = "long " * 500_000
    invocation = Claude().invoke(request(scratch, prompt=prompt), ENV)
    assert invocation.stdin is not None
    assert invocation.stdin.read_text() == prompt
    assert invocation.argv == (*BASE, *WRITING)


def test_what_is_asked_for_has_its_places(scratch: Path) -> None:
    asked = request(
        scratch,
        model="m",
        output_schema={"type": "object"},
        max_usd=0.5,
        session_id="s1",
        extra_args=("--effort", "low"),
    )
    assert Claude().invoke(asked, ENV).argv == (
        *(*BASE, *WRITING, "--model", "m", "--json-schema", '{"type": "object"}'),
        *("--max-budget-usd", "0.500000", "--resume", "s1", "--effort", "low"),
    )


def test_a_reader_has_no_tool_that_writes_and_none_of_the_workdirs_settings(scratch: Path) -> None:
    argv = Claude().invoke(request(scratch, **READ_ONLY), ENV).argv
    assert argv[len(BASE) :] == (
        *("--permission-mode", "dontAsk", "--tools", "Read,Glob,Grep"),
        *("--strict-mcp-config", "--setting-sources", "user"),
    )


def test_its_retries_are_off_but_where_the_operator_wants_them(scratch: Path) -> None:
    assert Claude().invoke(request(scratch), ENV).env["CLAUDE_CODE_MAX_RETRIES"] == "0"
    assert "CLAUDE_CODE_MAX_RETRIES" not in Claude().invoke(request(scratch), {"CLAUDE_CODE_MAX_RETRIES": "3"}).env


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("role", list(Role))
def test_it_is_told_of_a_sandbox_only_where_it_writes_in_one_or_as_root(
    scratch: Path, role: Role, isolated: bool
) -> None:
    env = Claude().invoke(request(scratch, role=role, isolated=isolated), ENV).env
    assert ("IS_SANDBOX" in env) == (role is Role.WRITE and (isolated or os.geteuid() == 0))


def test_it_must_be_able_to_write_its_own_folder_and_file(scratch: Path, tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    assert Claude().invoke(request(scratch), env).writes == (tmp_path / ".claude",)
    (tmp_path / ".claude.json").write_text("{}")
    assert Claude().invoke(request(scratch), env).writes == (tmp_path / ".claude", tmp_path / ".claude.json")
    named = {**env, "CLAUDE_CONFIG_DIR": "/srv/claude"}
    assert Claude().invoke(request(scratch), named).writes == (Path("/srv/claude"),)


# --- what it came to ---

FAILURES = [
    ("401-noretry", AgentClass.AUTH, True),
    ("no-key", AgentClass.AUTH, True),
    ("404", AgentClass.TOOL_ERROR, True),
    ("429-always-3600-noretry", AgentClass.RATE_LIMITED, False),
    ("usage-limit-oauth", AgentClass.RATE_LIMITED, False),
    ("credit-400", AgentClass.BUDGET, True),
    ("max-budget", AgentClass.BUDGET, False),
    ("max-turns", AgentClass.BUDGET, False),
    ("500-after-write", AgentClass.TOOL_ERROR, False),
    ("refused", AgentClass.TOOL_ERROR, False),
    ("empty-noretry", AgentClass.TOOL_ERROR, False),
    ("refusal", AgentClass.TOOL_ERROR, False),
    ("no-session", AgentClass.TOOL_ERROR, False),
]


@pytest.mark.parametrize(("case", "ending", "permanent"), FAILURES)
def test_a_failure_is_told_by_its_record(scratch: Path, case: str, ending: AgentClass, permanent: bool) -> None:
    result = play(Claude(), case, scratch, ended(1))
    assert (result.ended, result.permanent) == (ending, permanent)
    assert result.reason
    assert bool(result.advice) == permanent


def test_exit_0_saves_nothing(scratch: Path) -> None:
    assert play(Claude(), "401-noretry", scratch, ended(0)).ended is AgentClass.AUTH


def test_a_good_session_tells_its_answer_and_what_it_cost(scratch: Path) -> None:
    result = play(Claude(), "good-write", scratch)
    assert (result.ended, result.text) == (AgentClass.OK, "I wrote hello.txt.")
    assert (result.tool_calls, result.tool_failures) == (1, 0)
    assert result.model == "claude-sonnet-4-5"
    assert result.session_id
    assert result.usage == Usage(
        input_tokens=2000,
        cached_input_tokens=200,
        output_tokens=400,
        cost_usd=0.01146,
        calls=2,
        source="model_usage_since_last_result",
    )


def test_of_a_session_that_is_gone_on_with_only_this_part_is_counted(scratch: Path) -> None:
    usage = play(Claude(), "resumed", scratch).usage
    assert usage is not None
    assert (usage.tokens, usage.cost_usd) == (1200, 0.00782)


def test_an_older_version_tells_the_sum_alone(scratch: Path) -> None:
    data = output("claude", "good-write").replace(b"model_usage_since_last_result", b"other")
    usage = feed(Claude().reader(request(scratch)), data).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cost_usd) == (2000, 400, 0.01146)


def test_answering_alone_changes_nothing(scratch: Path) -> None:
    assert play(Claude(), "good-text", scratch).ended is AgentClass.NO_CHANGE
    assert play(Claude(), "good-text", scratch, **READ_ONLY).ended is AgentClass.OK


def test_a_failed_tool_is_no_failed_session(scratch: Path) -> None:
    result = play(Claude(), "tool-exit-3", scratch)
    assert (result.ended, result.tool_calls, result.tool_failures) == (AgentClass.OK, 1, 1)


def test_an_answer_of_a_schema_is_handed_on_and_is_no_work(scratch: Path) -> None:
    schema = {"type": "object", "required": ["verdict", "score"]}
    result = play(Claude(), "structured", scratch, output_schema=schema, **READ_ONLY)
    assert (result.ended, result.tool_calls) == (AgentClass.OK, 0)
    assert result.payload == {"verdict": "good", "score": 7}


def test_a_schema_that_was_ignored_is_no_usable_answer(scratch: Path) -> None:
    result = play(Claude(), "schema-ignored", scratch, output_schema={"required": ["answer"]})
    assert result.ended is AgentClass.TOOL_ERROR


def test_the_end_of_a_limit_is_the_far_ends_word(scratch: Path) -> None:
    reader = feed(Claude().reader(request(scratch)), output("claude", "usage-limit-oauth"))
    events = [json.loads(line) for line in output("claude", "usage-limit-oauth").splitlines()]
    resets_at = next(e["rate_limit_info"]["resetsAt"] for e in events if e["type"] == "rate_limit_event")
    end = replace(ended(1), at=datetime.fromtimestamp(resets_at - 600, UTC))
    assert reader.result(end).retry_at == datetime.fromtimestamp(resets_at, UTC)


def test_a_limit_that_was_told_before_the_stream_broke_off_is_one(scratch: Path) -> None:
    data = b"\n".join(line for line in output("claude", "usage-limit-oauth").splitlines() if b'"result"' not in line)
    reader = feed(Claude().reader(request(scratch)), data)
    assert not reader.is_final
    assert reader.result(ended(1)).ended is AgentClass.RATE_LIMITED


def test_being_refused_everything_is_no_success_of_a_writer(scratch: Path) -> None:
    result = play(Claude(), "dont-ask", scratch)
    assert (result.ended, result.permanent) == (AgentClass.PERMISSION_DENIED, True)
    assert "Write" in result.reason
    assert play(Claude(), "dont-ask", scratch, **READ_ONLY).ended is AgentClass.OK


def test_being_refused_something_beside_other_work_is_none(scratch: Path) -> None:
    denials = b'"permission_denials":[{"tool_name":"Bash"}]'
    data = output("claude", "good-write").replace(b'"permission_denials":[]', denials)
    assert feed(Claude().reader(request(scratch)), data).result(ended()).ended is AgentClass.OK


# --- how it was ended ---


@pytest.mark.parametrize("stopped", [AgentClass.TIMEOUT, AgentClass.INTERRUPTED, AgentClass.BUDGET])
def test_why_we_ended_it_decides_and_what_it_spent_is_known_in_part(scratch: Path, stopped: AgentClass) -> None:
    reader = feed(Claude().reader(request(scratch)), output("claude", "term-in-tool"))
    assert not reader.is_final
    result = reader.result(ended(143, stopped=stopped))
    assert result.ended is stopped
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.calls, result.usage.complete) == (1000, 1, False)


def test_a_result_that_was_seen_stands_however_the_process_ended(scratch: Path) -> None:
    result = play(Claude(), "good-write", scratch, ended(signal=9, stopped=AgentClass.TIMEOUT))
    assert result.ended is AgentClass.OK


def test_the_result_of_an_interrupt_is_no_final_one(scratch: Path) -> None:
    reader = feed(Claude().reader(request(scratch)), output("claude", "interrupted"))
    assert not reader.is_final
    assert reader.result(ended(0)).ended is AgentClass.INTERRUPTED
    again = play(Claude(), "interrupted", scratch, ended(0, stopped=AgentClass.TIMEOUT))
    assert (again.ended, again.usage and again.usage.tokens) == (AgentClass.TIMEOUT, 1200)


def test_a_kill_from_outside_is_an_error(scratch: Path) -> None:
    assert play(Claude(), "kill-in-tool", scratch, ended(signal=9)).ended is AgentClass.TOOL_ERROR


def test_what_it_says_before_it_begins_stands_on_standard_error(scratch: Path) -> None:
    result = Claude().reader(request(scratch)).result(ended(1, stderr="error: unknown option '--nonsense'\n"))
    assert result.ended is AgentClass.TOOL_ERROR
    assert "--nonsense" in result.reason


def test_a_turn_in_its_queue_is_waited_for(scratch: Path) -> None:
    data = output("claude", "good-text").replace(b'"queued_turn_count":0', b'"queued_turn_count":1')
    assert not feed(Claude().reader(request(scratch)), data).is_final


def test_a_message_that_is_told_in_parts_counts_once_and_memory_is_bounded(scratch: Path) -> None:
    reader = Claude().reader(request(scratch))
    for number in range(500):
        told = {"id": f"m{number}", "model": "m", "content": [], "usage": {"input_tokens": 10, "output_tokens": 1}}
        feed(reader, (json.dumps({"type": "assistant", "message": told}) + "\n").encode() * 3)
    assert reader.usage is not None
    assert (reader.usage.tokens, reader.usage.calls) == (5500, 500)
    assert len(reader._tally._remembered) < 100


def test_echoed_words_decide_nothing(scratch: Path) -> None:
    data = output("claude", "good-write").replace(b"I wrote hello.txt.", b"401 rate limit, credit balance, /login")
    assert feed(Claude().reader(request(scratch)), data).result(ended()).ended is AgentClass.OK


@pytest.mark.parametrize("case", ["good-write", "usage-limit-oauth", "dont-ask", "structured"])
def test_events_of_another_shape_never_raise(scratch: Path, case: str) -> None:
    for data in twisted(output("claude", case)):
        reader: Reader = feed(Claude().reader(request(scratch, output_schema={})), data, 50_000)
        assert reader.result(ended()).reason


# --- whether it is logged in ---


def _put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    ("name", "content", "env", "state"),
    [
        ("nothing", "", {}, "no"),
        ("nothing", "", {"ANTHROPIC_API_KEY": "canary"}, "yes"),
        ("nothing", "", {"ANTHROPIC_API_KEY": ""}, "no"),
        ("nothing", "", {"CLAUDE_CODE_OAUTH_TOKEN": "canary"}, "yes"),
        ("nothing", "", {"CLAUDE_CODE_USE_BEDROCK": "1"}, "unknown"),
        (".claude/.credentials.json", "{}", {}, "yes"),
        (".claude/settings.json", {"apiKeyHelper": "canary"}, {}, "unknown"),
        (".claude/settings.json", {"env": {"ANTHROPIC_AUTH_TOKEN": "canary"}}, {}, "yes"),
        (".claude/settings.json", "[[", {}, "no"),
        (".claude.json", {"primaryApiKey": "canary"}, {}, "yes"),
    ],
)
def test_a_login_is_told_from_its_files_and_variables(
    tmp_path: Path, name: str, content: Any, env: dict[str, str], state: str
) -> None:
    _put(tmp_path / name, content)
    login = Claude().login(env, tmp_path)
    assert login.state == state
    assert "canary" not in login.detail
