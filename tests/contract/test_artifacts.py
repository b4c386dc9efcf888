import gzip
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from run_cycle_loop.model.records import ArtifactVerdict, timestamp
from run_cycle_loop.stores.archives import PlannerArchives

if TYPE_CHECKING:
    from run_cycle_loop.model.ports import Artifacts

START = datetime(2026, 5, 17, 12, 0, 0, 500_000, UTC)
END = START + timedelta(minutes=2)
DURING = START + timedelta(seconds=30)
BEFORE = START - timedelta(hours=1)


@pytest.fixture
def archives(tmp_path: Path) -> PlannerArchives:
    return PlannerArchives(str(tmp_path / "planner_digests_*.jsonl*"))


def jsonl(records: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def made_at(*moments: object) -> bytes:
    return jsonl({"timestamp": timestamp(at) if isinstance(at, datetime) else at} for at in moments)


def left(archives: PlannerArchives, path: Path, content: bytes) -> ArtifactVerdict:
    """The verdict on a cycle that left just this file."""
    mark = archives.mark()
    path.write_bytes(content)
    return archives.verify(mark, started_at=START, finished_at=END)


def packed(archives: PlannerArchives, folder: Path, content: bytes) -> ArtifactVerdict:
    return left(archives, folder / "planner_digests_1.jsonl.gz", gzip.compress(content))


def test_the_archives_are_the_port_of_the_model(archives: PlannerArchives) -> None:
    port: Artifacts = archives
    assert not port.verify(port.mark(), started_at=START, finished_at=END).fresh


# Fresh


@pytest.mark.parametrize("name", ["planner_digests_1.jsonl.gz", "planner_digests_1.jsonl"])
def test_a_new_archive_with_a_record_of_this_cycle_is_fresh(
    archives: PlannerArchives, tmp_path: Path, name: str
) -> None:
    content = made_at(BEFORE, DURING, BEFORE)
    verdict = left(archives, tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    assert verdict.fresh
    assert verdict.path == tmp_path / name


def test_an_archive_that_grew_is_fresh(archives: PlannerArchives, tmp_path: Path) -> None:
    path = tmp_path / "planner_digests_1.jsonl"
    path.write_bytes(made_at(BEFORE))
    assert left(archives, path, made_at(BEFORE, DURING)).fresh


def test_an_archive_that_was_replaced_by_one_of_the_same_size_and_time_is_fresh(
    archives: PlannerArchives, tmp_path: Path
) -> None:
    path, other = tmp_path / "planner_digests_1.jsonl", tmp_path / "draft"
    path.write_bytes(made_at(BEFORE))
    os.utime(path, ns=(1, 1))
    mark = archives.mark()
    other.write_bytes(made_at(DURING))
    os.utime(other, ns=(1, 1))
    other.rename(path)
    assert archives.verify(mark, started_at=START, finished_at=END).fresh


@pytest.mark.parametrize(
    "stamp",
    [
        "2026-05-17T12:00:30Z",
        "2026-05-17T14:00:30.5+02:00",
        "2026-05-17 12:00:30",
        "2026-05-17T12:00:00Z",  # without a fraction: up to the end of its second, which is after the start
        DURING.timestamp(),
        int(DURING.timestamp()),
        int(START.timestamp()),
        int(DURING.timestamp() * 1000),
        int(DURING.timestamp() * 1_000_000),
        timestamp(END + timedelta(minutes=4)),
    ],
)
def test_stamps_within_the_cycle(archives: PlannerArchives, tmp_path: Path, stamp: object) -> None:
    assert packed(archives, tmp_path, made_at(stamp)).fresh


@pytest.mark.parametrize("key", ["timestamp", "finished_at", "created_at", "generated_at", "time", "ts"])
def test_the_keys_of_a_records_time(archives: PlannerArchives, tmp_path: Path, key: str) -> None:
    assert packed(archives, tmp_path, jsonl([{key: timestamp(DURING)}])).fresh


def test_a_key_that_cannot_be_read_leaves_the_word_to_the_next(archives: PlannerArchives, tmp_path: Path) -> None:
    assert packed(archives, tmp_path, jsonl([{"timestamp": "soon", "ts": timestamp(DURING)}])).fresh


def test_one_good_archive_among_bad_ones_is_enough(archives: PlannerArchives, tmp_path: Path) -> None:
    mark = archives.mark()
    good = tmp_path / "planner_digests_1.jsonl"
    good.write_bytes(made_at(DURING))
    for number in range(2, 5):
        bad = tmp_path / f"planner_digests_{number}.jsonl.gz"
        bad.write_bytes(b"nothing packed")
        os.utime(bad, (4e9, 4e9))
    verdict = archives.verify(mark, started_at=START, finished_at=END)
    assert verdict.fresh
    assert verdict.path == good


# Not fresh, and why


def test_without_any_archive_there_is_none_new(archives: PlannerArchives, tmp_path: Path) -> None:
    verdict = archives.verify(archives.mark(), started_at=START, finished_at=END)
    assert not verdict.fresh
    assert verdict.path is None
    assert verdict.detail == f"no new archive matches {tmp_path}/planner_digests_*.jsonl*"


def test_an_archive_from_before_is_not_new_but_is_named(archives: PlannerArchives, tmp_path: Path) -> None:
    for number, seconds in ((1, 2000), (2, 1000)):
        path = tmp_path / f"planner_digests_{number}.jsonl"
        path.write_bytes(made_at(DURING))
        os.utime(path, (seconds, seconds))
    verdict = archives.verify(archives.mark(), started_at=START, finished_at=END)
    assert not verdict.fresh
    assert verdict.path == tmp_path / "planner_digests_1.jsonl"


def test_a_touched_archive_is_not_fresh(archives: PlannerArchives, tmp_path: Path) -> None:
    path = tmp_path / "planner_digests_1.jsonl"
    path.write_bytes(made_at(BEFORE))
    mark = archives.mark()
    os.utime(path, ns=(1, 1))
    verdict = archives.verify(mark, started_at=START, finished_at=END)
    assert not verdict.fresh
    assert "copied or touched" in verdict.detail


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no record with a time"),
        (b"\n \n", "holds no record with a time"),
        (jsonl([{"a": 1}, {"timestamp": None}]), "holds no record with a time"),
        (made_at([], {}, "1e999", float("inf"), float("nan"), 10**400, "", "soon"), "holds no record with a time"),
        (made_at(BEFORE), "copied or touched"),
        (made_at("2026-05-17T11:59:59Z"), "copied or touched"),
        (made_at("2026-05-17T12:00:00.498Z"), "copied or touched"),
        (made_at(DURING, END + timedelta(minutes=6)), "from the future"),
        (made_at("9999-12-31T23:59:59+00:00"), "from the future"),
        (made_at(DURING) + b'{"torn', "record 2 is no JSON object"),
        (made_at(DURING) + b"[1]\n", "record 2 is no JSON object"),
        (b"\xff\xfe\n", "record 1 is no JSON object"),
        (b"[" * 200_000 + b"\n", "record 1 is no JSON object"),
    ],
)
def test_what_is_no_proof_of_this_cycle(archives: PlannerArchives, tmp_path: Path, content: bytes, why: str) -> None:
    verdict = packed(archives, tmp_path, content)
    assert not verdict.fresh
    assert verdict.path == tmp_path / "planner_digests_1.jsonl.gz"
    assert why in verdict.detail


@pytest.mark.parametrize(
    "content",
    [
        made_at(DURING),
        gzip.compress(made_at(*[DURING] * 5000), 0)[:-200],
        gzip.compress(made_at(DURING))[:-8] + bytes(8),
        gzip.compress(made_at(DURING)) + b"garbage",
        b"\x1f\x8b\x08",
    ],
)
def test_a_gzip_that_cannot_be_read_to_its_end(archives: PlannerArchives, tmp_path: Path, content: bytes) -> None:
    verdict = left(archives, tmp_path / "planner_digests_1.jsonl.gz", content)
    assert not verdict.fresh
    assert "is no readable gzip at record" in verdict.detail


@pytest.mark.parametrize("line", [b"0" * (1 << 20), b"0" * (1 << 20) + b"\n"], ids=["one line", "many lines"])
def test_a_gzip_bomb_is_too_large_to_verify(archives: PlannerArchives, tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "planner_digests_1.jsonl.gz"
    mark = archives.mark()
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(made_at(DURING))
        for _ in range(300):
            file.write(line.replace(b"0", b" ") if line.endswith(b"\n") else line)
    verdict = archives.verify(mark, started_at=START, finished_at=END)
    assert not verdict.fresh
    assert "too large to verify" in verdict.detail


def test_a_true_or_false_is_no_time(archives: PlannerArchives, tmp_path: Path) -> None:
    assert "no record with a time" in packed(archives, tmp_path, b'{"ts": true}').detail


def test_links_fifos_folders_and_hidden_files_are_no_archives(archives: PlannerArchives, tmp_path: Path) -> None:
    mark = archives.mark()
    target = tmp_path / "target"
    target.write_bytes(made_at(DURING))
    (tmp_path / "planner_digests_1.jsonl").symlink_to(target)
    (tmp_path / "planner_digests_2.jsonl").mkdir()
    os.mkfifo(tmp_path / "planner_digests_3.jsonl")
    (tmp_path / ".planner_digests_4.jsonl").write_bytes(made_at(DURING))
    verdict = archives.verify(mark, started_at=START, finished_at=END)
    assert verdict.path is None
    assert "no new archive" in verdict.detail


# Where they are looked for


def test_a_pattern_may_reach_into_folders_that_come_later(tmp_path: Path) -> None:
    archives = PlannerArchives(str(tmp_path / "**" / "run-*" / "*.jsonl"))
    mark = archives.mark()
    deep = tmp_path / "a" / "b" / "run-7" / "x.jsonl"
    deep.parent.mkdir(parents=True)
    deep.write_bytes(made_at(DURING))
    assert archives.verify(mark, started_at=START, finished_at=END).path == deep


def test_a_relative_pattern_is_taken_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    archives = PlannerArchives("*.jsonl")
    assert left(archives, tmp_path / "x.jsonl", made_at(DURING)).fresh


def test_only_what_is_new_is_opened(archives: PlannerArchives, tmp_path: Path) -> None:
    """Old archives that could not be read are not even noticed."""
    for number in range(300):
        (tmp_path / f"planner_digests_{number}.jsonl.gz").write_bytes(b"damaged")
    verdict = archives.verify(archives.mark(), started_at=START, finished_at=END)
    assert "no new archive" in verdict.detail
