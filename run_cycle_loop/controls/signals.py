"""Signals as readable bytes: handlers that do nothing, a descriptor that wakes the loop.

No lock, no logging and no allocation happens in a handler (an ``Event.set()`` there was seen to hang its own thread).
"""

import contextlib
import signal
import socket
from types import TracebackType
from typing import Self

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def hold() -> None:
    """Keep signals that come during start-up until the inbox can take them: none is lost, none kills us unheard."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


def _ignore(_number: int, _frame: object) -> None:
    """Exist: only signals with a handler are written to the wake-up descriptor."""


class SignalInbox:
    """Installs the handlers while it is entered; the process's signal mask is emptied for good."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)  # noqa: FBT003 - the signature is the standard library's
        self._sender.setblocking(False)  # noqa: FBT003

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _ignore)
        # An ignored SIGCHLD would make the kernel throw exit statuses away; a blocked SIGTERM would never arrive.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The handlers stay: a signal that comes now must not end the process halfway through its last words.
        signal.set_wakeup_fd(-1)
        self._receiver.close()
        self._sender.close()

    def fileno(self) -> int:
        """Readable when a signal has arrived."""
        return self._receiver.fileno()

    def drain(self) -> list[signal.Signals]:
        """The signals that have arrived since the last call, in order."""
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := self._receiver.recv(4096):
                numbers += chunk
        return [signal.Signals(number) for number in numbers]
