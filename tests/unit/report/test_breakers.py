import json
from typing import Any

import pytest

from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, BreakerState, Reset
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.policies.breakers import Thresholds, Verdict, Watch, judge
from run_cycle_loop.report import breakers as view
from run_cycle_loop.report.text import Style, columns
from run_cycle_loop.testing import NOON

NOTHING = BreakerMarks()
RESET = BreakerMarks(reset=Reset(at=timestamp(NOON), by="me on box", number=7, reason="mended"))


def _verdicts(**counted: Any) -> tuple[Verdict, ...]:
    return judge(Watch(**counted), Thresholds(), NOTHING)


def _lines(verdicts: tuple[Verdict, ...], marks: BreakerMarks = NOTHING, width: int = 100) -> list[str]:
    return list(view.render(verdicts, marks, width=width, style=Style(), now=NOON))


def test_each_breaker_has_a_line() -> None:
    assert _lines(_verdicts(same=2, short=3)) == [
        "no-progress  closed     2 cycles in a row left the same workdir, of 5",
        "storm        closed     3 cycles in a row shorter than 5.0s, of 10",
        "spending     closed     off",
    ]


def test_one_that_is_open_says_what_to_do_and_the_last_reset_is_told() -> None:
    lines = _lines(_verdicts(short=10), RESET)
    assert lines[1].startswith("storm        open ")
    assert lines[3:] == [
        "reset after cycle 7, 12:00:00, by me on box: mended",
        "have a look, then `run-cycle-loop breaker reset`",
    ]


@pytest.mark.parametrize(
    ("counted", "text", "colour"),
    [
        ({"same": 4}, None, None),
        ({"same": 5}, "no-progress is half-open: 5 cycles in a row left the same workdir, of 5; one cycle", "yellow"),
        ({"same": 6}, "no-progress is open: 6 cycles", "red"),
        ({"same": 5, "short": 10}, "storm is open: 10 cycles", "red"),
    ],
)
def test_the_status_has_a_line_for_the_gravest(counted: dict[str, int], text: str | None, colour: str | None) -> None:
    found = view.summary(_verdicts(**counted))
    if text is None:
        assert found is None
    else:
        assert found is not None
        assert found[0].startswith(text)
        assert found[1] == colour


@pytest.mark.parametrize("width", [5, 20, 40, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert all(columns(line) <= width for line in _lines(_verdicts(short=10), RESET, width))


def test_all_of_it_is_json() -> None:
    value = json.loads(json.dumps(view.as_dict(_verdicts(same=6), RESET)))
    assert value["state"] == BreakerState.OPEN
    assert value["breakers"][0]["name"] == BreakerName.NO_PROGRESS
    assert (value["reset"]["number"], value["opened"]) == (7, None)
