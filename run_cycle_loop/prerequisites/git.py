"""Whether the checkout that a cycle works in is up to date."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from run_cycle_loop.clients import git
from run_cycle_loop.clients.git import Freshness, GitError
from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.kit.processes import Pulse
from run_cycle_loop.model.ports import OutputLog
from run_cycle_loop.model.records import CheckResult, CycleSpec

OFF, WARN, REQUIRE = "off", "warn", "require"
FF_ONLY = "ff-only"
_FOR_THE_FETCH = 0.75  #: of the time; the rest is for looking


@dataclass(frozen=True, kw_only=True, slots=True)
class GitCheck:
    """Holds where the upstream, as last fetched, has nothing that the checkout has not; changed files are only told.

    With ``update`` it is the one check that writes: it fetches, and fast-forwards where nothing stands in the way.
    """

    folder: Path
    mode: str  #: ``off``, ``warn`` or ``require``
    update: str  #: ``off`` or ``ff-only``
    max_fetch_age: float | None  #: seconds; None: any
    timeout: float  #: seconds for all of it
    environ: Mapping[str, str]
    now: Callable[[], datetime]
    pulse: Pulse | None = None

    def check(self, spec: CycleSpec, _log: OutputLog) -> CheckResult:
        """Look; nothing that the repository names is run."""
        name, required = f"git {self.folder}", self.mode == REQUIRE
        if self.mode == OFF:
            return CheckResult(name=name, ok=True, detail="not looked at", required=False)
        refusal, left = "", self.timeout
        # A cycle with number 0 is only looked at: nothing may be written for it.
        if self.update == FF_ONLY and spec.number:
            left = self.timeout * (1 - _FOR_THE_FETCH)
            refusal = self._update(self.timeout - left)
        found = git.freshness(
            self.folder, environ=self.environ, now=self.now().timestamp(), timeout=left, pulse=self.pulse
        )
        fault = self._fault(found) or (f"not updated: {refusal}" if refusal else None)
        detail = describe(found) if fault is None else f"{describe(found)}; {fault}"
        return CheckResult(name=name, ok=fault is None, detail=printable(detail), required=required, guard="git")

    def _update(self, timeout: float) -> str:
        """Bring it up to date; why that was not possible, or nothing."""
        try:
            git.fetch_and_ff(
                self.folder, environ=self.environ, now=self.now().timestamp(), timeout=timeout, pulse=self.pulse
            )
        except GitError as error:
            return str(error)
        return ""

    def _fault(self, found: Freshness) -> str | None:
        """What is not as it must be, and the next step; None where all is well."""
        if "checkout" in found.unknown:
            return "name a checkout with --workdir, or turn --git-check off"
        if found.lock_age is not None:
            return "another git is at work or has died; remove index.lock where none is"
        if found.behind is None or found.ahead is None:
            return f"unknown: {found.unknown.get('behind', 'it could not be told')}; mend it, or turn --git-check off"
        if found.behind:
            return "they have gone apart; merge them" if found.ahead else "bring it up to date with git pull --ff-only"
        if self.max_fetch_age is not None and (found.fetch_age is None or found.fetch_age > self.max_fetch_age):
            return f"not fetched in the last {format_duration(self.max_fetch_age)}; git fetch"
        return None


def describe(found: Freshness) -> str:
    """One line: ``main at 1a2b3c4, 0 ahead, 2 behind origin/main, 3 changed files, fetched 2h ago``."""
    if "checkout" in found.unknown:
        return f"unknown: {found.unknown['checkout']}"
    at = found.commit[:7] if found.commit else "no commit"
    parts = [f"{found.branch or ('detached' if found.commit else 'unknown')} at {at}"]
    if found.ahead is not None and found.behind is not None:
        parts.append(f"{found.ahead} ahead, {found.behind} behind {found.upstream}")
    else:
        parts.append(f"{found.upstream or 'upstream'} unknown")
    parts.append("changes unknown" if found.dirty is None else _changes(found.dirty))
    parts.append("last fetch unknown" if found.fetch_age is None else f"fetched {_ago(found.fetch_age)}")
    if found.lock_age is not None:
        parts.append(f"index.lock from {_ago(found.lock_age)}")
    if found.shallow:
        parts.append("shallow")
    return ", ".join(parts)


def _changes(count: int) -> str:
    return "no changed files" if not count else f"{count} changed file{'' if count == 1 else 's'}"


def _ago(seconds: float) -> str:
    return f"{format_duration(max(seconds, 0.0))} ago"
