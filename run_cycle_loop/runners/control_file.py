"""The control payload: a JSON object that a cycle may leave for the loop, in a file it is told about."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run_cycle_loop.kit import files

_LARGEST = 1 << 20


def prepare(path: Path) -> None:
    """Make sure that nothing of an earlier cycle is read for this one's.

    Raises:
        OSError: the folder cannot be made, or what stands there cannot be moved.
    """
    files.make_folder(path.parent)
    if path.is_symlink() or path.exists():
        files.set_aside(path, "stale")


def take(path: Path) -> tuple[Mapping[str, Any] | None, str | None]:
    """The payload, or None with the reason why it could not be taken; the file is removed once it was read."""
    try:
        value = json.loads(files.read_bounded(path, _LARGEST))
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"the control file cannot be read: {error.strerror or error}"
    except (ValueError, RecursionError) as error:
        return None, f"the control file is no JSON of at most {_LARGEST} bytes: {error}"
    if not isinstance(value, dict):
        return None, f"the control file holds no JSON object but {type(value).__name__}"
    files.unlink_quietly(path)
    return value, None
