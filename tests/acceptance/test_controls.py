"""How a running loop is stopped, hurried and steered, and what is left of it when it is killed."""

import signal
from pathlib import Path

import pytest

from tests.acceptance.place import HELD, Place, is_running, shell, wait_until
from tests.obstacles import OBSTACLES, plant

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
LONG = ("--sleep", "1h", "--backoff-initial", "30m")
STUBBORN = "trap '' TERM; echo $$ > begun; while :; do sleep 0.05; done"
NUMBERED = "touch cycle-$RUN_CYCLE_NUMBER; echo up > begun"


def let_go(place: Place) -> None:
    (place.path / "go").touch()


# Signals


@pytest.mark.parametrize("number", [TERM, INT])
def test_the_first_signal_lets_the_cycle_finish_and_leaves_with_0(place: Place, number: signal.Signals) -> None:
    loop = place.start("--", *shell(HELD))
    place.wait_for("begun")
    loop.send(number)
    place.wait_for_state("stopping")
    let_go(place)
    assert loop.wait() == 0
    assert place.outcomes == ["success"]
    assert place.latest["stop_reason"] == "signal"


@pytest.mark.parametrize("number", [TERM, INT])
def test_the_second_signal_ends_the_cycle_and_leaves_with_0(place: Place, number: signal.Signals) -> None:
    loop = place.start("--", *shell(HELD))
    place.wait_for("begun")
    loop.send(TERM)
    place.wait_for_state("stopping")  # the kernel makes one of two equal signals that are still pending
    loop.send(number)
    assert loop.wait() == 0
    assert place.outcomes == ["interrupted"]


def test_a_quit_ends_the_cycle_at_once(place: Place) -> None:
    loop = place.start("--", *shell(HELD))
    place.wait_for("begun")
    loop.send(signal.SIGQUIT)
    assert (loop.wait(), place.outcomes) == (0, ["interrupted"])


def test_the_third_signal_does_not_wait_for_the_grace(place: Place) -> None:
    loop = place.start("--grace", "1h", "--", *shell(STUBBORN))
    pid = int(place.wait_for("begun"))
    loop.send(TERM)
    place.wait_for_state("stopping")
    loop.send(TERM)
    loop.send(INT)
    assert loop.wait() == 0
    assert [(record["status"], record["signal"]) for record in place.records] == [("interrupted", KILL)]
    assert not is_running(pid)


@pytest.mark.parametrize(("command", "state"), [("true", "waiting"), ("false", "backoff")])
def test_a_waiting_loop_is_gone_at_once(place: Place, command: str, state: str) -> None:
    loop = place.start(*LONG, "--", command)
    place.wait_for_state(state)
    loop.send(TERM)
    assert loop.wait() == 0
    assert len(place.records) == 1


def test_a_signal_that_nobody_knows_a_use_for_ends_nothing(place: Place) -> None:
    loop = place.start("--", *shell(HELD))
    place.wait_for("begun")
    loop.send(signal.SIGUSR2)
    loop.send(TERM)
    let_go(place)
    assert (loop.wait(), place.outcomes) == (0, ["success"])


# The kill switch


def test_stop_stops_after_the_cycle_and_keeps_it_stopped_until_resume(place: Place) -> None:
    loop = place.start("--", *shell(HELD))
    place.wait_for("begun")
    told = place("stop")
    assert (told.returncode, f"the loop (pid {loop.pid}) stops after its current cycle" in told.stdout) == (0, True)
    let_go(place)
    assert (loop.wait(), place.outcomes) == (10, ["success"])
    assert place.run("--", "true").returncode == 10
    assert place("resume").returncode == 0
    assert place.run("--", "true").returncode == 0
    assert place.outcomes == ["success", "success"]


def test_stop_now_ends_the_cycle_too(place: Place) -> None:
    loop = place.start("--", *shell(HELD))
    place.wait_for("begun")
    assert "ends its cycle now" in place("stop", "--now").stdout
    assert (loop.wait(), place.outcomes) == (10, ["interrupted"])
    place("resume")
    assert not list((place.path / "state").glob("run_cycle.stop*"))


@pytest.mark.parametrize("kind", OBSTACLES)
def test_whatever_appears_at_the_stop_files_path_stops_a_waiting_loop(place: Place, kind: str) -> None:
    path = place.path / "halt"
    loop = place.start(*LONG, "--stop-file", "halt", "--", "true")
    place.wait_for_state("waiting")
    plant(kind, path, Path("nowhere"))
    assert (loop.wait(), place.latest["stop_reason"]) == (10, "stop_file")


def test_without_a_loop_stop_still_holds_the_next_one_back(place: Place) -> None:
    assert "no loop runs here" in place("stop").stdout
    assert (place.run("--", "true").returncode, place.outcomes) == (10, [])


def test_without_a_stop_file_there_is_nothing_to_resume(place: Place) -> None:
    found = place("resume")
    assert (found.returncode, "there is no stop-file" in found.stdout) == (0, True)


# The next cycle now


@pytest.mark.parametrize("how", ["trigger", "SIGUSR1"])
@pytest.mark.parametrize(("command", "state"), [("exit 0", "waiting"), ("exit 1", "backoff")])
def test_the_next_cycle_starts_now_where_that_is_wanted(place: Place, how: str, command: str, state: str) -> None:
    loop = place.start(*LONG, "--max-failures", "0", "--", *shell(f"{NUMBERED}; {command}"))
    place.wait_for_state(state)
    if how == "trigger":
        assert place("trigger").returncode == 0
    else:
        loop.send(signal.SIGUSR1)
    place.wait_for("cycle-2")


def test_a_trigger_without_a_loop_says_so(place: Place) -> None:
    place.run("--", "true")
    found = place("trigger")
    assert (found.returncode, "no loop runs here" in found.stderr) == (1, True)


# Reading the configuration again


def test_a_reload_is_heeded_before_the_next_cycle(place: Place) -> None:
    place.write("run-cycle-loop.toml", "mode = 'old'\n")
    loop = place.start(*LONG, "--", *shell(NUMBERED))
    place.wait_for_state("waiting")
    place.write("run-cycle-loop.toml", "mode = 'new'\n")
    loop.send(signal.SIGHUP)
    loop.send(signal.SIGUSR1)
    place.wait_for("cycle-2")
    wait_until(lambda: len(place.records) == 2, "two records")
    assert [record["mode"] for record in place.records] == ["old", "new"]
    assert "config.reloaded" in place.screen


def test_a_configuration_that_cannot_be_used_is_refused_and_the_loop_goes_on(place: Place) -> None:
    place.write("run-cycle-loop.toml", "mode = 'old'\n")
    loop = place.start(*LONG, "--", *shell(NUMBERED))
    place.wait_for_state("waiting")
    place.write("run-cycle-loop.toml", "mode = 'new'\nmax-failures = 'many'\n")
    loop.send(signal.SIGHUP)
    loop.send(signal.SIGUSR1)
    place.wait_for("cycle-2")
    wait_until(lambda: len(place.records) == 2, "two records")
    assert [record["mode"] for record in place.records] == ["old", "old"]
    assert "config.refused" in place.screen
    loop.send(TERM)
    assert loop.wait() == 0


# Killed


def kill_during_a_cycle(place: Place, script: str, *flags: str) -> None:
    loop = place.start(*flags, "--", *shell(script))
    place.wait_for("begun")
    loop.send(KILL)
    loop.wait()


ESCAPES = {
    "leader": "echo $$ > begun; sleep 600",
    "child": "sleep 600 & echo $! > begun; wait",
    "own session": "setsid sh -c 'echo $$ > begun; exec sleep 600' & wait",
    "double fork": "(setsid sh -c 'echo $$ > begun; exec sleep 600' > /dev/null 2>&1 &) ; sleep 600",
    "deaf to TERM": STUBBORN,
    "no environment": "setsid env -i sh -c 'echo $$ > begun; exec /bin/sleep 600' & wait",
}


@pytest.mark.parametrize("script", ESCAPES.values(), ids=ESCAPES)
def test_what_a_killed_loop_left_is_dead_before_the_next_cycle(place: Place, script: str) -> None:
    kill_during_a_cycle(place, script)
    pid = int(place.wait_for("begun"))
    assert is_running(pid)
    found = place.run("--", *shell(f"[ -e /proc/{pid}/exe ] && touch still-there; exit 0"))
    assert (found.returncode, place.outcomes) == (0, ["lost", "success"])
    assert not is_running(pid)
    assert not place.has("still-there")
    assert place.records[0]["leftovers"] >= 1


def test_a_lost_cycle_is_recorded_once_with_what_was_asked(place: Place) -> None:
    kill_during_a_cycle(place, "touch begun; sleep 600", "--mode", "m", "--goal", "g")
    place.run("--", "true")
    place.run("--", "true")
    lost = place.records[0]
    assert place.outcomes == ["lost", "success", "success"]
    assert (lost["mode"], lost["goal"], lost["number"], lost["return_code"]) == ("m", "g", 1, None)
    assert [record["number"] for record in place.records] == [1, 2, 3]
    assert Path(lost["log_path"]) != Path(place.records[1]["log_path"])


def test_the_streak_survives_restarts_and_kills(place: Place) -> None:
    place.run("--", "false")
    kill_during_a_cycle(place, "touch begun; sleep 600")
    found = place.run("--", "false")
    assert [record["consecutive_failures"] for record in place.records] == [1, 2, 3]
    assert found.returncode == 11


def test_the_backoff_survives_a_kill(place: Place) -> None:
    first = place.start(*LONG, "--", "false")
    place.wait_for_state("backoff")
    first.send(KILL)
    first.wait()
    second = place.start(*LONG, "--", "touch", "too-soon")
    wait_until(lambda: place.latest["supervisor"]["pid"] == second.pid, "the second loop")
    found = place.wait_for_state("backoff")
    assert (found["consecutive_failures"], found["next_run_at"] is not None) == (1, True)
    second.send(TERM)
    assert second.wait() == 0
    assert not place.has("too-soon")


def test_a_stopped_loops_backoff_is_waited_for_by_the_next(place: Place) -> None:
    first = place.start(*LONG, "--", *shell(f"{HELD}; exit 1"))
    place.wait_for("begun")
    first.send(TERM)
    place.wait_for_state("stopping")
    let_go(place)
    assert first.wait() == 0
    second = place.start(*LONG, "--", "touch", "too-soon")
    place.wait_for_state("backoff")
    second.send(TERM)
    assert (second.wait(), place.has("too-soon")) == (0, False)


def test_a_killed_loops_lock_is_free_at_once(place: Place) -> None:
    kill_during_a_cycle(place, "touch begun; sleep 600")
    assert place.run("--", "true").returncode == 0


# The end of a cycle


@pytest.mark.parametrize("script", [ESCAPES["child"], ESCAPES["own session"], ESCAPES["double fork"], STUBBORN])
def test_a_timeout_leaves_no_process_behind(place: Place, script: str) -> None:
    place.run("--timeout", "500ms", "--grace", "100ms", "--", *shell(script))
    assert place.outcomes == ["timeout"]
    assert not is_running(int(place.wait_for("begun")))


BEGUN = "until [ -s begun ]; do sleep 0.01; done"
REMAINS = {
    "background": "sleep 600 & echo $! > begun",
    "own session": f"setsid sh -c 'echo $$ > begun; exec sleep 600' & {BEGUN}",
    "double fork, deaf": f"(setsid sh -c 'trap \"\" TERM; echo $$ > begun; while :; do sleep 1; done' &) ; {BEGUN}",
}


@pytest.mark.parametrize("script", REMAINS.values(), ids=REMAINS)
def test_a_finished_cycle_leaves_no_process_behind(place: Place, script: str) -> None:
    place.run("--grace", "100ms", "--", *shell(script))
    assert place.outcomes == ["success"]
    assert place.records[0]["leftovers"] >= 1
    assert not is_running(int(place.wait_for("begun")))


def test_a_check_script_leaves_no_process_behind(place: Place) -> None:
    check = place.write("check", f"#!/bin/sh\n{REMAINS['double fork, deaf']}\n")
    check.chmod(0o755)
    place.run("--grace", "100ms", "--prereq-script", "./check", "--", "true")
    assert place.outcomes == ["success"]
    assert not is_running(int(place.wait_for("begun")))
