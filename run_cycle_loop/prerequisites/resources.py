"""Room to work in: writable folders, free disk, free memory."""

import os
from dataclasses import dataclass
from pathlib import Path

from run_cycle_loop.model.ports import OutputLog
from run_cycle_loop.model.records import CheckResult, CycleSpec

_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class WritableCheck:
    """Whether a path can be written, or made where it is missing."""

    path: Path

    def check(self, _spec: CycleSpec, _log: OutputLog) -> CheckResult:
        """Ask the kernel, without writing anything."""
        there = _nearest(self.path)
        needed = os.W_OK | (os.X_OK if there.is_dir() else 0)
        usable = there.is_dir() or there == self.path.absolute()
        ok = usable and os.access(there, needed)
        detail = "writable" if ok else f"{there} is not writable; mend its owner or mode, or name another path"
        return CheckResult(name=f"writable {self.path}", ok=ok, detail=detail)


def _nearest(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    here = path.absolute()
    while not os.path.lexists(here) and here != here.parent:
        here = here.parent
    return here


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskCheck:
    """Whether enough of a file system is free."""

    path: Path
    least: int  #: bytes

    def check(self, _spec: CycleSpec, _log: OutputLog) -> CheckResult:
        """Ask psutil."""
        import psutil  # noqa: PLC0415 - 19 ms that views need not pay

        name = f"free disk at {self.path}"
        try:
            free = psutil.disk_usage(os.fspath(_nearest(self.path))).free
        except OSError as error:
            return CheckResult(name=name, ok=False, detail=f"cannot be read: {error.strerror or error}; mend it")
        return _enough(name, free, self.least, "free some, or lower --min-free-disk")


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryCheck:
    """Whether enough memory is available."""

    least: int  #: bytes

    def check(self, _spec: CycleSpec, _log: OutputLog) -> CheckResult:
        """Ask psutil; where ``/proc`` is hidden (systemd's ProcSubset=pid) the answer is unknown and does not count."""
        import psutil  # noqa: PLC0415

        try:
            free = psutil.virtual_memory().available
        except (OSError, RuntimeError) as error:
            return CheckResult(name="free memory", ok=False, detail=f"cannot be read: {error}", required=False)
        return _enough("free memory", free, self.least, "end something, or lower --min-free-memory")


def _enough(name: str, free: int, least: int, advice: str) -> CheckResult:
    ok = free >= least
    found = f"{free // _MIB} MiB free"
    return CheckResult(name=name, ok=ok, detail=found if ok else f"{found}, {least // _MIB} MiB needed; {advice}")
