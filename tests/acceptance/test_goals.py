"""Where each cycle's goal comes from: lists in an order that outlives the process, and commands that mean no good."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.agents import SWIFT, scripted
from tests.acceptance.place import Place, shell

ABC = "goals.txt"
NOTE = shell('echo "$RUN_CYCLE_GOAL" >> worked')
DONE = shell('echo "$RUN_CYCLE_GOAL" >> worked; printf \'{"done": true}\' > "$RUN_CYCLE_CONTROL_FILE"')


def worked(place: Place) -> list[str]:
    """The goals in the order in which cycles had them."""
    return place.wait_for("worked").splitlines()


def origins(place: Place, key: str) -> list[Any]:
    """What the records tell of where their goals came from."""
    return [record["goal_origin"][key] for record in place.records]


@pytest.fixture
def goals(place: Place) -> Path:
    """Three goals."""
    return place.write(ABC, "# tonight\nfirst\n\n  second  \nthird\n")


# The orders, over restarts


@pytest.mark.usefixtures("goals")
def test_round_robin_goes_on_where_the_last_run_ended(place: Place) -> None:
    for iterations in (2, 1, 4):
        assert place.run("--goals", ABC, "--iterations", str(iterations), "--", *NOTE).returncode == 0
    assert worked(place) == ["first", "second", "third"] * 2 + ["first"]
    assert origins(place, "turn") == list(range(7))
    assert place.records[1]["goal_origin"]["index"] == 2
    assert place.records[1]["goal_origin"]["of"] == 3


@pytest.mark.usefixtures("goals")
@pytest.mark.parametrize("loss", ["rm -f state/goals.json", "echo '{' > state/goals.json", "> state/goals.json"])
def test_the_history_tells_the_turn_again_where_its_file_is_lost(place: Place, loss: str) -> None:
    assert place.run("--goals", ABC, "--iterations", "2", "--", *NOTE).returncode == 0
    place("run", "--state-dir", "other", "--log-dir", "other-logs", "--", *shell(loss))
    assert place.run("--goals", ABC, "--iterations", "2", "--", *NOTE).returncode == 0
    assert worked(place) == ["first", "second", "third", "first"]


def test_a_random_order_is_that_of_its_seed_over_restarts(place: Place, goals: Path) -> None:
    options = ("--goals", ABC, "--goal-order", "random", "--goal-seed", "7")
    assert place.run(*options, "--iterations", "12", "--", *NOTE).returncode == 0
    whole = worked(place)
    assert set(whole) == {"first", "second", "third"}
    assert set(origins(place, "seed")) == {7}
    again = Place(place.path / "again")
    try:
        again.write(ABC, goals.read_text())
        for iterations in ("5", "7"):
            assert again.run(*options, "--iterations", iterations, "--", *NOTE).returncode == 0
        assert worked(again) == whole
    finally:
        again.end()


@pytest.mark.usefixtures("goals")
def test_a_seed_that_nobody_named_is_drawn_once_and_kept(place: Place) -> None:
    for _ in range(2):
        assert place.run("--goals", ABC, "--goal-order", "random", "--iterations", "2", "--", *NOTE).returncode == 0
    assert len(set(origins(place, "seed"))) == 1


def test_until_done_stays_with_a_goal_until_a_cycle_says_so_and_then_the_loop_is_done(
    place: Place, goals: Path
) -> None:
    options = ("--goals", ABC, "--goal-order", "until-done")
    assert place.run(*options, "--iterations", "2", "--", *NOTE).returncode == 0
    assert place.run(*options, "--", *DONE).returncode == 0
    found = place.run(*options, "--continuous", "--", *DONE)
    assert (found.returncode, worked(place)) == (13, ["first"] * 3 + ["second", "third"])
    assert place.latest["stop_reason"] == "goals_done"
    assert place.run(*options, "--", *NOTE).returncode == 13
    assert len(place.records) == 5  # nothing is left to do
    goals.write_text("third\nfourth\nfirst\n")
    assert place.run(*options, "--", *NOTE).returncode == 0
    assert worked(place)[-1] == "fourth"


@pytest.mark.usefixtures("goals")
def test_a_cycle_that_failed_has_reached_nothing_whatever_it_says(place: Place) -> None:
    liar = shell(DONE[2] + "; exit 1")
    found = place.run("--goals", ABC, "--goal-order", "until-done", *SWIFT, "--iterations", "2", "--", *liar)
    assert (found.returncode, worked(place)) == (1, ["first", "first"])


def test_an_agent_says_done_in_its_last_line(place: Place) -> None:
    place.write(ABC, "only\n")
    steps = ({"cycle": 1}, {"write": "a"}, {"final": "DONE is not yet so."}, {"cycle": 2}, {"final": "All.\nDONE"})
    found = place.run(*scripted(place, *steps), "--goals", ABC, "--goal-order", "until-done", *SWIFT, "--continuous")
    assert (found.returncode, place.latest["stop_reason"]) == (13, "goals_done")
    assert [record["control"]["done"] for record in place.records] == [False, True]


@pytest.mark.usefixtures("goals")
@pytest.mark.parametrize("how", ["rate limit", "check", "kill"])
def test_a_goal_that_was_not_tried_is_asked_for_again(place: Place, how: str) -> None:
    if how == "rate limit":
        limited = shell(
            'printf \'{"class": "rate_limited", "retry_at": "2020-01-01T00:00:00Z"}\' > "$RUN_CYCLE_CONTROL_FILE"'
        )
        assert place.run("--goals", ABC, "--limit-margin", "0", "--", *limited).returncode == 75
    elif how == "check":
        assert place.run("--goals", ABC, "--require-command", "no-such-command-anywhere", "--", "true").returncode == 1
    else:
        loop = place.start("--goals", ABC, "--", *shell("echo > begun; sleep 600"))
        place.wait_for("begun")
        loop.send(signal.SIGKILL)
        loop.wait()
    assert place.run("--goals", ABC, "--", *NOTE).returncode == 0
    assert worked(place) == ["first"]


def test_yaml_has_weights(place: Place) -> None:
    pytest.importorskip("yaml")
    place.write("goals.yaml", "goals:\n- goal: often\n  weight: 1000\n- goal: hardly ever\n  weight: 0.0001\n- plain\n")
    options = ("--goals", "goals.yaml", "--goal-order", "random", "--goal-seed", "1", "--iterations", "8")
    assert place.run(*options, "--", *NOTE).returncode == 0
    assert worked(place).count("often") >= 7


@pytest.mark.usefixtures("goals")
def test_a_list_that_is_mended_while_the_loop_runs_is_read_again(place: Place) -> None:
    script = 'echo "$RUN_CYCLE_GOAL" >> worked; printf "one\\ntwo\\n" > goals.txt'
    assert place.run("--goals", ABC, "--iterations", "3", "--", *shell(script)).returncode == 0
    assert worked(place) == ["first", "two", "one"]


@pytest.mark.usefixtures("goals")
@pytest.mark.parametrize(
    "harm", ["rm goals.txt", "printf '\\0' >> goals.txt", "rm goals.txt; mkfifo goals.txt", "> goals.txt"]
)
def test_a_list_that_is_broken_while_the_loop_runs_fails_that_cycle_with_its_reason(place: Place, harm: str) -> None:
    found = place.run("--goals", ABC, *SWIFT, "--iterations", "2", "--", *shell(f"touch ran-$RUN_CYCLE_NUMBER; {harm}"))
    assert (found.returncode, place.outcomes) == (1, ["success", "prereq_failed"])
    assert ABC in place.records[1]["failed_checks"][0]
    assert not place.has("ran-2")
    assert "Traceback" not in found.stderr


# Lists that are none

BAD: dict[str, tuple[str, bytes | str, str]] = {
    "a bad line": ("g.txt", b"first\nsec\0ond\nthird\n", "line 2 has a NUL byte"),
    "only comments": ("g.txt", b"# a\n\n  \n# b\n", "holds no goal"),
    "200 kB on one line": ("g.txt", b"x" * 200_000, "line 1 is 200000 bytes long"),
    "2 MB": ("g.txt", b"goal\n" * 400_000, "larger than 1 MiB"),
    "too many": ("g.txt", b"goal\n" * 10_001, "10001 goals"),
    "no YAML": ("g.yaml", "goals: [a, b", "is no YAML"),
    "a weight below 0": ("g.yaml", "- goal: a\n  weight: -1\n", "item 1 has the weight -1"),
    "an unknown key": ("g.yaml", "- goal: a\n  wait: 1\n", "unknown key 'wait'"),
    "a goal that is no text": ("g.yaml", "- a\n- 5\n", "item 2 is neither a text"),
    "YAML that runs code": ("g.yaml", "- !!python/object/apply:os.system ['touch ran']\n", "is no YAML"),
    "nested YAML": ("g.yaml", "[" * 50_000, "is no YAML"),
    "missing": ("no.txt", "", "does not exist"),
    "a FIFO": ("fifo", "", "no regular file"),
}


@pytest.mark.parametrize(("name", "content", "reason"), BAD.values(), ids=BAD)
def test_a_list_that_cannot_be_used_is_one_sentence_before_anything_starts(
    place: Place, name: str, content: bytes | str, reason: str
) -> None:
    if name.endswith(".yaml"):
        pytest.importorskip("yaml")
    if name.startswith("g."):
        (place.path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if name == "fifo":
        os.mkfifo(place.path / name)
    found = place.run("--goals", name, "--", "touch", "ran")
    assert (found.returncode, found.stderr.count("\n"), place.has("ran")) == (2, 1, False)
    assert reason in found.stderr
    assert not place.has("state/run_cycle_history.jsonl")


# Goals that a command gives


def test_a_command_gives_the_goal_of_each_cycle(place: Place) -> None:
    script = "sh -c 'echo goal $RUN_CYCLE_NUMBER; echo more; cat > got'"
    assert place.run("--goal-command", script, "--iterations", "2", "--", *NOTE).returncode == 0
    assert worked(place) == ["goal 1", "goal 2"]
    assert place.records[0]["goal_origin"] == {"source": "command", "command": "sh"}
    assert (place.path / "got").read_text() == ""


HOSTILE = (
    ("sleep 600", "it may take 1 s (--goal-timeout)"),
    ("echo goal; sleep 600", "it may take 1 s (--goal-timeout)"),
    ("trap '' TERM; while :; do sleep 0.1; done", "it may take 1 s (--goal-timeout)"),
    ("while :; do echo; done", "it may take 1 s (--goal-timeout)"),
    ("(setsid sleep 600 &); sleep 600", "it may take 1 s (--goal-timeout)"),
    ("head -c 100K /dev/zero", "more than 65536 bytes on its first line"),
    ("echo goal; echo no luck >&2; exit 3", "exit code 3, saying 'no luck'"),
    ("kill -9 $$", "signal 9"),
    ("true", "is blank"),
    ("printf '\\n\\n  \\n'", "is blank"),
    ("printf 'a\\0b\\n'", "NUL byte"),
)


def test_a_goal_command_that_gives_none_fails_the_cycle_with_its_reason(place: Place) -> None:
    cases = "\n".join(f"{number}) {script};;" for number, (script, _) in enumerate(HOSTILE, start=1))
    place.write("goal.sh", f"case $RUN_CYCLE_NUMBER in\n{cases}\nesac\n")
    options = ("--goal-command", "sh goal.sh", "--goal-timeout", "1s", "--grace", "100ms", "--breaker-guard", "off")
    found = place.run(*options, *SWIFT, "--iterations", str(len(HOSTILE)), "--", "touch", "ran")
    assert (found.returncode, place.outcomes) == (1, ["prereq_failed"] * len(HOSTILE))
    for (script, reason), record in zip(HOSTILE, place.records, strict=True):
        assert reason in record["failed_checks"][0], script
    assert (place.has("ran"), "Traceback" in found.stderr) == (False, False)


@pytest.mark.parametrize("line", ["no-such-command-anywhere", "/etc/hostname"])
def test_a_goal_command_that_cannot_be_started_is_named(place: Place, line: str) -> None:
    assert place.run("--goal-command", line, "--", "touch", "ran").returncode == 1
    assert line in place.records[0]["failed_checks"][0]
    assert not place.has("ran")


@pytest.mark.parametrize("line", ["'", "''  'a"])
def test_a_goal_command_that_is_no_command_line_is_a_usage_error(place: Place, line: str) -> None:
    found = place.run("--goal-command", line, "--", "touch", "ran")
    assert (found.returncode, found.stderr.count("\n"), place.has("ran")) == (2, 1, False)


def test_an_operators_stop_ends_a_goal_command_that_hangs(place: Place) -> None:
    loop = place.start(
        "--goal-command", "sh -c 'echo > begun; sleep 600'", "--goal-timeout", "10m", "--", "touch", "ran"
    )
    place.wait_for("begun")
    loop.send(signal.SIGQUIT)
    assert (loop.wait(), place.has("ran")) == (0, False)


def test_no_shell_reads_a_goal_and_no_option_comes_of_it(place: Place) -> None:
    goal = "--agent claude; $(touch injected) `touch injected`"
    place.write(ABC, goal + "\n")
    place.write("scripts/run_cycle.sh", '#!/bin/sh\nprintf %s "$2" > got\n').chmod(0o755)
    assert place.run("--goals", ABC, "--archive-glob", "off").returncode == 0
    assert (place.wait_for("got"), place.has("injected")) == (goal, False)
    assert json.loads(place("history", "--json").stdout)["goal"] == goal
