import json
import time
import tracemalloc
from typing import Any

import pytest

from run_cycle_loop.agents import json_lines
from run_cycle_loop.agents.json_lines import JsonLines

EVENTS = [{"type": "a", "text": "ü\n\u2028"}, {"type": "b", "list": [{"x": 1}]}, {"type": "c"}]
LINES = b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in EVENTS)


class Taken:
    def __init__(self, longest: int = json_lines.LONGEST_LINE) -> None:
        self.events: list[Any] = []
        self.noise: list[bytes] = []
        self.lines = JsonLines(self.events.append, self.noise.append, longest=longest)

    def of(self, *chunks: bytes) -> list[Any]:
        for chunk in chunks:
            self.lines.feed(chunk)
        self.lines.close()
        return self.events


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
def test_chunks_may_break_anywhere(size: int) -> None:
    assert Taken().of(*(LINES[start : start + size] for start in range(0, len(LINES), size))) == EVENTS


def test_a_chunk_is_copied_for_its_buffer_is_used_again() -> None:
    taken, buffer = Taken(), bytearray(b'{"type":')
    taken.lines.feed(memoryview(buffer))
    buffer[:] = b"xxxxxxxx"
    assert taken.of(b' "a"}\n') == [{"type": "a"}]


def test_the_last_line_needs_no_newline_and_half_an_event_is_noise() -> None:
    assert Taken().of(b'{"a": 1}\n{"b": 2}') == [{"a": 1}, {"b": 2}]
    taken = Taken()
    assert taken.of(b'{"a": 1}\n{"b": ') == [{"a": 1}]
    assert (taken.noise, taken.lines.noise) == ([b'{"b": '], 1)


@pytest.mark.parametrize(
    "before",
    [
        b"\x1b[?25l",
        b"\x1b[38;5;1m\x1b[K",
        b"\x1b]0;a title\x07",
        b"\x1b]8;;file://x\x1b\\",
        b"\x1b]0;a title with a { brace\x07",
        b"\x1bc",
        b"\r  ",
        b"\xef\xbb\xbf",
        b"Warning: something. ",
        b"\xff\xfe",
    ],
)
def test_what_stands_before_an_event_on_its_line_is_passed_over(before: bytes) -> None:
    assert Taken().of(before + b'{"type": "a"}\r\n') == [{"type": "a"}]


def test_escape_codes_behind_an_event_are_passed_over_too() -> None:
    assert Taken().of(b'\x1b[1m{"type": "a"}\x1b[0m\r\n') == [{"type": "a"}]


@pytest.mark.parametrize(
    "line", [b"hello", b"[1, 2]", b'"text"', b"17", b"{", b"{]", b"}{", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\x00"]
)
def test_what_is_no_event_is_noise_and_never_an_error(line: bytes) -> None:
    taken = Taken()
    assert taken.of(line + b"\n", LINES) == EVENTS
    assert taken.lines.noise == 1


def test_empty_lines_are_nothing_at_all() -> None:
    taken = Taken()
    assert taken.of(b"\n \r\n\t\n") == []
    assert taken.lines.noise == 0


def test_half_a_surrogate_pair_comes_out_as_something_that_can_be_written_down() -> None:
    (event,) = Taken().of(b'{"text": "a\\ud83d", "\\udc00": ["\\ud83d\\ude00"]}\n')
    assert event == {"text": "a\ufffd", "\ufffd": ["\U0001f600"]}


@pytest.mark.parametrize("size", [10, 1000, 5000])
def test_a_line_that_is_too_long_is_skipped_and_counted(size: int) -> None:
    long = b'{"text": "' + b"x" * 2000 + b'"}\n'
    data = LINES + long + LINES
    taken = Taken(longest=1000)
    assert taken.of(*(data[start : start + size] for start in range(0, len(data), size))) == EVENTS * 2
    assert taken.lines.skipped == 1


def test_memory_is_bounded_by_the_longest_line() -> None:
    taken, chunk = Taken(longest=1 << 20), b"x" * 65536
    tracemalloc.start()
    for _ in range(1000):
        taken.lines.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert taken.of(b"\n", LINES) == EVENTS


def test_a_line_of_megabytes_in_small_chunks_takes_linear_time() -> None:
    def seconds(length: int) -> float:
        line = b'{"text": "' + b"x" * length + b'"}\n'
        began = time.process_time()
        assert len(Taken().of(*(line[start : start + 512] for start in range(0, len(line), 512)))) == 1
        return time.process_time() - began

    assert seconds(8 << 20) < 40 * max(seconds(1 << 20), 0.002)  # squared it would be 64 times as long


def test_values_are_read_from_events_of_any_shape() -> None:
    event = {"a": {"b": "x", "n": 3, "list": [{"y": 1}, 2, None], "usd": 0.5}}
    assert json_lines.text_at(event, "a", "b") == "x"
    assert json_lines.text_at(event, "a", "b", "c") == json_lines.text_at([], "a") == json_lines.text_at(None) == ""
    assert json_lines.count_at(event, "a", "n") == 3
    assert json_lines.objects_at(event, "a", "list") == [{"y": 1}]
    assert json_lines.object_at(event, "a", "b") == {}
    assert json_lines.price_at(event, "a", "usd") == 0.5


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None, 1 << 60, [], {}])
def test_what_is_no_count_counts_nothing(value: object) -> None:
    assert json_lines.count_at({"n": value}, "n") == 0


@pytest.mark.parametrize("value", [0, 0.0, -1, True, "3", None, float("inf"), float("nan"), 10**400])
def test_what_is_no_price_is_no_price(value: object) -> None:
    assert json_lines.price_at({"usd": value}, "usd") is None
