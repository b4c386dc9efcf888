"""One child process from launch to the last of its descendants: supervised without polling, without a thread, and with
no more memory than one buffer, however much it prints.
"""

import contextlib
import errno
import fcntl
import functools
import os
import selectors
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Protocol

from run_cycle_loop.kit import process_table
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.kit.process_tree import ProcessTree

_BUFFER = 1 << 20  #: bytes; also the pipes' size, where the kernel grants it
_DRAIN = 4 << 20  #: bytes taken after the end at most: a pipe holds less, an unkillable writer could go on for ever
_BEAT = 0.25  #: seconds between two looks at the pulse while nothing happens
_SHOWN = 120  #: characters of a name in an error
_ALL_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class LaunchError(Exception):
    """A command could not be started; ``exit_code`` is 127 (not found) or 126 (cannot be invoked)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Demand(IntEnum):
    """What the pulse wants done with the child."""

    NOTHING = 0
    TERMINATE = 1
    KILL = 2


class Pulse(Protocol):
    """What the one waiting loop attends beside the child: signals, the kill switch, the watchdog."""

    def fileno(self) -> int:
        """A descriptor that turns readable when ``beat`` is wanted at once."""
        ...

    def beat(self) -> Demand:
        """Called after every event and at least four times a second; cheap."""
        ...


class EndedBy(StrEnum):
    """What ended the child."""

    ITSELF = "exit"
    DEADLINE = "timeout"
    SILENCE = "idle_timeout"
    DEMAND = "interrupt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long a child may take, in seconds; None is no limit."""

    timeout: float | None = None
    idle_timeout: float | None = None  #: without any output
    grace: float = 10.0  #: between TERM and KILL


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """A child that has just been started."""

    pid: int
    start_ticks: int | None
    pipe_inodes: tuple[int, ...]  #: of its standard output and error


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """How a child and its tree ended."""

    ended_by: EndedBy
    exit_code: int | None
    signal: int | None
    duration: float
    output_bytes: int
    leftovers: int  #: descendants that lived on after the leader's own exit, ended by us
    survivors: tuple[ProcessId, ...]  #: descendants that not even KILL ended


def locate(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """The file that ``argv[0]`` names on the child's own PATH.

    Raises:
        LaunchError: there is none.
    """
    name = argv[0]
    if os.sep in name:
        return name
    found = shutil.which(name, path=env.get("PATH", os.defpath))
    if found is None:
        raise LaunchError(f"command {name[:_SHOWN]!r} was not found on PATH; install it or name it by its path", 127)
    return found


def supervise(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    limits: Limits,
    output: Callable[[str, memoryview], None],
    pulse: Pulse | None = None,
    launched: Callable[[Launched], None] | None = None,
    stdin: Path | str = os.devnull,
) -> Exit:
    """Run a command in a session of its own until it and every descendant of it are gone.

    The child reads the file ``stdin`` (the empty one, unless another is named), has default signal dispositions, an
    empty signal mask, and no descriptor but its three standard ones. Its output goes to ``output(stream, chunk)``; the
    chunk is valid during the call.

    Raises:
        LaunchError: the command could not be started.
    """
    tree = ProcessTree()
    try:
        with contextlib.ExitStack() as stack:
            pipes = {name: _Pipe(name, stack) for name in ("stdout", "stderr")}
            pid = _spawn(argv, env, pipes, os.fspath(stdin))
            started = time.monotonic()
            tree.leader = pid
            child = _Child(pid, tree, limits, started, stack)
            watch = _Watch(child, tree, pipes, output, pulse, stack)
            if launched is not None:
                inodes = tuple(pipe.inode for pipe in pipes.values())
                identity = process_table.stat(pid)
                ticks = None if identity is None else identity.id.start_ticks
                launched(Launched(pid=pid, start_ticks=ticks, pipe_inodes=inodes))
            return watch.to_the_end()
    except BaseException:
        if tree.leader is not None:
            tree.kill()  # whatever went wrong (no descriptor left, say): nobody watches this child any more
        raise


class _Pipe:
    """One output stream of the child."""

    def __init__(self, name: str, stack: contextlib.ExitStack) -> None:
        self.name = name
        self.read_end, self.write_end = os.pipe()
        stack.callback(os.close, self.read_end)
        stack.callback(self.close_write_end)
        os.set_blocking(self.read_end, False)
        self.inode = os.fstat(self.read_end).st_ino
        # A pipe as large as the buffer saves wake-ups; beyond the user's quota the default size does as well.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.read_end, fcntl.F_SETPIPE_SZ, _BUFFER)

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


def _spawn(argv: Sequence[str], env: Mapping[str, str], pipes: Mapping[str, _Pipe], stdin: str) -> int:
    path = locate(argv, env)
    try:
        pid = os.posix_spawn(
            path,
            list(argv),
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, pipes["stdout"].write_end, 1),
                (os.POSIX_SPAWN_DUP2, pipes["stderr"].write_end, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=_ALL_SIGNALS,
        )
    except (OSError, ValueError) as error:
        if not os.access(stdin, os.R_OK):
            raise LaunchError(f"standard input {stdin[:_SHOWN]!r} cannot be read; name a file that can", 126) from error
        raise _launch_error(path, argv, error) from error
    for pipe in pipes.values():
        pipe.close_write_end()
    return pid


def _launch_error(path: str, argv: Sequence[str], error: OSError | ValueError) -> LaunchError:
    code = error.errno if isinstance(error, OSError) else None
    name = repr(path if len(path) <= _SHOWN else path[:_SHOWN] + "...")
    if code == errno.ENOENT and os.path.lexists(path):
        return LaunchError(f"{name} names an interpreter in its first line that does not exist; mend that line", 126)
    if code == errno.ENOENT:
        return LaunchError(f"command {name} does not exist; name one that does", 127)
    if code == errno.ENOEXEC:
        return LaunchError(f"{name} is no program and has no #! line; give it one", 126)
    if code == errno.E2BIG:
        size = max(map(len, argv))
        return LaunchError(f"the command line is too long for the kernel (one part has {size} characters); cut it", 126)
    if code == errno.EACCES:
        return LaunchError(f"{name} may not be executed; chmod +x it, or name a program", 126)
    return LaunchError(f"{name} could not be started: {error}; see execve(2)", 126)


class _Child:
    """The leader and its tree: whether they live, and the ladder TERM, grace, KILL."""

    def __init__(
        self, pid: int, tree: ProcessTree, limits: Limits, started: float, stack: contextlib.ExitStack
    ) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        stack.callback(os.close, self.pidfd)
        self.started = started
        self.exit_seen = False  #: the pidfd said so; a tracer (ptrace(2)) may still hold the exit status back
        self.leader_gone = False
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.ended_by = EndedBy.ITSELF
        self.leftovers = 0
        self.survivors: tuple[ProcessId, ...] = ()
        self._tree = tree
        self._limits = limits
        self._kill_at: float | None = None
        self._pause = 0.0005

    def wake_at(self, last_output: float) -> float:
        """When the ladder wants its next step."""
        if self._kill_at is not None or self.exit_seen:
            # Descendants and tracers end without telling us: look soon, then ever less often.
            self._pause = min(self._pause * 2, 0.02)
            return min(self._kill_at or self._deadline(), time.monotonic() + self._pause)
        return min(self._deadline(), self._silence_ends(last_output))

    def _deadline(self) -> float:
        return float("inf") if self._limits.timeout is None else self.started + self._limits.timeout

    def _silence_ends(self, last_output: float) -> float:
        return float("inf") if self._limits.idle_timeout is None else last_output + self._limits.idle_timeout

    def step(self, now: float, last_output: float, demand: Demand) -> bool:
        """Take the next step of the ladder; True when the whole tree is gone, or given up."""
        if self._kill_at is None and not self._begin_ending(now, last_output, demand):
            return False
        if self.leader_gone and self._tree.is_empty():
            return True
        if demand is Demand.KILL or (self._kill_at is not None and now >= self._kill_at):
            self.survivors = tuple(self._tree.kill())
            return True
        return False

    def _begin_ending(self, now: float, last_output: float, demand: Demand) -> bool:
        """Whether the end begins now: the leader's own exit comes before every reason of ours."""
        if self.leader_gone:
            self.ended_by = EndedBy.ITSELF
        elif demand is not Demand.NOTHING:
            self.ended_by = EndedBy.DEMAND
        elif now >= self._deadline():
            self.ended_by = EndedBy.DEADLINE
        elif now >= self._silence_ends(last_output):
            self.ended_by = EndedBy.SILENCE
        else:
            return False
        self._kill_at = now + self._limits.grace
        if self._tree.is_empty():
            return True
        if self.leader_gone:
            self.leftovers = len(self._tree.living())
        self._tree.terminate()
        return True

    def collect(self) -> None:
        """Take the leader's exit code or signal, once it is there."""
        if self.leader_gone:
            return
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        self.leader_gone = True
        if result.si_code == os.CLD_EXITED:
            self.exit_code = result.si_status
        else:
            self.signal = result.si_status


@functools.cache
def _buffer() -> memoryview:
    """One buffer for all children: they come one after the other."""
    return memoryview(bytearray(_BUFFER))


class _Watch:
    """The one selector loop over the leader, its two pipes and the pulse."""

    def __init__(
        self,
        child: _Child,
        tree: ProcessTree,
        pipes: Mapping[str, _Pipe],
        output: Callable[[str, memoryview], None],
        pulse: Pulse | None,
        stack: contextlib.ExitStack,
    ) -> None:
        self._child = child
        self._tree = tree
        self._reaped_at = child.started
        self._output = output
        self._pulse = pulse
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._buffer = _buffer()
        self._last_output = child.started
        self._output_bytes = 0
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        for pipe in pipes.values():
            self._selector.register(pipe.read_end, selectors.EVENT_READ, pipe)
        if pulse is not None:
            self._selector.register(pulse.fileno(), selectors.EVENT_READ, pulse)

    def to_the_end(self) -> Exit:
        child = self._child
        while True:
            self._attend(child.wake_at(self._last_output))
            demand = self._pulse.beat() if self._pulse is not None else Demand.NOTHING
            if child.step(time.monotonic(), self._last_output, demand):
                break
        child.collect()
        duration = time.monotonic() - child.started
        self._drain()
        return Exit(
            ended_by=child.ended_by,
            exit_code=child.exit_code,
            signal=child.signal,
            duration=duration,
            output_bytes=self._output_bytes,
            leftovers=child.leftovers,
            survivors=child.survivors,
        )

    def _attend(self, wake_at: float) -> None:
        """Wait for the next event, a quarter of a second at most, and take what came."""
        timeout = max(0.0, min(wake_at - time.monotonic(), _BEAT))
        events = self._selector.select(timeout)
        for key, _ in events:
            if isinstance(key.data, _Pipe):
                self._pump(key.data)
            elif key.data is self._child:
                self._selector.unregister(self._child.pidfd)
                self._child.exit_seen = True
        if self._child.exit_seen or not events:
            # Not only where the pidfd said so: a wait that SIGSTOP cut short comes back empty past its deadline.
            self._child.collect()
        if (now := time.monotonic()) - self._reaped_at >= _BEAT:
            self._reaped_at = now
            self._tree.reap_orphans()

    def _pump(self, pipe: _Pipe) -> int:
        """Pass one bufferful on; 0 at the end of the stream or where nothing waits."""
        try:
            count = os.readv(pipe.read_end, [self._buffer])
        except BlockingIOError:
            return 0
        if count == 0:
            self._selector.unregister(pipe.read_end)
            return 0
        self._last_output = time.monotonic()
        self._output_bytes += count
        self._output(pipe.name, self._buffer[:count])
        return count

    def _drain(self) -> None:
        """Take what still stands in the pipes; never wait for whoever holds their other ends."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Pipe):
                left = _DRAIN
                while left > 0 and (count := self._pump(key.data)):
                    left -= count
