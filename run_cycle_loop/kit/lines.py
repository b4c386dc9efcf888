"""Line-wise files read from their end, in blocks, so that a file of a million lines costs what is asked of it."""

import os
from collections.abc import Iterator

_BLOCK = 1 << 16
_LONGEST = 8 << 20  #: bytes; what is longer is no line of ours and is passed over


def newest_first(descriptor: int, end: int | None = None) -> Iterator[bytes]:
    """The complete lines before ``end`` (the file's size by default), last first, without their newlines.

    A tail without a newline is not complete and is left out.
    """
    position = os.fstat(descriptor).st_size if end is None else end
    rest = b""
    complete = False
    while position > 0:
        start = max(0, position - _BLOCK)
        block = os.pread(descriptor, position - start, start) + rest
        position = start
        lines = block.split(b"\n")
        for line in reversed(lines[1:]):
            if complete:
                yield line
            complete = True  # what followed the last newline was the incomplete tail
        rest = lines[0]
        if not complete or len(rest) > _LONGEST:
            rest, complete = b"", False  # of a line that is passed over, nothing needs to be kept
    if complete and rest:
        yield rest


def torn_tail(descriptor: int) -> int:
    """Where the incomplete last line begins; the file's size where there is none."""
    position = os.fstat(descriptor).st_size
    while position > 0:
        start = max(0, position - _BLOCK)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return position
