"""The planner's archives: whether a cycle left a new one that can be read and that speaks of this cycle.

An archive is JSON lines, gzipped or plain. It counts as fresh where the file is new or changed, every line is a JSON
object, and the newest record was made after the cycle began: a copy of an old archive, or a touched one, is not fresh.
"""

import glob
import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import translate
from pathlib import Path
from typing import Any, BinaryIO

from run_cycle_loop.kit.files import open_regular
from run_cycle_loop.model.records import ArtifactVerdict

#: Where a record says when it was made; the first of these that can be read counts.
TIMESTAMP_KEYS = ("timestamp", "finished_at", "created_at", "generated_at", "time", "ts")

_MOST_BYTES = 256 << 20  #: decompressed, over all the archives that one verdict looks into
_LONGEST_LINE = 8 << 20
_MOST_CANDIDATES = 100
_TOLERANCE = timedelta(minutes=5)  #: between the planner's clock and ours
_GZIP_MAGIC = b"\x1f\x8b"
#: Epoch seconds stay below this for three thousand years; what is above counts in milliseconds or finer.
_NOT_SECONDS = 1e11

Signature = tuple[int, int, int, int, int]


class _Unfit(Exception):  # noqa: N818 - a finding, not an error
    """Why an archive does not count, in one clause."""


class PlannerArchives:
    """Implements the port ``Artifacts`` for all the files that a shell pattern matches (``**`` is understood)."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._folders, name = os.path.split(pattern)
        self._is_match = re.compile(translate(name)).match
        self._hidden = name.startswith(".")

    def mark(self) -> Mapping[str, Signature]:
        """The signatures of all the archives: device, inode, size, times of content and of the inode."""
        return dict(self._scan())

    def verify(self, mark: object, *, started_at: datetime, finished_at: datetime) -> ArtifactVerdict:
        """Whether something new and valid came since ``mark``; only what is new or changed is opened, newest first."""
        before = mark if isinstance(mark, Mapping) else {}
        found = sorted(self._scan(), key=lambda item: item[1][3], reverse=True)
        newest = Path(found[0][0]) if found else None
        candidates = [Path(name) for name, signature in found if before.get(name) != signature][:_MOST_CANDIDATES]
        if not candidates:
            return ArtifactVerdict(fresh=False, path=newest, detail=f"no new archive matches {self._pattern}")
        budget = _Budget(_MOST_BYTES)
        findings = []
        for path in candidates:
            try:
                made_at = _newest_record(path, budget)
                _require_within(made_at, started_at, finished_at)
            except _Unfit as finding:
                findings.append(f"archive {path.name} {finding}")
            else:
                return ArtifactVerdict(fresh=True, path=path, detail=f"newest record of {path.name}: {made_at.moment}")
        return ArtifactVerdict(fresh=False, path=newest, detail=findings[0])

    def _scan(self) -> Iterator[tuple[str, Signature]]:
        folders = glob.iglob(self._folders, recursive=True) if self._folders else ["."]  # noqa: PTH207 - may be absolute
        for folder in folders:
            try:
                with os.scandir(folder) as entries:
                    yield from filter(None, map(self._signature, entries))
            except OSError:
                continue  # gone meanwhile, or no folder: nothing in it is new

    def _signature(self, entry: "os.DirEntry[str]") -> tuple[str, Signature] | None:
        if not self._is_match(entry.name) or (entry.name.startswith(".") and not self._hidden):
            return None
        try:
            if not entry.is_file(follow_symlinks=False):
                return None
            stat = entry.stat(follow_symlinks=False)
        except OSError:
            return None
        return entry.path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@dataclass(slots=True)
class _Budget:
    """How many bytes may still be read for one verdict: a few kilobytes of gzip can unpack to a full disk."""

    left: int

    def line(self, file: BinaryIO | gzip.GzipFile) -> bytes:
        line = file.readline(min(self.left, _LONGEST_LINE) + 1)
        self.left -= len(line)
        if self.left < 0 or len(line) > _LONGEST_LINE:
            raise _Unfit("is too large to verify; archive less at a time")
        return line


@dataclass(frozen=True, order=True, slots=True)
class _Stamp:
    """When a record was made: at ``moment`` or up to ``blur`` later, as the digits that were written allow."""

    moment: datetime
    blur: timedelta


def _require_within(made_at: _Stamp, started_at: datetime, finished_at: datetime) -> None:
    if made_at.moment <= started_at - made_at.blur:
        raise _Unfit(
            f"has no record newer than the cycle's start, its newest is of {made_at.moment}: an old archive was copied "
            "or touched"
        )
    if made_at.moment > finished_at + _TOLERANCE:
        raise _Unfit(f"is from the future, its newest record is of {made_at.moment}; compare the clocks")


def _newest_record(path: Path, budget: _Budget) -> _Stamp:
    stamps = map(_stamp_of, _records(path, budget))
    newest = max((stamp for stamp in stamps if stamp is not None), default=None)
    if newest is None:
        raise _Unfit(f"holds no record with a time; give each one of {', '.join(TIMESTAMP_KEYS)}")
    return newest


def _records(path: Path, budget: _Budget) -> Iterator[Mapping[str, Any]]:
    number = 1
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            is_packed = path.suffix == ".gz" or file.peek(2)[:2] == _GZIP_MAGIC
            unpacked = gzip.GzipFile(fileobj=file) if is_packed else file
            while line := budget.line(unpacked):
                if not line.isspace():
                    yield _parsed(line, number)
                    number += 1
    except (OSError, EOFError, zlib.error) as error:
        kind = "gzip" if path.suffix == ".gz" else "archive"
        raise _Unfit(f"is no readable {kind} at record {number}: {error}") from error


def _parsed(line: bytes, number: int) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise _Unfit(f"is damaged: record {number} is no JSON object")
    return record


def _stamp_of(record: Mapping[str, Any]) -> _Stamp | None:
    stamps = (_stamp(record[key]) for key in TIMESTAMP_KEYS if key in record)
    return next((stamp for stamp in stamps if stamp is not None), None)


def _stamp(value: object) -> _Stamp | None:
    """ISO 8601 (without a zone: UTC), or seconds, milliseconds, ... since 1970."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return _Stamp(moment.astimezone(UTC), _blur(whole_seconds="." not in value and "," not in value))
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            seconds: float = value
            while abs(seconds) >= _NOT_SECONDS:
                seconds /= 1000
            whole = isinstance(value, int) and seconds == value
            return _Stamp(datetime.fromtimestamp(seconds, UTC), _blur(whole_seconds=whole))
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _blur(*, whole_seconds: bool) -> timedelta:
    return timedelta(seconds=1) if whole_seconds else timedelta(milliseconds=1)
