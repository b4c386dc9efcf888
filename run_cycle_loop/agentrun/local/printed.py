"""What attempts of this machine print, read from their folders while they run and afterwards."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState
from run_cycle_loop.agentrun.looking.output import Choice, Piece
from run_cycle_loop.kit import files

LOG = Path(".agent") / "runner.log"
_PAUSE = 0.25  #: seconds between two looks at a log that grows
_CHUNK = 1 << 16


def printed(
    rows: Callable[[], tuple[Sequence[Attempt], bool]],
    choice: Choice,
    *,
    follow: bool,
    every: bool,
    tail: int | None,
    wait: Callable[[float], bool],
) -> Iterator[Piece]:
    """The output of the newest attempt that is meant, of all of them, or of each as it comes.

    Args:
        rows: the attempts as they are now, and whether the run is over.
        choice: which of them are meant.
        follow: whether to go on until the run is over.
        every: whether earlier attempts are shown too.
        tail: lines to begin with, of each.
        wait: pauses; true where a stop was asked for.
    """
    done: set[str] = set()
    while True:
        known, is_over = rows()
        meant = [row for row in known if choice.fits(row)]
        fresh = [row for row in meant if row.job not in done]
        if not (every or done or choice.is_one):
            done = {row.job for row in meant[:-1]}
            fresh = fresh[-1:]
        if not meant and (is_over or not follow):
            yield Piece(attempt=None, note=f"nothing was printed: there is no attempt for {choice}")
            return
        for row in fresh:
            done.add(row.job)
            yield Piece(attempt=row, note=_headline(row))
            yield from _attempt(row, rows, follow=follow, tail=tail, wait=wait)
        if not fresh and (not follow or is_over or wait(_PAUSE)):
            return


def _attempt(
    row: Attempt,
    rows: Callable[[], tuple[Sequence[Attempt], bool]],
    *,
    follow: bool,
    tail: int | None,
    wait: Callable[[float], bool],
) -> Iterator[Piece]:
    folder = Path(row.pod.name if row.pod else "")
    shown: Path | None = None
    offset = 0
    while True:
        ended = not follow or _is_over(row.job, rows)
        path = folder / LOG if (folder / LOG).exists() else folder / "attempt.log"
        if path != shown:
            shown, offset = path, 0 if tail is None else _start_of_last(path, tail)
        for data in _read(path, offset):
            offset += len(data)
            yield Piece(attempt=row, data=data)
        if ended or wait(_PAUSE):
            return


def _headline(row: Attempt) -> str:
    parts = [f"step {row.step}"] if row.step else []
    parts += [f"iteration {row.iteration}"] if row.iteration is not None else []
    return ", ".join([*parts, f"attempt {row.attempt}: {row.job}"])


def _is_over(job: str, rows: Callable[[], tuple[Sequence[Attempt], bool]]) -> bool:
    known, is_over = rows()
    return is_over or any(row.job == job and row.state is not AttemptState.ACTIVE for row in known)


def _read(path: Path, offset: int) -> Iterator[bytes]:
    with suppress(OSError):
        descriptor = files.open_regular(path, os.O_RDONLY)
        try:
            while data := os.pread(descriptor, _CHUNK, offset):
                yield data
                offset += len(data)
        finally:
            os.close(descriptor)


def _start_of_last(path: Path, count: int) -> int:
    """Where the last so many lines of a file begin; what has no end of line yet is one of them."""
    with suppress(OSError):
        descriptor = files.open_regular(path, os.O_RDONLY)
        try:
            size = start = os.fstat(descriptor).st_size
            wanted = count if size and os.pread(descriptor, 1, size - 1) != b"\n" else count + 1
            while start > 0 and count > 0:
                begin = max(0, start - _CHUNK)
                data = os.pread(descriptor, start - begin, begin)
                while (at := data.rfind(b"\n")) >= 0:
                    wanted -= 1
                    if wanted == 0:
                        return begin + at + 1
                    data = data[:at]
                start = begin
        finally:
            os.close(descriptor)
        return 0 if count else size
    return 0
