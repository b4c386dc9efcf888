import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from run_cycle_loop.kit import lines

BLOCK = 1 << 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines"


@pytest.fixture
def reader(path: Path) -> Iterator[int]:
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a\n", [b"a"]),
        (b"a\nb\n", [b"b", b"a"]),
        (b"a\n\nb\n", [b"b", b"", b"a"]),
        (b"a\ntorn", [b"a"]),
        (b"torn", []),
    ],
)
def test_complete_lines_come_last_first(path: Path, reader: int, content: bytes, expected: list[bytes]) -> None:
    path.write_bytes(content)
    assert list(lines.newest_first(reader)) == expected


@pytest.mark.parametrize("length", [1, 7, BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_block_boundaries_do_not_show(path: Path, reader: int, length: int) -> None:
    expected = [bytes([65 + number]) * length for number in range(5)]
    path.write_bytes(b"".join(line + b"\n" for line in expected))
    assert list(lines.newest_first(reader)) == expected[::-1]


def test_reading_starts_where_it_is_told(path: Path, reader: int) -> None:
    path.write_bytes(b"a\nb\nc\n")
    assert list(lines.newest_first(reader, end=4)) == [b"b", b"a"]


def test_a_line_beyond_all_measure_is_passed_over(path: Path, reader: int) -> None:
    with path.open("wb") as file:
        file.write(b"first\n")
        file.truncate((9 << 20) + 6)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    found = list(lines.newest_first(reader))
    assert (found[0], found[-1]) == (b"last", b"first")
    assert max(map(len, found)) < 9 << 20


@pytest.mark.parametrize(
    ("content", "torn"),
    [
        (b"", (0, b"")),
        (b"a\n", (2, b"")),
        (b"a\nto", (2, b"to")),
        (b"torn", (0, b"torn")),
        (b"a\n" + b"x" * 2 * BLOCK, (2, b"x" * 2 * BLOCK)),
    ],
)
def test_a_torn_tail_is_found(path: Path, reader: int, content: bytes, torn: tuple[int, bytes]) -> None:
    path.write_bytes(content)
    begin = lines.torn_tail(reader)
    assert (begin, content[begin:]) == torn


def test_a_line_beyond_all_measure_costs_its_length_and_no_more(path: Path, reader: int) -> None:
    with path.open("wb") as file:
        file.truncate(200 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    before = time.process_time()
    assert list(lines.newest_first(reader)) == [b"last"]
    assert time.process_time() - before < 10  # kept and copied block by block it took minutes
