import json
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.stores.snapshot import LatestJson
from run_cycle_loop.testing import InMemoryHistory, make_record
from tests.obstacles import OBSTACLES, plant

EMPTY = LoopSnapshot(state=LoopState.STARTING, updated_at="")
RECORDS = [make_record(1), make_record(2, Outcome.FAILED)]
COUNTED = EMPTY.counting(RECORDS[0]).counting(RECORDS[1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "latest.json"


@pytest.fixture
def latest(path: Path) -> LatestJson:
    return LatestJson(path)


def edited(**changes: Any) -> bytes:
    return json.dumps(COUNTED.as_dict() | changes).encode()


DAMAGE = {
    "empty": b"",
    "truncated": edited()[:-20],
    "binary": b"\x00\xff" * 100,
    "list": b"[]",
    "null": b"null",
    "wrong types": edited(seq="two"),
    "newer": edited(schema_version=2),
    "deep": b"[" * 200_000,
    "huge": b" " * (1 << 20) + b"{}",
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_set_aside_and_made_anew_from_the_history(
    latest: LatestJson, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    loaded = latest.load(InMemoryHistory(RECORDS))
    assert (loaded.counts, loaded.seq, loaded.consecutive_failures) == (COUNTED.counts, 2, 1)
    assert path.with_name("latest.json.corrupt-2").read_bytes() == content
    assert loaded.note.startswith("damaged latest.json was set aside as latest.json.corrupt-2 (")


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_regular_file_is_not_read(latest: LatestJson, path: Path, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(edited())
    plant(kind, path, victim)
    assert latest.load(InMemoryHistory()).seq == 0


def test_a_reader_of_a_damaged_file_is_told_why(latest: LatestJson, path: Path) -> None:
    path.write_bytes(b"[]")
    with pytest.raises(ValueError, match="it holds no object"):
        latest.read()
    assert path.exists()


def test_it_is_one_private_json_object_with_a_newline(latest: LatestJson, path: Path) -> None:
    latest.replace(COUNTED)
    assert latest.read() == COUNTED
    assert json.loads(path.read_bytes()) == COUNTED.as_dict()
    assert path.read_bytes().endswith(b"}\n")
    assert path.stat().st_mode & 0o077 == 0


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    latest = LatestJson(tmp_path / "logs" / "run_cycle" / "latest.json")
    latest.replace(COUNTED)
    assert latest.read() == COUNTED


def test_where_it_cannot_be_written_the_old_one_stands(latest: LatestJson, path: Path) -> None:
    latest.replace(COUNTED)
    path.with_name(".latest.json.tmp").mkdir()
    with pytest.raises(StateError, match="cannot be rewritten"):
        latest.replace(EMPTY)
    assert latest.read() == COUNTED


def test_only_the_missing_end_of_the_history_is_read(latest: LatestJson) -> None:
    latest.replace(COUNTED)
    history = InMemoryHistory(RECORDS)
    history.lines[0] = "whoever parses this fails"
    history.append(make_record(3))
    assert latest.load(history) == COUNTED.counting(make_record(3))
