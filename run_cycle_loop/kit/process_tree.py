"""The descendants of this process: found, signalled and ended to the last one, double-forked ones included.

Once :func:`adopt_orphans` was called, the kernel hands every orphan below this process to it, so that no daemonised
grandchild escapes (prctl(2), PR_SET_CHILD_SUBREAPER). What leaves the tree through another daemon (``at``, ``docker``,
``systemd-run``) is beyond reach.
"""

import contextlib
import ctypes
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable

from run_cycle_loop.kit import process_table
from run_cycle_loop.kit.process_table import ProcessId, Stat

_PR_SET_CHILD_SUBREAPER = 36
_NO_HANDLES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSYS})
_FREEZE_AFTER = 3  #: sweeps of KILL; what still grows then outruns them and is stopped first
_LOOKS = 200  #: empty lists in a row that are believed although the kernel says that there are children
_LOOKS_BESIDE_STRANGERS = 3  #: the same where those may be children from before
_KILL_PATIENCE = 5.0  #: seconds for the kernel to carry out KILL; beyond them a process is unkillable


def adopt_orphans() -> bool:
    """Become the parent of every orphaned descendant; False where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def send(process: ProcessId, number: int) -> bool:
    """Signal exactly this process, never one that took over its pid."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError as error:
        return error.errno in _NO_HANDLES and _send_unpinned(process, number)
    try:
        # The handle pins whoever has the pid now; only then is it safe to ask who that is.
        if process_table.identify(process.pid) != process:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _send_unpinned(process: ProcessId, number: int) -> bool:
    """The same where no handle is to be had: a look right before is then the best there is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process_table.identify(process.pid) == process:
            os.kill(process.pid, number)
            return True
    return False


class ProcessTree:
    """Every descendant of this process but those it had when the tree was made."""

    def __init__(self) -> None:
        self.leader: int | None = None  #: the pid whose exit status its supervisor collects
        self._root = os.getpid()
        self._session = os.getsid(0)
        self._groups: set[int] = set()  #: process groups of what the last walk found
        self._strangers: frozenset[int] = frozenset()
        if not _is_childless():
            self.living()  # takes the zombies away that we were handed while nobody looked (as PID 1 of a container)
            self._strangers = frozenset(process_table.children(self._root))

    def is_empty(self) -> bool:
        """Whether no descendant lives; zombies that are ours are reaped on the way."""
        return _is_childless() or not self.living()

    def living(self) -> list[ProcessId]:
        """The living descendants, parents before children; zombies that are ours are reaped on the way."""
        for _ in range(_LOOKS_BESIDE_STRANGERS if self._strangers else _LOOKS):
            found = self._listed()
            self.reap_orphans()
            if found or _is_childless():
                return found
        return []

    def _listed(self) -> list[ProcessId]:
        """What one walk finds; among processes that fork and exit meanwhile it can miss some (proc(5), children)."""
        found = []
        self._groups.clear()
        pending = [pid for pid in process_table.children(self._root) if pid not in self._strangers]
        for pid in pending:
            kin = process_table.stat(pid)
            if kin is None:
                continue
            if kin.session != self._session:
                self._groups.add(kin.group)
            if kin.is_zombie:
                self._reap(kin)
            else:
                found.append(kin.id)
            pending += process_table.children(pid)
        return found

    def _reap(self, zombie: Stat) -> None:
        """Collect an adopted orphan; never the leader."""
        if zombie.parent == self._root and zombie.id.pid != self.leader:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(zombie.id.pid, os.WNOHANG)

    def reap_orphans(self) -> None:
        """Take away the adopted orphans that have ended, lest a long cycle fill the machine's process table."""
        with contextlib.suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid == self.leader:
                    return
                os.waitpid(found.si_pid, os.WNOHANG)

    def terminate(self) -> None:
        """Ask every descendant to end; a stopped one is woken to hear it."""
        for process in self.living():
            send(process, signal.SIGTERM)
            send(process, signal.SIGCONT)

    def kill(self) -> list[ProcessId]:
        """End every descendant; returns those that the kernel could not end in five seconds."""
        return end_all(self.living, self._groups)


def _is_childless() -> bool:
    """Whether this process has no child at all, not even a zombie: then it has no descendant. One system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def end_all(living: Callable[[], list[ProcessId]], groups: Collection[int] = ()) -> list[ProcessId]:
    """KILL whatever ``living()`` names until it names nothing; returns what is left after five seconds.

    ``groups`` are the process groups of what it last named: a group is killed in one step, which a family whose members
    fork and exit faster than they can be listed does not outrun.
    """
    give_up = time.monotonic() + _KILL_PATIENCE
    sweep = 0
    while targets := living():
        if time.monotonic() > give_up:
            return targets
        if sweep >= _FREEZE_AFTER:
            _freeze(living, give_up)
            targets = living()
        for group in groups:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        for process in targets:
            send(process, signal.SIGKILL)
        if targets:
            _await_end(targets[-1])
        sweep += 1
    return []


def _freeze(living: Callable[[], list[ProcessId]], give_up: float) -> None:
    """Stop a growing tree before it is killed: the stopped keep their places, so a fork bomb runs out of room."""
    stopped: set[ProcessId] = set()
    while (fresh := set(living()) - stopped) and time.monotonic() < give_up:
        for process in fresh:
            send(process, signal.SIGSTOP)
        stopped |= fresh


def _await_end(process: ProcessId) -> None:
    """Wait until a process is gone, 20 ms at most."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.poll(20)
    os.close(handle)


def marked(mark: bytes, *, leader: ProcessId | None, pipes: Iterable[int]) -> list[ProcessId]:
    """The living processes of a cycle that another supervisor launched and did not survive.

    They are known by a variable in their environment, by the session of their leader, by an output pipe they still
    hold, or as descendants of one so known.

    Args:
        mark: ``NAME=value`` as it stands in their environment.
        leader: the first process of the cycle, where it was recorded.
        pipes: inodes of the pipes that the cycle wrote to.
    """
    own = os.getpid()
    if leader is not None and (holder := process_table.stat(leader.pid)) is not None and holder.id != leader:
        leader = None  # a stranger has its pid by now, and a pid is given anew only when its session, too, has ended
    table = {found.id.pid: found for found in process_table.every() if found.id.pid != own and not found.is_zombie}
    wanted = frozenset(pipes)
    known = {pid for pid, found in table.items() if _is_marked(found, mark, leader, wanted)}
    while grown := {pid for pid, found in table.items() if found.parent in known} - known:
        known |= grown
    return [table[pid].id for pid in sorted(known)]


def _is_marked(found: Stat, mark: bytes, leader: ProcessId | None, pipes: frozenset[int]) -> bool:
    pid = found.id.pid
    if found.id == leader:
        return True
    if leader is not None and found.session == leader.pid and found.id.start_ticks >= leader.start_ticks:
        return True
    if mark in process_table.environment(pid):
        return True
    return bool(pipes) and not pipes.isdisjoint(process_table.pipe_inodes(pid))
