"""The attempt's log: what was printed and what the runner has to say, bounded, without secrets."""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from run_cycle_loop.agentrun.local.mounts import Mount
from run_cycle_loop.kit import files
from run_cycle_loop.kit.redact import Redactor
from run_cycle_loop.start_attempt.view import HELD, PATTERNS, held
from run_cycle_loop.stores.cycle_logs import CycleLogFile
from run_cycle_loop.stores.head_and_tail import HeadAndTail

_MAX_BYTES = 16 << 20  #: of a log
_LARGEST_SECRET = 1 << 20  #: bytes of one file of a Secret; a cluster takes no more
_MOST_FILES = 1000
_NEW_FILE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def redactor_for(environ: Mapping[str, str], mounts: Sequence[Mount]) -> Redactor:
    """What takes out the values of variables with telling names, of those that are listed, and of mounted Secrets."""
    known = {name: value for name, value in environ.items() if name not in (PATTERNS, HELD)} | held(environ)
    mounted = (text for mount in mounts if mount.is_secret for text in _texts(Path(mount.folder)))
    known |= {f"SECRET of a volume {number}": text for number, text in enumerate(mounted)}
    return Redactor.from_environment(known, environ.get(PATTERNS, "").replace(",", " ").split())


def _texts(place: Path) -> Iterator[str]:
    """The files of a secret volume; what cannot be read can be printed by nobody here either."""
    with contextlib.suppress(OSError):
        if place.is_dir():
            for name in sorted(os.listdir(place))[:_MOST_FILES]:  # noqa: PTH208
                yield from _text(place / name)
        else:
            yield from _text(place)


def _text(file: Path) -> Iterator[str]:
    with contextlib.suppress(OSError, ValueError):
        path = file.resolve()  # a Secret of a cluster is mounted behind links
        if stat.S_ISREG(path.stat().st_mode):
            yield files.read_bounded(path, _LARGEST_SECRET).decode("utf-8", "surrogateescape")


def open_log(path: Path, redactor: Redactor) -> CycleLogFile:
    """A fresh log; one of an earlier try of this attempt is kept beside it. Where none can be made, it says why."""
    try:
        files.make_folder(path.parent)
        if os.path.lexists(path):
            files.set_aside(path, "lost")
        descriptor = os.open(path, _NEW_FILE, 0o600)
    except OSError as error:
        reason = f"no log could be made as {path}: {error.strerror or error}; mend its folder"
        return CycleLogFile(None, None, redactor, error=reason)
    return CycleLogFile(os.fspath(path), HeadAndTail(os.fspath(path), descriptor, _MAX_BYTES), redactor)
