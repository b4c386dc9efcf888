"""One planning after another, on real files, sound and damaged."""

import gzip
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents import digests as kept
from run_cycle_loop.agents.planner import Planned, Request, plan_cycle
from run_cycle_loop.model.errors import ConfigError, StateError

START = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
PLAIN_GOAL = "Recap the last run and plan one measurable next experiment."


class Loop:
    """The planner's surroundings: a state directory whose history grows by one line per cycle."""

    def __init__(self, root: Path) -> None:
        self.state = root / "state"
        self.sandbox = root / "sandbox"
        self.history = self.state / "run_cycle_history.jsonl"
        self.control = root / "control.json"
        self.number = 0
        self.state.mkdir(parents=True)

    def plan(self, **changes: Any) -> Planned:
        """Plan as the next cycle would; the clock moves by a minute."""
        self.number += 1
        asked: dict[str, Any] = {
            "mode": "experimental",
            "goal": PLAIN_GOAL,
            "sandbox": self.sandbox,
            "state_dir": self.state,
            "history_path": self.history,
            "cap_writes": 3,
            "cycle_id": f"cycle-{self.number}",
            "number": self.number,
            "control_file": self.control,
        }
        return plan_cycle(Request(**{**asked, **changes}), START + timedelta(minutes=self.number))

    def record(self, status: str = "success", seconds: float = 1.0, **more: Any) -> None:
        line = {"number": self.number, "status": status, "duration_seconds": seconds, "archive_created": True, **more}
        with self.history.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def cycle(self, status: str = "success", seconds: float = 1.0, **asked: Any) -> Planned:
        planned = self.plan(**asked)
        self.record(status, seconds)
        return planned

    @property
    def digests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state / kept.DIGESTS).read_text().splitlines()]

    @property
    def plan_text(self) -> str:
        return (self.sandbox / "plan.md").read_text()


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def unpacked(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_the_first_cycle_leaves_plan_digest_archive_and_control_payload(loop: Loop) -> None:
    planned = loop.plan()
    (digest,) = loop.digests
    assert digest["timestamp"] == "2026-03-01T12:01:00.250Z"
    assert (digest["cycle_id"], digest["number"], digest["goal"]) == ("cycle-1", 1, PLAIN_GOAL)
    assert len(digest["recap"]) == 3
    assert digest["experiment"]["success_criteria"]
    assert planned.archive_path.name == "planner_digests_20260301T120100Z.jsonl.gz"
    assert unpacked(planned.archive_path) == [digest]
    control = json.loads(loop.control.read_text())
    assert control["continue"] is True
    assert (control["class"], control["agent"]) == ("ok", "planner")
    assert control["outputs"]["plan"] == str(loop.sandbox / "plan.md")
    assert control["outputs"]["archive"] == str(planned.archive_path)
    assert control["usage"] == {"input_tokens": 0, "output_tokens": 0, "cost_usd": 0}


def test_a_digest_left_by_an_agent_is_no_damage_and_is_told(loop: Loop) -> None:
    first = loop.cycle().experiment
    session = {"kind": "agent", "timestamp": "2026-03-01T12:01:30.000Z", "agent": "codex", "class": "ok"}
    kept.record(loop.state, {**session, "summary": "made\nit"}, START)
    planned = loop.plan()
    assert "last session of a coding agent: codex ok (made it)" in planned.recap[0]
    assert "without a readable experiment" not in planned.recap[1]
    assert f"experiment {first.number}" in planned.recap[1]
    assert "- codex ok (made it)" in loop.plan_text


def test_the_recap_counts_outcomes_and_gives_the_reasons(loop: Loop) -> None:
    for seconds in (1.0, 1.0, 1.0, 2.0, 2.0, 2.0):
        loop.cycle("success", seconds)
    loop.plan()
    loop.record("failed", 4.0, reason="exit code 3")
    cycles, _, _ = loop.plan().recap
    assert "6 success, 1 failed" in cycles
    assert "streak: 1 failed" in cycles
    assert "median 2 s, the newer half +100% against the older" in cycles
    assert "cycle 7 failed (exit code 3)" in cycles


def test_a_verdict_follows_once_the_window_is_full(loop: Loop) -> None:
    loop.cycle(goal="fewer failures")
    first = loop.cycle(goal="make it faster").experiment
    again = [loop.cycle("success", 0.5, goal="make it faster") for _ in range(3)]
    assert [planned.experiment for planned in again] == [first] * 3
    judged = loop.plan(goal="make it faster")
    assert [verdict.result for verdict in judged.verdicts] == ["met"]
    assert f"experiment {first.number} (median_duration_seconds is at most 0.9 s) met" in judged.recap[1]
    assert judged.experiment.number > first.number
    assert loop.digests[-1]["verdict"]["experiment"] == first.number


def test_with_a_plain_goal_every_cycle_has_an_experiment_on_another_measure(loop: Loop) -> None:
    experiments = [loop.cycle().experiment for _ in range(9)]
    assert [item.number for item in experiments] == list(range(1, 10))
    assert all(one.metric is not other.metric for one, other in pairwise(experiments))
    assert len(loop.digests[-1]["verdicts"]) == 1


def test_the_plan_grows_and_keeps_the_verdicts(loop: Loop) -> None:
    sizes = []
    for _ in range(6):
        loop.cycle()
        sizes.append(len(loop.plan_text))
    assert sizes == sorted(set(sizes))
    assert "| met: " in loop.plan_text
    assert loop.plan_text.index("Cycle 6") < loop.plan_text.index("Cycle 5")


def test_the_plan_is_bounded(loop: Loop) -> None:
    for _ in range(60):
        loop.cycle()
    assert loop.plan_text.count("\n### Cycle ") == 50
    assert loop.plan_text.count("\n| ") == 50 + 1
    assert "Cycle 60," in loop.plan_text


def test_the_sandbox_recap_names_what_others_changed(loop: Loop) -> None:
    loop.cycle()
    (loop.sandbox / "deep").mkdir()
    (loop.sandbox / "deep" / "note\x1b[2J.txt").write_text("hi")
    (loop.sandbox / "link").symlink_to("/")
    recap = loop.plan().recap[2]
    assert "files 3" in recap
    assert "deep/note.txt" in recap
    assert "link" in recap
    assert "plan.md" not in recap


def test_a_review_judges_early_and_only_measures(loop: Loop) -> None:
    loop.cycle(goal="speed")
    loop.cycle(goal="speed")
    review = loop.plan(mode="review", goal="speed")
    assert [(verdict.experiment, verdict.cycles) for verdict in review.verdicts] == [(1, 1)]
    assert review.experiment.change.startswith("Change nothing")


def test_another_strategy_gives_up_an_experiment_in_its_way(loop: Loop) -> None:
    loop.cycle(goal="speed")
    planned = loop.plan(mode="stabilize", goal="speed")
    assert [verdict.result for verdict in planned.verdicts] == ["inconclusive"]
    assert (planned.experiment.number, planned.experiment.mode) == (2, "stabilize")


def test_an_unknown_mode_is_a_label_and_says_so(loop: Loop) -> None:
    planned = loop.plan(mode="night\n|shift")
    assert "'night |shift' is a label on the experimental strategy" in planned.note
    assert loop.digests[0]["mode"] == "night |shift"


def test_a_cap_of_zero_writes_nothing_to_the_sandbox(loop: Loop) -> None:
    planned = loop.plan(cap_writes=0)
    assert planned.plan_path is None
    assert not loop.sandbox.exists()
    assert "cap on writes is 0" in planned.note
    assert loop.digests[0]["plan_written"] is False


def test_a_cap_of_one_leaves_one_file(loop: Loop) -> None:
    loop.plan(cap_writes=1)
    assert [path.name for path in loop.sandbox.iterdir()] == ["plan.md"]


def test_by_hand_it_counts_from_the_newest_record_and_needs_no_control_file(loop: Loop) -> None:
    loop.cycle()
    planned = loop.plan(number=None, cycle_id="", control_file=None)
    assert planned.experiment.after_cycle == 1
    assert "## By hand, 2026-03-01T12:02:00.250Z" in loop.plan_text


def test_archives_never_overwrite_each_other(loop: Loop) -> None:
    moments = [plan_cycle(_request(loop), START) for _ in range(11)]
    names = [planned.archive_path.name for planned in moments]
    assert names[:2] == ["planner_digests_20260301T120000Z.jsonl.gz", "planner_digests_20260301T120000Z-2.jsonl.gz"]
    assert len(set(names)) == 11
    assert kept.archives(loop.state / kept.ARCHIVES)[-1].name.endswith("Z-11.jsonl.gz")
    assert {path.name for path in (loop.state / kept.ARCHIVES).iterdir()} == set(names)


def _request(loop: Loop) -> Request:
    return Request(
        mode="experimental",
        goal="",
        sandbox=loop.sandbox,
        state_dir=loop.state,
        history_path=loop.history,
        cap_writes=1,
    )


def test_old_archives_go_and_foreign_files_stay(loop: Loop) -> None:
    folder = loop.state / kept.ARCHIVES
    folder.mkdir()
    for number in range(kept.KEPT_ARCHIVES + 5):
        (folder / f"planner_digests_20250101T{number:06d}Z.jsonl.gz").touch()
    (folder / "mine.jsonl.gz").touch()
    newest = loop.plan().archive_path
    remaining = kept.archives(folder)
    assert len(remaining) == kept.KEPT_ARCHIVES
    assert remaining[-1] == newest
    assert (folder / "mine.jsonl.gz").exists()


def test_an_archive_holds_the_newest_digests_only(tmp_path: Path) -> None:
    path = kept.archive(tmp_path, [{"timestamp": str(number)} for number in range(kept.KEPT_DIGESTS + 7)], START)
    held = unpacked(path)
    assert (len(held), held[-1]["timestamp"]) == (kept.KEPT_DIGESTS, str(kept.KEPT_DIGESTS + 6))


def test_what_is_kept_is_private(loop: Loop) -> None:
    planned = loop.plan()
    for path in (planned.archive_path, loop.state / kept.DIGESTS, loop.sandbox / "plan.md", loop.control):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_lost_digests_come_back_from_the_newest_archive(loop: Loop) -> None:
    for _ in range(4):
        loop.cycle()
    (loop.state / kept.DIGESTS).unlink()
    planned = loop.plan()
    assert planned.experiment.number == 5
    assert [digest["number"] for digest in unpacked(planned.archive_path)] == [1, 2, 3, 4, 5]


def test_a_torn_digest_is_left_out_and_the_next_one_stands_on_its_own_line(loop: Loop) -> None:
    loop.cycle()
    with (loop.state / kept.DIGESTS).open("a") as file:
        file.write('{"timestamp": "torn')
    loop.plan()
    lines = (loop.state / kept.DIGESTS).read_text().splitlines()
    assert json.loads(lines[-1])["number"] == 2
    assert "damaged lines of planner_digests.jsonl skipped: 1" in loop.plan().recap[1]


HOSTILE_LINES = [
    b"\x00\xff\xfe",
    b"[]",
    b"[" * 100_000,
    b'{"status": "success", "number": Infinity}',
    b'{"a": 1}',
    b"7" * 5000,
]


def test_damaged_history_lines_are_counted_and_the_others_used(loop: Loop) -> None:
    loop.cycle()
    with loop.history.open("ab") as file:
        file.write(b"\n".join(HOSTILE_LINES) + b"\n")
    cycles = loop.plan().recap[0]
    assert "1 success" in cycles
    assert f"damaged lines of run_cycle_history.jsonl skipped: {len(HOSTILE_LINES)}" in cycles


def test_hostile_digests_are_counted_and_the_others_used(loop: Loop) -> None:
    loop.cycle()
    good = loop.digests[0]
    odd = [{}, {**good, "timestamp": 7}, {**good, "verdicts": None}, {**good, "experiment": {"number": "x"}}]
    with (loop.state / kept.DIGESTS).open("a") as file:
        file.write("".join(json.dumps({**value, "cycle_id": str(at)}) + "\n" for at, value in enumerate(odd)))
    planned = loop.plan()
    assert planned.experiment.number == 2
    assert "digests without a readable experiment: 4" in planned.recap[1]


def bomb() -> bytes:
    return gzip.compress(bytes(17 << 20))


@pytest.mark.parametrize("damage", [b"", b"no gzip", gzip.compress(b"x" * 1000)[:-20], bomb()])
def test_a_damaged_archive_is_passed_over_for_the_one_before(loop: Loop, damage: bytes) -> None:
    loop.cycle()
    loop.cycle()
    (loop.state / kept.DIGESTS).unlink()
    (loop.state / kept.ARCHIVES / "planner_digests_20990101T000000Z.jsonl.gz").write_bytes(damage)
    planned = loop.plan()
    assert planned.experiment.number == 3
    assert "damaged archives skipped: 1" in planned.recap[1]


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_what_stands_in_place_of_the_history_is_never_opened(loop: Loop, kind: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text('{"status": "failed", "number": 9}\n')
    plant(kind, loop.history, victim)
    assert loop.plan().recap[0].startswith("Cycles: none is recorded yet. (run_cycle_history.jsonl is not readable: ")


@pytest.mark.parametrize("kind", ["fifo", "link", "hardlink", "folder"])
def test_what_stands_in_place_of_the_digests_is_set_aside_untouched(loop: Loop, kind: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    plant(kind, loop.state / kept.DIGESTS, victim)
    loop.plan()
    assert victim.read_text() == "precious\n"
    assert len(loop.digests) == 1
    assert os.path.lexists(loop.state / f"{kept.DIGESTS}.set-aside")


def plant(kind: str, path: Path, victim: Path) -> None:
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(victim)
        case "hardlink":
            path.hardlink_to(victim)
        case "folder":
            path.mkdir()


def test_a_linked_archive_folder_is_set_aside(loop: Loop, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (loop.state / kept.ARCHIVES).symlink_to(elsewhere)
    planned = loop.plan()
    assert list(elsewhere.iterdir()) == []
    assert planned.archive_path.resolve().parent == (loop.state / kept.ARCHIVES).resolve()


def test_a_link_in_place_of_the_plan_is_replaced_not_followed(loop: Loop, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    loop.sandbox.mkdir()
    (loop.sandbox / "plan.md").symlink_to(victim)
    loop.plan()
    assert victim.read_text() == "precious\n"
    assert loop.plan_text.startswith("# Plan")


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_sandbox_that_is_no_folder_of_its_own_is_refused(loop: Loop, kind: str, tmp_path: Path) -> None:
    plant(kind, loop.sandbox, tmp_path)
    with pytest.raises(ConfigError, match="name another with --sandbox"):
        loop.plan()
    assert (loop.state / kept.DIGESTS).read_bytes() == b""


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_a_control_file_that_is_no_file_is_an_error_and_not_written(loop: Loop, kind: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    plant(kind, loop.control, victim)
    with pytest.raises(StateError, match="control"):
        loop.plan()
    assert victim.read_text() == "precious\n"


def test_a_state_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.state.rmdir()
    loop.state.write_text("in the way")
    with pytest.raises(StateError, match="state"):
        loop.plan()


def test_a_history_begun_anew_leaves_what_was_running_undecided(loop: Loop) -> None:
    loop.cycle(goal="fewer failures")
    loop.cycle(goal="speed")
    loop.history.unlink()
    loop.number = 0
    planned = loop.plan(goal="speed")
    assert [(verdict.experiment, verdict.result) for verdict in planned.verdicts] == [(2, "inconclusive")]
    assert planned.experiment.number == 3


def test_a_sandbox_without_end_is_looked_at_up_to_a_bound(tmp_path: Path) -> None:
    for number in range(5001):
        (tmp_path / str(number)).touch()
    found = kept.survey(tmp_path, since=None, leave_out="plan.md")
    assert (found.files, found.trouble) == (5000, "only the first 5000 files were looked at")
