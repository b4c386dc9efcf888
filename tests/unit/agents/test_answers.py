from pathlib import Path

import pytest

from run_cycle_loop.agents.answers import asking_for, conclude, read_answer
from run_cycle_loop.model.enums import AgentClass
from tests.unit.agents.recordings import READ_ONLY, request

SCHEMA = {"type": "object", "required": ["verdict"], "properties": {"verdict": {"type": "string"}}}


@pytest.mark.parametrize(
    "text",
    [
        '{"verdict": "good"}',
        '\n  {"verdict": "good"}\n',
        'Here it is:\n```json\n{"verdict": "good"}\n```\nDone.',
        'First\n```\n{"verdict": "bad"}\n```\nno, rather:\n```\n{"verdict": "good"}\n```\nDone.',
        'The answer is {"verdict": "good"}.',
        'In a set {1, 2} I found {"other": {"verdict": "bad"}} and so {"verdict": "good"}',
        '```json\n{"other": 1}\n```\nbut {"verdict": "good"}',
        '{{"verdict": "good"}',
    ],
)
def test_the_object_is_found_wherever_in_the_answer_it_stands(text: str) -> None:
    assert read_answer(text, SCHEMA) == {"verdict": "good"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no JSON object"),
        ("It is good.", "holds no JSON object"),
        ('{"other": 1}', "lacks 'verdict'"),
        ('{"verdict": "go', "holds no JSON object"),
        ("{" * 1_000_000, "holds no JSON object"),
        ('{"a":' * 100_000, "holds no JSON object"),
    ],
)
def test_an_answer_without_it_says_what_is_missing(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_answer(text, SCHEMA)


def test_a_schema_that_requires_nothing_takes_any_object() -> None:
    assert read_answer("{}", {"required": "verdict"}) == {}


def test_a_prompt_that_asks_for_a_schema_ends_with_it() -> None:
    assert asking_for("Judge it.", SCHEMA).startswith("Judge it.\n\n")
    assert '"verdict"' in asking_for("Judge it.", SCHEMA)


def test_a_session_that_did_nothing_is_no_change_only_where_it_was_to_write(tmp_path: Path) -> None:
    assert conclude(request(tmp_path), "done", acted=False)[0] is AgentClass.NO_CHANGE
    assert conclude(request(tmp_path), "done", acted=True)[0] is AgentClass.OK
    assert conclude(request(tmp_path, **READ_ONLY), "done", acted=False)[0] is AgentClass.OK


def test_an_answer_without_the_object_that_was_asked_for_is_no_answer(tmp_path: Path) -> None:
    ending, reason, payload = conclude(request(tmp_path, output_schema=SCHEMA), "It is good.", acted=True)
    assert (ending, payload) == (AgentClass.TOOL_ERROR, None)
    assert "JSON object" in reason
