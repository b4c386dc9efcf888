import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents.adapter import AgentResult
from run_cycle_loop.agents.command import Command
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError
from tests.unit.agents.recordings import ended, feed, request

TEMPLATE = "mytool --prompt {prompt_file} --in '{workdir}' --out={result_file}"


def test_the_template_is_split_and_then_filled(tmp_path: Path) -> None:
    scratch = tmp_path / "with blanks; and $HOME"
    scratch.mkdir()
    invocation = Command().invoke(request(scratch, template=TEMPLATE, extra_args=("-x",)), {})
    prompt, result = scratch / "command-prompt", scratch / "command-result"
    assert invocation.argv == (
        *("mytool", "--prompt", str(prompt), "--in", str(scratch / "work")),
        *(f"--out={result}", "-x"),
    )
    assert invocation.stdin is None
    assert prompt.read_text() == "Write hello.txt."


def test_without_a_prompt_file_the_prompt_is_fed_on_standard_input(tmp_path: Path) -> None:
    invocation = Command().invoke(request(tmp_path, template="mytool --model {model}", model="m 1"), {})
    assert invocation.argv == ("mytool", "--model", "m 1")
    assert invocation.stdin is not None
    assert invocation.stdin.read_text() == "Write hello.txt."


def test_braces_that_are_no_placeholder_stay(tmp_path: Path) -> None:
    template = """mytool '{"a": {}}' {{model}} ${{HOME}}"""
    assert Command().invoke(request(tmp_path, template=template), {}).argv[1:] == ('{"a": {}}', "{model}", "${HOME}")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("mytool {promt_file}", r"\{promt_file\} in '\{promt_file\}' is no placeholder"),
        ("mytool ${HOME}", "is no placeholder"),
        ("mytool {model}", "no model is set"),
        ("mytool 'open", "cannot be split"),
        ("  ", "has no command line"),
    ],
)
def test_a_template_that_cannot_be_used_is_the_operators_to_mend(tmp_path: Path, template: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Command().invoke(request(tmp_path, template=template), {})


def test_the_result_of_an_earlier_session_is_none_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "command-result").write_text("old")
    Command().invoke(request(tmp_path, template=TEMPLATE), {})
    assert Command().reader(request(tmp_path, template=TEMPLATE)).result(ended()).ended is AgentClass.TOOL_ERROR


def left(tmp_path: Path, content: str | None, exit_code: int = 0, **asked: Any) -> AgentResult:
    if content is not None:
        (tmp_path / "command-result").write_text(content)
    return Command().reader(request(tmp_path, template=TEMPLATE, **asked)).result(ended(exit_code))


@pytest.mark.parametrize(
    ("content", "exit_code", "ending", "text"),
    [
        ("It is done.", 0, AgentClass.OK, "It is done."),
        ("It is done.", 3, AgentClass.TOOL_ERROR, "It is done."),
        (None, 0, AgentClass.TOOL_ERROR, ""),
        (None, 3, AgentClass.TOOL_ERROR, ""),
        ('{"text": "Done."}', 0, AgentClass.OK, "Done."),
        ('{"text": "Done."}', 3, AgentClass.TOOL_ERROR, "Done."),
        ('{"class": "ok", "text": "Done."}', 3, AgentClass.OK, "Done."),
        ('{"class": "no_change", "text": "Nothing."}', 0, AgentClass.NO_CHANGE, "Nothing."),
        ('{"class": "auth"}', 0, AgentClass.AUTH, ""),
        ('{"class": "splendid"}', 0, AgentClass.TOOL_ERROR, ""),
        ('{"class": 7}', 0, AgentClass.TOOL_ERROR, ""),
        ('{"class": "rate_limited", "retry_at": "tomorrow"}', 0, AgentClass.TOOL_ERROR, ""),
        ('{"class": "rate_limited", "retry_at": "2026-11-26T08:00:00"}', 0, AgentClass.TOOL_ERROR, ""),
        ('{"verdict": "good"}', 0, AgentClass.OK, '{"verdict": "good"}'),
        ("429 rate limit", 0, AgentClass.OK, "429 rate limit"),
    ],
)
def test_the_class_of_the_result_decides_else_the_exit_code(
    tmp_path: Path, content: str | None, exit_code: int, ending: AgentClass, text: str
) -> None:
    result = left(tmp_path, content, exit_code)
    assert (result.ended, result.text) == (ending, text)
    assert result.reason


def test_a_result_tells_all_that_an_agent_can_tell(tmp_path: Path) -> None:
    result = left(
        tmp_path,
        json.dumps(
            {
                "class": "rate_limited",
                "reason": "the far end is tired",
                "retry_at": "2026-11-26T08:00:00+01:00",
                "usage": {"input_tokens": 10, "output_tokens": 2, "cost_usd": 0.5},
            }
        ),
    )
    assert result.retry_at == datetime(2026, 11, 26, 7, tzinfo=UTC)
    assert result.reason == "the far end is tired"
    assert result.usage is not None
    assert (result.usage.tokens, result.usage.cost_usd) == (12, 0.5)


@pytest.mark.parametrize("usage", ['{"input_tokens": -1}', '{"cost_usd": "much"}', "7", "[]"])
def test_a_usage_that_cannot_be_believed_is_none(tmp_path: Path, usage: str) -> None:
    result = left(tmp_path, f'{{"text": "Done.", "usage": {usage}}}')
    assert (result.ended, result.usage) == (AgentClass.OK, None)


def test_an_object_that_was_asked_for_is_the_answer_even_where_its_keys_are_those_of_a_result(tmp_path: Path) -> None:
    schema = {"required": ["text", "reason"]}
    result = left(tmp_path, '{"text": "a", "reason": "b"}', output_schema=schema)
    assert result.payload == {"text": "a", "reason": "b"}
    assert left(tmp_path, '{"text": "no object"}', output_schema=schema).ended is AgentClass.TOOL_ERROR


def test_without_a_result_file_the_end_of_its_output_is_the_answer(tmp_path: Path) -> None:
    reader = Command().reader(request(tmp_path, template="mytool"))
    reader.feed("stderr", b"noise")
    result = feed(reader, b"x" * 200_000 + b"the end").result(ended())
    assert result.text.endswith("xthe end")
    assert len(result.text) == 64 << 10


def test_what_we_ended_is_what_we_ended_it_for_whatever_it_left(tmp_path: Path) -> None:
    (tmp_path / "command-result").write_text('{"class": "ok"}')
    reader = Command().reader(request(tmp_path, template=TEMPLATE))
    assert reader.result(ended(signal=15, stopped=AgentClass.TIMEOUT)).ended is AgentClass.TIMEOUT


def test_a_result_that_is_no_file_of_bounded_size_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    (tmp_path / "command-result").symlink_to(tmp_path / "secret")
    result = left(tmp_path, None)
    assert (result.ended, result.text) == (AgentClass.TOOL_ERROR, "")
    (tmp_path / "command-result").unlink()
    assert left(tmp_path, "x" * (5 << 20)).ended is AgentClass.TOOL_ERROR
