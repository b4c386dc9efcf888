import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from run_cycle_loop.controls.stop_file import Sight, StopFile, disengage, engage, is_present, now_path
from run_cycle_loop.model.errors import ConfigError

PATIENT = 10.0  #: seconds that a look may take in a test; it takes none


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


OBJECTS: dict[str, Callable[[Path], object]] = {
    "empty file": Path.touch,
    "file with words": lambda path: path.write_text("please do not stop"),
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "loop of links": lambda path: path.symlink_to(path),
    "fifo": os.mkfifo,
    "socket": _socket,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run_cycle.stop"


@contextmanager
def nobody() -> Iterator[None]:
    """For root, whom no mode keeps out: another user meanwhile."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("kind", OBJECTS)
def test_whatever_stands_there_means_stop(path: Path, kind: str) -> None:
    assert not is_present(path)
    OBJECTS[kind](path)
    assert is_present(path)
    assert StopFile(path).look(PATIENT) is Sight.AFTER_CYCLE


def test_an_unreadable_parent_means_stop(path: Path) -> None:
    path.parent.chmod(0)
    with nobody():
        present = is_present(path)
    path.parent.chmod(0o700)
    assert present


@pytest.mark.parametrize("name", ["file/run_cycle.stop", "x" * 300], ids=["under a file", "name too long"])
def test_every_other_error_means_stop(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert is_present(tmp_path / name)


def test_a_folder_that_is_not_there_yet_holds_no_stop_file(tmp_path: Path) -> None:
    assert StopFile(tmp_path / "state" / "run_cycle.stop").look(PATIENT) is Sight.ABSENT


def test_its_companion_alone_means_now(path: Path) -> None:
    now_path(path).touch()
    assert StopFile(path).look(PATIENT) is Sight.NOW


def test_every_look_is_a_fresh_one(path: Path) -> None:
    stop_file = StopFile(path)
    looks = [stop_file.look(PATIENT)]
    for present in (True, False):
        path.touch() if present else path.unlink()
        looks.append(stop_file.look(PATIENT))
    assert looks == [Sight.ABSENT, Sight.AFTER_CYCLE, Sight.ABSENT]


class HungPath(type(Path())):  # type: ignore[misc] # the platform's own kind of path is only known when it runs
    """A path on a file system that does not answer."""

    answers = threading.Event()

    def lstat(self) -> os.stat_result:
        self.answers.wait()
        result: os.stat_result = super().lstat()
        return result


def test_a_file_system_that_hangs_is_not_waited_for_and_answers_later(tmp_path: Path) -> None:
    HungPath.answers.clear()
    path = tmp_path / "mounted later" / "run_cycle.stop"
    stop_file = StopFile(HungPath(path))
    assert [stop_file.look(0.001) for _ in range(3)] == [Sight.UNKNOWN] * 3
    engage(path, now=False)
    HungPath.answers.set()
    assert stop_file.look(PATIENT) is Sight.AFTER_CYCLE


def test_a_folder_that_no_disk_is_behind_is_looked_at_as_well() -> None:
    assert StopFile(Path("/proc/self/run_cycle.stop")).look(PATIENT) is Sight.ABSENT
    assert StopFile(Path("/proc/self/status")).look(PATIENT) is Sight.AFTER_CYCLE


@pytest.mark.parametrize(("now", "sight"), [(False, Sight.AFTER_CYCLE), (True, Sight.NOW)])
def test_what_is_engaged_is_seen_and_what_is_disengaged_is_not(tmp_path: Path, now: bool, sight: Sight) -> None:
    path = tmp_path / "not" / "yet" / "stop"
    engage(path, now=now)
    engage(path, now=now)
    assert StopFile(path).look(PATIENT) is sight
    assert disengage(path)
    assert StopFile(path).look(PATIENT) is Sight.ABSENT
    assert not disengage(path)


def test_to_engage_leaves_what_stands_there_as_it_is(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "victim")
    engage(path, now=False)
    assert path.is_symlink()
    assert not (tmp_path / "victim").exists()


def test_to_disengage_removes_a_link_and_not_its_target(path: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    path.symlink_to(tmp_path / "victim")
    assert disengage(path)
    assert (tmp_path / "victim").exists()


def test_a_device_is_a_kill_switch_that_nobody_removes() -> None:
    assert is_present(Path("/dev/null"))
    with pytest.raises(ConfigError, match="/dev/null is a device"):
        disengage(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
