"""The loop as a ``Type=notify`` service: ready, what it does now, alive, stopping, and still draining.

Datagrams to the service manager, best effort: what cannot be sent at once is dropped and counted, because a blocking
send hangs as soon as the receiver's queue is full.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping

from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.enums import LoopState
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.model.snapshots import LoopSnapshot

#: While a cycle is finished, systemd is asked this often for that much more patience, both in seconds.
EXTEND_EVERY = 10.0
EXTEND_BY = 30.0


class SystemdNotifier:
    """Tells the service manager about the loop; without NOTIFY_SOCKET it says nothing."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        pid: int | None = None,
    ) -> None:
        self._address = _address_of(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_every = _watchdog_interval(environ, os.getpid() if pid is None else pid)
        self._monotonic = monotonic
        self._socket: socket.socket | None = None
        self._ready = False
        self._draining = False
        self._last_watchdog = float("-inf")
        self._last_extension = float("-inf")
        self.dropped = 0  #: messages that systemd did not get

    def state_changed(self, snapshot: LoopSnapshot) -> None:
        """READY at the first state after starting, STOPPING where it stops, and always a STATUS line."""
        state = snapshot.state
        message = [f"STATUS={status_line(snapshot)}"]
        if state is not LoopState.STARTING and not self._ready:
            # Said even where the first state is an ending: systemd calls a service that leaves unready a failure.
            self._ready = True
            message.append("READY=1")
        self._send(message)
        if state in {LoopState.STOPPING, LoopState.STOPPED}:
            # By itself: of READY and STOPPING in one message systemd takes only the last.
            self._send(["STOPPING=1"])
        self._draining = state is LoopState.STOPPING
        self.beat()

    def cycle_finished(self, record: CycleRecord, snapshot: LoopSnapshot) -> None:
        """The state change that follows says it."""

    def beat(self) -> None:
        """Prove that the main loop is alive, and ask for time while it drains; each only as often as needed."""
        now = self._monotonic()
        message = []
        if self._watchdog_every is not None and now - self._last_watchdog >= self._watchdog_every:
            self._last_watchdog = now
            message.append("WATCHDOG=1")
        if self._draining and now - self._last_extension >= EXTEND_EVERY:
            self._last_extension = now
            message.append(f"EXTEND_TIMEOUT_USEC={int(EXTEND_BY * 1_000_000)}")
        if message:
            self._send(message)

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: list[str]) -> None:
        if self._address is None:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.sendto("\n".join(message).encode(), self._address)
        except OSError:
            self.dropped += 1


def _address_of(name: str) -> str | None:
    """The socket's address: a path, or an abstract name written with ``@``; None for anything else."""
    if name.startswith("@"):
        return f"\0{name[1:]}"
    return name if name.startswith("/") else None


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """A third of WATCHDOG_USEC in seconds, so that one lost message does no harm; None where not ours."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 3e6 if usec.isdecimal() and int(usec) else None


def status_line(snapshot: LoopSnapshot) -> str:
    """What ``systemctl status`` shows: one line, whatever the snapshot holds."""
    parts = [_doing(snapshot)]
    if snapshot.last_cycle:
        last = snapshot.last_cycle
        parts.append(f"last: #{last.get('number')} {last.get('status')}{_took(last.get('duration_seconds'))}")
    if snapshot.consecutive_failures:
        parts.append(f"failures in a row: {snapshot.consecutive_failures}")
    if snapshot.note:
        parts.append(snapshot.note)
    return printable(" ".join("; ".join(parts).split()))


def _doing(snapshot: LoopSnapshot) -> str:
    match snapshot.state:
        case LoopState.CHECKING | LoopState.RUNNING | LoopState.STOPPING if snapshot.cycle:
            return f"{snapshot.state} cycle #{snapshot.cycle.number} since {snapshot.cycle.started_at}"
        case LoopState.WAITING | LoopState.BACKOFF if snapshot.next_run_at:
            return f"{snapshot.state}, next cycle at {snapshot.next_run_at}"
        case LoopState.STOPPING | LoopState.STOPPED if snapshot.stop_reason:
            return f"{snapshot.state}: {snapshot.stop_reason}"
        case _:
            return str(snapshot.state)


def _took(seconds: object) -> str:
    return f" in {format_duration(seconds)}" if isinstance(seconds, float | int) else ""
