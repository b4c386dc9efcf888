"""Processes found by kinship and by what they carry, and signalled without ever meeting a stranger."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from run_cycle_loop.kit import process_table, process_tree
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.supervisor import recovery
from run_cycle_loop.testing import make_running

MARK = b"RUN_CYCLE_ID=the-lost-one"
ENV = {"PATH": os.environ["PATH"]}


def said(child: subprocess.Popen[str]) -> int:
    """The number that a child prints first."""
    assert child.stdout is not None
    return int(child.stdout.readline())


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start children of the test that it ends, with all that they started."""
    started: list[subprocess.Popen[str]] = []

    def make(script: str, **env: str) -> subprocess.Popen[str]:
        argv = ["sh", "-c", script]
        started.append(subprocess.Popen(argv, env=ENV | env, stdout=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield make
    for child in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def identity(pid: int) -> ProcessId:
    found = process_table.identify(pid)
    assert found is not None
    return found


def test_a_signal_reaches_exactly_the_process_that_was_meant(start: Start) -> None:
    child = start("echo $$; exec sleep 600")
    process = identity(said(child))
    stranger = ProcessId(process.pid, process.start_ticks + 1)
    assert not process_tree.send(stranger, signal.SIGKILL)
    assert process_table.is_alive(process)
    assert process_tree.send(process, signal.SIGKILL)
    child.wait()
    assert not process_tree.send(process, signal.SIGKILL)


SCRIPTS = {
    "by the variable": ("echo $$; exec sleep 600", {"RUN_CYCLE_ID": "the-lost-one"}),
    "as a child of one that carries it": ("env -i /bin/sleep 600 & echo $!; wait", {"RUN_CYCLE_ID": "the-lost-one"}),
}


@pytest.mark.parametrize(("script", "env"), SCRIPTS.values(), ids=SCRIPTS)
def test_leftovers_are_found(start: Start, script: str, env: dict[str, str]) -> None:
    pid = said(start(script, **env))
    assert pid in [process.pid for process in process_tree.marked(MARK, leader=None, pipes=())]


def test_leftovers_are_found_by_the_leader_and_by_its_session(start: Start) -> None:
    leader = identity(said(start("sleep 600 & echo $$; wait")))
    found = process_tree.marked(b"no such mark", leader=leader, pipes=())
    assert leader in found
    assert len(found) == 2


def test_leftovers_are_found_by_the_pipe_that_they_hold() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)  # noqa: FBT003
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    os.close(write)
    found = process_tree.marked(b"no such mark", leader=None, pipes=(os.fstat(read).st_ino,))
    os.close(read)
    child.kill()
    child.wait()
    assert child.pid in [process.pid for process in found]


def test_a_later_owner_of_the_leaders_pid_is_a_stranger(start: Start) -> None:
    leader = identity(said(start("echo $$; exec sleep 600")))
    earlier = ProcessId(leader.pid, leader.start_ticks - 1)
    later = ProcessId(leader.pid, leader.start_ticks + 1)
    # A pid is given anew only when nobody is left in the session that had its name: whoever has it now is no kin.
    assert process_tree.marked(b"no such mark", leader=later, pipes=()) == []
    assert process_tree.marked(b"no such mark", leader=earlier, pipes=()) == []
    assert process_tree.marked(b"no such mark", leader=leader, pipes=()) == [leader]


def test_the_leftovers_of_a_lost_cycle_are_ended_and_counted(start: Start) -> None:
    child = start("trap '' TERM; sleep 600 & echo $$; wait", RUN_CYCLE_ID="the-lost-one")
    said(child)
    lost = make_running(cycle_id="the-lost-one", boot_id=process_table.boot_id())
    assert recovery.end_leftovers(lost) == 2
    assert child.wait() == -signal.SIGKILL
    assert recovery.end_leftovers(lost) == 0


def test_after_a_restart_of_the_machine_every_process_is_a_stranger(start: Start) -> None:
    process = identity(said(start("echo $$; exec sleep 600", RUN_CYCLE_ID="the-lost-one")))
    lost = make_running(cycle_id="the-lost-one", boot_id="another boot", leader_pid=process.pid)
    assert recovery.end_leftovers(lost) == 0
    assert process_table.is_alive(process)


def test_this_process_is_never_among_them() -> None:
    own = identity(os.getpid())
    assert own not in process_tree.marked(MARK, leader=own, pipes=())


def test_whatever_is_named_is_ended_to_the_last(start: Start) -> None:
    child = start("trap '' TERM; for n in 1 2 3; do sleep 600 & done; echo $$; wait", RUN_CYCLE_ID="the-lost-one")
    said(child)
    left = process_tree.end_all(lambda: process_tree.marked(MARK, leader=None, pipes=()))
    assert left == []
    assert process_tree.marked(MARK, leader=None, pipes=()) == []
