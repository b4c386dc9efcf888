from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.policies.consent import fold
from run_cycle_loop.report.consent import state_of, summary, table
from run_cycle_loop.report.text import Style
from run_cycle_loop.testing import NOON


def entry(event: str, **facts: Any) -> Mapping[str, Any]:
    return {"event": event, "timestamp": timestamp(NOON), "grant": "g", **facts}


GRANT = entry("grant", until=timestamp(NOON + timedelta(hours=9)), reason="nightly refactor", max_cycles=40)
LATER = NOON + timedelta(hours=20)


def broken() -> Iterator[Mapping[str, Any]]:
    yield GRANT
    raise StateError("consent audit x is broken at line 2: why")


def test_one_line_tells_until_when_and_how_much_is_used() -> None:
    assert summary([GRANT], NOON) == ("until 21:00 (in 9h), 0 of 40 cycles used: nightly refactor", None)


def test_nothing_is_said_where_nothing_was_granted() -> None:
    assert summary([], NOON) is None


def test_what_is_over_is_said_with_the_next_step() -> None:
    line, _ = summary([GRANT], LATER) or ("", None)
    assert line.startswith("none, consent g expired at 2026-01-02 21:00; run-cycle-loop consent grant ")


def test_a_broken_audit_is_said_with_its_line() -> None:
    line, _ = summary(broken(), NOON) or ("", None)
    assert "is broken at line 2" in line
    assert line.endswith("`run-cycle-loop consent verify`")


@pytest.mark.parametrize(
    ("more", "hours", "state"),
    [
        ((), 1, "live"),
        ((), 20, "expired"),
        ((), -1, "doubt"),
        ((entry("revoke", reason="enough"),), 1, "revoked"),
        (tuple(entry("cycle", cycle_id=str(number)) for number in range(40)), 1, "used"),
    ],
)
def test_a_state_is_one_word(more: tuple[Mapping[str, Any], ...], hours: int, state: str) -> None:
    (grant,) = fold([GRANT, *more]).grants
    assert state_of(grant, NOON + timedelta(hours=hours)) == state


@pytest.mark.parametrize("width", [20, 40, 80, 100])
def test_the_table_fits_any_width(width: int) -> None:
    grants = fold([{**GRANT, "reason": "a\x1b[2J" + "x" * 200}]).grants
    lines = list(table(grants, width=width, style=Style(), now=NOON))
    assert all(len(line) <= width for line in lines)
    assert "\x1b" not in "".join(lines)
