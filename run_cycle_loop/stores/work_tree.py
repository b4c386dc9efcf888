"""The work tree under its caps: measured from outside before, during and after a cycle, and put back where a cycle
wrote more than it may. What was written is parked under ``quarantine/<cycle id>``, never deleted.

A cycle in whose course the supervisor dies is found again by ``baseline/pending.json``.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from run_cycle_loop.kit import files
from run_cycle_loop.kit import fingerprint as digests
from run_cycle_loop.kit.manifest import MAX_ENTRIES, Changes, Manifest, Scan, compare, is_in_git
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.findings import GuardFinding, TreeVerdict
from run_cycle_loop.model.ports import Clock
from run_cycle_loop.model.records import CycleSpec
from run_cycle_loop.stores.tree_copy import TreeCopy
from run_cycle_loop.stores.tree_restore import Restoration

MAX_COPY_BYTES = 2 << 30
_BEAT = 0.25  #: seconds between two signs of life while a whole tree is measured
_STEP = 0.01  #: seconds of one look; what is begun then may come on top
_SHARE = 10  #: a look costs a tenth of the time at most: so much longer than a scan is the pause behind it
_PAUSE = 0.5  #: seconds between two scans at the least
_PENDING_LIMIT = 1 << 16  #: bytes
_CYCLE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_EMPTY = Manifest(root=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """How much one cycle may do to the tree; None is no limit."""

    files: int | None = None  #: created, changed and deleted; none of those below ``.git``
    bytes: int | None = None  #: in created and changed files, those below ``.git`` too

    def exceeded(self, files: int, size: int) -> str | None:
        """What is over a cap, in words."""
        if self.files is not None and files > self.files:
            return f"{files} files are created, changed or deleted, more than the {self.files} that a cycle may"
        if self.bytes is not None and size > self.bytes:
            return f"created and changed files take {size} bytes, more than the {self.bytes} that a cycle may write"
        return None


class MeasuredTree:
    """Implements the port ``WorkTree`` for a folder, which may be missing: that is an empty tree.

    Args:
        root: the folder that cycles work in.
        state_dir: where ``baseline`` and ``quarantine`` are.
        exclude: paths that are no part of the tree: the loop's own folders, environments. ``state_dir`` always is.
        mode: ENFORCE keeps a copy and puts the tree back, WARN only measures, OFF does nothing.
        caps: what a cycle may do.
        clock: for the pace of the looks.
        max_copy_bytes: a larger tree is not copied, and no cycle starts on it.
        max_entries: a tree with more entries is not measured, and no cycle starts on it under ENFORCE.
        fingerprint: whether to take one after each cycle; by default where anything is measured.
        beat: called now and then while a large tree is measured or copied: the loop lives. Where it gives something
            true while the tree is marked, the cycle is not wanted any more.
    """

    def __init__(  # noqa: PLR0913 - each is a fact of its own, named at the call
        self,
        root: Path,
        state_dir: Path,
        *,
        mode: GuardMode,
        caps: Caps,
        clock: Clock,
        exclude: Collection[Path] = (),
        max_copy_bytes: int = MAX_COPY_BYTES,
        max_entries: int = MAX_ENTRIES,
        fingerprint: bool | None = None,
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        self._root = Path(os.path.realpath(root))
        self._exclude = tuple(os.path.realpath(path) for path in (*exclude, state_dir))
        self._mode = mode
        self._caps = caps
        self._clock = clock
        self._max_entries = max_entries
        self._takes_fingerprint = mode is not GuardMode.OFF if fingerprint is None else fingerprint
        self._beat = beat
        self._is_marking = False
        self._copy = TreeCopy(state_dir / "baseline", max_copy_bytes, self._give_sign)
        self._pending = state_dir / "baseline" / "pending.json"
        self._quarantine = state_dir / "quarantine"
        self._known: dict[tuple[object, ...], bytes] = {}
        self._mark: Manifest | None = None
        self._counted = 0
        self._over: str | None = None  #: what a look has seen
        self._spec: CycleSpec | None = None
        self._noted = False  #: whether pending.json names this cycle
        self._scan: Scan | None = None
        self._spent = 0.0
        self._next_look = 0.0

    # --- before ----------------------------------------------------------------------------------------------------

    def mark(self, spec: CycleSpec) -> None:
        """Take the tree as it is; with ENFORCE also a copy of what is new in it.

        Raises:
            RunnerError: it cannot be measured, copied or noted: the cycle must not start.
        """
        self._end_scan()
        self._mark, self._over, self._spec, self._noted = None, None, spec, False
        self._next_look = self._clock.monotonic() + _PAUSE
        if self._mode is GuardMode.OFF:
            return
        if not os.path.lexists(self._root):
            self._mark, self._counted = _EMPTY, 0
            return
        self._is_marking = True
        try:
            mark = self._measure(None)
            if self._mode is GuardMode.ENFORCE:
                self._require_whole(mark)
                mark = self._copy.keep(self._root, mark)
                self._note(spec.cycle_id, mark)
        except OSError as error:
            detail = error.strerror or error
            raise RunnerError(
                f"workdir {self._root} cannot be taken before the cycle: {detail} ({error.filename or self._pending}); "
                "mend that, or take --write-guard warn"
            ) from error
        finally:
            self._is_marking = False
        self._mark = mark
        self._counted = sum(not is_in_git(path) for path, _ in mark.files())

    def _measure(self, before: Manifest | None) -> Manifest:
        scan = Scan(self._root, exclude=self._exclude, max_entries=self._max_entries, force=True, before=before)
        while not scan.step(_BEAT):
            self._give_sign()
        return scan.manifest()

    def _give_sign(self) -> None:
        if self._beat() and self._is_marking:  # what is put back afterwards is put back to its end
            raise RunnerError(
                f"workdir {self._root} was not taken to its end, because the cycle is not wanted any more"
            )

    def _require_whole(self, mark: Manifest) -> None:
        if mark.root is None and not mark.faults:
            raise RunnerError(f"workdir {self._root} is no folder; name another --workdir, or remove what stands there")
        faults = [
            *filter(None, [mark.overflow]),
            *mark.faults,
            *(f"a mount point stands in it: {path!r}" for path in mark.mounts),
        ]
        if faults:
            raise RunnerError(
                f"workdir {self._root} could not be put back after a cycle: {faults[0]}; name a smaller --workdir, or "
                "take --write-guard warn"
            )

    def _note(self, cycle_id: str, mark: Manifest, **more: Any) -> None:
        """Say durably which cycle works on the tree, and how far the putting back has come."""
        files.make_folder(self._pending.parent)
        value = {
            "schema_version": 1,
            "cycle_id": cycle_id,
            "root": str(self._root),
            "existed": mark.root is not None,
            **more,
        }
        files.replace_file(self._pending, json.dumps(value).encode(), durable=True)
        self._noted = True

    def _forget(self) -> None:
        if self._noted:
            with suppress(OSError):
                self._pending.unlink(missing_ok=True)
                files.sync_folder(self._pending.parent)
        self._noted = False

    # --- during ----------------------------------------------------------------------------------------------------

    def look(self) -> str | None:
        """Scan a little further; one sentence once the cycle is over a cap, under ENFORCE."""
        if self._mode is not GuardMode.ENFORCE or self._mark is None or self._spec is None or self._over:
            return self._over
        began = self._clock.monotonic()
        if began < self._next_look:
            return None
        try:
            if self._mark is _EMPTY and not self._noted:
                if not os.path.lexists(self._root):
                    self._next_look = began + _PAUSE
                    return None
                self._note(self._spec.cycle_id, self._mark)
            self._look_on(self._mark, began)
        except OSError:
            self._end_scan()  # what a look cannot see, the measurement after the cycle does
            self._next_look = began + _PAUSE
        return self._over

    def _look_on(self, mark: Manifest, began: float) -> None:
        if self._scan is None:
            self._scan = Scan(self._root, exclude=self._exclude, max_entries=self._max_entries, before=mark, keep=False)
            self._spent = 0.0
        scan = self._scan
        done = scan.step(_STEP)
        took = self._clock.monotonic() - began
        self._spent += took
        counted = scan.least_changed(self._counted, done=done and scan.is_whole)
        self._over = self._caps.exceeded(counted, scan.bytes)
        if done and self._over is None:
            self._over = _too_many(scan.manifest())
        if done or self._over:
            self._end_scan()
            self._next_look = began + max(_PAUSE, _SHARE * self._spent)
        else:
            self._next_look = began + _SHARE * took

    def _end_scan(self) -> None:
        if self._scan is not None:
            self._scan.close()
        self._scan = None

    # --- after -----------------------------------------------------------------------------------------------------

    def settle(self, spec: CycleSpec) -> TreeVerdict:
        """Measure the tree; over a cap it is put back under ENFORCE. Never raises for what it finds."""
        self._end_scan()
        mark, self._mark = self._mark, None
        try:
            verdict = self._fingerprint_only() if mark is None else self._judge(spec.cycle_id, mark)
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or error
            verdict = TreeVerdict(finding=self._finding(f"workdir {self._root} could not be measured: {detail}"))
        self._forget()
        return verdict

    def _fingerprint_only(self) -> TreeVerdict:
        if not self._takes_fingerprint:
            return TreeVerdict()
        return TreeVerdict(fingerprint=self._fingerprint(self._measure(None)))

    def _fingerprint(self, manifest: Manifest) -> str | None:
        return digests.fingerprint(self._root, manifest, self._known) if self._takes_fingerprint else None

    def _judge(self, cycle_id: str, mark: Manifest) -> TreeVerdict:
        if mark is _EMPTY and not os.path.lexists(self._root) and self._over is None:
            return TreeVerdict(fingerprint=self._fingerprint(_EMPTY))
        now = self._measure(mark)
        enforced = self._mode is GuardMode.ENFORCE
        suspects = self._copy.changed_secretly(self._root, mark, now) if enforced and mark is not _EMPTY else ()
        changes = compare(mark, now, also=suspects)
        over = self._caps.exceeded(changes.files, changes.bytes) or _too_many(now)
        if over is None and self._over:
            over = f"while the cycle ran, {self._over}"
        if over is None and now.root is None and mark.root is not None and os.path.lexists(self._root):
            over = "something else has the name of the folder itself"
        verdict = TreeVerdict(files=changes.files, bytes=changes.bytes)
        if over and enforced:
            quarantine = self._parking_for(cycle_id)
            with suppress(OSError):  # the tree is put back all the same
                _describe(quarantine, cycle_id, self._root, over, changes, mark, now)
            return self._put_back(cycle_id, mark, verdict, over, suspects)
        doubts = [*now.faults, *(f"a mount point stands in it: {path!r}" for path in now.mounts)]
        sentence = over or (f"workdir {self._root} could not be measured whole: {doubts[0]}" if doubts else None)
        finding = self._finding(sentence) if sentence else None
        return replace(verdict, fingerprint=self._fingerprint(now), finding=finding)

    def _put_back(
        self,
        cycle_id: str,
        mark: Manifest,
        verdict: TreeVerdict,
        over: str,
        suspects: Collection[str],
    ) -> TreeVerdict:
        """Park what was written and restore what was there; a note of it outlives this process."""
        with suppress(OSError):  # the tree is put back all the same
            self._note(cycle_id, mark, parking={"files": verdict.files, "bytes": verdict.bytes, "over": over})
        quarantine = self._parking_for(cycle_id)
        exclude = self._exclude
        left = Restoration(self._root, mark, self._copy, quarantine, exclude=exclude, suspects=suspects).run()
        sentence = f"{over}; all that it wrote is parked in {quarantine}, and the tree is as it was"
        if left:
            more = f" and {len(left) - 2} more" if len(left) > 2 else ""
            sentence = (
                f"{over}; it is parked in {quarantine}, but the tree is not as it was: {'; '.join(left[:2])}{more}; "
                "put that right by hand"
            )
        with suppress(OSError):
            verdict = replace(verdict, fingerprint=self._fingerprint(self._measure(None)))
        return replace(verdict, finding=self._finding(sentence), quarantine=quarantine)

    def _parking_for(self, cycle_id: str) -> Path:
        """Where a cycle's work is parked; what the cycle may have put there to lead it elsewhere is set aside."""
        place = self._quarantine / cycle_id
        for folder in (self._quarantine, place, place / "tree"):
            with suppress(OSError):
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    files.set_aside(folder, "planted")
        return place

    def _finding(self, sentence: str) -> GuardFinding:
        return GuardFinding(guard="write_cap", mode=self._mode, ok=False, detail=sentence)

    # --- after the supervisor's own death --------------------------------------------------------------------------

    def recover(self) -> TreeVerdict | None:
        """Settle the cycle that a dead supervisor left, once nothing of it runs; None where none is noted.

        To be called before the first ``mark``. Never raises for what it finds.
        """
        try:
            raw = files.read_bounded(self._pending, _PENDING_LIMIT)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return TreeVerdict(finding=self._finding(f"{self._pending} cannot be read: {error}; look at it yourself"))
        self._noted = True
        try:
            cycle_id, existed, parking = self._read_note(json.loads(raw))
            mark = self._copy.load() if existed else _EMPTY
            if parking is None:
                verdict = self._judge(cycle_id, mark) if self._mode is GuardMode.ENFORCE else None
                self._forget()
                return verdict
            verdict = TreeVerdict(files=int(parking["files"]), bytes=int(parking["bytes"]))
            suspects = self._copy.changed_secretly(self._root, mark, self._measure(None)) if existed else ()
            verdict = self._put_back(cycle_id, mark, verdict, str(parking["over"]), suspects)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            with suppress(OSError):
                files.set_aside(self._pending, "damaged")
            detail = getattr(error, "strerror", None) or error
            sentence = f"what the lost cycle did to {self._root} could not be judged: {detail}; compare it yourself"
            verdict = TreeVerdict(finding=self._finding(sentence))
        self._forget()
        return verdict

    def _read_note(self, value: Any) -> tuple[str, bool, dict[str, Any] | None]:
        cycle_id, parking = str(value["cycle_id"]), value.get("parking")
        if _CYCLE_ID.fullmatch(cycle_id) is None:
            raise ValueError(f"{cycle_id!r} is no cycle's name")
        if value["root"] != str(self._root):
            raise ValueError(f"it worked in {value['root']!r}, which is no longer the workdir")
        if parking is not None and not isinstance(parking, dict):
            raise ValueError("its note is damaged")
        return cycle_id, bool(value["existed"]), parking


def _too_many(manifest: Manifest) -> str | None:
    """A tree that grew too large to be measured is over any cap."""
    return f"the tree can no longer be measured: {manifest.overflow}" if manifest.overflow else None


def _describe(
    quarantine: Path, cycle_id: str, root: Path, over: str, changes: Changes, mark: Manifest, now: Manifest
) -> None:
    """Write down, before anything moves, what is about to be parked and why."""
    files.make_folder(quarantine)
    value = {
        "schema_version": 1,
        "cycle_id": cycle_id,
        "workdir": str(root),
        "reason": over,
        "files": changes.files,
        "bytes": changes.bytes,
        "created": _sizes(changes.created, now),
        "changed": _sizes(changes.changed, now),
        "deleted": _sizes(changes.deleted, mark),
    }
    files.replace_file(quarantine / "manifest.json", json.dumps(value, indent=1).encode() + b"\n", durable=True)


def _sizes(paths: Collection[str], manifest: Manifest) -> dict[str, int]:
    return {path: manifest.entries[path].size for path in paths}
