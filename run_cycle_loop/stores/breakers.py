"""What is kept of the breakers: one small file, replaced whole. Damage opens them, so that none closes by a crash."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from run_cycle_loop.kit import files
from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, Opened
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.records import timestamp

_LARGEST = 1 << 16


class BreakerFile:
    """Implements the port ``BreakerStore``."""

    def __init__(
        self, path: Path, now: Callable[[], datetime], warn: Callable[[str], None] = lambda _sentence: None
    ) -> None:
        self.path = path
        self._now = now
        self._warn = warn  #: told, in one sentence, what was set aside

    def load(self) -> BreakerMarks:
        """What is kept; nothing where there is no file, for then the history alone decides.

        Raises:
            StateError: the file is damaged and cannot be set aside.
        """
        try:
            return self.read()
        except (OSError, ValueError) as fault:
            return self._set_aside(fault)

    def read(self) -> BreakerMarks:
        """The same, without setting anything aside.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        try:
            value = json.loads(files.read_bounded(self.path, _LARGEST))
        except FileNotFoundError:
            return BreakerMarks()
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        return BreakerMarks.from_dict(value if isinstance(value, dict) else {})

    def save(self, marks: BreakerMarks) -> None:
        """Replace the file, durably.

        Raises:
            StateError: that cannot be done.
        """
        data = json.dumps(marks.as_dict()).encode() + b"\n"
        try:
            files.make_folder(self.path.parent)
            files.replace_file(self.path, data, durable=True)
        except OSError as error:
            raise StateError(
                f"{self.path} cannot be rewritten: {error.strerror or error}; free space there, or mend its folder"
            ) from error

    def _set_aside(self, fault: Exception) -> BreakerMarks:
        """Keep what is damaged under another name, with open breakers in its place, and at no instant with nothing."""
        kept = files.free_name(self.path, "corrupt")
        why = f"{self.path.name} was damaged ({fault}) and is kept as {kept.name}"
        marks = BreakerMarks(opened=Opened(name=BreakerName.STATE, at=timestamp(self._now()), number=0, why=why))
        try:
            self._keep(kept)
        except OSError as error:
            raise StateError(
                f"damaged {self.path} ({fault}) cannot be set aside: {error.strerror or error}; mend its folder"
            ) from error
        self.save(marks)
        self._warn(f"damaged {self.path} ({fault}) was set aside as {kept}; the breakers are open until they are reset")
        return marks

    def _keep(self, kept: Path) -> None:
        if self.path.lstat().st_nlink > 1 and not self.path.is_dir():
            return  # an attempt before this one has kept it
        try:
            os.link(self.path, kept, follow_symlinks=False)
        except OSError:
            self.path.rename(kept)  # a folder, or a file system without second names
