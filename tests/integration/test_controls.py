"""Signals, the kill switch and the lock between real processes; waits that others cut short."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from run_cycle_loop.controls import stop_file
from run_cycle_loop.controls.lock import InstanceLock, holder
from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.controls.stop import StopControl
from run_cycle_loop.controls.stop_file import StopFile
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.errors import AlreadyRunning
from run_cycle_loop.model.ports import Waited
from run_cycle_loop.testing import make_identity

LONG = 600.0

HOLDER = """
import os, sys
from pathlib import Path
from run_cycle_loop.app.loop import identity_of_this_process
from run_cycle_loop.controls.lock import InstanceLock
from run_cycle_loop.kit.clock import SystemClock
lock = InstanceLock(Path(sys.argv[1]), identity_of_this_process(SystemClock()))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stop"


@pytest.fixture
def control(inbox: SignalInbox, path: Path) -> Iterator[StopControl]:
    control = StopControl(inbox, StopFile(path), SystemClock())
    yield control
    control.close()


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Let something happen once the wait has begun."""
    timers: list[threading.Timer] = []

    def start(event: Callable[[], object]) -> None:
        timers.append(threading.Timer(0.05, event))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_a_wait(
    control: StopControl, meanwhile: Callable[[Callable[[], object]], None], number: signal.Signals
) -> None:
    meanwhile(lambda: os.kill(os.getpid(), number))
    assert control.wait(LONG) is Waited.STOP


def test_a_trigger_ends_a_wait(control: StopControl, meanwhile: Callable[[Callable[[], object]], None]) -> None:
    meanwhile(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    assert control.wait(LONG) is Waited.TRIGGERED


@pytest.mark.parametrize("now", [False, True])
def test_the_kill_switch_ends_a_wait(
    control: StopControl, path: Path, meanwhile: Callable[[Callable[[], object]], None], now: bool
) -> None:
    meanwhile(lambda: stop_file.engage(path, now=now))
    assert control.wait(LONG) is Waited.STOP


def test_a_kill_switch_moved_into_place_ends_a_wait(
    control: StopControl, path: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    draft = path.with_name("draft")
    draft.touch()
    meanwhile(lambda: draft.rename(path))
    assert control.wait(LONG) is Waited.STOP


def test_a_wait_beats_while_it_waits(control: StopControl, meanwhile: Callable[[Callable[[], object]], None]) -> None:
    beats = threading.Semaphore(0)
    control.listen(beat=beats.release, request=lambda _request: None)

    def stop_after_three() -> None:
        for _ in range(3):
            beats.acquire()
        os.kill(os.getpid(), signal.SIGTERM)

    meanwhile(stop_after_three)
    assert control.wait(LONG) is Waited.STOP


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    argv = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_is_between_processes_and_names_its_holder(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(AlreadyRunning, match=f"pid {other.pid} on "):
        InstanceLock(tmp_path / "lock", make_identity()).acquire()
    found = holder(tmp_path / "lock")
    assert found is not None
    assert found.pid == other.pid


def test_a_lock_dies_with_its_holder(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    assert holder(tmp_path / "lock") is None
    lock = InstanceLock(tmp_path / "lock", make_identity())
    lock.acquire()
    lock.release()
