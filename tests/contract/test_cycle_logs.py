import os
import random
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from run_cycle_loop.kit.redact import Redactor
from run_cycle_loop.stores.cycle_logs import CycleLogFile, CycleLogFolder, log_names, log_order, recover
from run_cycle_loop.stores.head_and_tail import segment_paths

if TYPE_CHECKING:
    from run_cycle_loop.model.ports import CycleLog, CycleLogs

NOON = datetime(2026, 5, 17, 12, 0, 0, 250_000, UTC)
SECRET = "hunter2-hunter3"

Limit = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def folder(tmp_path: Path) -> CycleLogFolder:
    return CycleLogFolder(tmp_path / "logs", max_bytes=1 << 20, keep=0, redactor=Redactor([SECRET]))


@pytest.fixture
def small(tmp_path: Path) -> CycleLogFolder:
    """Logs of 400 bytes: a head of 200, two segments of 100."""
    return CycleLogFolder(tmp_path / "logs", max_bytes=400, keep=0, redactor=Redactor([SECRET]))


@pytest.fixture
def full_disk() -> Iterator[Limit]:
    """Writes past a size fail as on a full disk: first short, then with an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(log: CycleLogFile) -> bytes:
    assert log.path is not None
    return Path(log.path).read_bytes()


def numbered(count: int) -> bytes:
    return b"".join(b"%06d\n" % number for number in range(count))


def test_the_folder_is_the_port_of_the_model(folder: CycleLogFolder) -> None:
    port: CycleLogs = folder
    log: CycleLog = port.open(1, NOON)
    log.write("stdout", b"x\n")
    log.close()
    assert log.tail("stdout") == "x"


# Names, modes, the folder


def test_a_log_is_named_by_its_second_in_utc_and_its_cycle(folder: CycleLogFolder) -> None:
    local = NOON.astimezone(timezone(timedelta(hours=2)))
    assert folder.open(7, local).path == str(folder.directory / "20260517T120000Z-7.log")


def test_two_logs_never_share_a_file(folder: CycleLogFolder) -> None:
    names = [Path(log.path).name for log in (folder.open(7, NOON) for _ in range(3)) if log.path]
    assert names == ["20260517T120000Z-7.log", "20260517T120000Z-7-2.log", "20260517T120000Z-7-3.log"]
    assert log_names(folder.directory) == names


def test_folder_and_file_are_for_this_user_alone(folder: CycleLogFolder) -> None:
    before = os.umask(0)
    try:
        log = folder.open(1, NOON)
    finally:
        os.umask(before)
    assert log.path
    assert stat.S_IMODE(Path(log.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.directory.stat().st_mode) == 0o700


def test_the_folder_is_made_again_when_a_cycle_removed_it(folder: CycleLogFolder) -> None:
    first = folder.open(1, NOON)
    assert first.path
    Path(first.path).unlink()
    folder.directory.rmdir()
    first.write("stdout", b"into the unlinked file\n")
    first.close()
    second = folder.open(2, NOON)
    second.write("stdout", b"seen\n")
    second.close()
    assert content(second) == b"seen\n"
    assert first.error is None


def test_a_link_planted_at_the_name_is_not_followed(folder: CycleLogFolder, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("unchanged")
    folder.directory.mkdir()
    (folder.directory / "20260517T120000Z-1.log").symlink_to(victim)
    log = folder.open(1, NOON)
    log.write("stdout", b"harm\n")
    log.close()
    assert log.path == str(folder.directory / "20260517T120000Z-1-2.log")
    assert victim.read_text() == "unchanged"


def test_where_no_file_can_be_made_the_log_discards_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file stands where the folder should be")
    log = CycleLogFolder(tmp_path / "logs", max_bytes=100, keep=3, redactor=Redactor()).open(1, NOON)
    log.write("stderr", b"lost but counted\n")
    log.note("lost too")
    log.close()
    assert log.path is None
    assert str(tmp_path / "logs") in (log.error or "")
    assert log.output_bytes == 17
    assert log.tail("stderr") == "lost but counted"


def test_where_a_thousand_namesakes_exist_the_log_discards_and_says_so(folder: CycleLogFolder) -> None:
    folder.directory.mkdir()
    for name in ("1.log", *(f"1-{namesake}.log" for namesake in range(2, 1001))):
        (folder.directory / f"20260517T120000Z-{name}").touch()
    log = folder.open(1, NOON)
    assert log.path is None
    assert "1000 logs named 20260517T120000Z-1 exist" in (log.error or "")


def test_a_name_that_is_no_logs_name_has_no_order() -> None:
    with pytest.raises(ValueError, match=r"'notes\.log' is no cycle log's name"):
        log_order("notes.log")


# What is written


def test_both_streams_are_written_in_order_of_arrival(folder: CycleLogFolder) -> None:
    log = folder.open(1, NOON)
    for stream, chunk in (("stdout", b"one\n"), ("stderr", memoryview(b"two\n")), ("stdout", b"three\n")):
        log.write(stream, chunk)
    log.close()
    assert content(log) == b"one\ntwo\nthree\n"
    assert log.output_bytes == 14
    assert not log.truncated


def test_a_secret_is_hidden_where_the_streams_take_turns_in_its_midst(folder: CycleLogFolder) -> None:
    log = folder.open(1, NOON)
    for character in SECRET:
        log.write("stdout", character.encode())
        log.write("stderr", b".")
    log.close()
    assert content(log).replace(b".", b"") == b"[redacted]"
    assert log.tail("stdout") == "[redacted]"


def test_what_was_held_back_is_written_in_the_end(folder: CycleLogFolder) -> None:
    log = folder.open(1, NOON)
    log.write("stdout", b"my hunter")
    assert log.tail("stdout") == "my hunter"
    log.close()
    assert content(log) == b"my hunter"
    assert log.tail("stdout") == "my hunter"


def test_a_note_is_a_line_of_its_own_redacted_and_printable(folder: CycleLogFolder) -> None:
    log = folder.open(1, NOON)
    log.note(f"{SECRET} \x1b[2Jgone")
    log.write("stdout", b"no newline")
    log.note("ended\n")
    log.close()
    assert content(log) == b"[run-cycle-loop: [redacted] gone]\nno newline\n[run-cycle-loop: ended]\n"


def test_closing_twice_changes_nothing_and_late_output_is_only_counted(small: CycleLogFolder) -> None:
    log = small.open(1, NOON)
    log.write("stdout", numbered(200))
    log.close()
    before = content(log)
    log.close()
    log.write("stdout", b"late")
    log.note("late")
    assert content(log) == before
    assert log.output_bytes == 1404


# The cap


@pytest.mark.parametrize("size", [1, 7, 64, 99, 100, 101, 250, 5000])
@pytest.mark.parametrize("total", [0, 200, 201, 300, 400])
def test_what_fits_is_kept_whole(small: CycleLogFolder, size: int, total: int) -> None:
    data = numbered(100)[:total]
    log = small.open(1, NOON)
    for at in range(0, total, size):
        log.write("stdout", data[at : at + size])
    log.close()
    assert content(log) == data
    assert not log.truncated
    assert len(list(small.directory.iterdir())) == 1


@pytest.mark.parametrize("size", [1, 7, 64, 99, 100, 101, 200, 250, 5000])
def test_of_too_much_the_head_and_the_tail_are_kept_and_the_rest_is_counted(small: CycleLogFolder, size: int) -> None:
    data = numbered(1000)
    log = small.open(1, NOON)
    for at in range(0, len(data), size):
        log.write("stdout", data[at : at + size])
    assert log.truncated
    log.close()
    head, marker, tail = content(log)[:200], *content(log)[200:].split(b" bytes left out]\n")
    assert head == data[:200]
    assert 100 <= len(tail) <= 200
    assert data.endswith(tail)
    assert marker == b"\n[run-cycle-loop: %d" % (len(data) - 200 - len(tail))
    assert log.truncated
    assert len(list(small.directory.iterdir())) == 1


@pytest.mark.parametrize("max_bytes", range(10))
def test_the_smallest_caps_hold(tmp_path: Path, max_bytes: int) -> None:
    log = CycleLogFolder(tmp_path, max_bytes=max_bytes, keep=0, redactor=Redactor()).open(1, NOON)
    for _ in range(20):
        log.write("stdout", b"abcdefghij")
    log.close()
    assert b"bytes left out]" in content(log)
    assert len(content(log)) <= max(max_bytes, 4) + len(b"\n[run-cycle-loop: 200 bytes left out]\n")


def test_a_note_is_kept_even_where_output_is_left_out_around_it(small: CycleLogFolder) -> None:
    log = small.open(1, NOON)
    log.write("stdout", numbered(40))
    log.note("deadline passed")
    log.write("stdout", numbered(500))
    log.note("killed")
    log.close()
    lines = content(log).splitlines()
    cut = next(at for at, line in enumerate(lines) if line.endswith(b"bytes left out]"))
    assert lines.index(b"[run-cycle-loop: deadline passed]") < cut < lines.index(b"[run-cycle-loop: killed]")


def test_what_was_planted_in_the_place_of_a_segment_is_replaced_not_followed(
    small: CycleLogFolder, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("unchanged")
    log = small.open(1, NOON)
    assert log.path
    for path in segment_paths(Path(log.path)):
        path.symlink_to(victim)
    log.write("stdout", numbered(100)[:400])
    log.close()
    assert content(log) == numbered(100)[:400]
    assert victim.read_text() == "unchanged"


# Errors of the file


@pytest.mark.parametrize("limit", [0, 10, 150])
def test_a_disk_that_fills_up_ends_the_writing_but_not_the_counting(
    small: CycleLogFolder, full_disk: Limit, limit: int
) -> None:
    log = small.open(1, NOON)
    with full_disk(limit):
        for at in range(0, 700, 7):
            log.write("stdout", numbered(100)[at : at + 7])
        log.note("unheard")
        log.close()
    assert log.error
    assert log.truncated
    assert log.output_bytes == 700
    assert log.tail("stdout").endswith("000099")
    assert content(log) == numbered(100)[:limit]


def test_a_disk_that_fills_up_behind_the_head_leaves_what_was_written(small: CycleLogFolder, full_disk: Limit) -> None:
    log = small.open(1, NOON)
    log.write("stdout", numbered(100)[:200])
    with full_disk(100):
        log.write("stdout", numbered(100)[200:])
    log.close()
    assert log.error
    assert content(log)[:200] == numbered(100)[:200]
    assert (
        len(content(log)) == 200 + len("\n[run-cycle-loop: 300 bytes left out]\n") + 100 - 42
    )  # a segment begins with a header


def test_a_log_that_could_not_be_joined_is_finished_at_the_next_start(small: CycleLogFolder, full_disk: Limit) -> None:
    whole = small.open(1, NOON)
    whole.write("stdout", numbered(200))
    whole.close()
    for limit in range(200, 450, 3):
        log = small.open(2, NOON)
        log.write("stdout", numbered(200))
        with full_disk(limit):
            log.close()
        recover(small.directory)
        assert content(log) == content(whole)
        assert log.path
        Path(log.path).unlink()


# Recovery


def test_segments_of_a_dead_supervisor_are_joined(small: CycleLogFolder) -> None:
    dead = small.open(1, NOON)
    dead.write("stdout", numbered(1000))
    dead.note("the last word")
    assert recover(small.directory) == 1
    assert content(dead).endswith(b"000999\n[run-cycle-loop: the last word]\n")
    assert b"bytes left out]" in content(dead)
    assert log_names(small.directory) == os.listdir(small.directory)  # noqa: PTH208
    assert recover(small.directory) == 0


@pytest.mark.parametrize("removed", [0, 1])
def test_a_death_while_the_segments_are_being_removed_doubles_nothing(small: CycleLogFolder, removed: int) -> None:
    for rounds in (1000, 1014, 1030):
        log = small.open(1, NOON)
        log.write("stdout", numbered(rounds))
        assert log.path
        segments = sorted(segment_paths(Path(log.path)), key=lambda path: path.read_bytes())  # the oldest first
        copies = [path.with_name(f"{path.name}.copy") for path in segments]
        for path, copy in zip(segments, copies, strict=True):
            copy.hardlink_to(path)
        log.close()
        joined = content(log)
        for path, copy in list(zip(segments, copies, strict=True))[: 2 - removed]:
            copy.rename(path)
        assert recover(small.directory) == 1
        assert content(log) == joined
        assert not any(path.exists() for path in segments)


def test_segments_without_their_log_and_segments_never_begun_are_removed(small: CycleLogFolder) -> None:
    log = small.open(1, NOON)
    log.write("stdout", numbered(30))
    assert log.path
    for segment in segment_paths(Path(log.path)):
        segment.write_bytes(b"0000")
    for segment in segment_paths(small.directory / "20260517T120000Z-2.log"):
        segment.write_bytes(b"")
    assert recover(small.directory) == 2
    assert content(log) == numbered(30)[:200]
    assert log_names(small.directory) == os.listdir(small.directory)  # noqa: PTH208


def test_recovery_follows_no_links_and_touches_no_foreign_names(small: CycleLogFolder, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("unchanged")
    small.directory.mkdir()
    log = small.directory / "20260517T120000Z-1.log"
    log.symlink_to(victim)
    segment_paths(log)[0].write_bytes(b"%020d %b\nharm" % (0, b"-" * 20))
    foreign = small.directory / "notes.tail-a"
    foreign.write_text("mine")
    assert recover(small.directory) == 0
    assert victim.read_text() == "unchanged"
    assert foreign.read_text() == "mine"


def test_recovery_of_a_folder_that_does_not_exist_is_nothing(tmp_path: Path) -> None:
    assert recover(tmp_path / "none") == 0


# How many are kept


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(1, 8):
        (tmp_path / f"20260516T12000{number}Z-{number}.log").touch()
    folder = CycleLogFolder(tmp_path, max_bytes=100, keep=3, redactor=Redactor())
    for number in (8, 9):
        folder.open(number, NOON).close()
    assert [name.split("-")[1] for name in log_names(tmp_path)] == ["7.log", "8.log", "9.log"]


def test_zero_keeps_all(folder: CycleLogFolder) -> None:
    for number in range(5):
        folder.open(number, NOON).close()
    assert len(log_names(folder.directory)) == 5


def test_what_is_no_log_of_ours_is_never_removed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    foreign = ["notes.log", "20260516T120000Z-1.log.gz", "latest.json", "x20260516T120000Z-1.log"]
    for name in foreign:
        (tmp_path / name).touch()
    (tmp_path / "20260516T120000Z-2.log").symlink_to(target)
    (tmp_path / "20260516T120000Z-3.log").mkdir()
    folder = CycleLogFolder(tmp_path, max_bytes=100, keep=1, redactor=Redactor())
    folder.open(4, NOON).close()
    folder.open(5, NOON).close()
    assert log_names(tmp_path) == ["20260517T120000Z-5.log"]
    assert {*foreign, "target", "20260516T120000Z-2.log", "20260516T120000Z-3.log"} < set(os.listdir(tmp_path))  # noqa: PTH208


def test_the_log_being_written_stays_even_when_the_clock_stepped_back(tmp_path: Path) -> None:
    folder = CycleLogFolder(tmp_path, max_bytes=100, keep=2, redactor=Redactor())
    for number, started_at in ((1, NOON), (2, NOON), (3, NOON - timedelta(days=9000))):
        log = folder.open(number, started_at)
        assert log.path
        assert Path(log.path).exists()
    assert log_names(tmp_path) == ["20010925T120000Z-3.log", "20260517T120000Z-2.log"]


def test_numbers_of_one_second_sort_as_numbers(tmp_path: Path) -> None:
    for name in ("20260517T120000Z-10.log", "20260517T120000Z-9-2.log", "20260517T120000Z-9.log"):
        (tmp_path / name).touch()
    assert log_names(tmp_path) == ["20260517T120000Z-9.log", "20260517T120000Z-9-2.log", "20260517T120000Z-10.log"]


# The tail


def test_the_tail_is_the_last_twenty_lines_of_its_own_stream(folder: CycleLogFolder) -> None:
    log = folder.open(1, NOON)
    log.write("stderr", numbered(100))
    log.write("stdout", b"of the other stream\n")
    assert log.tail("stderr") == numbered(100)[-140:].decode().rstrip()
    assert log.tail("stdout") == "of the other stream"


def test_the_tail_of_one_endless_line_is_two_kilobytes_of_whole_characters(folder: CycleLogFolder) -> None:
    log = folder.open(1, NOON)
    log.write("stdout", "é".encode() * 100_000 + b".")
    assert log.tail("stdout") == "é" * 1023 + "."


def test_the_tail_is_printable_whatever_came(folder: CycleLogFolder) -> None:
    log = folder.open(1, NOON)
    log.write("stderr", b"\x1b[31mbad\x1b[0m \xff\x1b]0;title\x07\n\ttab\r\n")
    assert log.tail("stderr") == "bad \ufffd\n\ttab"


def test_a_secret_coloured_in_its_midst_is_not_made_whole_by_the_tail(folder: CycleLogFolder) -> None:
    log = folder.open(1, NOON)
    log.write("stderr", f"{SECRET[:5]}\x1b[31m{SECRET[5:]}\n".encode())
    assert log.tail("stderr") == "[redacted]"


def test_random_output_is_cut_the_same_however_it_comes(small: CycleLogFolder) -> None:
    """Kept bytes depend on chunk sizes only in where the segments end: head, order and count always agree."""
    rng = random.Random(20260517)
    data = numbered(700)
    for number in range(50):
        log = small.open(number, NOON)
        at = 0
        while at < len(data):
            size = rng.choice([1, 10, 100, 1000])
            log.write("stdout", data[at : at + size])
            at += size
        log.close()
        head, _, rest = content(log).partition(b"\n[run-cycle-loop: ")
        left_out, _, tail = rest.partition(b" bytes left out]\n")
        assert head == data[:200]
        assert data.endswith(tail)
        assert len(head) + int(left_out) + len(tail) == len(data)
