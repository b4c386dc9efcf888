"""The folder that an agent works in: a real one, inside the tree that it was started in, or the operator's sandbox."""

import contextlib
import os
import stat
from pathlib import Path

from run_cycle_loop.kit.files import make_folder
from run_cycle_loop.model.errors import ConfigError


def find(wanted: Path | None, sandbox: Path) -> Path:
    """The workdir, absolute and without a link in its path; the sandbox is the default, and made where it is missing.

    The sandbox may lie outside of the tree: it is the operator's own word for where a cycle may write.

    Raises:
        ConfigError: it is not a folder inside the current directory, or a link leads there.
        OSError: the sandbox cannot be made.
    """
    tree = Path(os.path.realpath(Path.cwd()))
    own = Path(os.path.normpath(tree / sandbox))
    place = Path(os.path.normpath(tree / (wanted or sandbox)))
    if place == own and not own.is_relative_to(tree):
        tree = own.parent
    place = _within(tree, place)
    if not os.path.lexists(place) and place == _within(tree, own):
        make_folder(place)
    for path in reversed([place, *(parent for parent in place.parents if parent.is_relative_to(tree))]):
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise ConfigError(
                f"the workdir {place} cannot be used: {error.strerror}; make it, or name another"
            ) from error
        if stat.S_ISLNK(mode) and path != tree:
            raise ConfigError(f"the workdir {place} is reached by the link {path}: name the folder itself")
        if not stat.S_ISDIR(mode):
            raise ConfigError(f"the workdir {place} cannot be used: {path} is no folder; name another with --workdir")
    return place


def _within(tree: Path, path: Path) -> Path:
    """The path as one below the tree, also where another name of the tree was used.

    Raises:
        ConfigError: it is not below it.
    """
    place = Path(os.path.normpath(tree / path))
    for parent in (place, *place.parents):
        with contextlib.suppress(OSError):
            if parent.samefile(tree):
                return tree / place.relative_to(parent)
    raise ConfigError(f"the workdir {place} is not inside {tree}: name a folder below the working directory")
