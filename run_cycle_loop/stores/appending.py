"""A file of lines that is only appended to, each line durable when it was added.

A torn last line (power loss, a full disk) is moved to ``<file>.torn-<offset>`` before the next one is written.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from run_cycle_loop.kit import files, lines

LONGEST = 1 << 20  #: bytes; what is longer is no line of ours

Warn = Callable[[str], None]  #: told, in one sentence, what had to be mended
IsWhole = Callable[[bytes], bool]  #: whether bytes without a newline are a line that lacks nothing else


class AppendOnlyFile:
    """One writer, any number of readers.

    The file is opened for each line: there is nothing to let go of, and a file that was moved away is not written to.
    """

    def __init__(self, path: Path, warn: Warn, is_whole: IsWhole) -> None:
        self.path = path
        self._warn = warn
        self._is_whole = is_whole

    def append(self, line: bytes) -> None:
        """Add a line, which ends with its newline. The same line again, after an attempt that failed, stands once.

        Raises:
            OSError: it is not known to be durable; nothing partial is left behind.
        """
        files.make_folder(self.path.parent)
        existed = os.path.lexists(self.path)
        descriptor = files.open_regular(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            if existed:
                mend_tail(self.path, descriptor, self._is_whole, self._warn)
            else:
                files.sync_folder(self.path.parent)
            add_line(self.path, descriptor, line, self._warn)
        finally:
            os.close(descriptor)


def add_line(path: Path, descriptor: int, line: bytes, warn: Warn) -> None:
    """Add a line, durably; one that an attempt whose sync failed has left there already does not come to stand twice.

    Raises:
        OSError: it is not known to be durable; nothing partial is left behind.
    """
    size = os.fstat(descriptor).st_size
    before = size - len(line)
    if before >= 0 and os.pread(descriptor, len(line), before) == line:
        _rewrite(path, line, before)
        return
    try:
        files.write_all(descriptor, line)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)  # what a full disk cut short must not swallow the next line
        raise
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        # A second sync would lie: the kernel may call the lost page clean. So the bytes are written again, afresh.
        warn(f"{path} could not be synced ({error.strerror or error}); its last line was written again")
        _rewrite(path, line, size)


def _rewrite(path: Path, line: bytes, offset: int) -> None:
    descriptor = files.open_regular(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, line, offset)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def mend_tail(path: Path, descriptor: int, is_whole: IsWhole, warn: Warn, *, longest: int = LONGEST) -> None:
    """Give a whole last line its newline; move what is torn aside.

    Raises:
        OSError: that cannot be done.
    """
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    offset = lines.torn_tail(descriptor)
    if size - offset <= longest and is_whole(os.pread(descriptor, size - offset, offset)):
        files.write_all(descriptor, b"\n")
        warn(f"the last line of {path} lacked its newline; it was added")
        return
    copy = files.free_name(path, f"torn-{offset}")
    files.copy_range(descriptor, offset, size - offset, copy)
    os.ftruncate(descriptor, offset)
    os.fsync(descriptor)
    warn(f"{size - offset} torn bytes of {path} were moved to {copy}")
