import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from run_cycle_loop.controls.lock import InstanceLock, holder, last_holder
from run_cycle_loop.kit import process_table
from run_cycle_loop.model.errors import AlreadyRunning, StateError
from run_cycle_loop.model.records import SupervisorIdentity
from run_cycle_loop.testing import make_identity
from tests.obstacles import OBSTACLES, plant

Locks = Callable[..., InstanceLock]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "run_cycle.lock"


@pytest.fixture
def lock(path: Path) -> Iterator[Locks]:
    with ExitStack() as stack:

        def make(identity: SupervisorIdentity | None = None) -> InstanceLock:
            made = InstanceLock(path, identity or make_identity())
            stack.callback(made.release)
            return made

        yield make


def this_process() -> SupervisorIdentity:
    own = process_table.identify(os.getpid())
    assert own is not None
    return make_identity(pid=own.pid, start_ticks=own.start_ticks, boot_id=process_table.boot_id())


def test_the_second_instance_is_told_who_holds_it_since_when_and_what_to_do(lock: Locks, path: Path) -> None:
    lock().acquire()
    with pytest.raises(AlreadyRunning) as caught:
        lock().acquire()
    assert str(caught.value) == (
        f"another instance (pid 4000 on box, since 2026-01-02T12:00:00.000Z) holds {path}; "
        "stop it, or choose another --state-dir"
    )


def test_a_holder_that_has_not_written_its_name_yet_is_a_holder(lock: Locks, path: Path) -> None:
    lock().acquire()
    path.write_bytes(b"")
    with pytest.raises(AlreadyRunning, match="whose name is not yet written"):
        lock().acquire()


def test_what_was_released_can_be_taken(lock: Locks) -> None:
    first = lock()
    first.acquire()
    first.release()
    lock().acquire()


def test_to_acquire_again_keeps_the_lock(lock: Locks) -> None:
    mine = lock()
    mine.acquire()
    mine.acquire()
    with pytest.raises(AlreadyRunning):
        lock().acquire()


def test_a_lock_whose_file_was_removed_is_taken_again(lock: Locks, path: Path) -> None:
    mine = lock()
    mine.acquire()
    path.unlink()
    mine.acquire()
    with pytest.raises(AlreadyRunning):
        lock().acquire()


def test_who_lost_its_file_to_another_instance_learns_of_it(lock: Locks, path: Path) -> None:
    mine, other = lock(), lock(make_identity(pid=5000))
    mine.acquire()
    path.unlink()
    other.acquire()
    with pytest.raises(AlreadyRunning, match="pid 5000"):
        mine.acquire()


def test_the_name_of_an_earlier_and_longer_holder_leaves_no_rest(lock: Locks, path: Path) -> None:
    first = lock(make_identity(host="h" * 500))
    first.acquire()
    first.release()
    lock().acquire()
    assert json.loads(path.read_bytes()) == asdict(make_identity())


def test_the_file_is_private_and_not_handed_to_children(lock: Locks, path: Path) -> None:
    lock().acquire()
    locked = [number for number in range(3, 256) if _names(number, path)]
    assert path.stat().st_mode & 0o077 == 0
    assert [os.get_inheritable(number) for number in locked] == [False]


def _names(descriptor: int, path: Path) -> bool:
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink() == path
    except OSError:
        return False


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_regular_file_is_not_taken_for_the_lock(lock: Locks, path: Path, tmp_path: Path, kind: str) -> None:
    path.parent.mkdir()
    plant(kind, path, tmp_path / "victim")
    with pytest.raises(StateError, match="cannot be taken"):
        lock().acquire()
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"pid": 1}', b"\xff", b"x" * 5000])
def test_a_damaged_lock_file_names_nobody(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert (last_holder(path), holder(path)) == (None, None)


def test_a_living_holder_is_found(lock: Locks, path: Path) -> None:
    lock(this_process()).acquire()
    assert holder(path) == this_process()


@pytest.mark.parametrize("field", ["start_ticks", "boot_id"])
def test_a_stranger_with_the_holders_pid_is_not_taken_for_it(lock: Locks, path: Path, field: str) -> None:
    changes = {"start_ticks": this_process().start_ticks + 1} if field == "start_ticks" else {"boot_id": "another boot"}
    known = asdict(this_process()) | changes
    lock(SupervisorIdentity(**known)).acquire()
    assert last_holder(path) is not None
    assert holder(path) is None


@pytest.mark.parametrize("pid", ["1", "a\0b", [1], 1.0, True, -1, "../self"])
def test_a_forged_pid_names_nobody(path: Path, pid: object) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(asdict(this_process()) | {"pid": pid}))
    assert last_holder(path) is None
    assert holder(path) is None
