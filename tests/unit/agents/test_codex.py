import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents.adapter import Reader
from run_cycle_loop.agents.codex import Codex
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage
from tests.unit.agents.recordings import NOW, READ_ONLY, ended, feed, output, play, request, twisted

OWN_PROVIDER = """
model = "m"
model_provider = "own"
[model_providers.own]
name = "own"
base_url = "http://127.0.0.1:1/v1"
env_key = "OWN_KEY"
"""
#: What one call of the recorded server is told to have cost.
ONE_CALL = {"input_tokens": 1000, "cached_input_tokens": 100, "output_tokens": 200, "reasoning_output_tokens": 50}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "codex-home"
    folder.mkdir()
    return folder


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    return {"CODEX_HOME": str(home)}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def argv(scratch: Path, env: dict[str, str], **asked: Any) -> tuple[str, ...]:
    return Codex().invoke(request(scratch, **asked), env).argv


# --- what is started ---


def test_the_prompt_goes_in_by_a_file_and_not_by_the_command_line(scratch: Path, env: dict[str, str]) -> None:
    prompt = "long " * 100_000
    invocation = Codex().invoke(request(scratch, prompt=prompt), env)
    assert invocation.stdin is not None
    assert invocation.stdin.read_text() == prompt
    assert invocation.argv[-1] == "-"
    assert max(map(len, invocation.argv)) < 200


def test_more_than_codex_takes_is_refused_before_it_is_started(scratch: Path, env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="1048577 characters"):
        Codex().invoke(request(scratch, prompt="x" * (1 + (1 << 20))), env)


@pytest.mark.parametrize(
    ("asked", "sandbox"),
    [
        ({}, "workspace-write"),
        (READ_ONLY, "read-only"),
        ({"isolated": True}, "danger-full-access"),
        # Its own sandbox cannot be set up within ours: ours keeps a reader from writing.
        ({"isolated": True, "role": Role.READ_ONLY}, "danger-full-access"),
    ],
)
def test_it_has_all_rights_only_within_a_sandbox_of_ours(
    scratch: Path, env: dict[str, str], asked: dict[str, Any], sandbox: str
) -> None:
    words = argv(scratch, env, **asked)
    assert words[words.index("--sandbox") + 1] == sandbox


def test_its_retries_are_off_for_a_provider_of_the_operators(scratch: Path, home: Path, env: dict[str, str]) -> None:
    (home / "config.toml").write_text(OWN_PROVIDER)
    words = argv(scratch, env)
    assert "model_providers.own.request_max_retries=0" in words
    assert "model_providers.own.stream_max_retries=0" in words
    other = argv(scratch, env, extra_args=("-c", 'model_provider="other"'))
    assert not any("max_retries" in word for word in other)


def test_a_built_in_provider_is_left_alone_for_codex_refuses_to_start_otherwise(
    scratch: Path, env: dict[str, str]
) -> None:
    words = argv(scratch, env)
    assert not any("model_providers" in word for word in words)
    assert "analytics.enabled=false" in words
    assert "features.unbounded_connection_retries=false" in words
    assert "--disable" not in words  # with a name that a version does not know it would not start


def test_settings_behind_a_link_are_read_and_damaged_ones_refused(
    scratch: Path, home: Path, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "dotfiles.toml").write_text(OWN_PROVIDER)
    (home / "config.toml").symlink_to(tmp_path / "dotfiles.toml")
    assert "model_providers.own.request_max_retries=0" in argv(scratch, env)
    (tmp_path / "dotfiles.toml").write_text("model = [")
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read"):
        argv(scratch, env)


def test_model_schema_session_and_the_operators_own_arguments_have_their_places(
    scratch: Path, env: dict[str, str]
) -> None:
    schema = {"type": "object", "required": ["a"]}
    words = argv(scratch, env, model="m", output_schema=schema, session_id="t1", extra_args=("--color", "never"))
    assert words[words.index("--model") + 1] == "m"
    assert json.loads(Path(words[words.index("--output-schema") + 1]).read_text()) == schema
    assert words[-5:] == ("--color", "never", "resume", "t1", "-")


def test_its_own_folder_must_be_writable(scratch: Path, home: Path, env: dict[str, str]) -> None:
    assert Codex().invoke(request(scratch), env).writes == (home,)
    assert Codex().invoke(request(scratch), {"HOME": "/srv/me"}).writes == (Path("/srv/me/.codex"),)


# --- what it came to ---


@pytest.mark.parametrize(
    ("case", "exit_code", "ending", "permanent"),
    [
        ("good-write", 0, AgentClass.OK, False),
        ("apply-patch", 0, AgentClass.OK, False),
        ("tool-exit-3", 0, AgentClass.OK, False),
        ("good-text", 0, AgentClass.NO_CHANGE, False),
        ("401", 1, AgentClass.AUTH, True),
        ("no-key", 1, AgentClass.AUTH, True),
        ("404", 1, AgentClass.TOOL_ERROR, True),
        ("quota", 1, AgentClass.BUDGET, True),
        ("429-always-3600-noretry", 1, AgentClass.RATE_LIMITED, False),
        ("limit-in-stream-noretry", 1, AgentClass.RATE_LIMITED, False),
        ("plan-limit", 1, AgentClass.RATE_LIMITED, False),
        ("500-after-write", 1, AgentClass.TOOL_ERROR, False),
        ("refused", 1, AgentClass.TOOL_ERROR, False),
    ],
)
def test_recorded_sessions_end_as_what_they_were(
    tmp_path: Path, case: str, exit_code: int, ending: AgentClass, permanent: bool
) -> None:
    result = play(Codex(), case, tmp_path, ended(exit_code))
    assert (result.ended, result.permanent) == (ending, permanent)
    assert bool(result.advice) is permanent
    assert result.session_id is not None


def test_an_error_item_is_no_failure(tmp_path: Path) -> None:
    assert b'"type":"error"' in output("codex", "good-write")
    assert play(Codex(), "good-write", tmp_path).reason == "it finished"


def test_a_plan_limit_tells_when_it_ends(tmp_path: Path) -> None:
    result = play(Codex(), "limit-in-stream-noretry", tmp_path, ended(1))
    assert result.retry_at == NOW + timedelta(seconds=3600)
    assert play(Codex(), "plan-limit", tmp_path, ended(1)).retry_at is not None


def test_usage_is_one_sum_with_the_cached_tokens_in_it(tmp_path: Path) -> None:
    result = play(Codex(), "good-write", tmp_path)
    assert result.usage == Usage(
        input_tokens=2000, cached_input_tokens=200, output_tokens=400, reasoning_tokens=100, source="turn.completed"
    )


def test_tools_and_their_failures_are_counted_once_each(tmp_path: Path) -> None:
    failing = play(Codex(), "tool-exit-3", tmp_path)
    assert (failing.tool_calls, failing.tool_failures) == (1, 1)
    cut_off = play(Codex(), "kill-in-tool", tmp_path, ended(signal=9))
    assert (cut_off.tool_calls, cut_off.tool_failures) == (1, 0)


def test_an_empty_file_of_the_last_message_is_no_result(scratch: Path) -> None:
    (scratch / "codex-last-message").touch()  # as codex does at its start
    result = play(Codex(), "good-write", scratch)
    assert (result.ended, result.text) == (AgentClass.TOOL_ERROR, "")


def test_the_last_message_of_an_earlier_session_is_none_of_this_one(scratch: Path, env: dict[str, str]) -> None:
    (scratch / "codex-last-message").write_text("old")
    Codex().invoke(request(scratch), env)
    assert play(Codex(), "good-write", scratch).text == "I wrote hello.txt."


def test_the_last_message_is_the_answer_and_the_one_in_the_stream_where_its_file_is_gone(scratch: Path) -> None:
    assert play(Codex(), "good-write", scratch).text == "I wrote hello.txt."
    (scratch / "codex-last-message").write_text("From the file.")
    assert play(Codex(), "good-write", scratch).text == "From the file."


def test_an_answer_by_a_schema_becomes_an_object(tmp_path: Path) -> None:
    result = play(Codex(), "structured", tmp_path, output_schema={"required": ["verdict"]}, **READ_ONLY)
    assert (result.ended, result.payload) == (AgentClass.OK, {"verdict": "good", "score": 7})


def test_what_we_ended_is_what_we_ended_it_for(tmp_path: Path) -> None:
    end = ended(signal=9, stopped=AgentClass.TIMEOUT, stderr="429 rate limit")
    assert play(Codex(), "kill-in-tool", tmp_path, end).ended is AgentClass.TIMEOUT
    assert play(Codex(), "kill-in-tool", tmp_path, ended(signal=9)).ended is AgentClass.TOOL_ERROR


def test_exit_1_on_an_interrupt_is_no_verdict_of_codex(tmp_path: Path) -> None:
    end = ended(1, stopped=AgentClass.INTERRUPTED)
    assert play(Codex(), "kill-in-tool", tmp_path, end).ended is AgentClass.INTERRUPTED


def test_a_finished_result_stands_however_its_process_was_ended(tmp_path: Path) -> None:
    reader = feed(Codex().reader(request(tmp_path)), output("codex", "good-write"))
    assert reader.is_final
    assert reader.result(ended(signal=9, stopped=AgentClass.TIMEOUT)).ended is AgentClass.OK


def test_a_wait_between_two_tries_is_not_the_end(tmp_path: Path) -> None:
    before_the_end = output("codex", "401").rpartition(b'{"type":"turn.failed"')[0]
    assert b"Reconnecting" in before_the_end
    assert not feed(Codex().reader(request(tmp_path)), before_the_end).is_final


def test_what_it_slept_for_when_we_ended_it_is_told(tmp_path: Path) -> None:
    end = ended(signal=9, stopped=AgentClass.TIMEOUT)
    result = play(Codex(), "429-always-3600", tmp_path, end)
    assert (result.ended, result.retry_at) == (AgentClass.TIMEOUT, None)
    assert "429 Too Many Requests" in result.reason
    assert "it said" not in play(Codex(), "kill-in-tool", tmp_path, end).reason


def test_a_trouble_that_is_over_is_not_told(tmp_path: Path) -> None:
    after = output("codex", "kill-in-tool").splitlines(keepends=True)[-1]
    reader = feed(Codex().reader(request(tmp_path)), output("codex", "429-always-3600") + after)
    assert "it said" not in reader.result(ended(signal=9, stopped=AgentClass.TIMEOUT)).reason


def test_a_complaint_before_the_first_turn_is_read_from_standard_error(tmp_path: Path) -> None:
    end = ended(1, stderr="Error: thread/resume failed: no rollout found for thread id x\n\nStack backtrace:\n  0: y")
    result = Codex().reader(request(tmp_path)).result(end)
    assert "no rollout found" in result.reason


# --- what its threads tell ---


def thread(home: Path, name: str, *totals: int) -> Path:
    folder = home / "sessions" / "2026" / "11" / "25"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"type": "session_meta", "payload": {"id": name}}]
    lines += [
        {
            "type": "event_msg",
            "payload": {
                "type": "token_count",
                "info": {"total_token_usage": {key: calls * value for key, value in ONE_CALL.items()}},
            },
        }
        for calls in totals
    ]
    path = folder / f"rollout-2026-11-25T22-00-00-{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def spent(reader: Reader) -> Usage | None:
    return reader.usage


def recorded_thread(case: str) -> str:
    return str(json.loads(output("codex", case).splitlines()[0])["thread_id"])


def test_a_session_that_was_cut_off_has_spent_what_its_thread_tells(
    scratch: Path, home: Path, env: dict[str, str]
) -> None:
    Codex().invoke(request(scratch), env)
    reader = feed(Codex().reader(request(scratch)), output("codex", "kill-in-tool"))
    assert reader.usage is None
    path = thread(home, recorded_thread("kill-in-tool"), 1)
    so_far = spent(reader)
    assert so_far is not None
    assert (so_far.input_tokens, so_far.complete) == (1000, False)
    with path.open("a") as file:
        file.write(thread(home, "other", 3).read_text())
    usage = reader.result(ended(signal=9, stopped=AgentClass.BUDGET)).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.complete) == (3000, 600, False)


def test_of_a_thread_that_is_gone_on_with_only_what_is_new_is_counted(
    scratch: Path, home: Path, env: dict[str, str]
) -> None:
    thread(home, "earlier", 1)
    asked: dict[str, Any] = {"session_id": "earlier"}
    Codex().invoke(request(scratch, **asked), env)
    (scratch / "codex-last-message").write_text("Done.")
    result = play(Codex(), "good-write", scratch, **asked)
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.cached_input_tokens, result.usage.output_tokens) == (1000, 100, 200)


# --- whatever it prints ---


@pytest.mark.parametrize("case", ["good-write", "401", "structured"])
def test_events_of_other_shapes_never_raise(tmp_path: Path, case: str) -> None:
    for damaged in twisted(output("codex", case)):
        reader = feed(Codex().reader(request(tmp_path)), damaged)
        assert reader.usage is None or reader.usage.tokens >= 0
        assert reader.result(ended(1, stderr=damaged.decode()[:8000])).reason


def test_what_a_command_printed_decides_nothing(tmp_path: Path) -> None:
    echoed = json.dumps({"type": "turn.failed", "error": {"message": "429 rate limit"}})
    item = {"id": "item_9", "type": "command_execution", "aggregated_output": echoed, "status": "completed"}
    line = json.dumps({"type": "item.completed", "item": item}).encode() + b"\n"
    reader = feed(Codex().reader(request(tmp_path)), line + output("codex", "good-write"))
    assert reader.result(ended()).ended is AgentClass.OK


# --- logged in or not ---


def test_a_login_is_told_from_its_files_and_variables_alone(home: Path, env: dict[str, str]) -> None:
    def state(**more: str) -> str:
        return Codex().login({**env, **more}, home.parent).state

    assert state() == "no"
    assert state(CODEX_API_KEY="x") == "yes"
    (home / "auth.json").write_text('{"OPENAI_API_KEY": "canary"}')
    assert state() == "yes"
    assert "canary" not in Codex().login(env, home.parent).detail
    (home / "config.toml").write_text(OWN_PROVIDER)
    assert state() == "no"
    assert state(OWN_KEY="x") == "yes"
    (home / "config.toml").write_text("[[")
    assert state() == "unknown"
