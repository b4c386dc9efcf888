import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents.adapter import Reader
from run_cycle_loop.agents.pi import Pi
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage
from tests.unit.agents.recordings import READ_ONLY, ended, feed, output, play, request, twisted


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "pi-home"
    folder.mkdir()
    (folder / "settings.json").write_text('{"defaultModel": "m", "retry": {"baseDelayMs": 5, "provider": {"x": 1}}}')
    (folder / "auth.json").write_text('{"p": {"type": "oauth", "refresh": "canary"}}')
    (folder / "models.json").write_text("{}")
    return folder


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    return {"PI_CODING_AGENT_DIR": str(home)}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


# --- what is started ---


def test_the_prompt_goes_in_by_a_file_and_not_by_the_command_line(scratch: Path, env: dict[str, str]) -> None:
    prompt = "long " * 500_000
    invocation = Pi().invoke(request(scratch, prompt=prompt), env)
    assert invocation.stdin is not None
    assert invocation.stdin.read_text() == prompt
    assert invocation.argv == ("pi", "-p", "--mode", "json", "--offline")


def test_what_is_asked_for_has_its_places(scratch: Path, env: dict[str, str]) -> None:
    asked = request(scratch, model="p/m", session_id="s1", extra_args=("--thinking", "high"), **READ_ONLY)
    assert Pi().invoke(asked, env).argv[5:] == (
        *("--tools", "read,grep,find,ls", "--model", "p/m", "--session", "s1"),
        *("--thinking", "high"),
    )


def test_a_schema_is_asked_for_in_the_prompt(scratch: Path, env: dict[str, str]) -> None:
    invocation = Pi().invoke(request(scratch, output_schema={"required": ["verdict"]}), env)
    assert invocation.stdin is not None
    assert "verdict" in invocation.stdin.read_text()


def test_its_retries_are_off_in_a_folder_of_ours_and_the_operators_stays_as_it_is(
    scratch: Path, home: Path, env: dict[str, str]
) -> None:
    before = (home / "settings.json").read_text()
    invocation = Pi().invoke(request(scratch), env)
    ours = Path(invocation.env["PI_CODING_AGENT_DIR"])
    settings = json.loads((ours / "settings.json").read_text())
    retry = {"baseDelayMs": 5, "enabled": False, "provider": {"x": 1, "maxRetries": 0}}
    assert settings == {"defaultModel": "m", "retry": retry}
    assert (home / "settings.json").read_text() == before
    assert invocation.writes == (home,)


def test_a_refreshed_login_and_the_sessions_reach_the_operators_folder(
    scratch: Path, home: Path, env: dict[str, str]
) -> None:
    ours = Path(Pi().invoke(request(scratch), env).env["PI_CODING_AGENT_DIR"])
    (ours / "auth.json").write_text("refreshed")
    (ours / "sessions" / "one.jsonl").write_text("{}")
    assert (home / "auth.json").read_text() == "refreshed"
    assert (home / "sessions" / "one.jsonl").exists()
    assert (ours / "models.json").read_text() == "{}"


def test_a_login_that_is_made_later_reaches_it_too(scratch: Path, home: Path, env: dict[str, str]) -> None:
    (home / "auth.json").unlink()
    (home / "auth.json.lock").mkdir()
    ours = Path(Pi().invoke(request(scratch), env).env["PI_CODING_AGENT_DIR"])
    (ours / "auth.json").write_text("{}")
    assert (home / "auth.json").read_text() == "{}"
    assert not (ours / "auth.json.lock").exists()  # the lock of another pi, which would look like one for ever


def test_a_folder_that_is_not_there_yet_is_made_and_a_second_session_works(scratch: Path, tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path / "new")}
    for _ in range(2):
        Pi().invoke(request(scratch), env)
    assert (tmp_path / "new" / ".pi" / "agent" / "sessions").is_dir()


def test_damaged_settings_are_refused(scratch: Path, home: Path, env: dict[str, str]) -> None:
    (home / "settings.json").write_text("{")
    with pytest.raises(ConfigError, match=r"settings\.json cannot be read"):
        Pi().invoke(request(scratch), env)


# --- what it came to: exit 0 throughout ---


@pytest.mark.parametrize(
    ("case", "ending", "permanent"),
    [
        ("good-write", AgentClass.OK, False),
        ("tool-exit-3", AgentClass.OK, False),
        ("good-text", AgentClass.NO_CHANGE, False),
        ("429-once", AgentClass.NO_CHANGE, False),
        ("401", AgentClass.AUTH, True),
        ("404", AgentClass.TOOL_ERROR, True),
        ("quota-noretry", AgentClass.BUDGET, True),
        ("429-always-3600-noretry", AgentClass.RATE_LIMITED, False),
        ("plan-limit-noretry", AgentClass.RATE_LIMITED, False),
        ("limit-in-stream-noretry", AgentClass.RATE_LIMITED, False),
        ("500", AgentClass.TOOL_ERROR, False),
        ("500-after-write", AgentClass.TOOL_ERROR, False),
        ("reset", AgentClass.TOOL_ERROR, False),
        ("empty", AgentClass.TOOL_ERROR, False),
    ],
)
def test_exit_0_says_nothing_and_the_last_message_everything(
    tmp_path: Path, case: str, ending: AgentClass, permanent: bool
) -> None:
    result = play(Pi(), case, tmp_path, ended(0))
    assert (result.ended, result.permanent) == (ending, permanent)
    assert bool(result.advice) is permanent


def test_stop_with_no_text_and_no_tool_call_is_a_failure(tmp_path: Path) -> None:
    assert b'"stopReason":"stop"' in output("pi", "empty")
    assert play(Pi(), "empty", tmp_path).reason == "pi ended with an empty answer"


def last_message(**changed: Any) -> bytes:
    usage = {"input": 900, "output": 200, "cacheRead": 100, "cost": {"total": 0.001}}
    message = {"role": "assistant", "content": [{"type": "text", "text": "x"}], "stopReason": "stop", "usage": usage}
    events = ({"type": "message_end", "message": {**message, **changed}}, {"type": "agent_end"})
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


@pytest.mark.parametrize("stop", ["length", "toolUse", "aborted", "somethingNew", 7])
def test_a_last_message_that_stopped_for_another_reason_is_no_answer(tmp_path: Path, stop: object) -> None:
    reader = feed(Pi().reader(request(tmp_path)), last_message(stopReason=stop))
    assert reader.result(ended()).ended is AgentClass.TOOL_ERROR


def test_an_answer_that_broke_off_in_good_order_lacks_its_usage(tmp_path: Path) -> None:
    data = output("pi", "good-write") + last_message(usage={"input": 0, "output": 0})
    result = feed(Pi().reader(request(tmp_path)), data).result(ended())
    assert result.ended is AgentClass.TOOL_ERROR
    assert result.usage is not None
    assert not result.usage.complete


def test_usage_is_counted_at_the_end_of_each_message_and_nowhere_else(tmp_path: Path) -> None:
    usage = play(Pi(), "good-write", tmp_path).usage  # agent_end and turn_end repeat all of it
    assert usage is not None
    assert usage.cost_usd == pytest.approx(0.00262)
    assert replace(usage, cost_usd=None) == Usage(
        input_tokens=2000,  # 900 and 100 cached, twice
        cached_input_tokens=200,
        output_tokens=400,
        calls=2,
        source="message_end of each message, at pi's own prices",
    )


def test_a_cost_of_zero_beside_tokens_is_no_price(tmp_path: Path) -> None:
    data = last_message(usage={"input": 1, "output": 1, "cost": {"total": 0}})
    usage = feed(Pi().reader(request(tmp_path)), data).usage
    assert usage is not None
    assert usage.cost_usd is None


def test_a_session_that_was_cut_off_has_spent_what_its_messages_told(tmp_path: Path) -> None:
    end = ended(signal=9, stopped=AgentClass.BUDGET)
    result = play(Pi(), "kill-in-tool", tmp_path, end)
    assert result.ended is AgentClass.BUDGET
    assert result.usage is not None
    assert (result.usage.tokens, result.usage.complete) == (1200, False)
    assert (result.tool_calls, result.tool_failures) == (1, 0)


def test_exit_143_that_was_our_doing_is_no_verdict_of_pi(tmp_path: Path) -> None:
    end = ended(143, stopped=AgentClass.INTERRUPTED)
    assert play(Pi(), "kill-in-tool", tmp_path, end).ended is AgentClass.INTERRUPTED


def test_failed_tools_are_counted(tmp_path: Path) -> None:
    result = play(Pi(), "tool-exit-3", tmp_path)
    assert (result.tool_calls, result.tool_failures) == (1, 1)


def is_final(reader: Reader) -> bool:
    return reader.is_final


@pytest.mark.parametrize("more", ["compaction_start", "auto_retry_start", "agent_start"])
def test_the_end_of_an_agent_is_not_the_end_where_it_begins_again(tmp_path: Path, more: str) -> None:
    reader = feed(Pi().reader(request(tmp_path)), output("pi", "good-write") + json.dumps({"type": more}).encode())
    assert reader.is_final
    reader.feed("stdout", b"\n")
    assert not is_final(reader)
    assert reader.result(ended(signal=9, stopped=AgentClass.TIMEOUT)).ended is AgentClass.TIMEOUT


def test_a_compaction_after_the_answer_changes_nothing(tmp_path: Path) -> None:
    after = b'{"type":"compaction_start","reason":"threshold"}\n{"type":"compaction_end","willRetry":false}\n'
    reader = feed(Pi().reader(request(tmp_path)), output("pi", "good-write") + after)
    assert reader.is_final
    assert reader.result(ended()).text == "I wrote hello.txt."


def test_a_compaction_after_which_it_goes_on_is_not_the_end(tmp_path: Path) -> None:
    after = b'{"type":"compaction_start","reason":"overflow"}\n{"type":"compaction_end","willRetry":true}\n'
    assert not feed(Pi().reader(request(tmp_path)), output("pi", "good-write") + after).is_final


def test_a_finished_result_stands_however_its_process_was_ended(tmp_path: Path) -> None:
    end = ended(signal=9, stopped=AgentClass.TIMEOUT)
    assert play(Pi(), "good-write", tmp_path, end).ended is AgentClass.OK


def test_an_answer_by_a_schema_becomes_an_object(tmp_path: Path) -> None:
    result = play(Pi(), "structured", tmp_path, output_schema={"required": ["verdict"]}, **READ_ONLY)
    assert (result.ended, result.payload) == (AgentClass.OK, {"verdict": "good", "score": 7})


def test_a_complaint_before_it_begins_is_read_from_standard_error(tmp_path: Path) -> None:
    end = ended(1, stderr='Error: Model "Q/N" not found. Use --list-models to see available models.\n')
    result = Pi().reader(request(tmp_path)).result(end)
    assert (result.ended, result.permanent) == (AgentClass.TOOL_ERROR, True)


def test_updates_that_repeat_the_message_so_far_count_nothing(tmp_path: Path) -> None:
    data = output("pi", "good-write")
    lines = [line for line in data.splitlines(keepends=True) if line.startswith(b'{"type":"message_update"')]
    assert lines
    reader = feed(Pi().reader(request(tmp_path)), b"".join(lines) * 3)
    assert reader.usage is None


@pytest.mark.parametrize("case", ["good-write", "401", "structured"])
def test_events_of_other_shapes_never_raise(tmp_path: Path, case: str) -> None:
    for damaged in twisted(output("pi", case)):
        reader = feed(Pi().reader(request(tmp_path)), damaged, 65536)
        assert reader.usage is None or reader.usage.tokens > 0
        assert reader.result(ended(0, stderr=damaged.decode()[:8000])).reason


# --- logged in or not ---


def test_a_login_is_told_from_its_files_and_variables_alone(home: Path, env: dict[str, str]) -> None:
    def state(**more: str) -> str:
        return Pi().login({**env, **more}, home.parent).state

    assert state() == "yes"
    assert "canary" not in Pi().login(env, home.parent).detail
    (home / "auth.json").write_text("{}")
    assert state() == "no"
    assert state(OPENAI_API_KEY="x") == "yes"
    (home / "models.json").write_text('{"providers": {"own": {}}}')
    assert state() == "unknown"
    (home / "auth.json").write_text("{")
    assert state() == "unknown"
