import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.goals.several import SeveralGoals
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.policies.goals import Listed, Order
from run_cycle_loop.testing import InMemoryHistory, make_record

GOALS = (Listed(text="one"), Listed(text="two"), Listed(text="three"))


class Lab:
    """Several goals over a state file and a history, opened again as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "goals.json"
        self.history = InMemoryHistory()
        self.mended: list[str] = []
        self.draws = 0

    def goals(self, order: Order, seed: int | None = None, listed: Sequence[Listed] = GOALS) -> SeveralGoals:
        return SeveralGoals(
            lambda: listed,
            source="goals.txt",
            order=order,
            seed=seed,
            draw=self.draw,
            path=self.path,
            records=self.history.newest_first,
            mend=self.mend,
        )

    def draw(self) -> int:
        self.draws += 1
        return 700 + self.draws

    def mend(self, path: Path, error: Exception) -> None:
        path.rename(path.with_suffix(".aside"))
        self.mended.append(str(error))

    def work(self, goals: SeveralGoals, status: Outcome = Outcome.SUCCESS, **control: Any) -> str | None:
        number = len(list(self.history.records())) + 1
        goal = goals.next(number)
        if goal is None:
            return None
        record: CycleRecord = make_record(number, status, goal=goal.text, goal_origin=goal.origin, control=control)
        goals.note(record)
        self.history.append(record)
        return goal.text


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_round_robin_goes_on_where_the_last_run_was(lab: Lab) -> None:
    assert [lab.work(lab.goals(Order.ROUND_ROBIN)) for _ in range(5)] == ["one", "two", "three", "one", "two"]


@pytest.mark.parametrize("status", [Outcome.RATE_LIMITED, Outcome.PREREQ_FAILED, Outcome.INTERRUPTED])
def test_a_goal_that_was_not_tried_is_asked_for_again(lab: Lab, status: Outcome) -> None:
    goals = lab.goals(Order.ROUND_ROBIN)
    assert [lab.work(goals), lab.work(goals, status), lab.work(goals)] == ["one", "two", "two"]


def test_a_failed_cycle_takes_its_turn(lab: Lab) -> None:
    goals = lab.goals(Order.ROUND_ROBIN)
    assert [lab.work(goals, Outcome.FAILED), lab.work(goals)] == ["one", "two"]


def test_random_is_drawn_once_and_its_seed_stands_in_every_record(lab: Lab) -> None:
    texts = [lab.work(lab.goals(Order.RANDOM)) for _ in range(12)]
    origins = [record.goal_origin or {} for record in lab.history.records()]
    assert ({origin["seed"] for origin in origins}, lab.draws) == ({701}, 1)
    assert len(set(texts)) > 1


def test_a_recorded_seed_gives_the_same_choices_again(lab: Lab, tmp_path: Path) -> None:
    texts = [lab.work(lab.goals(Order.RANDOM)) for _ in range(12)]
    other = Lab(tmp_path / "other")
    other.path.parent.mkdir()
    assert [other.work(other.goals(Order.RANDOM, seed=701)) for _ in range(12)] == texts


def test_weights_count(lab: Lab) -> None:
    heavy = (Listed(text="rare", weight=0.05), Listed(text="often", weight=0.95))
    goals = lab.goals(Order.RANDOM, seed=1, listed=heavy)
    texts = [lab.work(goals) for _ in range(200)]
    assert 0 < texts.count("rare") < 30


def test_until_done_stays_until_the_cycle_says_so_and_ends_with_the_last(lab: Lab) -> None:
    goals = lab.goals(Order.UNTIL_DONE)
    said: list[Any] = [lab.work(goals), lab.work(goals, done=True), lab.work(goals, done=True)]
    said += [lab.work(goals, done="yes"), lab.work(goals, done=True), lab.work(goals)]
    assert said == ["one", "one", "two", "three", "three", None]


@pytest.mark.parametrize("status", [Outcome.FAILED, Outcome.TIMEOUT, Outcome.RATE_LIMITED])
def test_a_cycle_that_did_not_end_well_reaches_nothing(lab: Lab, status: Outcome) -> None:
    goals = lab.goals(Order.UNTIL_DONE)
    assert [lab.work(goals, status, done=True), lab.work(goals)] == ["one", "one"]


def test_a_goal_that_is_done_stays_done_when_the_file_is_sorted_anew(lab: Lab) -> None:
    lab.work(lab.goals(Order.UNTIL_DONE), done=True)
    assert lab.work(lab.goals(Order.UNTIL_DONE, listed=(GOALS[2], GOALS[0], GOALS[1]))) == "three"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"schema_version": 9}', '{"schema_version": 1, "turn": -1}', "\0" * 9]
)
def test_damage_forgets_nothing_for_the_history_knows(lab: Lab, damage: str) -> None:
    for _ in range(2):
        lab.work(lab.goals(Order.UNTIL_DONE), done=True)
    lab.path.write_text(damage)
    assert lab.work(lab.goals(Order.UNTIL_DONE)) == "three"
    assert len(lab.mended) == 1
    assert lab.path.with_suffix(".aside").read_text() == damage


def test_a_lost_file_forgets_nothing_either(lab: Lab) -> None:
    first = [lab.work(lab.goals(Order.ROUND_ROBIN)) for _ in range(2)]
    lab.path.unlink()
    assert [*first, lab.work(lab.goals(Order.ROUND_ROBIN))] == ["one", "two", "three"]


def test_what_is_kept_is_plain_json(lab: Lab) -> None:
    lab.work(lab.goals(Order.RANDOM, seed=5), done=True)
    kept = json.loads(lab.path.read_text())
    assert (kept["seed"], kept["turn"], len(kept["done"])) == (5, 1, 1)
