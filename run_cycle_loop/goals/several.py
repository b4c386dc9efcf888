"""One of several goals for each cycle, in an order that outlives the process."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from run_cycle_loop.kit import files
from run_cycle_loop.model import reading
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.records import CycleRecord, Goal
from run_cycle_loop.policies.goals import Listed, Order, choose

_LARGEST = 4 << 20
_SCHEMA_VERSION = 1
#: Nothing of the goal was tried in a cycle that came to one of these: it is asked for again.
_UNTRIED = frozenset({Outcome.RATE_LIMITED, Outcome.PREREQ_FAILED, Outcome.INTERRUPTED, Outcome.SKIPPED})
_ENDED_WELL = frozenset({Outcome.SUCCESS, Outcome.DEGRADED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the goals are."""

    seed: int
    turn: int = 0  #: turns taken
    done: frozenset[str] = field(default_factory=frozenset)  #: keys of the goals that are reached

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of ``goals.json``."""
        return {
            "schema_version": _SCHEMA_VERSION,
            "seed": self.seed,
            "turn": self.turn,
            "done": sorted(self.done),
        }

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Read it back.

        Raises:
            ValueError: it is no progress of this version.
        """
        if not isinstance(value, dict) or value.get("schema_version") != _SCHEMA_VERSION:
            raise ValueError("it holds no progress of this version")
        return cls(
            seed=reading.count(value.get("seed")),
            turn=reading.count(value.get("turn")),
            done=frozenset(reading.texts(value.get("done"))),
        )


class SeveralGoals:
    """Implements the port ``Goals``; its state is derived from the history wherever the file is missing or damaged."""

    def __init__(
        self,
        read: Callable[[], Sequence[Listed]],
        *,
        source: str,
        order: Order,
        seed: int | None,
        draw: Callable[[], int],
        path: Path,
        records: Callable[[], Iterator[CycleRecord]],
        mend: Callable[[Path, Exception], None],
    ) -> None:
        self._read = read  #: raises ConfigError where the file cannot be read
        self._source = source
        self._order = order
        self._seed = seed  #: the operator's
        self._draw = draw  #: gives a seed where there is neither that one nor one on record
        self._path = path
        self._records = records  #: newest first
        self._mend = mend  #: sets a damaged file aside, and says so
        self._progress: Progress | None = None

    def next(self, number: int) -> Goal | None:  # noqa: ARG002 - the port's signature
        """The goal of the next turn; None where all are reached.

        Raises:
            ConfigError: the file cannot be read.
        """
        goals = self._read()
        progress = self._known()
        index = choose(goals, self._order, turn=progress.turn, seed=progress.seed, done=progress.done)
        if index is None:
            return None
        origin: dict[str, Any] = {
            "source": self._source,
            "order": self._order.value,
            "index": index + 1,
            "of": len(goals),
            "turn": progress.turn,
            "key": goals[index].key,
        }
        if self._order is Order.RANDOM:
            origin["seed"] = progress.seed
        return Goal(text=goals[index].text, origin=origin)

    def note(self, record: CycleRecord) -> None:
        """Take the turn, where the goal was tried, and cross it out where it is reached.

        Raises:
            StateError: that cannot be kept.
        """
        origin = record.goal_origin or {}
        if "turn" not in origin or record.status in _UNTRIED:
            return
        known = self._known()
        turned = replace(
            known, turn=known.turn + 1, done=known.done | ({str(origin.get("key"))} if _is_done(record) else set())
        )
        try:
            files.replace_file(self._path, json.dumps(turned.as_dict()).encode() + b"\n", durable=True)
        except OSError as error:
            raise StateError(
                f"{self._path} cannot be written: {error.strerror or error}; free space there, or mend its folder"
            ) from error
        self._progress = turned

    def _known(self) -> Progress:
        if self._progress is None:
            self._progress = self._loaded()
            if self._seed is not None:
                self._progress = replace(self._progress, seed=self._seed)
        return self._progress

    def _loaded(self) -> Progress:
        try:
            return Progress.from_dict(json.loads(files.read_bounded(self._path, _LARGEST)))
        except FileNotFoundError:
            return self._from_history()
        except (OSError, ValueError, RecursionError) as error:
            self._mend(self._path, error)
            return self._from_history()

    def _from_history(self) -> Progress:
        """What the records tell: the seed and the turn of the newest, and every goal that was reached."""
        done: set[str] = set()
        newest: CycleRecord | None = None
        for record in self._records():
            if "turn" not in (record.goal_origin or {}):
                continue
            newest = newest or record
            if record.status not in _UNTRIED and _is_done(record):
                done.add(str((record.goal_origin or {}).get("key")))
        if newest is None or newest.goal_origin is None:
            return Progress(seed=self._draw())
        turn, seed = newest.goal_origin.get("turn"), newest.goal_origin.get("seed")
        tried = newest.status not in _UNTRIED
        return Progress(
            seed=seed if isinstance(seed, int) else self._draw(),
            turn=(turn if isinstance(turn, int) else 0) + tried,
            done=frozenset(done),
        )


def _is_done(record: CycleRecord) -> bool:
    return record.status in _ENDED_WELL and (record.control or {}).get("done") is True
