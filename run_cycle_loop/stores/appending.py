"""A file of lines that is only appended to, each line durable when ``append`` returns.

A torn last line (power loss, a full disk) is moved to ``<file>.torn-<offset>`` before the next one is written. The file
is opened for each line: there is nothing to let go of, and a file that was moved away is not written to.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from run_cycle_loop.kit import files, lines

LONGEST = 1 << 20  #: bytes; what is longer is no line of ours


class AppendOnlyFile:
    """One writer, any number of readers."""

    def __init__(self, path: Path, warn: Callable[[str], None], is_whole: Callable[[bytes], bool]) -> None:
        self.path = path
        self._warn = warn  #: told, in one sentence, what had to be mended
        self._is_whole = is_whole  #: whether bytes without a newline are a line that lacks nothing else

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
                self._mend_tail(descriptor)
            else:
                files.sync_folder(self.path.parent)
            size = os.fstat(descriptor).st_size
            before = size - len(line)
            if before >= 0 and os.pread(descriptor, len(line), before) == line:
                self._rewrite(line, before)
                return
            self._write(descriptor, line, size)
        finally:
            os.close(descriptor)

    def _write(self, descriptor: int, line: bytes, offset: int) -> None:
        try:
            files.write_all(descriptor, line)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, offset)  # what a full disk cut short must not swallow the next line
            raise
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            # A second sync would lie: the kernel may call the lost page clean. So the bytes are written again, afresh.
            self._warn(f"{self.path} could not be synced ({error.strerror or error}); its last line was written again")
            self._rewrite(line, offset)

    def _rewrite(self, line: bytes, offset: int) -> None:
        descriptor = files.open_regular(self.path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, line, offset)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _mend_tail(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if not size or os.pread(descriptor, 1, size - 1) == b"\n":
            return
        offset = lines.torn_tail(descriptor)
        if size - offset <= LONGEST and self._is_whole(os.pread(descriptor, size - offset, offset)):
            files.write_all(descriptor, b"\n")
            self._warn(f"the last line of {self.path} lacked its newline; it was added")
            return
        copy = files.free_name(self.path, f"torn-{offset}")
        files.copy_range(descriptor, offset, size - offset, copy)
        os.ftruncate(descriptor, offset)
        os.fsync(descriptor)
        self._warn(f"{size - offset} torn bytes of {self.path} were moved to {copy}")
