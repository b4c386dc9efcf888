from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.clients.git import Freshness
from run_cycle_loop.prerequisites.git import GitCheck, describe
from run_cycle_loop.testing import InMemoryCycleLog, make_spec

COMMIT = "1a2b3c4" + "0" * 33


def known(**changes: Any) -> Freshness:
    facts: dict[str, Any] = {
        "branch": "main", "commit": COMMIT, "upstream": "origin/main", "ahead": 0, "behind": 0, "dirty": 0,
        "fetch_age": 7200.0,
    }  # fmt: skip
    return Freshness(**facts | changes)


def checking(folder: Path, **changes: Any) -> GitCheck:
    how: dict[str, Any] = {
        "folder": folder, "mode": "require", "update": "off", "max_fetch_age": None, "timeout": 10.0,
        "environ": {}, "now": lambda: datetime(2026, 1, 2, tzinfo=UTC),
    }  # fmt: skip
    return GitCheck(**how | changes)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            known(behind=2, dirty=3),
            "main at 1a2b3c4, 0 ahead, 2 behind origin/main, 3 changed files, fetched 2h ago",
        ),
        (known(), "main at 1a2b3c4, 0 ahead, 0 behind origin/main, no changed files, fetched 2h ago"),
        (
            known(branch=None, upstream=None, ahead=None, behind=None, dirty=None, fetch_age=None),
            "detached at 1a2b3c4, upstream unknown, changes unknown, last fetch unknown",
        ),
        (
            known(dirty=1, lock_age=60.0),
            "main at 1a2b3c4, 0 ahead, 0 behind origin/main, 1 changed file, fetched 2h ago, index.lock from 1m ago",
        ),
        (Freshness(unknown={"checkout": "x is in no git checkout"}), "unknown: x is in no git checkout"),
    ],
)
def test_a_checkout_is_described_in_one_line(found: Freshness, line: str) -> None:
    assert describe(found) == line


@pytest.mark.parametrize(
    ("found", "age", "fault"),
    [
        (known(), None, None),
        (known(dirty=9), None, None),
        (known(ahead=3), None, None),
        (known(dirty=None), None, None),
        (known(fetch_age=None), None, None),
        (known(), 7200.0, None),
        (known(), 7199.0, "not fetched in the last 1h59m"),
        (known(fetch_age=None), 7200.0, "not fetched"),
        (known(behind=1), None, "git pull --ff-only"),
        (known(behind=1, ahead=1), None, "gone apart"),
        (known(behind=None), None, "unknown"),
        (known(ahead=None), None, "unknown"),
        (known(lock_age=0.0), None, "index.lock"),
        (Freshness(unknown={"checkout": "no"}), None, "--workdir"),
    ],
)
def test_what_is_not_up_to_date_is_a_fault(
    found: Freshness, age: float | None, fault: str | None, tmp_path: Path
) -> None:
    said = checking(tmp_path, max_fetch_age=age)._fault(found)
    assert (said is None) == (fault is None)
    assert (fault or "") in (said or "")


@pytest.mark.parametrize(
    ("mode", "ok", "required"), [("off", True, False), ("warn", False, False), ("require", False, True)]
)
def test_only_a_required_check_keeps_a_cycle_back(tmp_path: Path, mode: str, ok: bool, required: bool) -> None:
    found = checking(tmp_path, mode=mode).check(make_spec(), InMemoryCycleLog("log"))
    assert (found.ok, found.required) == (ok, required)
    assert ("in no git checkout" in found.detail) is (mode != "off")


def test_what_an_update_cannot_do_is_told(tmp_path: Path) -> None:
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    (tmp_path / ".git" / "refs").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    found = checking(tmp_path, update="ff-only").check(make_spec(), InMemoryCycleLog("log"))
    assert not found.ok
    assert "\n" not in found.detail
