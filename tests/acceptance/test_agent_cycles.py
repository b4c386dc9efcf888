"""Agents that want out of their workdir, and those that end badly: what the loop makes of their cycles."""

import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.agents import SWIFT, hostile, make_tree, scripted
from tests.acceptance.place import Place, is_running, shell, wait_until
from tests.trees import seen


def session(record: dict[str, Any]) -> dict[str, Any]:
    """What a cycle's session told the loop."""
    found: dict[str, Any] = record["control"]
    return found


# In bubblewrap


@pytest.fixture
def exposed() -> Iterator[Place]:
    """A place where everything can be seen that is not hidden, as it cannot in /tmp."""
    with tempfile.TemporaryDirectory(prefix="exposed-", dir=Path.home()) as folder:
        made = Place(Path(folder) / "place")
        yield made
        made.end()


#: What each tries; whatever succeeds is named in ``sandbox/out``. ``$P`` is the place, ``$L`` the loop's pid.
ESCAPES = {
    "write state": "echo x > $P/state/mine",
    "read state": "cat $P/state/secret",
    "list state": '[ -n "$(ls -A $P/state)" ]',
    "remove state": "rm -rf $P/state/secret && [ ! -e $P/state/secret ] && [ -e $P/state/run_cycle.lock ]",
    "move state": "mv $P/state $P/other",
    "write logs": "echo x > $P/logs/run_cycle/mine",
    "read logs": "cat $P/logs/run_cycle/latest.json",
    "rewrite latest.json": "echo '{}' > $P/logs/run_cycle/latest.json",
    "plant the stop-file": "touch $P/state/run_cycle.stop",
    "rewrite the history": "echo > $P/state/run_cycle_history.jsonl",
    "rewrite the ledger": "echo > $P/state/budget_ledger.jsonl",
    "rewrite the audit": "echo '{}' >> $P/state/consent_audit.jsonl",
    "leave a control file": 'echo "{}" > $P/state/control/$RUN_CYCLE_ID.json',
    "be told of the control file": '[ -n "$RUN_CYCLE_CONTROL_FILE$RUN_CYCLE_STATE_DIR$RUN_CYCLE_HISTORY_PATH" ]',
    "reach the copy of the tree": "ls $P/state/baseline/contents/*",
    "write beside the workdir": "echo x > $P/mine",
    "rewrite itself": "echo x >> $P/agent.sh",
    "swap the workdir": "mv $P/sandbox $P/elsewhere",
    "reach state by a link": "ln -s $P/state s && cat s/secret",
    "reach state by the loop's root": "cat /proc/$L/root$P/state/secret",
    "see the loop": "[ -e /proc/$L/exe ] && tr '\\0' ' ' < /proc/$L/cmdline | grep -q run-cycle-loop",
    "signal the loop": "kill -0 $L && tr '\\0' ' ' < /proc/$L/cmdline | grep -q run-cycle-loop",
    "mount": "mount -t tmpfs none $P/state",
    "unmount": "umount $P/state && cat $P/state/secret",
    "write the kernel's settings": "echo x > /proc/sys/kernel/core_pattern",
}


@pytest.mark.root
def test_an_isolated_agent_reaches_nothing_of_the_loops_own(exposed: Place) -> None:
    (exposed.path / "sandbox").mkdir()
    exposed.write("state/secret", "secret")
    tries = "\n".join(f"( {script} ) && echo {name!r} >> out" for name, script in ESCAPES.items())
    script = f"exec 2> /dev/null\nuntil [ -s $P/pid ]; do sleep 0.01; done; L=$(cat $P/pid)\n{tries}\necho done > end"
    loop = exposed.start(*hostile(exposed, script, isolate="bwrap"), "--budget", "cycles=1/run")
    exposed.write("pid", str(loop.pid))
    assert loop.wait() == 12
    (record,) = exposed.records
    assert (record["status"], session(record)["isolation"]) == ("success", "bwrap")
    assert exposed.has("sandbox/end")
    assert not exposed.has("sandbox/out"), exposed.wait_for("sandbox/out")
    assert exposed.wait_for("state/secret") == "secret"
    assert {path.name for path in exposed.path.iterdir()} == {"agent.sh", "logs", "pid", "sandbox", "screen", "state"}


@pytest.mark.root
def test_an_isolated_agent_kills_nobody_but_itself(place: Place) -> None:
    found = place.run(
        *hostile(place, "kill -9 -1; kill -9 1 $PPID; kill -9 0", isolate="bwrap"), *SWIFT, "--iterations", "2"
    )
    assert found.returncode in {0, 1}
    assert (len(place.outcomes), place.latest["stop_reason"]) == (2, "iterations_done")
    assert "lost" not in place.outcomes


@pytest.mark.root
def test_no_survivor_of_an_isolated_agent_writes_on(place: Place) -> None:
    (place.path / "sandbox").mkdir()
    script = "(setsid sh -c 'trap \"\" TERM; while :; do echo x >> $0; done' grows &); until [ -s grows ]; do :; done"
    assert place.run(*hostile(place, script, isolate="bwrap")).returncode == 0
    size = (place.path / "sandbox" / "grows").stat().st_size
    assert place.run("--", "true").returncode == 0
    assert (place.path / "sandbox" / "grows").stat().st_size == size


@pytest.mark.root
def test_an_isolated_agent_is_held_to_its_caps_too(place: Place) -> None:
    make_tree(place.path / "sandbox")
    before = seen(place.path / "sandbox")
    script = "rm -rf ./*; for i in 1 2 3 4; do echo $i > new-$i; done; sleep 600"
    assert place.run(*hostile(place, script, isolate="bwrap"), "--cap-writes", "3").returncode == 1
    assert seen(place.path / "sandbox") == before
    assert (place.path / place.records[0]["quarantine"] / "tree" / "new-4").read_text() == "4\n"


@pytest.mark.root
def test_a_reader_changes_nothing(place: Place) -> None:
    make_tree(place.path / "sandbox")
    before = seen(place.path / "sandbox")
    script = "echo x > new; rm -f file-0; cat file-1"
    assert place.run(*hostile(place, script, isolate="bwrap"), "--role", "read-only").returncode == 0
    assert seen(place.path / "sandbox") == before


@pytest.mark.parametrize("isolate", ["auto", "bwrap"])
def test_without_bubblewrap_nothing_is_started_where_it_is_demanded_and_else_it_is_said(
    place: Place, isolate: str
) -> None:
    """A search path without it, and with what the loop and the agent need."""
    for name in ("sh", "touch"):
        place.write(f"bin/{name}", f'#!/bin/sh\nexec /bin/{name} "$@"\n').chmod(0o755)
    found = place.run(*hostile(place, "touch ran", isolate=isolate), PATH=str(place.path / "bin"))
    (record,) = place.records
    if isolate == "bwrap":
        assert (found.returncode, record["status"]) == (1, "prereq_failed")
        assert "bwrap" in record["failed_checks"][0]
        assert not place.has("sandbox/ran")
    else:
        assert (found.returncode, record["status"], session(record)["isolation"]) == (0, "success", "none")
        assert "bubblewrap (bwrap) is not installed" in record["guards"][0]["detail"]


# Not isolated: what is still so


def test_what_a_bare_agent_cannot_avoid_is_that_it_is_ended_measured_and_recorded(place: Place) -> None:
    make_tree(place.path / "sandbox")
    before = seen(place.path / "sandbox")
    script = """
echo '{"class": "ok", "continue": true}' > $P/state/control/$RUN_CYCLE_ID.json
echo > $P/state/run_cycle_in_flight.json; rm -f $P/state/run_cycle.lock $P/logs/run_cycle/latest.json
(setsid sh -c 'trap "" TERM; echo $$ > $0/pid; while :; do echo x > s; done' $P &)
until [ -s $P/pid ]; do sleep 0.01; done
for i in 1 2 3 4; do echo $i > new-$i; done
"""
    assert place.run(*hostile(place, script), "--cap-writes", "3").returncode == 1
    (record,) = place.records
    assert record["reason"].startswith("write_cap: ")
    assert seen(place.path / "sandbox") == before
    assert not is_running(int(place.wait_for("pid")))


def test_a_bare_agent_that_kills_its_supervisor_is_lost_put_back_and_paid_for(place: Place) -> None:
    make_tree(place.path / "sandbox")
    before = seen(place.path / "sandbox")
    script = "for i in 1 2 3 4; do echo $i > new-$i; done; kill -9 $(cat $P/pid); sleep 600 & echo $! > $P/child; wait"
    budget = ("--budget", "usd=5/day", "--cap-writes", "3")
    loop = place.start(*hostile(place, f"until [ -s $P/pid ]; do sleep 0.01; done\n{script}"), *budget)
    place.write("pid", str(loop.pid))
    assert loop.wait() == -signal.SIGKILL
    child = int(place.wait_for("child"))
    found = place.run(*hostile(place, "true"), *budget)
    assert found.returncode == 0
    lost, after = place.records
    assert (lost["status"], lost["files_changed"], after["status"]) == ("lost", 4, "success")
    assert not is_running(child)
    assert seen(place.path / "sandbox") == before
    assert json.loads(place("budget", "--json").stdout)["today"] == pytest.approx(
        {"usd": 4.0, "tokens": 1_000_000, "seconds": 0, "cycles": 2}, abs=400
    )


PLANTED = [
    ("run_cycle_history.jsonl", "a link"),
    ("run_cycle_in_flight.json", "a FIFO"),
    ("control", "a link"),
    ("budget_ledger.jsonl", "a link"),
]


@pytest.mark.parametrize(("name", "kind"), PLANTED)
def test_whatever_a_cycle_plants_among_the_state_the_loop_neither_hangs_nor_writes_elsewhere(
    place: Place, name: str, kind: str
) -> None:
    place.write("victim", "theirs")
    path = f"state/{name}"
    plant = f"rm -rf {path}; " + (f"ln -s ../victim {path}" if kind == "a link" else f"mkfifo {path}")
    budget = ("--budget", "cycles=9/day")
    first = place.run(*budget, *SWIFT, "--iterations", "2", "--", *shell(plant))
    second = place.run(*budget, "--", "true")
    for found in (first, second):
        assert found.returncode in {0, 1, 11, 74, 75}
        assert "Traceback" not in found.stderr
        assert found.returncode == 0 or path in found.stderr  # what is in the way is named
    assert place.wait_for("victim") == "theirs"


# How a session ends


CLASSES = {
    "ok": "success",
    "no_change": "degraded",
    "tool_error": "failed",
    "budget": "failed",
    "permission_denied": "failed",
    "timeout": "timeout",
    "interrupted": "interrupted",
}


def test_the_class_of_a_session_decides(place: Place) -> None:
    steps: list[dict[str, Any]] = []
    for number, ended in enumerate(CLASSES, start=1):
        steps += [{"cycle": number}, {"write": "a"}, {"class": ended, "reason": "the far end said so"}]
    found = place.run(*scripted(place, *steps), *SWIFT, "--iterations", str(len(CLASSES)), "--breaker-guard", "off")
    assert found.returncode == 0
    assert [(record["agent_class"], record["status"]) for record in place.records] == list(CLASSES.items())
    assert {record["agent"] for record in place.records} == {"scripted"}
    assert all("the far end said so" in record["reason"] for record in place.records[1:])


@pytest.mark.parametrize("more", [{}, {"retry_after": 3600}], ids=["auth", "auth that asks to wait"])
def test_a_refused_login_stops_the_loop_at_once_and_says_what_to_do(place: Place, more: dict[str, Any]) -> None:
    step = {"class": "auth", "reason": "the key was refused", "advice": "run `agent login`", "permanent": True} | more
    found = place.run(*scripted(place, step), "--continuous", "--max-failures", "0")
    assert (found.returncode, place.outcomes) == (11, ["failed"])
    (record,) = place.records
    assert (record["agent_class"], record["permanent"], record["advice"]) == ("auth", True, "run `agent login`")
    assert place.latest["stop_reason"] == "permanent_failure"
    assert "run `agent login`" in place("status").stdout
    again = place.run(*scripted(place, {"write": "a"}))  # a person has mended it: one start is enough
    assert (again.returncode, place.outcomes) == (0, ["failed", "success"])


def test_a_session_that_hangs_is_ended_with_all_that_it_started(place: Place) -> None:
    script = "setsid sleep 600 & echo $! > $P/child; sleep 600"
    assert place.run(*hostile(place, script), "--timeout", "4s").returncode == 1
    (record,) = place.records
    assert (record["status"], record["return_code"]) == ("timeout", 124)
    assert not is_running(int(place.wait_for("child")))


def test_a_flood_of_output_neither_fills_the_record_nor_hides_the_end(place: Place) -> None:
    steps = ({"print": "x", "bytes": 20 << 20}, {"write": "a"}, {"print": "\n"}, {"final": "Done. " * 2000})
    assert place.run(*scripted(place, *steps), "--max-log-bytes", "1MiB").returncode == 0
    (record,) = place.records
    assert record["output_bytes"] > 20 << 20
    assert len(session(record)["summary"]) <= 2000
    assert (place.path / record["log_path"]).stat().st_size < 2 << 20


RESULTS = {
    "not json": "success",
    "\0": "success",
    "[" * 99_999: "success",
    '{"class": "splendid"}': "failed",
    '{"class": ["ok"]}': "failed",
    '{"class": "ok", "permanent": 1}': "failed",
    '{"class": "ok", "retry_at": "9999-12-31T23:59:59-12:00"}': "failed",
}


def test_no_result_file_breaks_the_session_and_none_is_believed_that_cannot_be_understood(place: Place) -> None:
    for number, result in enumerate(RESULTS, start=1):
        place.write(f"result-{number}", result)
    line = f"sh {place.path}/agent.sh {{result_file}}"
    options = (*hostile(place, 'cp $P/result-$RUN_CYCLE_NUMBER "$1"'), "--agent-command", line)
    place.run(*options, *SWIFT, "--iterations", str(len(RESULTS)), "--breaker-guard", "off")
    assert place.outcomes == list(RESULTS.values())
    for record in place.records:
        assert "Traceback" not in (place.path / record["log_path"]).read_text()


def test_an_agent_gets_none_of_what_lets_it_speak_for_the_loop(place: Place) -> None:
    options = hostile(place, "env > $P/seen")
    assert place.run(*options, NOTIFY_SOCKET="@nobody", RUN_CYCLE_SECRET_ENV="X").returncode == 0
    names = {line.split("=")[0] for line in place.wait_for("seen").splitlines()}
    told = {name for name in names if name.startswith("RUN_CYCLE_")}
    assert told == {f"RUN_CYCLE_{name}" for name in ("ID", "NUMBER", "MODE", "GOAL", "CAP_WRITES")}
    assert "NOTIFY_SOCKET" not in names


def test_an_operators_stop_reaches_an_agent_in_mid_session(place: Place) -> None:
    loop = place.start(*hostile(place, "echo > $P/begun; sleep 600 & echo $! > $P/child; wait"))
    place.wait_for("begun")
    assert place("stop", "--now").returncode == 0
    assert (loop.wait(), place.outcomes) == (10, ["interrupted"])
    assert not is_running(int(place.wait_for("child")))


def test_a_cycle_of_an_agent_is_shown_while_it_runs_and_afterwards(place: Place) -> None:
    loop = place.start(*scripted(place, {"cycle": 1}, {"write": "a"}, {"cycle": 2}, {"wait": 600}))
    wait_until(lambda: place.outcomes == ["success"], "the first cycle")
    wait_until(lambda: place.latest["state"] == "running" and place.latest["cycle"]["number"] == 2, "the second cycle")
    assert place.latest["cycle"]["agent"] == "scripted"
    loop.send(signal.SIGQUIT)
    assert loop.wait() == 0
    assert place.outcomes == ["success", "interrupted"]
    assert place.records[1]["agent_class"] in {"interrupted", None}
    shown = [json.loads(line) for line in place("history", "--json").stdout.splitlines()]
    assert [record["agent"] for record in shown] == ["scripted"] * 2
