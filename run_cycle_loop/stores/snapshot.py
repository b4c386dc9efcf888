"""``latest.json``: one screen of truth, replaced whole, rebuilt from the history when damaged."""

import json
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.ports import History
from run_cycle_loop.model.snapshots import LoopSnapshot

_LARGEST = 1 << 20


class LatestJson:
    """Implements the port ``SnapshotStore``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def replace(self, snapshot: LoopSnapshot) -> None:
        """Rewrite the file. Not synced to disk: it can always be rebuilt.

        Raises:
            StateError: it could not be rewritten.
        """
        # One line: the encoder's own ``indent`` is slower by ten, and this is written three times a cycle.
        data = json.dumps(snapshot.as_dict(), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            try:
                files.replace_file(self.path, data)
            except FileNotFoundError:
                files.make_folder(self.path.parent)
                files.replace_file(self.path, data)
        except OSError as error:
            raise StateError(f"{self.path} cannot be rewritten: {error.strerror or error}; mend its folder") from error

    def load(self, history: History) -> LoopSnapshot:
        """The snapshot, with every record of the history in it; a damaged file is set aside first."""
        try:
            found = self.read()
        except ValueError as error:
            return self._rebuilt(history, note=f"{self._set_aside(history)} ({error})")
        if found is None:
            return self._rebuilt(history, note="")
        # What concerned the last run alone is over with it.
        found = replace(found, note="", state_errors=0, observer_errors=0)
        seen = found.seq
        missing = list(takewhile(lambda record: record.number > seen, history.newest_first()))
        last = history.last()
        if (last.number if last else 0) < seen:
            anew = self._rebuilt(history, note="the history is shorter than latest.json said; it was counted anew")
            # A history that was rotated away took its last record with it, not the fact that the cycle had ended.
            return replace(anew, last_cycle=found.last_cycle)
        for record in reversed(missing):
            found = found.counting(record)
        return found

    def read(self) -> LoopSnapshot | None:
        """What the file says, as it stands; None where there is none.

        Raises:
            ValueError: it is damaged, or of a newer schema.
        """
        try:
            value = json.loads(files.read_bounded(self.path, _LARGEST))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        if not isinstance(value, dict):
            raise ValueError("it holds no object")  # noqa: TRY004 - damage, not a programmer's slip
        return LoopSnapshot.from_dict(value)

    def _set_aside(self, history: History) -> str:
        last = history.last()
        try:
            kept = files.set_aside(self.path, f"corrupt-{last.number if last else 0}")
        except OSError as error:
            return f"damaged {self.path} could not be set aside: {error.strerror or error}"
        return f"damaged {self.path.name} was set aside as {kept.name}"

    @staticmethod
    def _rebuilt(history: History, *, note: str) -> LoopSnapshot:
        counts = history.outcomes()
        snapshot = LoopSnapshot(
            state=LoopState.STARTING,
            updated_at="",
            counts={str(outcome): number for outcome, number in counts.items()},
            success_count=counts[Outcome.SUCCESS],
            failure_count=sum(number for outcome, number in counts.items() if outcome.is_failure),
            note=note,
        )
        last = history.last()
        if last is None:
            return snapshot
        snapshot = snapshot.showing(last)
        usd, tokens = 0.0, 0
        for record in history.records():
            usd, tokens = usd + record.charged_usd, tokens + record.charged_tokens
        success = next((record for record in history.newest_first() if record.status is Outcome.SUCCESS), None)
        archive = next((record for record in history.newest_first() if record.archive_created), None)
        return replace(
            snapshot,
            charged_usd=round(usd, 6),
            charged_tokens=tokens,
            last_success_at=(success.finished_at or success.timestamp) if success else None,
            last_archive=archive.archive_path if archive else None,
        )
