import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.report.text import Style, clock_time, colour_of, columns, moment, pad, span


@pytest.mark.parametrize(
    ("encoding", "able"),
    [("utf-8", True), ("UTF-8", True), ("ascii", False), ("latin-1", False), ("no-such-codec", False), (None, False)],
)
def test_the_encoding_decides_whether_unicode_is_used(encoding: str | None, able: bool) -> None:
    style = Style.for_encoding(encoding, colour=True)
    assert style.unicode is able
    assert style.colour


def test_without_colour_nothing_is_painted() -> None:
    assert Style().paint("text", "red", bold=True) == "text"
    assert re.fullmatch("\x1b\\[.*mtext\x1b\\[0m", Style(colour=True).paint("text", "red", bold=True))


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short", 10, "short"),
        ("exactly ten", 11, "exactly ten"),
        ("a bit longer", 8, "a bit l…"),
        ("文字文字", 8, "文字文字"),
        ("文字文字", 6, "文字…"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
        ("two\nlines\x1b[2J", 20, "two\\nlines"),
        ("anything", 1, "…"),
        ("anything", 0, ""),
        ("anything", -5, ""),
    ],
)
def test_foreign_text_is_cut_to_columns_on_one_line(text: str, width: int, expected: str) -> None:
    assert Style(unicode=True).fit(text, width) == expected


@pytest.mark.parametrize("width", range(8))
def test_a_terminal_without_unicode_gets_ascii_within_the_width(width: int) -> None:
    cut = Style().fit("naïve 文字", width)
    assert cut.isascii()
    assert len(cut) == width


def test_padding_counts_columns() -> None:
    assert pad("文", 4) == "文  "
    assert pad("long", 2) == "long"
    assert columns("文e\u0301") == 3


@pytest.mark.parametrize("text", [None, "", "soon", "2026-05-17T12:00:00", 7])
def test_what_says_no_time_with_a_zone_is_no_time(text: object) -> None:
    assert moment(text) is None


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_not_every_zone_can_tell_is_no_time(text: str) -> None:
    assert moment(text) is None


def test_times_are_shown_in_the_readers_zone_with_a_date_where_it_is_another_day() -> None:
    now = datetime(2026, 5, 17, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert clock_time(datetime(2026, 5, 16, 22, 30, tzinfo=UTC), now) == "00:30:00"
    assert clock_time(datetime(2026, 5, 16, 21, 30, tzinfo=UTC), now) == "2026-05-16 23:30:00"


def test_a_negative_span_is_none() -> None:
    assert span(-5) == span(0)


@pytest.mark.parametrize("outcome", Outcome)
def test_every_failure_is_red_and_only_success_is_green(outcome: Outcome) -> None:
    assert (colour_of(outcome) == "red") is outcome.is_failure
    assert (colour_of(outcome) == "green") is (outcome is Outcome.SUCCESS)
