import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from run_cycle_loop.kit.redact import Redactor
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.report.logs import find_log, follow, for_terminal, read
from run_cycle_loop.stores.cycle_logs import CycleLogFolder

if TYPE_CHECKING:
    from tests.unit.report.conftest import Recorded

Make = Callable[..., CycleRecord]


@pytest.fixture
def folder(tmp_path: Path) -> CycleLogFolder:
    """Logs of 400 bytes: a head of 200, two segments of 100."""
    return CycleLogFolder(tmp_path / "logs", max_bytes=400, keep=0, redactor=Redactor())


class Script:
    """Stands for the passing of time: each wait takes the next step of a script."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps: Iterator[Callable[[], object]] = iter(steps)
        self.waited: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)
        next(self._steps, self._end)()

    @staticmethod
    def _end() -> None:
        raise KeyboardInterrupt


def followed(folder: CycleLogFolder, log: Path | None, script: Script) -> bytes:
    out = b""
    with suppress(KeyboardInterrupt):
        for block in follow(folder.directory, log, wait=script):
            out += block
    return out


# Finding


def test_a_log_is_found_by_word_number_and_id(
    folder: CycleLogFolder, recorded: "type[Recorded]", record: Make, now: datetime
) -> None:
    first, second, again = (Path(folder.open(number, now).path or "") for number in (9, 10, 9))
    history = recorded(record(9, log_path=str(first)), record(10, log_path=str(second)), record(11))
    assert find_log(folder.directory, "latest", history) == second
    assert find_log(folder.directory, "9", history) == again
    assert find_log(folder.directory, "id-9", history) == first
    for unknown in ("8", "id-8", "id-11", "", "-1", "../../etc/passwd"):
        assert find_log(folder.directory, unknown, history) is None


def test_in_an_empty_folder_there_is_no_log(folder: CycleLogFolder, recorded: "type[Recorded]") -> None:
    assert find_log(folder.directory, "latest", recorded()) is None


def test_a_forged_record_leads_to_no_other_file(
    folder: CycleLogFolder, recorded: "type[Recorded]", record: Make, now: datetime, tmp_path: Path
) -> None:
    folder.open(1, now)
    (tmp_path / "private").write_text("private")
    link = folder.directory / "20260517T120000Z-2.log"
    link.symlink_to(tmp_path / "private")
    history = recorded(record(2, log_path=str(link)), record(3, log_path=str(tmp_path / "private")))
    for which in ("2", "id-2", "id-3"):
        assert find_log(folder.directory, which, history) is None
    with pytest.raises(OSError, match="symbolic links"):
        list(read(link))


# Reading


def test_a_finished_log_is_read_as_it_stands(folder: CycleLogFolder, now: datetime) -> None:
    log = folder.open(1, now)
    log.write("stdout", b"\x1b[31mraw\xff\n")
    log.close()
    assert log.path
    assert b"".join(read(Path(log.path))) == b"\x1b[31mraw\xff\n"


def test_of_a_cycle_still_running_the_newest_output_is_read_too(folder: CycleLogFolder, now: datetime) -> None:
    log = folder.open(1, now)
    log.write("stdout", b"".join(b"%06d\n" % number for number in range(500)))
    assert log.path
    while_running = b"".join(read(Path(log.path)))
    log.close()
    assert while_running == b"".join(read(Path(log.path)))
    assert while_running.endswith(b"000499\n")


# Following


def test_a_growing_log_is_followed(folder: CycleLogFolder, now: datetime) -> None:
    log = folder.open(1, now)
    log.write("stdout", b"one\n")
    script = Script(
        lambda: log.write("stdout", b"two\n"),
        lambda: None,
        lambda: log.write("stderr", b"three\n"),
        log.close,
    )
    assert followed(folder, Path(log.path or ""), script) == b"one\ntwo\nthree\n"
    assert set(script.waited) == {0.25}


def test_the_joined_end_of_a_log_and_the_next_cycle_follow(folder: CycleLogFolder, now: datetime) -> None:
    first = folder.open(1, now)
    data = b"".join(b"%06d\n" % number for number in range(500))

    def next_cycle() -> None:
        first.close()
        second = folder.open(2, now + timedelta(minutes=1))
        second.write("stdout", b"second\n")
        second.close()

    seen = followed(folder, Path(first.path or ""), Script(lambda: first.write("stdout", data), next_cycle))
    assert first.path
    assert seen == Path(first.path).read_bytes() + b"\n==> 20260517T120100Z-2.log <==\nsecond\n"


def test_the_first_log_is_waited_for_and_none_of_several_is_missed(folder: CycleLogFolder, now: datetime) -> None:
    def quick_cycles() -> None:
        # The second one's clock had stepped back.
        for number, at in ((1, now), (2, now - timedelta(days=1)), (3, now + timedelta(seconds=1))):
            log = folder.open(number, at)
            log.write("stdout", b"%d\n" % number)
            log.close()

    seen = followed(folder, None, Script(quick_cycles))
    assert sorted(line for line in seen.split() if line.isdigit()) == [b"1", b"2", b"3"]


def test_a_log_that_is_removed_or_cut_while_followed_ends_nothing(folder: CycleLogFolder, now: datetime) -> None:
    log = folder.open(1, now)
    log.write("stdout", b"0123456789")
    assert log.path
    path = Path(log.path)

    def cut_and_grow() -> None:
        os.truncate(path, 4)

    script = Script(cut_and_grow, lambda: log.write("stdout", b"abc"), path.unlink, lambda: log.write("stdout", b"d"))
    assert followed(folder, path, script) == b"0123456789abcd"


def test_a_log_that_is_gone_already_is_as_good_as_none(folder: CycleLogFolder) -> None:
    assert followed(folder, folder.directory / "20260517T120000Z-1.log", Script()) == b""


# On a terminal


def test_a_terminal_gets_text_that_cannot_drive_it() -> None:
    blocks = [b"\x1b[31mred\x1b[0", b"m plain\r\n\tna\xc3", b"\xafve \xff\x07", b"\nno newline\x1b]0;t\x07"]
    assert "".join(for_terminal(blocks)) == "red plain\n\tnaïve \ufffd\\x07\nno newline"


def test_a_terminal_gets_a_line_as_soon_as_it_is_complete() -> None:
    lines = for_terminal(iter([b"one\ntw", b"o\n"]))
    assert next(lines) == "one\n"


def test_an_endless_line_is_shown_in_pieces_of_bounded_size() -> None:
    pieces = list(for_terminal(b"x" * 1000 for _ in range(1000)))
    assert sum(map(len, pieces)) == 1_000_000
    assert max(map(len, pieces)) < 70_000
