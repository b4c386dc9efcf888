import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.stores.history import JsonlHistory
from run_cycle_loop.testing import make_record
from tests.obstacles import OBSTACLES, plant


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def history(path: Path, warnings: list[str]) -> Iterator[JsonlHistory]:
    opened = JsonlHistory(path, warnings.append)
    yield opened
    opened.close()


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Writes past a size fail as on a full disk: first short, then with an error."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


def line(number: int) -> bytes:
    return json.dumps(make_record(number).as_dict()).encode() + b"\n"


def numbers(history: JsonlHistory) -> list[int]:
    return [record.number for record in history.records()]


def test_one_record_is_one_line_of_compact_json(history: JsonlHistory, path: Path) -> None:
    history.append(make_record(goal="grün\n"))
    content = path.read_bytes()
    assert content.count(b"\n") == 1
    assert "grün\\n" in content.decode()
    assert b'": ' not in content


def test_half_a_surrogate_pair_is_kept_as_an_escape(history: JsonlHistory, path: Path) -> None:
    record = make_record(control={"reason": "\ud800"})
    history.append(record)
    assert json.loads(path.read_bytes())["control"] == {"reason": "\ud800"}
    assert history.last() == record


def test_the_file_is_private(history: JsonlHistory, path: Path) -> None:
    history.append(make_record())
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("torn", [b'{"torn', b"{", b"\x00" * 4096, b"null", b"3"])
def test_a_torn_tail_is_moved_aside_before_the_next_line(
    path: Path, history: JsonlHistory, warnings: list[str], torn: bytes
) -> None:
    path.write_bytes(line(1) + torn)
    history.append(make_record(2))
    copy = path.with_name(f"history.jsonl.torn-{len(line(1))}")
    assert (numbers(history), copy.read_bytes()) == ([1, 2], torn)
    assert warnings == [f"{len(torn)} torn bytes of {path} were moved to {copy}"]


def test_a_whole_line_that_lacks_its_newline_is_kept(path: Path, history: JsonlHistory, warnings: list[str]) -> None:
    path.write_bytes(line(1) + line(2).rstrip())
    history.append(make_record(3))
    assert numbers(history) == [1, 2, 3]
    assert warnings == [f"the last line of {path} lacked its newline; it was added"]


def test_a_torn_tail_is_no_record_for_those_who_only_read(path: Path, history: JsonlHistory) -> None:
    path.write_bytes(line(1) + line(2).rstrip())
    assert (numbers(history), history.last()) == ([1], make_record(1))


@pytest.mark.parametrize(
    "damage", [b"not json\n", b"\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"status":3}\n', b"[" * 100_000 + b"\n"]
)
def test_a_damaged_line_in_the_middle_is_passed_over_and_left_where_it_is(
    path: Path, history: JsonlHistory, damage: bytes
) -> None:
    path.write_bytes(line(1) + damage + line(2))
    history.append(make_record(3))
    assert numbers(history) == [1, 2, 3]
    assert [record.number for record in history.newest_first()] == [3, 2, 1]
    assert damage in path.read_bytes()


def test_a_full_disk_leaves_no_half_line_behind(
    path: Path, history: JsonlHistory, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    history.append(make_record(1))
    with full_disk(path.stat().st_size + 50), pytest.raises(StateError, match="cannot be written"):
        history.append(make_record(2))
    assert path.read_bytes().count(b"\n") == len(path.read_bytes().splitlines()) == 1
    history.append(make_record(3))
    assert numbers(history) == [1, 3]


def test_a_history_that_was_rotated_away_is_begun_again(path: Path, history: JsonlHistory) -> None:
    history.append(make_record(1))
    path.rename(path.with_suffix(".1"))
    history.append(make_record(2))
    assert numbers(history) == [2]


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    history = JsonlHistory(tmp_path / "state" / "history.jsonl")
    history.append(make_record(1))
    history.path.unlink()
    history.path.parent.rmdir()
    history.append(make_record(2))
    history.close()
    assert numbers(history) == [2]


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_regular_file_is_neither_written_nor_read(history: JsonlHistory, path: Path, kind: str) -> None:
    victim = path.with_name("victim")
    victim.write_bytes(line(9))
    plant(kind, path, victim)
    with pytest.raises(StateError, match="free space, mend its folder, or name another"):
        history.append(make_record(1))
    with pytest.raises(StateError):
        history.prepare()
    assert (history.last(), numbers(history), victim.read_bytes()) == (None, [], line(9))


def test_to_prepare_mends_the_tail_and_appends_nothing(history: JsonlHistory, path: Path) -> None:
    path.write_bytes(line(1) + b"torn")
    history.prepare()
    assert path.read_bytes() == line(1)


def test_the_ancestors_lines_are_read_beside_ours(history: JsonlHistory, path: Path) -> None:
    old = {"timestamp": "2025-01-01T00:00:00", "status": "ok", "return_code": 1, "duration_seconds": 1}
    path.write_text(json.dumps(old) + "\n")
    history.append(make_record(1))
    assert [record.status for record in history.records()] == [Outcome.FAILED, Outcome.SUCCESS]


def test_the_last_record_of_a_long_history_is_found_from_its_end(history: JsonlHistory, path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"not a record, a hole\n")
        file.truncate(4 << 30)  # a sparse file: whoever reads it whole is still reading
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line(7))
    assert history.last() == make_record(7)
