"""The crontab line under a real cron."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.systemd.conftest import Machine

pytestmark = pytest.mark.systemd


def test_cron_runs_one_cycle_a_minute(machine: Machine, cron_checkout: Path) -> None:
    history = cron_checkout / "state" / "run_cycle_history.jsonl"
    machine.wait_for(
        lambda: history.exists() and history.read_text().endswith("\n"),
        "a record by cron; its log says: " + log_of(cron_checkout),
        seconds=75,
    )
    first = json.loads(history.read_text().splitlines()[0])
    assert (first["status"], first["archive_created"]) == ("success", True)


def log_of(checkout: Path) -> str:
    try:
        return (checkout / "logs" / "cron.log").read_text()
    except FileNotFoundError:
        return "nothing"


def test_the_crontab_takes_the_same_lines_twice_and_keeps_what_is_not_ours(machine: Machine) -> None:
    machine.run("sh", "-c", "(crontab -l; echo '5 4 * * * /usr/bin/true') | crontab -")
    again = ("install", "cron", "--prefix", "/opt/run-cycle-loop/by-cron", "--schedule", "* * * * *")
    before = machine.run("crontab", "-l").stdout
    assert "unchanged" in machine.loop(*again).stdout
    other = machine.loop(*again[:-1], "0 * * * *", check=False)
    assert other.returncode == 2
    assert "--force" in other.stderr
    assert machine.run("crontab", "-l").stdout == before
    assert "5 4 * * * /usr/bin/true" in before
