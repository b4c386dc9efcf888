"""A line on a stream that may go away at any moment: a closed terminal, a gone pipe, a full disk."""

import os
from typing import TextIO

from run_cycle_loop.kit.files import write_all

#: Begins a line of a terminal anew, whatever stands there.
ERASE = "\r\x1b[2K"


class LineWriter:
    """Writes whole lines, unbuffered, and survives the death of its stream.

    The descriptor is written to directly: a line left in a Python buffer would fail a second time when the interpreter
    exits, and turn the exit code into 120.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = _descriptor_of(stream)

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
                write_all(self._descriptor, data.encode("utf-8", "backslashreplace"))
        except ValueError as error:  # Python's word for a closed stream
            raise OSError(f"cannot write to a closed stream: {error}") from error

    def isatty(self) -> bool:
        """Whether a person reads along."""
        return self._descriptor is not None and os.isatty(self._descriptor)


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
