import json
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents.gemini import Gemini
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage
from tests.unit.agents.recordings import NOW, READ_ONLY, ended, feed, output, play, request, twisted

BASE = ("gemini", "--output-format", "stream-json", "--approval-mode")
NOISE = "Attempt 1 failed with status 429. Retrying with backoff... _ApiError: rate limit\n    at x (file.js:1:2)\n"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    own = tmp_path / "home" / ".gemini"
    own.mkdir(parents=True)
    (own / "settings.json").write_text(
        '{ // which model\n "model": {"name": "m"}, "x": "a//b /* c */", /* own */ "general": {"vimMode": true}}'
    )
    (own / "oauth_creds.json").write_text("canary")
    return own.parent


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    return {"HOME": str(home)}


# --- what is started ---


def test_the_prompt_goes_in_by_a_file_and_not_by_the_command_line(scratch: Path, env: dict[str, str]) -> None:
    prompt = "long " * 500_000
    invocation = Gemini().invoke(request(scratch, prompt=prompt), env)
    assert invocation.stdin is not None
    assert invocation.stdin.read_text() == prompt
    assert invocation.argv == (*BASE, "yolo")


def test_what_is_asked_for_has_its_places(scratch: Path, env: dict[str, str]) -> None:
    asked = request(scratch, model="m", session_id="s1", extra_args=("-e", "none"), **READ_ONLY)
    assert Gemini().invoke(asked, env).argv == (*BASE, "plan", "--model", "m", "--resume", "s1", "-e", "none")


def test_a_schema_is_asked_for_in_the_prompt(scratch: Path, env: dict[str, str]) -> None:
    invocation = Gemini().invoke(request(scratch, output_schema={"required": ["verdict"]}), env)
    assert invocation.stdin is not None
    assert "verdict" in invocation.stdin.read_text()


def test_it_is_one_process_that_trusts_its_workdir(scratch: Path, env: dict[str, str]) -> None:
    told = Gemini().invoke(request(scratch), env).env
    assert (told["GEMINI_CLI_NO_RELAUNCH"], told["GEMINI_CLI_TRUST_WORKSPACE"]) == ("true", "true")


def test_its_retries_are_off_in_a_home_of_ours_and_the_operators_stays_as_it_is(
    scratch: Path, home: Path, env: dict[str, str]
) -> None:
    before = (home / ".gemini" / "settings.json").read_text()
    invocation = Gemini().invoke(request(scratch), env)
    ours = Path(invocation.env["GEMINI_CLI_HOME"]) / ".gemini"
    assert json.loads((ours / "settings.json").read_text()) == {
        "model": {"name": "m"},
        "x": "a//b /* c */",
        "general": {"vimMode": True, "maxAttempts": 1, "enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
    }
    assert (home / ".gemini" / "settings.json").read_text() == before
    assert invocation.writes == (home / ".gemini",)


def test_a_refreshed_login_and_the_sessions_reach_the_operators_folder(
    scratch: Path, home: Path, env: dict[str, str]
) -> None:
    (home / ".env").write_text("A=1")
    ours = Path(Gemini().invoke(request(scratch), env).env["GEMINI_CLI_HOME"])
    (ours / ".gemini" / "oauth_creds.json").write_text("refreshed")
    (ours / ".gemini" / "tmp" / "session").write_text("{}")
    assert (home / ".gemini" / "oauth_creds.json").read_text() == "refreshed"
    assert (home / ".gemini" / "tmp" / "session").exists()
    assert (ours / ".env").read_text() == "A=1"


def test_the_same_scratch_folder_can_be_used_again(scratch: Path, env: dict[str, str]) -> None:
    first = Gemini().invoke(request(scratch), env)
    assert Gemini().invoke(request(scratch), env) == first


def test_a_home_that_was_moved_is_followed(scratch: Path, home: Path) -> None:
    moved = {"HOME": "/nowhere", "GEMINI_CLI_HOME": str(home)}
    assert Gemini().invoke(request(scratch), moved).writes == (home / ".gemini",)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": }', "\udcff"])
def test_settings_that_cannot_be_read_are_the_operators_to_mend(
    scratch: Path, home: Path, env: dict[str, str], content: str
) -> None:
    (home / ".gemini" / "settings.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"settings\.json"):
        Gemini().invoke(request(scratch), env)


def test_without_any_settings_it_gets_ours(scratch: Path, tmp_path: Path) -> None:
    invocation = Gemini().invoke(request(scratch), {"HOME": str(tmp_path / "fresh")})
    ours = Path(invocation.env["GEMINI_CLI_HOME"]) / ".gemini" / "settings.json"
    assert json.loads(ours.read_text())["general"]["maxAttempts"] == 1


# --- what it came to ---

FAILURES = [
    ("401", 145, AgentClass.AUTH, True),
    ("403", 147, AgentClass.AUTH, True),
    ("404", 1, AgentClass.TOOL_ERROR, True),
    ("429-always-3600-noretry", 173, AgentClass.RATE_LIMITED, False),
    ("plan-limit-noretry", 173, AgentClass.RATE_LIMITED, False),
    ("500-after-write", 244, AgentClass.TOOL_ERROR, False),
    ("refused", 1, AgentClass.TOOL_ERROR, False),
    ("cut-noretry", 0, AgentClass.TOOL_ERROR, False),
    ("empty-noretry", 0, AgentClass.TOOL_ERROR, False),
]


@pytest.mark.parametrize(("case", "code", "ending", "permanent"), FAILURES)
def test_a_failure_is_told_by_its_result_and_the_status_by_its_exit(
    scratch: Path, case: str, code: int, ending: AgentClass, permanent: bool
) -> None:
    result = play(Gemini(), case, scratch, ended(code, stderr=NOISE))
    assert (result.ended, result.permanent) == (ending, permanent)
    assert result.reason


def test_a_status_counts_where_the_message_says_nothing(scratch: Path) -> None:
    data = output("gemini", "403").replace(b"PERMISSION_DENIED", b"X").replace(b"403", b"0")
    assert feed(Gemini().reader(request(scratch)), data).result(ended(173)).ended is AgentClass.RATE_LIMITED
    assert feed(Gemini().reader(request(scratch)), data).result(ended(143)).ended is AgentClass.TOOL_ERROR


def test_the_suggested_wait_is_the_far_ends_word(scratch: Path) -> None:
    result = play(Gemini(), "429-always-3600-noretry", scratch, ended(173))
    assert result.retry_at is not None
    assert (result.retry_at - NOW).total_seconds() == 3600


def test_a_good_session_tells_its_answer_and_what_it_took(scratch: Path) -> None:
    result = play(Gemini(), "good-write", scratch, ended(0, stderr=NOISE))
    assert (result.ended, result.text, result.tool_calls) == (AgentClass.OK, "I wrote hello.txt.", 1)
    assert result.model == "gemini-2.5-pro"
    assert result.usage == Usage(
        input_tokens=2000,
        cached_input_tokens=200,
        output_tokens=400,
        reasoning_tokens=100,
        source="stats of its result",
    )


def test_what_a_session_spent_before_it_failed_is_told(scratch: Path) -> None:
    result = play(Gemini(), "500-after-write", scratch, ended(244))
    assert result.usage is not None
    assert (result.usage.tokens, result.tool_calls) == (1200, 1)


def test_answering_alone_changes_nothing(scratch: Path) -> None:
    assert play(Gemini(), "good-text", scratch).ended is AgentClass.NO_CHANGE
    assert play(Gemini(), "good-text", scratch, **READ_ONLY).ended is AgentClass.OK


def test_a_reader_that_tried_to_write_did_not_fail(scratch: Path) -> None:
    result = play(Gemini(), "read-only", scratch, **READ_ONLY)
    assert (result.ended, result.tool_failures) == (AgentClass.OK, 1)


def test_an_answer_of_a_schema_is_read(scratch: Path) -> None:
    result = play(Gemini(), "structured", scratch, output_schema={"required": ["verdict"]}, **READ_ONLY)
    assert result.payload == {"verdict": "good", "score": 7}


def test_a_loop_that_it_stopped_itself_is_no_success(scratch: Path) -> None:
    loop = b'{"type":"error","severity":"warning","message":"Loop detected, stopping execution"}\n'
    *events, last = output("gemini", "good-write").splitlines(keepends=True)
    data = b"".join([*events, loop, last])
    assert feed(Gemini().reader(request(scratch)), data).result(ended(0)).ended is AgentClass.TOOL_ERROR


@pytest.mark.parametrize(
    ("code", "ending"), [(41, AgentClass.AUTH), (55, AgentClass.PERMISSION_DENIED), (42, AgentClass.TOOL_ERROR)]
)
def test_before_it_begins_its_own_exit_codes_tell(scratch: Path, code: int, ending: AgentClass) -> None:
    result = Gemini().reader(request(scratch)).result(ended(code, stderr="It says something.\n"))
    assert result.ended is ending
    assert "It says something." in result.reason


def test_its_own_limit_of_turns_is_a_budget(scratch: Path) -> None:
    data = output("gemini", "good-text").replace(b'"status":"success"', b'"status":"error"')
    assert feed(Gemini().reader(request(scratch)), data).result(ended(53)).ended is AgentClass.BUDGET


@pytest.mark.parametrize("stopped", [AgentClass.TIMEOUT, AgentClass.INTERRUPTED, AgentClass.BUDGET])
def test_why_we_ended_it_decides_over_its_exit_0(scratch: Path, stopped: AgentClass) -> None:
    result = play(Gemini(), "kill-in-tool", scratch, ended(0, stopped=stopped))
    assert (result.ended, result.usage) == (stopped, None)


def test_exit_0_without_a_result_is_no_success(scratch: Path) -> None:
    assert play(Gemini(), "kill-in-tool", scratch, ended(0)).ended is AgentClass.TOOL_ERROR


def test_a_result_that_was_seen_stands_however_the_process_ended(scratch: Path) -> None:
    end = ended(signal=9, stopped=AgentClass.TIMEOUT)
    assert play(Gemini(), "good-write", scratch, end).ended is AgentClass.OK


def test_echoed_words_decide_nothing(scratch: Path) -> None:
    data = output("gemini", "good-write").replace(b'"I wrote "', b'"429 rate limit, API key not valid "')
    assert feed(Gemini().reader(request(scratch)), data).result(ended(0)).ended is AgentClass.OK


@pytest.mark.parametrize("case", ["good-write", "401", "read-only", "cut-noretry"])
def test_events_of_another_shape_never_raise(scratch: Path, case: str) -> None:
    for data in twisted(output("gemini", case)):
        assert feed(Gemini().reader(request(scratch)), data, 50_000).result(ended()).reason


# --- whether it is logged in ---


@pytest.mark.parametrize(
    ("name", "env", "state"),
    [
        ("nothing", {}, "no"),
        ("nothing", {"GEMINI_API_KEY": "canary"}, "yes"),
        ("nothing", {"GOOGLE_GENAI_USE_VERTEXAI": "true"}, "unknown"),
        (".gemini/oauth_creds.json", {}, "yes"),
        (".gemini/.env", {}, "unknown"),
    ],
)
def test_a_login_is_told_from_its_files_and_variables(
    tmp_path: Path, name: str, env: dict[str, Any], state: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("canary")
    login = Gemini().login(env, tmp_path)
    assert login.state == state
    assert "canary" not in login.detail
