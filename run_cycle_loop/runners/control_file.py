"""The control payload: a JSON object that a cycle may leave for the loop, in a file it is told about."""

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from run_cycle_loop.kit import files
from run_cycle_loop.model.reading import is_deeper

_LARGEST = 1 << 20
_DEEPEST = 64  #: levels of lists and objects; whoever redacts and records the payload walks it recursively


def prepare(path: str) -> None:
    """Make sure that nothing of an earlier cycle is read for this one's.

    Raises:
        OSError: the folder cannot be made or written to, or what stands there cannot be moved.
    """
    folder = os.path.dirname(path)  # noqa: PTH120 - a name that is used once is no Path: pathlib interns its parts
    if not os.path.isdir(folder):  # noqa: PTH112
        files.make_folder(Path(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        # An agent that worked and could not say so would have been paid for nothing.
        raise PermissionError(errno.EACCES, f"{folder} cannot be written to, where it is to leave its control payload")
    if os.path.lexists(path):
        files.set_aside(Path(path), "stale")


def take(path: str) -> tuple[Mapping[str, Any] | None, str | None]:
    """The payload, or None with the reason why it could not be taken.

    The file is removed once it was read; of those that were refused the last is kept, as ``refused`` beside it.
    """
    value, refusal = _read(path)
    if refusal is None:
        files.unlink_quietly(path)
    else:
        with suppress(OSError):
            os.replace(path, os.path.join(os.path.dirname(path), "refused"))  # noqa: PTH105, PTH118, PTH120
    return value, refusal


def _read(path: str) -> tuple[Mapping[str, Any] | None, str | None]:
    try:
        value = json.loads(files.read_bounded(path, _LARGEST))
        # Python reads NaN and 1e999, but the history's readers would not; and 1e15 is longer once it is written down.
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")))
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"the control file cannot be read: {error.strerror or error}"
    except (ValueError, RecursionError) as error:
        return None, f"the control file is no JSON of at most {_LARGEST} bytes: {error}"
    if not isinstance(value, dict):
        return None, f"the control file holds no JSON object but {type(value).__name__}"
    excess = _excess(value, size)
    return (None, excess) if excess else (value, None)


def _excess(value: Mapping[str, Any], size: int) -> str | None:
    if size > _LARGEST:
        return f"the control file comes to {size} characters once it is recorded, more than {_LARGEST}"
    return f"the control file is nested deeper than {_DEEPEST} levels" if is_deeper(value, _DEEPEST) else None
