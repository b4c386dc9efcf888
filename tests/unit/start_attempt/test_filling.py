"""Templates as the runner fills them in: everything but the environment."""

import time

import pytest

from run_cycle_loop.start_attempt.filling import fill, names_environment

CONTEXT = {"inputs": {"stage": "build", "trap": "{{env.SECRET}}"}, "run": {"prompt": "x"}}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("{{inputs.stage}} {{ inputs.stage }}", "build build"),
        ("{{nothing.here}}!", "!"),
        ("{{env.SECRET}}", "{{env.SECRET}}"),
        ("{{ env.SECRET }}-{{inputs.stage}}", "{{ env.SECRET }}-build"),
        ("{{env}}", "{{env}}"),
        ("{{environment}}", ""),
        ("{{inputs.trap}}", "{{env.SECRET}}"),  # what a value brings along is not looked at again
    ],
)
def test_a_text_is_filled_in(text: str, filled: str) -> None:
    assert fill(text, CONTEXT) == filled


@pytest.mark.parametrize(("text", "named"), [("{{env.A}}", True), ("{{ env }}", True), ("{{inputs.env}}", False)])
def test_the_environment_is_known_when_it_is_named(text: str, named: bool) -> None:
    assert names_environment(text) is named


def test_a_text_full_of_marks_that_are_never_closed_is_filled_in_at_once() -> None:
    text = "{{env." * 20_000
    began = time.monotonic()
    assert (fill(text, {}), names_environment(text)) == (text, False)
    assert time.monotonic() - began < 5
