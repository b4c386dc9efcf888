"""What every folder of cycle logs promises to the loop; what the real one adds is in test_cycle_logs.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from run_cycle_loop.kit.redact import Redactor
from run_cycle_loop.model.ports import CycleLogs
from run_cycle_loop.stores.cycle_logs import CycleLogFolder
from run_cycle_loop.testing import NOON, InMemoryCycleLogs

FOLDERS: dict[str, Callable[[Path], CycleLogs]] = {
    "folder": lambda path: CycleLogFolder(path / "logs", max_bytes=1 << 20, keep=0, redactor=Redactor([])),
    "memory": lambda _path: InMemoryCycleLogs(),
}


@pytest.fixture(params=FOLDERS)
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> CycleLogs:
    make = FOLDERS[request.param]
    return make(tmp_path)


def test_no_two_cycles_share_a_log(logs: CycleLogs) -> None:
    paths = [logs.open(number, NOON).path for number in (1, 1, 2)]
    assert None not in paths
    assert len(set(paths)) == 3


def test_each_stream_has_its_own_tail_of_twenty_lines(logs: CycleLogs) -> None:
    log = logs.open(1, NOON)
    log.write("stdout", "".join(f"{number}\n" for number in range(30)).encode())
    log.write("stderr", memoryview(b"wrong"))
    log.note("a note is in no tail")
    assert log.tail("stdout").split("\n") == [str(number) for number in range(10, 30)]
    assert log.tail("stderr") == "wrong"


def test_a_chunk_is_copied_while_it_is_valid(logs: CycleLogs) -> None:
    log, buffer = logs.open(1, NOON), bytearray(b"mine\n")
    log.write("stdout", memoryview(buffer))
    buffer[:] = b"gone\n"
    assert log.tail("stdout") == "mine"


def test_what_is_no_text_can_be_shown(logs: CycleLogs) -> None:
    log = logs.open(1, NOON)
    log.write("stderr", b"\xff\xfe\n")
    assert log.tail("stderr") == "\ufffd\ufffd"


def test_to_close_twice_is_to_close_once(logs: CycleLogs) -> None:
    log = logs.open(1, NOON)
    log.close()
    log.close()
