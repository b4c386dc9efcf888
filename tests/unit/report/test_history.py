import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.report.history import json_lines, select, table
from run_cycle_loop.report.text import Style, columns

if TYPE_CHECKING:
    from tests.unit.report.conftest import Recorded

Make = Callable[..., CycleRecord]


@pytest.fixture
def hundred(recorded: "type[Recorded]", record: Make) -> "Recorded":
    """Cycle 1 is 100 minutes old, cycle 100 one minute; every tenth failed."""
    return recorded(
        *(
            record(number, Outcome.FAILED if number % 10 == 0 else Outcome.SUCCESS, minutes_ago=101 - number)
            for number in range(1, 101)
        )
    )


def numbers(history: "Recorded", **filters: Any) -> list[int]:
    return [record.number for record in select(history, **filters)]


def test_all_records_come_oldest_first(hundred: "Recorded") -> None:
    assert numbers(hundred) == list(range(1, 101))


def test_the_tail_is_read_from_the_end(hundred: "Recorded") -> None:
    assert numbers(hundred, tail=3) == [98, 99, 100]
    assert hundred.read == 3
    assert numbers(hundred, tail=0) == []
    assert len(numbers(hundred, tail=500)) == 100


def test_only_some_outcomes(hundred: "Recorded") -> None:
    failed = {Outcome.FAILED, Outcome.LOST}
    assert numbers(hundred, outcomes=failed) == list(range(10, 101, 10))
    assert numbers(hundred, outcomes=failed, tail=2) == [90, 100]


def test_since_a_time_reads_one_record_more_than_it_shows(hundred: "Recorded", now: datetime) -> None:
    assert numbers(hundred, since=now - timedelta(minutes=5)) == [96, 97, 98, 99, 100]
    assert hundred.read == 6


def test_a_record_without_a_time_ends_nothing(recorded: "type[Recorded]", record: Make, now: datetime) -> None:
    history = recorded(record(1), record(2, finished_at="", timestamp="?"), record(3))
    assert numbers(history, since=now - timedelta(hours=1)) == [1, 2, 3]


def test_json_lines_are_the_records_in_ascii(record: Make) -> None:
    made = record(7, reason="\x1b[2J naïve \u202e")
    (line,) = json_lines([made])
    assert line.isascii()
    assert "\x1b" not in line
    assert CycleRecord.from_dict(json.loads(line)) == made


def test_the_table_fits_eighty_columns(record: Make, now: datetime) -> None:
    rows = [
        record(7, reason="done"),
        record(8, Outcome.TIMEOUT, return_code=124, duration_seconds=300, reason="no end after 5m " * 9),
        record(9, Outcome.FAILED, return_code=139, signal=11, minutes_ago=0),
        record(10, Outcome.PREREQ_FAILED, return_code=None, signal=None, finished_at="", timestamp=""),
        record(11, Outcome.FAILED, signal=64),
        record(12, Outcome.FAILED, signal=99),
    ]
    assert list(table(rows, width=80, style=Style(), now=now)) == [
        " cycle  finished        outcome          took  code    reason",
        "     7  05-17 11:57:00  success           12s  0       done",
        "     8  05-17 11:57:00  timeout            5m  124     no end after 5m no end...",
        "     9  05-17 12:00:00  failed            12s  SEGV",
        "    10                  prereq_failed     12s",
        "    11  05-17 11:57:00  failed            12s  RTMAX",
        "    12  05-17 11:57:00  failed            12s  SIG 99",
    ]


def test_a_wide_table_shows_the_year(record: Make, now: datetime) -> None:
    header, row = table([record(7)], width=120, style=Style(), now=now)
    assert "2026-05-17 11:57:00" in row
    assert header.index("outcome") == row.index("success")


@pytest.mark.parametrize("width", [1, 10, 25, 40, 60, 100, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(record: Make, now: datetime, width: int, unicode: bool) -> None:
    rows = [record(10**9, Outcome.RATE_LIMITED, reason="文字 " * 100), record(1, reason="x" * 300)]
    lines = list(table(rows, width=width, style=Style(unicode=unicode), now=now))
    assert max(map(columns, lines)) <= width


def test_nothing_in_a_reason_can_drive_the_terminal(record: Make, now: datetime) -> None:
    rows = [record(7, reason="a\x1b[2J\nb\r\x07\u202e")]
    (_, row) = table(rows, width=120, style=Style(unicode=True), now=now)
    assert row.endswith("a\\nb\\r\\x07\\u202e")


def test_a_table_is_made_while_it_is_read(hundred: "Recorded", now: datetime) -> None:
    lines = table(select(hundred), width=80, style=Style(), now=now)
    next(lines), next(lines)
    assert hundred.read == 1


def test_outcomes_are_coloured(record: Make, now: datetime) -> None:
    (_, row) = table([record(7, Outcome.FAILED)], width=80, style=Style(colour=True), now=now)
    assert "\x1b[31m" in row
