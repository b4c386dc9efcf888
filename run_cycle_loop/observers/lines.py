"""A line on a stream that may go away at any moment: a closed terminal, a gone pipe, a full disk."""

import errno
import os
import select
from typing import TextIO

#: Begins a line of a terminal anew, whatever stands there.
ERASE = "\r\x1b[2K"
_PATIENCE = 0.2  #: seconds for a reader that does not keep up


class LineWriter:
    """Writes whole lines, unbuffered, and survives the death of its stream.

    The descriptor is written to directly: a line left in a Python buffer would fail a second time when the interpreter
    exits, and turn the exit code into 120.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._stalled = False  #: nobody read the last line in time; the next one is not waited for
        self._broken = False  #: the last line was cut short

    def write(self, line: str) -> None:
        """Write a line, newline added.

        Raises:
            OSError: the stream did not take all of it.
        """
        self._put(f"{line}\n")

    def draw(self, text: str) -> None:
        """Write a text as it stands, without a newline.

        Raises:
            OSError: the stream did not take all of it.
        """
        self._put(text)

    def _put(self, data: str) -> None:
        try:
            if self._descriptor is None:
                self._stream.write(data)
                self._stream.flush()
            else:
                self._send(self._descriptor, data.encode("utf-8", "backslashreplace"))
        except ValueError as error:  # Python's word for a closed stream
            raise OSError(f"cannot write to a closed stream: {error}") from error

    def _send(self, descriptor: int, data: bytes) -> None:
        """Write in pieces that a pipe which has room takes at once: a reader that stalls must not stall the loop."""
        view = memoryview(b"\n" + data if self._broken else data)
        while view:
            if not _has_room(descriptor, 0 if self._stalled else _PATIENCE):
                self._stalled = True
                raise BlockingIOError(errno.EAGAIN, "nobody reads what is written")
            self._stalled = False
            view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]
            self._broken = len(view) > 0

    def isatty(self) -> bool:
        """Whether a person reads along."""
        return self._descriptor is not None and os.isatty(self._descriptor)


def _has_room(descriptor: int, patience: float) -> bool:
    """Whether a write would be taken now, or within so many seconds; a broken stream says yes, and then why not."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(patience * 1000))


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
    return _opened_anew(descriptor) if os.isatty(descriptor) else descriptor


def _opened_anew(terminal: int) -> int:
    """The terminal by a descriptor that never blocks, or as it is where it cannot be opened again.

    A terminal has room as soon as one byte fits, so asking first is not enough; and the flag on the descriptor that was
    handed to us would change it for the shell, too.
    """
    try:
        return os.open(f"/proc/self/fd/{terminal}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return terminal
