"""The payload of an iteration, from a Job's annotation and from the file itself."""

import pytest

from run_cycle_loop.agentrun.lifecycle.control import MISSING, Control, from_annotation, from_file

PATH = "/workspace/.agentrun/loop-control.json"


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_nothing_is_missing(text: str | None) -> None:
    assert from_annotation(text, PATH) == from_file(text, PATH) == MISSING


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("{}", {}),
        ('{"continue": true}', {"continue": True}),
        (f'{{"{PATH}": {{"continue": false}}}}', {"continue": False}),
        (f'{{"{PATH}x": {{"a": 1}}}}', {f"{PATH}x": {"a": 1}}),
    ],
)
def test_the_object_under_the_path_is_the_payload_of_an_annotation(text: str, payload: dict[str, object]) -> None:
    assert from_annotation(text, PATH) == Control(payload=payload)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "invalid loop control annotation JSON"),
        ("[]", "must be a JSON object"),
        ("3", "must be a JSON object"),
        (f'{{"{PATH}": []}}', f"payload at {PATH} must be a JSON object"),
        ("[" * 100_000, "invalid loop control annotation JSON"),
    ],
)
def test_what_is_no_payload_says_why(text: str, words: str) -> None:
    found = from_annotation(text, PATH)
    assert found.payload is None
    assert words in found.fault
    assert len(found.fault) < 400


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "null"])
def test_a_file_that_holds_no_object_is_invalid(text: str) -> None:
    assert PATH in from_file(text, PATH).fault


def test_a_file_is_the_payload_itself() -> None:
    text = f'{{"{PATH}": {{"a": 1}}}}'
    assert from_file(text, PATH).payload == {PATH: {"a": 1}}


@pytest.mark.parametrize("depth", [99, 100, 400])
def test_a_payload_that_nests_too_deep_to_be_read_again_is_invalid(depth: int) -> None:
    text = f'{{"a": {"[" * depth}{"]" * depth}}}'
    for found in (from_file(text, PATH), from_annotation(text, PATH), from_annotation(f'{{"{PATH}": {text}}}', PATH)):
        assert (found.payload is None, "nests deeper than 100 levels" in found.fault) == (depth >= 100, depth >= 100)
