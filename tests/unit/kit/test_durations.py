import pytest

from run_cycle_loop.kit.durations import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("300", 300.0),
        ("1.5", 1.5),
        (" 90S ", 90.0),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("2d", 172800.0),
        ("1.5h", 5400.0),
        ("1m1s500ms", 61.5),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "five",
            "5 m",
            "m",
            "5x",
            "1h-30m",
            "--5",
            "-1",
            "-5m",
            "nan",
            "inf",
            "-inf",
            "1e308",
            "3651d",
            "5m junk",
        ),
        *("1_000", "\u0663", "\uff13", "\u0663s", "\u00b2", "1e999", "0x10", "5e", "."),
    ],
)
def test_what_is_no_usable_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"no duration|no usable duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (0.16, "0.2s"),
        (9.99, "10.0s"),
        (12, "12s"),
        (59.6, "1m"),
        (60, "1m"),
        (90, "1m30s"),
        (5400, "1h30m"),
        (3661, "1h1m"),
        (187200, "2d4h"),
    ],
)
def test_a_duration_is_shown_in_two_units_at_most(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("64MiB", 64 << 20),
        ("64Mi", 64 << 20),
        ("64 mib", 64 << 20),
        ("1G", 1000**3),
        ("1k", 1000),
        ("2KB", 2000),
        ("3GiB", 3 << 30),
    ],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5G", "1T", "1 M iB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)
