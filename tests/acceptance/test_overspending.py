"""Cycles that cost too much, lie about it, or tell nothing, and loops that get nowhere: nobody spends by accident."""

import json
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.agents import SWIFT, own_session, scripted, told
from tests.acceptance.place import HELD, Place, shell, wait_until

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def costing(usd: float = 0.4, tokens: int = 1500, **more: Any) -> list[str]:
    """A cycle that tells what it cost."""
    return shell(told(usage={"input_tokens": tokens, "output_tokens": 0, "cost_usd": usd} | more))


def today(place: Place, *options: str) -> dict[str, Any]:
    """What is spent today."""
    found: dict[str, Any] = json.loads(place("budget", "--json", *options).stdout)["today"]
    return found


def ledger(place: Place) -> list[dict[str, Any]]:
    """The lines of the ledger."""
    return [json.loads(line) for line in (place.path / "state" / "budget_ledger.jsonl").read_text().splitlines()]


# Each unit and period


@pytest.mark.parametrize(
    ("limit", "cycles"),
    [
        ("usd=1/day", 2),
        ("usd=1.2/day", 3),
        ("tokens=4k/day", 2),
        ("tokens=1500/day", 1),
        ("cycles=3/day", 3),
        ("usd=1/run", 2),
        ("cycles=2/run", 2),
    ],
)
def test_a_loop_ends_with_12_before_the_cycle_that_would_not_fit(place: Place, limit: str, cycles: int) -> None:
    found = place.run("--continuous", "--budget", limit, "--", *costing())
    assert (found.returncode, len(place.records)) == (12, cycles)
    assert place.latest["stop_reason"] == "budget_spent"
    assert found.stderr.count('"event": "loop.stopped"') == 1
    again = place.run("--budget", limit, "--", *costing())
    assert (again.returncode, len(place.records)) == ((12, cycles) if limit.endswith("day") else (0, cycles + 1))


@pytest.mark.parametrize("period", ["cycle", "day", "run"])
def test_a_budget_of_time_cuts_a_cycle_short(place: Place, period: str) -> None:
    found = place.run("--budget", f"time=1s/{period}", "--", "sleep", "600")
    assert (found.returncode, place.outcomes) == (1, ["timeout"])
    assert "all that its budget had left" in place.records[0]["reason"]
    assert place.records[0]["charged"]["seconds"] < 10
    again = place.run("--budget", f"time=1s/{period}", "--", "true")
    assert again.returncode == (12 if period == "day" else 0)


@pytest.mark.parametrize(
    ("limit", "usage"),
    [("tokens=1000/cycle", {"output_tokens": 1001}), ("usd=0.5/cycle", {"output_tokens": 1, "cost_usd": 0.6})],
)
def test_an_agent_over_what_a_cycle_may_cost_is_ended_in_mid_session(
    place: Place, limit: str, usage: dict[str, Any]
) -> None:
    steps = ({"write": "a"}, {"usage": usage}, {"wait": 600}, {"write": "too-late"}, {"final": "Done."})
    assert place.run(*scripted(place, *steps), "--budget", limit).returncode == 1
    (record,) = place.records
    assert (record["status"], record["agent_class"]) == ("failed", "budget")
    assert "were allowed" in record["reason"]
    assert record["duration_seconds"] < 15
    assert (record["usage"]["complete"], place.has("sandbox/too-late")) == (False, False)


def test_what_is_left_of_the_day_is_all_that_a_cycle_may_cost(place: Place) -> None:
    steps = ({"cycle": 1}, {"usage": {"output_tokens": 900}}, {"write": "a"}, {"cycle": 2})
    more = ({"usage": {"output_tokens": 101}}, {"wait": 600})
    found = place.run(*scripted(place, *steps, *more), *SWIFT, "--budget", "tokens=1000/day", "--iterations", "2")
    assert found.returncode in {1, 12}
    if len(place.records) == 2:  # the second was let in, with what was left
        assert place.records[1]["agent_class"] == "budget"
    assert today(place)["tokens"] >= 900


def test_what_is_spent_in_one_loop_is_spent_for_the_next(place: Place) -> None:
    for number in (1, 2):
        assert place.run("--budget", "usd=1/day", "--", *costing()).returncode == 0
        assert today(place)["usd"] == pytest.approx(0.4 * number)
    assert place.run("--budget", "usd=1/day", "--", *costing()).returncode == 12


@pytest.mark.parametrize(("mode", "guards"), [("warn", ["budget"]), ("off", [])])
def test_not_enforced_nothing_is_held_back(place: Place, mode: str, guards: list[str]) -> None:
    options = ("--budget", "usd=0.1/day", "--budget", "usd=0.2/cycle", "--budget-guard", mode)
    assert place.run(*options, "--iterations", "2", "--", *costing()).returncode == 0
    assert place.outcomes == ["success"] * 2
    assert {item["guard"] for record in place.records for item in record["guards"]} == set(guards)


def test_what_each_cycle_goes_far_beyond_is_no_budget_to_run_under(place: Place) -> None:
    found = place.run("--continuous", "--budget", "usd=0.1/cycle", "--", *costing())
    assert (found.returncode, len(place.records)) == (12, 3)
    assert "no cycle keeps to the budget usd=0.1/cycle" in place.latest["note"]


# What lies, or tells nothing


FREE = '{"input_tokens": 5000, "cost_usd": 0}'  # the tokens are believed, the price is not
LIES = {
    "negative tokens": '{"input_tokens": -5000, "output_tokens": 1}',
    "a negative price": '{"input_tokens": 1, "cost_usd": -20}',
    "text": '{"input_tokens": "none", "cost_usd": "free"}',
    "true": '{"input_tokens": true, "cost_usd": false}',
    "huge": '{"input_tokens": 99999999999999, "cost_usd": 1}',
    "too huge": '{"input_tokens": 1, "cost_usd": 1e300}',
    "parts of one": '{"input_tokens": 0.5}',
    "empty": "{}",
    "a list": "[]",
    "nothing": "null",
    "incomplete": '{"input_tokens": 1, "cost_usd": 0.01, "complete": false}',
    "of other words": '{"tokens": 1, "price": 0}',
    "not a number": '{"input_tokens": NaN}',
    "endless": '{"cost_usd": Infinity}',
    "beyond all numbers": '{"cost_usd": 1e999}',
    "a price of nothing": FREE,
}


def test_an_agent_that_lies_about_its_usage_is_charged_the_estimate(place: Place) -> None:
    """It leaves the control file itself, as an agent that is not isolated can: the loop believes none of this."""
    for number, usage in enumerate(LIES.values(), start=1):
        place.write(f"lie-{number}", f'{{"class": "ok", "usage": {usage}}}')
    session = own_session(place, 'cp "lie-$RUN_CYCLE_NUMBER" "$RUN_CYCLE_CONTROL_FILE"')
    options = ("--estimate-usd", "3", "--estimate-tokens", "7000", "--breaker-guard", "off")
    assert place.run(*session, *options, "--iterations", str(len(LIES))).returncode == 0
    for name, record in zip(LIES, place.records, strict=True):
        charged = record["charged"]
        assert (charged["usd"], "usd" in charged["estimated"]) == (3, True), name
        assert charged["tokens"] == (5000 if LIES[name] == FREE else 7000), name


def test_a_command_of_the_operators_that_tells_nothing_costs_nothing(place: Place) -> None:
    assert place.run("--budget", "usd=5/day", "--iterations", "3", "--", "true").returncode == 0
    assert (today(place)["usd"], today(place)["cycles"]) == (0, 3)


def test_a_session_that_tells_no_cost_is_charged_by_prices_where_there_are_some(place: Place) -> None:
    steps = ({"write": "a"}, {"usage": {"input_tokens": 1_000_000, "output_tokens": 100_000}})
    options = ("--prices", "input=1,output=10", "--budget", "usd=9/day")
    assert place.run(*scripted(place, *steps), *options).returncode == 0
    assert place.records[0]["charged"]["usd"] == pytest.approx(2)


# A budget into which no cycle fits


@pytest.mark.parametrize(
    "more", [(), ("--on-budget", "wait"), ("--continuous",), ("--continuous", "--on-budget", "wait")]
)
def test_a_budget_into_which_no_cycle_fits_is_said_once_and_nothing_starts(place: Place, more: tuple[str, ...]) -> None:
    began = time.monotonic()
    found = place.run(*own_session(place, "touch ran"), "--estimate-usd", "6", "--budget", "usd=5/day", *more)
    assert (found.returncode, place.records, place.has("ran")) == (12, [], False)
    assert found.stderr.count("no cycle fits into the budget usd=5/day") == 1
    assert "raise it, or lower what a cycle may cost" in found.stderr
    assert time.monotonic() - began < 15


# Waiting for the next day


def test_a_loop_that_waits_for_the_next_day_says_until_when_and_leaves_when_told(place: Place) -> None:
    loop = place.start("--budget", "cycles=1/day", "--on-budget", "wait", "--", "true")
    shown = wait_until(lambda: place.wait_for_state("waiting"), "the wait")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert shown["next_run_at"] == f"{tomorrow}T00:00:30.000Z"
    assert "the budget cycles=1/day is spent" in shown["note"]
    loop.send(signal.SIGUSR1)  # a trigger is no money
    began = time.monotonic()
    loop.send(signal.SIGTERM)
    assert (loop.wait(), time.monotonic() - began < 5) == (0, True)
    assert len(place.records) == 1


def test_who_asked_for_one_cycle_is_not_made_to_wait_for_the_next_day(place: Place) -> None:
    options = ("--budget", "cycles=1/day", "--on-budget", "wait", "--", "true")
    assert place.run(*options).returncode == 0
    assert place.run(*options).returncode == 12


@pytest.mark.root
def test_on_the_next_day_it_goes_on(place: Place, tmp_path: Path) -> None:
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed")
    now = tmp_path / "now"
    now.write_text("2026-03-01 23:59:00\n")
    env = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(now),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
        "TZ": "UTC",
    }
    loop = place.start("--budget", "cycles=1/day", "--on-budget", "wait", "--", "true", **env)
    place.wait_for_state("waiting")
    now.write_text("2026-03-02 00:00:31\n")
    loop.send(signal.SIGUSR1)  # look at the clock now, not within the minute
    wait_until(lambda: len(place.records) == 2, "the next day's cycle")
    now.write_text("2026-03-01 12:00:00\n")  # a clock that is set back opens no day again
    loop.send(signal.SIGUSR1)
    loop.send(signal.SIGTERM)
    assert loop.wait() == 0
    assert place.run("--budget", "cycles=1/day", "--", "true", **env).returncode == 12
    assert len(place.records) == 2


# Crashes and damage


def test_a_killed_cycle_of_an_agent_is_charged_what_it_may_have_cost(place: Place) -> None:
    options = ("--estimate-usd", "3", "--budget", "usd=5/day")
    loop = place.start(*own_session(place, "echo > begun; sleep 600"), *options)
    place.wait_for("begun")
    loop.send(signal.SIGKILL)
    loop.wait()
    assert today(place)["usd"] == 3
    assert place.run(*own_session(place, "true"), *options).returncode == 12
    assert place.outcomes == ["lost"]


DAMAGE = {
    "torn": 'printf \'{"event": "char\' >> $L',
    "a line of nonsense": "echo nonsense >> $L",
    "cut in the middle": "truncate -s -40 $L",
    "many lines of nonsense": "for i in 1 2 3 4; do echo $i >> $L; done",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_ledger_never_makes_spent_money_unspent(place: Place, damage: str) -> None:
    options = (*own_session(place, told(usage={"output_tokens": 9, "cost_usd": 1})), "--budget", "usd=9/day")
    assert place.run(*options, "--iterations", "2", *SWIFT).returncode == 0
    before = today(place)["usd"]
    path = place.path / "state" / "budget_ledger.jsonl"
    subprocess.run(["sh", "-c", damage], env={"L": str(path), "PATH": place.env["PATH"]}, check=True)
    found = place.run(*options)
    assert found.returncode in {0, 12}
    assert "Traceback" not in found.stderr
    assert today(place)["usd"] >= before
    assert found.returncode == 12 or today(place)["usd"] > before


def test_a_ledger_that_is_gone_is_made_anew_from_the_history(place: Place) -> None:
    assert place.run("--budget", "usd=1/day", "--iterations", "2", "--", *costing()).returncode == 0
    (place.path / "state" / "budget_ledger.jsonl").unlink()
    assert place.run("--budget", "usd=0.8/day", "--", *costing()).returncode == 12
    assert place.run("--budget", "usd=0.9/day", "--", *costing()).returncode == 0
    assert today(place)["usd"] == pytest.approx(1.2)


@pytest.mark.parametrize("kind", ["link", "FIFO", "folder"])
def test_a_ledger_that_is_none_is_one_sentence_and_no_cycle(place: Place, kind: str) -> None:
    path = place.path / "state" / "budget_ledger.jsonl"
    path.parent.mkdir()
    place.write("victim", "theirs")
    {"link": lambda: path.symlink_to(place.path / "victim"), "folder": path.mkdir}.get(
        kind, lambda: subprocess.run(["mkfifo", path], check=True)
    )()
    found = place.run("--budget", "usd=1/day", "--", "touch", "ran")
    assert (found.returncode, place.has("ran"), "Traceback" in found.stderr) == (74, False, False)
    assert "budget ledger state/budget_ledger.jsonl cannot be" in found.stderr
    assert place.wait_for("victim") == "theirs"


# Breakers


def test_cycles_that_change_nothing_get_one_last_try_and_then_the_loop_ends_for_good(place: Place) -> None:
    session = own_session(place, "mkdir -p sandbox; echo x > sandbox/same", agent="scripted")
    options = (*session, *SWIFT, "--no-progress", "3")
    found = place.run(*options, "--continuous", "--max-backoff", "1s")
    assert (found.returncode, place.outcomes) == (11, ["success"] * 4)
    assert place.latest["stop_reason"] == "breaker_open"
    half, opened = (place.records[index]["guards"][-1]["detail"] for index in (2, 3))
    assert "the no-progress breaker is half-open" in half
    assert "the no-progress breaker is open: 4 cycles in a row left the same workdir" in opened
    end, start = (datetime.fromisoformat(place.records[i][name]) for i, name in ((2, "finished_at"), (3, "started_at")))
    assert (start - end).total_seconds() >= 0.9

    path = place.path / "state" / "breakers.json"
    assert place.run(*options).returncode == 11
    path.unlink()
    assert place.run(*options).returncode == 11
    path.write_text("[")
    assert place.run(*options).returncode == 11
    assert len(place.records) == 4
    assert list(path.parent.glob("breakers.json.corrupt*"))
    assert place("breaker", "reset", "--reason", "looked at it").returncode == 0
    assert place.run(*options).returncode == 0
    assert len(place.records) == 5


def test_progress_in_the_last_try_closes_the_breaker(place: Place) -> None:
    script = "mkdir -p sandbox; echo $((RUN_CYCLE_NUMBER / 4)) > sandbox/same; [ $RUN_CYCLE_NUMBER -lt 6 ] || exit 1"
    session = own_session(place, script, agent="scripted")
    found = place.run(*session, *SWIFT, "--no-progress", "3", "--max-failures", "1", "--continuous")
    assert (found.returncode, place.outcomes) == (11, ["success"] * 5 + ["failed"])
    assert place.latest["stop_reason"] == "failure_limit"


@pytest.mark.parametrize("mode", ["off", "warn"])
def test_a_breaker_that_is_not_enforced_ends_nothing(place: Place, mode: str) -> None:
    options = ("--storm-cycles", "2", "--max-failures", "0", "--breaker-guard", mode)
    assert place.run(*options, "--iterations", "5", "--", "false").returncode == 1
    assert len(place.records) == 5
    assert {item["guard"] for record in place.records for item in record["guards"]} == (
        {"breaker"} if mode == "warn" else set()
    )


def test_a_storm_of_short_sessions_that_change_nothing_ends_the_loop_though_all_went_well(place: Place) -> None:
    options = (*SWIFT, "--no-progress", "0", "--storm-cycles", "3", "--storm-seconds", "1h")
    busy = own_session(place, "mkdir -p sandbox; date +%N > sandbox/changed")
    assert place.run(*busy, *options, "--iterations", "4").returncode == 0
    found = place.run(*own_session(place, "true"), *options, "--continuous")
    assert (found.returncode, place.outcomes) == (11, ["success"] * 7)
    assert "the storm breaker is open: 3 cycles in a row shorter than 1h" in place.latest["note"]


@pytest.mark.parametrize("more", [(), ("--budget", "usd=100/day")], ids=["alone", "beside a budget"])
def test_money_spent_too_fast_ends_the_loop_in_this_run_and_the_next(place: Place, more: tuple[str, ...]) -> None:
    options = (*more, "--spend-rate", "1usd/1h", "--", *costing())
    found = place.run("--continuous", *options)
    assert (found.returncode, len(place.records)) == (11, 3)
    assert "1.20 usd within 1h, of 1" in place.latest["note"]
    assert (place.run(*options).returncode, len(place.records)) == (11, 3)


def test_a_rate_of_spending_holds_where_budgets_do_not(place: Place) -> None:
    found = place.run("--continuous", "--budget-guard", "off", "--spend-rate", "1usd/1h", "--", *costing())
    assert (found.returncode, len(place.records)) == (11, 3)


def test_a_reset_in_mid_loop_is_heard(place: Place) -> None:
    options = ("--storm-cycles", "3", "--max-failures", "0")
    script = 'exec 2> /dev/null; [ "$RUN_CYCLE_NUMBER" != 2 ] || { ' + HELD + "; }; exit 1"
    loop = place.start(*options, "--", *shell(script))
    place.wait_for("begun")
    assert place("breaker", "reset").returncode == 0
    place.write("go", "")
    assert loop.wait() == 11
    assert len(place.records) == 4  # the first one counts no more
