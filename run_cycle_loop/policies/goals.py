"""Which of several goals a cycle works on: pure, so that a recorded choice can be made again."""

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate


class Order(StrEnum):
    """How the goals of a file are taken."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    UNTIL_DONE = "until-done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One goal of a file."""

    text: str
    weight: float = 1.0

    @property
    def key(self) -> str:
        """What names it for ever, wherever it stands in the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def choose(goals: Sequence[Listed], order: Order, *, turn: int, seed: int, done: Collection[str]) -> int | None:
    """The index of the goal for this turn; None where all are done.

    Args:
        goals: at least one.
        order: how they are taken.
        turn: how many turns were taken before.
        seed: decides a random order together with the turn, so that the record tells how it came about.
        done: keys of the goals that are reached.
    """
    match order:
        case Order.ROUND_ROBIN:
            return turn % len(goals)
        case Order.RANDOM:
            return _weighted(goals, _chance(seed, turn))
        case Order.UNTIL_DONE:
            return next((index for index, goal in enumerate(goals) if goal.key not in done), None)


def _chance(seed: int, turn: int) -> float:
    """A number from 0 to 1 (not included) that seed and turn alone decide."""
    digest = hashlib.sha256(f"{seed}:{turn}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56


def _weighted(goals: Sequence[Listed], chance: float) -> int:
    sums = list(accumulate(goal.weight for goal in goals))
    return min(bisect_right(sums, chance * sums[-1]), len(goals) - 1)
