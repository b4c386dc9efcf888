import json
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents.adapter import AgentResult
from run_cycle_loop.agents.opencode import Opencode, OpencodeReader
from run_cycle_loop.agents.opencode_log import denied_permission, stream_error
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage
from tests.unit.agents.recordings import NOW, READ_ONLY, ended, feed, output, play, request, twisted

ENV = {"HOME": "/home/op"}
LOGS = Path(__file__).parent / "recorded" / "opencode"
BASE = ("opencode", "run", "--format", "json", "--print-logs", "--log-level", "ERROR")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def reader(scratch: Path) -> OpencodeReader:
    return Opencode().reader(request(scratch))


def log(case: str, lines: int | None = None) -> bytes:
    return b"".join((LOGS / f"{case}.log").read_bytes().splitlines(keepends=True)[:lines])


def judged(reader: OpencodeReader) -> AgentResult:
    assert reader.is_final
    return reader.result(ended(0))


def settings(scratch: Path, env: dict[str, str], **asked: Any) -> dict[str, Any]:
    content = Opencode().invoke(request(scratch, **asked), env).env["OPENCODE_CONFIG_CONTENT"]
    told: dict[str, Any] = json.loads(content)
    return told


# --- what is started ---


def test_the_prompt_goes_in_by_a_file_and_not_by_the_command_line(scratch: Path) -> None:
    prompt = "long " * 500_000
    invocation = Opencode().invoke(request(scratch, prompt=prompt), ENV)
    assert invocation.stdin is not None
    assert invocation.stdin.read_text() == prompt
    assert invocation.argv == (*BASE, "--auto")


def test_what_is_asked_for_has_its_places(scratch: Path) -> None:
    asked = request(scratch, model="p/m", session_id="s1", extra_args=("--variant", "high"))
    assert Opencode().invoke(asked, ENV).argv == (
        *(*BASE, "--model", "p/m", "--session", "s1", "--auto"),
        *("--variant", "high"),
    )


def test_a_schema_is_asked_for_in_the_prompt(scratch: Path) -> None:
    invocation = Opencode().invoke(request(scratch, output_schema={"required": ["verdict"]}), ENV)
    assert invocation.stdin is not None
    assert "verdict" in invocation.stdin.read_text()


def test_a_writers_permissions_are_the_operators(scratch: Path) -> None:
    assert settings(scratch, ENV) == {"autoupdate": False, "share": "disabled"}


def test_a_reader_is_denied_everything_but_reading(scratch: Path) -> None:
    permission = settings(scratch, ENV, **READ_ONLY)["permission"]
    assert permission == {"*": "deny", "read": "allow", "glob": "allow", "grep": "allow", "list": "allow"}
    assert list(permission)[0] == "*"  # noqa: RUF015 - the last rule that fits decides: this is about the order
    assert "--auto" not in Opencode().invoke(request(scratch, **READ_ONLY), ENV).argv


def test_the_operators_settings_from_the_same_variable_stay(scratch: Path) -> None:
    env = {**ENV, "OPENCODE_CONFIG_CONTENT": '{"model": "p/m", "share": "auto"}'}
    assert settings(scratch, env) == {"model": "p/m", "autoupdate": False, "share": "disabled"}


@pytest.mark.parametrize("given", ["{", "[]", "7"])
def test_settings_that_are_none_are_the_operators_to_mend(scratch: Path, given: str) -> None:
    with pytest.raises(ConfigError, match="OPENCODE_CONFIG_CONTENT"):
        Opencode().invoke(request(scratch), {**ENV, "OPENCODE_CONFIG_CONTENT": given})


def test_it_must_be_able_to_write_its_own_folders(scratch: Path) -> None:
    writes = Opencode().invoke(request(scratch), {**ENV, "XDG_DATA_HOME": "/srv/data"}).writes
    assert [str(path) for path in writes] == [
        "/home/op/.config/opencode",
        "/srv/data/opencode",
        "/home/op/.local/state/opencode",
        "/home/op/.cache/opencode",
    ]


# --- what it came to ---


def test_a_good_session_tells_its_answer_and_what_it_took(scratch: Path) -> None:
    result = play(Opencode(), "good-write", scratch, model="p/m")
    assert (result.ended, result.text, result.tool_calls) == (AgentClass.OK, "I wrote hello.txt.", 1)
    assert (result.session_id, result.model) == ("ses_deb2cc6f4ffeudiq13221UX7NS", "p/m")
    assert result.usage == Usage(
        input_tokens=2000,
        cached_input_tokens=200,
        output_tokens=400,
        reasoning_tokens=100,
        calls=2,
        source="step_finish of each step, at opencode's own prices",
    )


def test_prices_of_its_steps_are_added(scratch: Path) -> None:
    data = output("opencode", "good-write").replace(b'"cost":0', b'"cost":0.25')
    usage = feed(Opencode().reader(request(scratch)), data).usage
    assert usage is not None
    assert usage.cost_usd == 0.5


def test_answering_alone_changes_nothing(scratch: Path) -> None:
    assert play(Opencode(), "good-text", scratch).ended is AgentClass.NO_CHANGE
    assert play(Opencode(), "good-text", scratch, **READ_ONLY).ended is AgentClass.OK


def test_a_failed_command_shows_in_the_tools_own_record(scratch: Path) -> None:
    result = play(Opencode(), "tool-exit-3", scratch)
    assert (result.ended, result.tool_calls, result.tool_failures) == (AgentClass.OK, 1, 1)


def test_an_answer_of_a_schema_is_read(scratch: Path) -> None:
    result = play(Opencode(), "structured", scratch, output_schema={"required": ["verdict"]}, **READ_ONLY)
    assert result.payload == {"verdict": "good", "score": 7}


@pytest.mark.parametrize(("case", "ending"), [("401", AgentClass.AUTH), ("404", AgentClass.TOOL_ERROR)])
def test_an_error_is_told_by_its_event(scratch: Path, case: str, ending: AgentClass) -> None:
    result = play(Opencode(), case, scratch, ended(1))
    assert (result.ended, result.permanent, bool(result.advice)) == (ending, True, True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "60"}, 60), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5), ({"retry-after": "x"}, None)],
)
def test_a_wait_is_read_from_the_servers_header(
    reader: OpencodeReader, headers: dict[str, str], seconds: float | None
) -> None:
    data = {"message": "Too many requests", "statusCode": 429, "responseHeaders": headers}
    feed(reader, json.dumps({"type": "error", "error": {"name": "APIError", "data": data}}).encode())
    result = reader.result(ended(1))
    assert result.ended is AgentClass.RATE_LIMITED
    assert (result.retry_at and (result.retry_at - NOW).total_seconds()) == seconds


def test_a_permission_that_nobody_gave_ends_it_with_exit_0(scratch: Path, reader: OpencodeReader) -> None:
    reader.feed("stderr", log("asked"))
    result = feed(reader, output("opencode", "asked")).result(ended(0))
    assert (result.ended, result.permanent) == (AgentClass.PERMISSION_DENIED, True)
    assert "external_directory" in result.reason
    assert play(Opencode(), "asked", scratch).ended is AgentClass.TOOL_ERROR  # without the notice, it just broke off


def test_an_error_from_which_it_recovered_is_none_though_it_exits_1(scratch: Path) -> None:
    data = output("opencode", "401") + output("opencode", "good-write")
    assert feed(Opencode().reader(request(scratch)), data).result(ended(1)).ended is AgentClass.OK


def test_nothing_at_all_is_no_success(reader: OpencodeReader) -> None:
    assert reader.result(ended(0)).ended is AgentClass.TOOL_ERROR


def test_a_good_end_without_a_word_is_no_success(scratch: Path) -> None:
    data = b"".join(line for line in output("opencode", "good-text").splitlines(keepends=True) if b'"text"' not in line)
    assert feed(Opencode().reader(request(scratch)), data).result(ended(0)).ended is AgentClass.TOOL_ERROR


# --- where it would go on for ever ---


@pytest.mark.parametrize("case", ["garbage", "cut"])
def test_steps_that_bring_nothing_end_it_after_twenty(reader: OpencodeReader, case: str) -> None:
    feed(reader, output("opencode", case) * 19)
    assert not reader.is_final
    feed(reader, output("opencode", case))
    assert judged(reader).ended is AgentClass.TOOL_ERROR


def test_a_step_that_brings_something_begins_the_count_anew(reader: OpencodeReader) -> None:
    feed(reader, output("opencode", "garbage") * 19 + output("opencode", "good-write"))
    feed(reader, output("opencode", "garbage") * 19)
    assert not reader.is_final


def test_a_limit_in_its_log_ends_it_at_once_for_it_may_sleep_for_hours(reader: OpencodeReader) -> None:
    reader.feed("stderr", log("429-always-3600"))
    assert judged(reader).ended is AgentClass.RATE_LIMITED


def test_a_limit_told_within_an_answer_is_one_too(reader: OpencodeReader) -> None:
    reader.feed("stderr", log("limit-in-stream", 1))
    assert judged(reader).ended is AgentClass.RATE_LIMITED


@pytest.mark.parametrize(
    ("case", "ending"),
    [("500", AgentClass.TOOL_ERROR), ("quota", AgentClass.BUDGET), ("reset", AgentClass.TOOL_ERROR)],
)
def test_another_error_ends_it_the_third_time(reader: OpencodeReader, case: str, ending: AgentClass) -> None:
    reader.feed("stderr", log(case, 2))
    assert not reader.is_final
    assert reader.last_error
    reader.feed("stderr", log(case, 1))
    result = judged(reader)
    assert result.ended is ending
    assert result.reason.startswith("AI_APICallError")


def test_a_wait_that_was_short_is_forgotten(reader: OpencodeReader) -> None:
    reader.feed("stderr", log("429-once"))
    assert reader.is_final
    feed(reader, output("opencode", "429-once"))
    assert reader.last_error == ""
    assert judged(reader).ended is AgentClass.NO_CHANGE


def test_the_stop_of_a_summary_is_not_the_end(reader: OpencodeReader) -> None:
    *first, _ = output("opencode", "overflow").splitlines(keepends=True)[:5]
    feed(reader, b"".join(first))
    assert reader.is_final
    feed(reader, output("opencode", "overflow").splitlines(keepends=True)[4])
    assert not reader.is_final


def test_overflowing_again_after_each_summary_ends_it(reader: OpencodeReader) -> None:
    feed(reader, output("opencode", "overflow"))
    result = judged(reader)
    assert result.ended is AgentClass.TOOL_ERROR
    assert "too long" in result.reason


def test_why_we_ended_it_decides_and_the_last_error_is_named(reader: OpencodeReader) -> None:
    feed(reader, output("opencode", "term-in-tool"))
    reader.feed("stderr", log("500", 1))
    result = reader.result(ended(signal=15, stopped=AgentClass.TIMEOUT))
    assert result.ended is AgentClass.TIMEOUT
    assert "Internal error" in result.reason


def test_a_good_end_that_was_seen_stands_however_the_process_ended(scratch: Path) -> None:
    end = ended(signal=9, stopped=AgentClass.TIMEOUT)
    assert play(Opencode(), "good-write", scratch, end).ended is AgentClass.OK


def test_echoed_words_decide_nothing(reader: OpencodeReader) -> None:
    feed(reader, output("opencode", "good-write").replace(b"I wrote hello.txt.", b"429 rate limit, invalid api key"))
    assert reader.result(ended(0)).ended is AgentClass.OK


# --- its log ---


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'level=ERROR message="stream error" small=false error.error="A: \\"b\\" c"', 'A: "b" c'),
        (b'level=ERROR message="stream error" small=false error.error.message="M" error.error.code=c', "M, c"),
        (b'level=ERROR message="stream error" small=true error.error="no title"', ""),
        (b'level=ERROR message="stream error" small=false', "stream error"),
        (b'level=ERROR message=process error="stream error"', ""),
        (b'level=ERROR message="stream error" error.error="' + b"\\" * 5001 + b'"', "stream error"),
        (b"plain text", ""),
    ],
)
def test_a_request_that_failed_is_found_in_its_log(line: bytes, error: str) -> None:
    assert stream_error(line)[:20] == error[:20]


def test_a_refused_permission_is_found_in_colour() -> None:
    line = b"\x1b[93m\x1b[1m! \x1b[0mpermission requested: edit (/srv/x); auto-rejecting"
    assert denied_permission(line) == "edit (/srv/x)"
    assert denied_permission(b"permission requested: edit") == ""


@pytest.mark.parametrize("case", ["good-write", "401", "asked", "tool-exit-3", "overflow"])
def test_events_of_another_shape_never_raise(scratch: Path, case: str) -> None:
    for data in twisted(output("opencode", case)):
        reader = Opencode().reader(request(scratch))
        reader.feed("stderr", data)
        assert feed(reader, data, 50_000).result(ended()).reason


# --- whether it is logged in ---


@pytest.mark.parametrize(
    ("name", "content", "env", "state"),
    [
        ("nothing", "", {}, "no"),
        ("nothing", "", {"OPENROUTER_API_KEY": "canary"}, "yes"),
        (".local/share/opencode/auth.json", '{"p": {"type": "api", "key": "canary"}}', {}, "yes"),
        (".local/share/opencode/auth.json", "{}", {}, "no"),
        (".local/share/opencode/auth.json", "{", {}, "no"),
        (".config/opencode/opencode.json", '{"provider": "canary"}', {}, "unknown"),
    ],
)
def test_a_login_is_told_from_its_files_and_variables(
    tmp_path: Path, name: str, content: str, env: dict[str, str], state: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    login = Opencode().login(env, tmp_path)
    assert login.state == state
    assert "canary" not in login.detail
