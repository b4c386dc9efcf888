"""The processes of attempts: begun in a session of their own, found again after a crash, ended to the last one."""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from run_cycle_loop.kit import files, process_table, process_tree
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.kit.processes import LaunchError, locate
from run_cycle_loop.model.runs import ProcessMark

MARK = "AGENT_RUN_ATTEMPT"  #: the variable that all processes of an attempt carry

WORKLOAD = "workload.json"  #: in an attempt's folder: the process that its runner has started

_LARGEST = 4096
_ALL_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_SLICE = 0.1  #: seconds between two looks while an attempt is being ended


class AttemptProcess:
    """The runner of one attempt; ours, or one that an earlier engine began."""

    def __init__(self, identity: ProcessMark, mark: str, pidfd: int, *, is_child: bool) -> None:
        self.identity = identity
        self.exit_code: int | None = None  #: 128+n for signal n; None while it lives, and for one that is not ours
        self._mark = f"{MARK}={mark}".encode()
        self._pidfd = pidfd
        self._is_child = is_child

    @property
    def is_child(self) -> bool:
        """Whether its exit code can be had."""
        return self._is_child

    def fileno(self) -> int:
        """Readable when it has ended."""
        return self._pidfd

    def has_ended(self) -> bool:
        """Whether it is over; its exit code is taken on the way."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(0):
            return False
        if self._is_child and self.exit_code is None:
            with contextlib.suppress(ChildProcessError):
                found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
                if found is not None:
                    ended_itself = found.si_code == os.CLD_EXITED
                    self.exit_code = found.si_status if ended_itself else 128 + found.si_status
        return True

    def end(self, grace: float, hurry: Callable[[], bool]) -> int:
        """End it and everything it started: TERM, grace, KILL; returns how many processes not even that ended.

        Args:
            grace: seconds.
            hurry: asked ten times a second whether the grace is over at once.
        """
        if not self.has_ended():
            with contextlib.suppress(OSError):
                # To the runner alone: what it starts has sessions of its own, and hears of it by the runner.
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
            self._await(grace, hurry)
        return self.kill()

    def kill(self) -> int:
        """KILL what is left of it; returns how many processes that could not end."""
        left = process_tree.end_all(self._living)
        self.has_ended()
        return len(left)

    def _await(self, grace: float, hurry: Callable[[], bool]) -> None:
        until = time.monotonic() + grace
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        while (left := until - time.monotonic()) > 0 and not hurry():
            if poll.poll(min(left, _SLICE) * 1000):
                return

    def _living(self) -> list[ProcessId]:
        self.has_ended()  # takes a zombie of ours away
        leader = ProcessId(self.identity.pid, self.identity.start_ticks)
        return process_tree.marked(self._mark, leader=leader, pipes=())

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._pidfd)


def begin(argv: Sequence[str], env: Mapping[str, str], mark: str, log: Path) -> AttemptProcess:
    """Start a runner in a session of its own, with its output in a file, so that it outlives an engine that is killed.

    Raises:
        LaunchError: it cannot be started.
        OSError: its log cannot be opened.
    """
    env = {**env, MARK: mark}
    path = locate(argv, env)
    output = files.open_regular(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        pid = os.posix_spawn(
            path,
            list(argv),
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=_ALL_SIGNALS,
        )
    except (OSError, ValueError) as error:
        raise LaunchError(f"the runner {path!r} could not be started: {error}; see to its interpreter", 126) from error
    finally:
        os.close(output)
    pidfd = os.pidfd_open(pid)  # a child stays until we take its exit status: the pid cannot name a stranger yet
    found = process_table.stat(pid)
    ticks = found.id.start_ticks if found else 0
    identity = ProcessMark(pid=pid, start_ticks=ticks, boot_id=process_table.boot_id())
    return AttemptProcess(identity, mark, pidfd, is_child=True)


def find_again(identity: ProcessMark | None, mark: str) -> AttemptProcess | None:
    """The living runner of an attempt that an earlier engine began; None where it is gone.

    An engine that was killed between the start and its record knows no process: then it is found by its mark.
    """
    if identity is None:
        identity = _by_mark(mark)
    if identity is None or identity.boot_id != process_table.boot_id():
        return None
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    # The handle pins whoever has the pid now; only then is it safe to ask who that is.
    if process_table.identify(identity.pid) != ProcessId(identity.pid, identity.start_ticks):
        os.close(pidfd)
        return None
    return AttemptProcess(identity, mark, pidfd, is_child=False)


def end_remains(identity: ProcessMark | None, mark: str, workload: ProcessMark | None = None) -> int:
    """End what a runner that is gone left behind; returns how many processes could not be ended.

    ``workload`` is the command that the runner started: it has its own session, and may have cleared its variables.
    """
    value = f"{MARK}={mark}".encode()
    left = 0
    for one in (identity, workload):
        leader = None
        if one is not None and one.boot_id == process_table.boot_id():
            leader = ProcessId(one.pid, one.start_ticks)
        left += len(process_tree.end_all(partial(process_tree.marked, value, leader=leader, pipes=())))
    return left


def workload_in(folder: Path) -> ProcessMark | None:
    """The command that the runner of an attempt says it has started; None where it says none."""
    try:
        found = json.loads(files.read_bounded(folder / WORKLOAD, _LARGEST))
        return ProcessMark(pid=int(found["pid"]), start_ticks=int(found["startTicks"]), boot_id=str(found["bootId"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _by_mark(mark: str) -> ProcessMark | None:
    """The oldest process with that mark which leads a session: the runner, as long as it lives."""
    found = process_tree.marked(f"{MARK}={mark}".encode(), leader=None, pipes=())
    leaders = [one for one in found if (seen := process_table.stat(one.pid)) is not None and seen.session == one.pid]
    if not leaders:
        return None
    first = min(leaders, key=lambda one: one.start_ticks)
    return ProcessMark(pid=first.pid, start_ticks=first.start_ticks, boot_id=process_table.boot_id())


def me() -> ProcessMark:
    """This process."""
    found = process_table.stat(os.getpid())
    return ProcessMark(
        pid=os.getpid(), start_ticks=found.id.start_ticks if found else 0, boot_id=process_table.boot_id()
    )
