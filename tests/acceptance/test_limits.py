"""Rate limits: waited for, and neither failures nor iterations; what the far end says is believed within bounds."""

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.agents import scripted, told
from tests.acceptance.place import Place, shell, wait_until

MARGIN = ("--limit-margin", "0.1")
LIMITED = {"class": "rate_limited", "reason": "too many requests"}
HOUR = timedelta(hours=1)


def soon(**more: float) -> str:
    """A moment of the wall clock to come."""
    return (datetime.now(UTC) + timedelta(**more)).isoformat()


def left(record: dict[str, Any]) -> float:
    """Seconds from the end of a cycle to the moment before which none may start."""
    end, at = (datetime.fromisoformat(record[name]) for name in ("finished_at", "retry_at"))
    return (at - end).total_seconds()


def test_a_limit_is_waited_for_and_is_neither_failure_nor_iteration(place: Place) -> None:
    steps = ({"cycle": 1}, LIMITED | {"retry_after": 0.3}, {"cycle": 2}, {"write": "a"})
    found = place.run(*scripted(place, *steps), *MARGIN, "--iterations", "2", "--max-failures", "1")
    assert found.returncode == 0
    assert place.outcomes == ["rate_limited", "success", "rate_limited", "success"]
    assert [record["consecutive_failures"] for record in place.records] == [0] * 4
    first, second = place.records[:2]
    assert second["started_at"] >= first["retry_at"]
    assert (first["agent_class"], first["permanent"]) == ("rate_limited", False)


def test_a_limit_neither_lengthens_nor_ends_a_streak_of_failures(place: Place) -> None:
    steps = ({"cycle": 1}, {"exit": 1}, {"cycle": 2}, LIMITED | {"retry_after": 0.1}, {"cycle": 3}, {"exit": 1})
    found = place.run(*scripted(place, *steps), *MARGIN, "--iterations", "9", "--max-failures", "2")
    assert (found.returncode, place.outcomes) == (11, ["failed", "rate_limited", "failed"])
    assert [record["consecutive_failures"] for record in place.records] == [1, 1, 2]


def test_a_moment_of_the_wall_clock_is_waited_for_as_well(place: Place) -> None:
    payload = told(**LIMITED, retry_at=soon(seconds=1.5))
    assert place.run(*MARGIN, "--", *shell(payload)).returncode == 75
    found = place.run(*MARGIN, "--iterations", "2", "--", "true")
    assert found.returncode == 0
    assert place.outcomes == ["rate_limited", "success", "success"]
    assert place.records[1]["started_at"] >= place.records[0]["retry_at"]


def test_one_cycle_alone_leaves_with_75_and_the_next_one_does_not_start(place: Place) -> None:
    first = place.run("--", *shell(told(**LIMITED, retry_at=soon(hours=1))))
    assert (first.returncode, place.outcomes) == (75, ["rate_limited"])
    assert place.latest["stop_reason"] == "rate_limited"
    second = place.run("--", "touch", "ran")
    assert (second.returncode, place.outcomes, place.has("ran")) == (75, ["rate_limited"], False)
    assert place.records[0]["retry_at"] in place.latest["note"]


LONG = shell(told(**LIMITED, retry_at=soon(hours=1)) + "\ntouch cycle-$RUN_CYCLE_NUMBER")


def waiting(place: Place) -> dict[str, Any]:
    """What is shown once the loop waits for a limit."""

    def look() -> dict[str, Any] | None:
        found = place.latest if place.has("logs/run_cycle/latest.json") else {}
        return found if found.get("state") == "waiting" and "rate limited" in found["note"] else None

    return wait_until(look, "the wait for a limit")


def test_a_loop_that_is_started_again_waits_on(place: Place) -> None:
    first = place.start("--", *LONG)
    shown = waiting(place)
    assert shown["next_run_at"] == place.records[0]["retry_at"]
    first.send(signal.SIGKILL)
    first.wait()
    second = place.start("--", "touch", "too-soon")
    wait_until(lambda: place.latest["supervisor"]["pid"] == second.pid, "the second loop")
    assert waiting(place)["next_run_at"] == shown["next_run_at"]
    second.send(signal.SIGTERM)
    assert (second.wait(), place.has("too-soon"), len(place.records)) == (0, False, 1)


@pytest.mark.parametrize("how", ["trigger", "SIGUSR1"])
def test_who_knows_better_cuts_the_wait_short(place: Place, how: str) -> None:
    loop = place.start("--", *LONG)
    waiting(place)
    if how == "trigger":
        assert place("trigger").returncode == 0
    else:
        loop.send(signal.SIGUSR1)
    place.wait_for("cycle-2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_at_once(place: Place, number: signal.Signals) -> None:
    loop = place.start("--", *LONG)
    waiting(place)
    began = time.monotonic()
    loop.send(number)
    assert (loop.wait(), time.monotonic() - began < 5) == (0, True)


def test_the_kill_switch_ends_the_wait_at_once(place: Place) -> None:
    loop = place.start("--", *LONG)
    waiting(place)
    assert place("stop").returncode == 0
    assert loop.wait() == 10


# What the far end says, or somebody in its name


@pytest.mark.parametrize(
    "at",
    [
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-12:00",
        "2999-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59",
    ],
)
def test_no_limit_is_waited_for_longer_than_the_operator_wants(place: Place, at: str) -> None:
    found = place.run("--max-limit-wait", "1h", "--", *shell(told(**LIMITED, retry_at=at)))
    assert "Traceback" not in found.stderr
    (record,) = place.records
    if record["status"] == "rate_limited":
        assert found.returncode == 75
        assert 0 < left(record) < HOUR.total_seconds() + 1
    else:  # it cannot be understood, and then nothing is believed
        assert (found.returncode, record["status"]) == (1, "failed")


def test_steps_with_a_moment_beyond_all_time_are_a_limit_without_an_end(place: Place) -> None:
    step = LIMITED | {"retry_at": "9999-12-31T23:59:59-12:00"}
    assert place.run(*scripted(place, step)).returncode == 75
    assert round(left(place.records[0])) == 60
    assert "Traceback" not in (place.path / place.records[0]["log_path"]).read_text()


def each_in_turn(place: Place, *payloads: str) -> list[str]:
    """A cycle that leaves the first payload in the first cycle, the second in the second, and so on."""
    for number, payload in enumerate(payloads, start=1):
        place.write(f"payload-{number}", payload)
    return shell('cp "payload-$RUN_CYCLE_NUMBER" "$RUN_CYCLE_CONTROL_FILE" || exit 0')


PAST = ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00", "2020-01-01")


def test_a_limit_that_is_long_over_is_waited_for_no_longer_than_the_margin(place: Place) -> None:
    cycle = each_in_turn(place, *(json.dumps(LIMITED | {"retry_at": at}) for at in PAST))
    found = place.run(*MARGIN, "--max-failures", "0", "--iterations", "2", "--", *cycle)
    assert "Traceback" not in found.stderr
    assert place.latest["stop_reason"] == "iterations_done"
    assert place.outcomes.count("rate_limited") >= 3
    assert all(left(record) < 1 for record in place.records if record["status"] == "rate_limited")


NONE = ('"tomorrow"', '""', "5", "true", "[]", '"2026-13-45T99:99:99Z"', '{"at": 1}', "1e300")


def test_a_moment_that_is_none_is_said_and_nothing_is_believed(place: Place) -> None:
    cycle = each_in_turn(place, *(f'{{"class": "rate_limited", "retry_at": {at}}}' for at in NONE))
    options = ("--max-failures", "0", "--iterations", str(len(NONE)), "--backoff-initial", "0")
    found = place.run(*options, "--", *cycle)
    assert (found.returncode, place.outcomes) == (1, ["failed"] * len(NONE))
    assert all("words that cannot be understood" in record["reason"] for record in place.records)
    assert "Traceback" not in found.stderr


def test_a_limit_without_an_end_is_waited_for_a_minute_and_then_longer(place: Place) -> None:
    loop = place.start("--", *shell(told(**LIMITED) + "\ntouch cycle-$RUN_CYCLE_NUMBER"))
    for number in (1, 2, 3):
        place.wait_for(f"cycle-{number}")
        wait_until(lambda: len(place.records) == number and place.latest["state"] == "waiting", "the wait")  # noqa: B023 - asked at once
        loop.send(signal.SIGUSR1)
    assert [round(left(record)) for record in place.records[:3]] == [60, 120, 300]


def test_who_forges_the_history_holds_no_loop_for_longer_than_one_limit_may(place: Place) -> None:
    place.run("--", *shell(told(**LIMITED, retry_at=soon(hours=1))))
    path = place.path / "state" / "run_cycle_history.jsonl"
    record = json.loads(path.read_text())
    for at in ("9999-12-31T23:59:59.000Z", "9999-12-31T23:59:59-12:00", "2999-01-01", "never"):
        path.write_text(json.dumps(record | {"retry_at": at}) + "\n")
        found = place.run("--max-limit-wait", "200ms", "--iterations", "2", "--", "true")
        assert (found.returncode, "Traceback" in found.stderr) == (0, False), at


def test_a_script_of_ones_own_may_say_so_too_and_its_exit_code_does_not_matter(place: Place) -> None:
    found = place.run("--", *shell(told(**LIMITED, retry_at=soon(hours=1)) + "\nexit 3"))
    assert (found.returncode, place.outcomes) == (75, ["rate_limited"])
    assert place.records[0]["return_code"] == 3
