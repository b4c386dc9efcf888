"""Budgets and breakers as an operator meets them: how the loop ends, what is shown, and what a crash costs."""

import json
import signal
from typing import Any

import pytest

from tests.acceptance.place import HELD, Place, shell

COST = 'echo \'{"usage": {"input_tokens": 1000, "output_tokens": 500, "cost_usd": 0.4}}\' > "$RUN_CYCLE_CONTROL_FILE"'


def budget(place: Place, *limits: str) -> dict[str, Any]:
    """What ``budget --json`` says."""
    found: dict[str, Any] = json.loads(place("budget", "--json", *limits).stdout)
    return found


def test_a_spent_budget_ends_the_loop_with_12_and_the_next_start_too(place: Place) -> None:
    options = ("--continuous", "--budget", "usd=1/day", "--", *shell(COST))
    done = place.run(*options)
    assert done.returncode == 12, done.stderr
    assert len(place.records) == 2  # a third might have come to more than was left
    assert [record["charged"]["usd"] for record in place.records] == [0.4, 0.4]
    assert place.latest["stop_reason"] == "budget_spent"
    assert place.run(*options).returncode == 12
    assert len(place.records) == 2
    shown = place("budget", "--budget", "usd=1/day").stdout
    assert "0.80 usd used (80%), 0.20 usd left" in shown
    assert "the budget usd=1/day is spent" in shown
    assert "0.80 usd used" in place("status", "--budget", "usd=1/day").stdout


def test_a_spent_budget_can_be_waited_for(place: Place) -> None:
    loop = place.start("--budget", "usd=0.5/day", "--on-budget", "wait", "--", *shell(COST))
    latest = place.wait_for_state("waiting")
    assert "the budget usd=0.5/day is spent" in latest["note"]
    assert latest["next_run_at"].endswith("T00:00:30.000Z")
    loop.send(signal.SIGTERM)
    assert loop.wait() == 0
    assert len(place.records) == 1


def test_a_loop_that_only_warns_goes_on_and_says_so_in_each_record(place: Place) -> None:
    done = place.run("--iterations", "3", "--budget", "usd=0.5/day", "--budget-guard", "warn", "--", *shell(COST))
    assert done.returncode == 0
    assert [len(record["guards"]) for record in place.records] == [0, 2, 2]
    assert place.records[-1]["guards"][0]["guard"] == "budget"


def test_a_cycle_whose_supervisor_was_killed_is_paid_for(place: Place) -> None:
    limits = ("--budget", "usd=20/day")
    assert place.run(*limits, "--", *shell(COST)).returncode == 0
    loop = place.start(*limits, "--", *shell(HELD))
    place.wait_for("begun")
    loop.send(signal.SIGKILL)
    loop.wait()
    assert budget(place, *limits)["today"]["usd"] == pytest.approx(0.8)
    (place.path / "go").touch()
    assert place.run(*limits, "--", *shell(COST)).returncode == 0
    found = budget(place, *limits)
    assert (found["today"]["usd"], found["today"]["cycles"]) == (pytest.approx(1.2), 3)


def test_what_failed_its_checks_costs_nothing(place: Place) -> None:
    limits = ("--budget", "cycles=1/day")
    place.run(*limits, "--require-command", "no-such-command-anywhere", "--", "true")
    assert place.outcomes == ["prereq_failed"]
    assert budget(place, *limits)["today"]["cycles"] == 0
    assert place.run(*limits, "--", "true").returncode == 0
    assert place.run(*limits, "--", "true").returncode == 12


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (("usd=0/day",), "not above 0"),
        (("usd=5/week",), "none of cycle, day and run"),
        (("usd=5/day", "usd=6/day"), "usd=5/day and usd=6/day limit the same"),
    ],
)
def test_a_budget_that_is_none_is_refused(place: Place, limits: tuple[str, ...], reason: str) -> None:
    flags = [word for limit in limits for word in ("--budget", limit)]
    done = place.run(*flags, "--", "true")
    assert done.returncode == 2
    assert reason in done.stderr


STORM = ("--continuous", "--max-failures", "0", "--storm-cycles", "3")


def test_an_open_breaker_ends_the_loop_until_somebody_has_looked(place: Place) -> None:
    done = place.run(*STORM, "--", "false")
    assert done.returncode == 11, done.stderr
    assert place.latest["stop_reason"] == "breaker_open"
    assert len(place.records) == 3
    assert place.records[-1]["guards"][0]["guard"] == "breaker"
    assert place.run("--", "true").returncode == 11  # with other settings too
    assert len(place.records) == 3
    assert "storm        open" in place("breaker", "show").stdout
    assert "storm is open" in place("status").stdout

    done = place("breaker", "reset", "--reason", "the command was wrong")
    assert done.stdout == "the breakers are closed; what was recorded up to cycle 3 counts no more\n"
    assert place.run("--", "true").returncode == 0
    shown = json.loads(place("breaker", "show", "--json").stdout)
    assert (shown["state"], shown["reset"]["number"], shown["reset"]["reason"]) == (
        "closed",
        3,
        "the command was wrong",
    )


def test_neither_loss_nor_damage_closes_a_breaker(place: Place) -> None:
    assert place.run(*STORM, "--", "false").returncode == 11
    state = place.path / "state" / "breakers.json"
    state.unlink()
    assert place.run(*STORM, "--", "true").returncode == 11
    state.write_text("{")
    assert place.run("--", "true").returncode == 11
    assert "breakers.json was damaged" in place("breaker", "show").stdout
    assert place("breaker", "reset").returncode == 0
    assert place.run("--", "true").returncode == 0


def test_money_spent_too_fast_opens_a_breaker_at_once(place: Place) -> None:
    done = place.run("--continuous", "--budget", "usd=4/day", "--spend-rate", "1usd/30m", "--", *shell(COST))
    assert done.returncode == 11, done.stderr
    assert len(place.records) == 3
    assert "1.20 usd within 30m, of 1" in place.latest["note"]
