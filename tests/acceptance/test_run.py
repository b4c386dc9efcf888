"""``run-cycle-loop run`` as the operator knows it: its table of flags line by line, its exit codes, its traces."""

import gzip
import json
import signal
import socket
import subprocess
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.place import COMMAND, HELD, PATIENCE, Place, python, shell

SCRIPT = "#!/bin/sh\n"


def make_script(place: Place, name: str, body: str) -> Path:
    path = place.write(name, SCRIPT + body + "\n")
    path.chmod(0o755)
    return path


def archive(name: str = "new", moment: str = "$(date -u +%FT%TZ)") -> list[str]:
    """A cycle that leaves one planner archive."""
    return shell(f'printf \'{{"timestamp":"%s"}}\\n\' "{moment}" | gzip > out/{name}-$RUN_CYCLE_NUMBER.jsonl.gz')


# Exit codes


@pytest.mark.parametrize(
    ("args", "command", "code", "outcomes"),
    [
        ((), ["true"], 0, ["success"]),
        ((), ["false"], 1, ["failed"]),
        (("--iterations", "3"), ["true"], 0, ["success"] * 3),
        (("--iterations", "9"), ["false"], 11, ["failed"] * 3),
        (("--iterations", "9", "--max-failures", "1"), ["false"], 11, ["failed"]),
        (("--iterations", "4", "--max-failures", "0"), ["false"], 1, ["failed"] * 4),
        (("--timeout", "200ms"), ["sleep", "60"], 1, ["timeout"]),
        (("--idle-timeout", "200ms"), ["sleep", "60"], 1, ["timeout"]),
        ((), ["no-such-command-anywhere"], 1, ["error"]),
        ((), ["/etc/hostname"], 1, ["error"]),
    ],
)
def test_a_bounded_run_leaves_with(
    place: Place, args: tuple[str, ...], command: list[str], code: int, outcomes: list[str]
) -> None:
    found = place.run(*args, "--", *command)
    assert (found.returncode, place.outcomes) == (code, outcomes)
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("command", "return_code", "number"),
    [
        (shell("exit 124"), 124, None),
        (shell("exit 255"), 255, None),
        (shell("kill -9 $$"), 137, 9),
        (shell("kill -SEGV $$"), 139, 11),
        (["no-such-command-anywhere"], 127, None),
        (["/etc/hostname"], 126, None),
    ],
)
def test_the_return_code_follows_coreutils_timeout(
    place: Place, command: list[str], return_code: int, number: int | None
) -> None:
    place.run("--", *command)
    assert [(record["return_code"], record["signal"]) for record in place.records] == [(return_code, number)]


def test_only_our_own_timeout_is_called_124(place: Place) -> None:
    place.run("--timeout", "100ms", "--", "sleep", "60")
    assert [(record["status"], record["return_code"]) for record in place.records] == [("timeout", 124)]


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("--sleep", "nan"), "nan"),
        (("--sleep=-1",), "-1"),
        (("--timeout", "1e308"), "1e308"),
        (("--iterations", "many"), "many"),
        (("--iterations", "2", "--continuous"), "--continuous"),
        (("--itterations", "2"), "--itterations"),
        (("--config", "missing.toml"), "missing.toml"),
        (("--goal-file", "missing.txt"), "missing.txt"),
        (("--while", "1 +"), "--while"),
        (("--while", "foo == 1"), "foo"),
        (("--backoff-factor", "0.5"), "0.5"),
    ],
)
def test_a_usage_error_is_one_sentence_and_leaves_no_trace(place: Place, args: tuple[str, ...], word: str) -> None:
    found = place("run", *args, "--", "true")
    assert found.returncode == 2
    assert word in found.stderr
    assert found.stderr.count("\n") == 1
    assert place.outcomes == []
    assert not place.has("state/run_cycle_history.jsonl")


def test_nothing_to_run_is_a_usage_error(place: Place) -> None:
    found = place("run")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "pass `--agent NAME`, `-- COMMAND` or `--cycle-script PATH`" in found.stderr


def test_a_state_directory_that_cannot_be_written_leaves_with_74(place: Place) -> None:
    place.write("state", "a file")
    found = place.run("--", "true")
    assert found.returncode == 74
    assert "Traceback" not in found.stderr


def test_a_second_instance_leaves_with_75_and_names_the_first(place: Place) -> None:
    loop = place.start("--", *shell(HELD))
    place.wait_for("begun")
    found = place.run("--", "true")
    assert found.returncode == 75
    assert f"pid {loop.pid} on " in found.stderr
    assert place.latest["supervisor"]["started_at"] in found.stderr


@pytest.mark.parametrize("shared", ["--log-dir", "--history-path"])
def test_a_loop_with_another_state_does_not_touch_the_logs_and_the_history_of_the_first(
    place: Place, shared: str
) -> None:
    loop = place.start("--", *shell(HELD))
    place.wait_for("begun")
    there = {"--log-dir": "logs/run_cycle", "--history-path": "state/run_cycle_history.jsonl"}
    own = {"--state-dir": "other", "--log-dir": "other-logs", shared: there[shared]}
    before = place.wait_for_state("running")
    found = place.run(*(word for item in own.items() for word in item), "--", "touch", "ran")
    assert (found.returncode, found.stderr.count("\n")) == (75, 1)
    assert f"another {shared}" in found.stderr
    assert not place.has("ran")
    assert place.latest == before
    loop.send(signal.SIGTERM)
    place.write("go", "")
    assert loop.wait() == 0
    assert place.outcomes == ["success"]


def test_a_loop_inside_of_a_cycle_keeps_a_history_of_its_own(place: Place) -> None:
    inner = [str(COMMAND), "run", "--state-dir", "inner", "--log-dir", "inner-logs", "--sleep", "0"]
    assert place.run("--", *inner, "--iterations", "2", "--", "true").returncode == 0
    assert place.outcomes == ["success"]
    assert (place.path / "inner/run_cycle_history.jsonl").read_text().count("\n") == 2


# What the cycle is


def test_two_dashes_end_our_options_and_no_shell_reads_the_rest(place: Place) -> None:
    seen = "import json, sys; json.dump(sys.argv[1:], open('seen', 'w'))"
    rest = ["--sleep", "9", "--", "$HOME", "a b", "*", "", "; touch injected"]
    assert place.run("--iterations", "1", "--", *python(seen), *rest).returncode == 0
    assert json.loads(place.wait_for("seen")) == rest
    assert not place.has("injected")


@pytest.mark.parametrize("args", [(), ("--cycle-script", "other/cycle")], ids=["shipped name", "--cycle-script"])
def test_a_cycle_script_is_called_with_mode_and_goal(place: Place, args: tuple[str, ...]) -> None:
    make_script(place, args[1] if args else "scripts/run_cycle.sh", 'printf "%s|" "$@" > seen')
    goal = "say 'hello'; $(touch injected)\nand more"
    place.run("--archive-glob", "off", "--mode", "careful", "--goal", goal, *args)
    assert place.wait_for("seen") == f"careful|{goal}|"
    assert [(record["mode"], record["goal"]) for record in place.records] == [("careful", goal)]
    assert not place.has("injected")


def test_a_cycle_is_told_who_it_is(place: Place) -> None:
    place.run("--mode", "m", "--goal", "g", "--cap-writes", "7", "--", *shell("env -0 | grep -z ^RUN_CYCLE_ > seen"))
    told = dict(item.split("=", 1) for item in place.wait_for("seen").split("\0") if item)
    assert told.pop("RUN_CYCLE_ID") == place.records[0]["cycle_id"]
    assert Path(told.pop("RUN_CYCLE_CONTROL_FILE")).parent == place.path / "state" / "control"
    assert told.items() >= {
        ("RUN_CYCLE_NUMBER", "1"),
        ("RUN_CYCLE_MODE", "m"),
        ("RUN_CYCLE_GOAL", "g"),
        ("RUN_CYCLE_CAP_WRITES", "7"),
        ("RUN_CYCLE_STATE_DIR", str(place.path / "state")),
        ("RUN_CYCLE_SANDBOX_DIR", str(place.path / "sandbox")),
    }


def test_only_what_is_allowed_of_the_environment_reaches_the_cycle(place: Place) -> None:
    place.run("--env-allow", "PATH,KEPT_*", "--", *shell("env > seen"), KEPT_ONE="1", DROPPED="1")
    names = {line.split("=")[0] for line in place.wait_for("seen").splitlines()}
    assert {name for name in names if not name.startswith("RUN_CYCLE_")} - {"PWD", "SHLVL", "_"} == {"PATH", "KEPT_ONE"}


def test_a_cycle_gets_a_session_of_its_own_no_input_and_no_descriptor_of_ours(place: Place) -> None:
    code = """
import json, os, signal, sys
json.dump({
    "session": os.getsid(0) == os.getpid(),
    "input": sys.stdin.read(),
    "descriptors": [name for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)],
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "status": [line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn")],
}, open("seen.new", "w")); os.rename("seen.new", "seen")
"""
    place.run("--", *python(code))
    seen = json.loads(place.wait_for("seen"))
    assert (seen["session"], seen["input"], seen["mask"]) == (True, "", [])
    assert sorted(seen["descriptors"])[:3] == ["0", "1", "2"]
    assert len(seen["descriptors"]) == 3
    # Python itself ignores SIGPIPE and SIGXFSZ, the C library's posix_spawn its own two beside them.
    assert int(seen["status"][0], 16) & ~(0b11 << 31) == 1 << 12 | 1 << 24


def test_the_goal_file_is_read_before_every_cycle(place: Place) -> None:
    place.write("goal.txt", "first\n")
    place.run("--iterations", "2", "--goal-file", "goal.txt", "--", *shell("echo second > goal.txt"))
    assert [record["goal"] for record in place.records] == ["first", "second"]


def test_a_goal_file_that_went_away_is_a_failed_prerequisite(place: Place) -> None:
    place.write("goal.txt", "first")
    place.run("--iterations", "2", "--goal-file", "goal.txt", "--", "rm", "goal.txt")
    assert place.outcomes == ["success", "prereq_failed"]
    assert "goal.txt" in place.records[1]["reason"]


@pytest.mark.parametrize(("flags", "left"), [((), True), (("--sandbox-reset",), False)])
def test_the_sandbox_is_cleared_between_cycles_where_that_is_asked(
    place: Place, flags: tuple[str, ...], left: bool
) -> None:
    look = 'test -e "$RUN_CYCLE_SANDBOX_DIR/old" && touch seen; mkdir -p sandbox; touch sandbox/old'
    place.run("--iterations", "2", *flags, "--", *shell(look))
    assert place.has("seen") is left


# Prerequisites


def test_the_check_script_decides_and_is_in_the_log(place: Place) -> None:
    make_script(place, "check", "echo the disk is on fire >&2; exit 3")
    found = place.run("--prereq-script", "check", "--", "touch", "ran")
    record = place.records[0]
    assert (found.returncode, record["status"], record["prerequisites_ok"]) == (1, "prereq_failed", False)
    assert "exit code 3: the disk is on fire" in record["reason"]
    assert "the disk is on fire" in (place.path / record["log_path"]).read_text()
    assert not place.has("ran")


def test_a_check_script_in_its_place_is_found_and_one_that_hangs_is_ended(place: Place) -> None:
    place.write("scripts/check_run_cycle_prereqs.py", "import time; time.sleep(60)")
    place.run("--prereq-timeout", "300ms", "--", "true")
    assert place.outcomes == ["prereq_failed"]
    assert "ran past 0.3 s" in place.records[0]["reason"]


def test_every_failed_check_is_reported_and_an_optional_one_skips_nothing(place: Place) -> None:
    place.run("--require-command", "no-such-a,no-such-b", "--require-module", "no_such_c", "--", "true")
    place.run("--optional-command", "no-such-d", "--", "true")
    first, second = place.records
    assert [name.split(":")[0] for name in first["failed_checks"]] == [
        *("module no_such_c", "command no-such-a"),
        "command no-such-b",
    ]
    assert second["status"] == "success"
    assert "command no-such-d: missing (optional)" in (place.path / second["log_path"]).read_text()


# Time


def test_a_sleep_of_zero_still_backs_off(place: Place) -> None:
    place.run("--iterations", "3", "--backoff-initial", "10ms", "--backoff-jitter", "0", "--", "false")
    assert [record["next_delay_seconds"] for record in place.records] == [0.01, 0.05, None]


def test_the_backoff_is_made_of_its_four_settings(place: Place) -> None:
    flags = ("--backoff-initial", "4ms", "--backoff-factor", "3", "--max-backoff", "20ms", "--backoff-jitter", "0")
    place.run("--iterations", "4", "--max-failures", "0", *flags, "--", "false")
    delays = [record["next_delay_seconds"] for record in place.records]
    assert delays == [pytest.approx(0.004), pytest.approx(0.012), pytest.approx(0.02), None]


def test_a_cycle_that_ignores_term_is_killed_after_its_grace(place: Place) -> None:
    stubborn = shell("trap '' TERM; touch begun; while :; do sleep 1; done")
    place.run("--timeout", "300ms", "--grace", "100ms", "--", *stubborn)
    assert [(record["status"], record["signal"]) for record in place.records] == [("timeout", 9)]


def test_a_background_child_that_holds_the_output_holds_no_cycle(place: Place) -> None:
    place.run("--timeout", "60", "--", *shell("sleep 60 & echo done"))
    assert [(record["status"], record["leftovers"]) for record in place.records] == [("success", 1)]
    assert place.records[0]["duration_seconds"] < 30


# Going on


@pytest.mark.parametrize(
    ("expression", "code", "cycles", "reason"),
    [
        ("iteration.index < 3", 0, 3, "condition_false"),
        ("iteration.last.control.continue", 0, 1, "condition_false"),
        ("iteration.last.control.missing", 2, 1, "condition_error"),
        ("iteration.index", 2, 1, "condition_error"),
        ("true", 1, 4, "iterations_done"),
    ],
)
def test_while_decides_whether_the_loop_goes_on(
    place: Place, expression: str, code: int, cycles: int, reason: str
) -> None:
    cycle = 'echo "{\\"continue\\": false}" > $RUN_CYCLE_CONTROL_FILE; test $RUN_CYCLE_NUMBER -lt 4'
    found = place.run("--iterations", "4", "--while", expression, "--", *shell(cycle))
    assert (found.returncode, len(place.records)) == (code, cycles)
    assert (place.latest["stop_reason"], reason in found.stderr) == (reason, True)


def test_what_the_cycle_leaves_in_its_control_file_is_recorded(place: Place) -> None:
    payload = {"continue": True, "outputs": {"n": 1}, "reason": "more to do", "usage": {"tokens": 12}}
    fresh = "[ ! -e $RUN_CYCLE_CONTROL_FILE ]"
    leave = f"{fresh} && echo '{json.dumps(payload)}' > $RUN_CYCLE_CONTROL_FILE"
    assert place.run("--iterations", "2", "--", *shell(leave)).returncode == 0
    assert [record["control"] for record in place.records] == [payload, payload]
    assert [record["usage"] for record in place.records] == [{"tokens": 12}] * 2


@pytest.mark.parametrize(
    "payload", ["{", "[]", '{"a": NaN}', '{"a": ' + "[" * 900 + "]" * 900 + "}", '{"reason": "\\\\ud800"}']
)
def test_no_control_file_can_break_the_loop(place: Place, payload: str) -> None:
    found = place.run("--iterations", "2", "--", *shell(f"printf '{payload}' > $RUN_CYCLE_CONTROL_FILE"))
    assert (found.returncode, place.outcomes) == (0, ["success", "success"])


# Archives


def test_a_cycle_without_a_new_archive_is_degraded_and_staleness_is_told_once(place: Place) -> None:
    place.write("out/note", "")
    place.run("--archive-glob", "out/*.gz", "--", *archive())
    found = place.run("--iterations", "5", "--archive-glob", "out/*.gz", "--stale-after", "2", "--", "true")
    assert found.returncode == 0
    assert place.outcomes == ["success"] + ["degraded"] * 5
    assert [record["archive_created"] for record in place.records] == [True] + [False] * 5
    assert place.records[0]["archive_path"].endswith("new-1.jsonl.gz")
    assert found.stderr.count("artifact.stale") == 1
    assert place.latest["stale_cycles"] == 5


@pytest.mark.parametrize(
    "cycle",
    [
        shell("echo no gzip > out/a.jsonl.gz"),
        archive(moment="2020-01-01T00:00:00Z"),
        shell("cp -p out/old.jsonl.gz out/copy.jsonl.gz"),
        shell("touch out/old.jsonl.gz"),
    ],
    ids=["no gzip", "old record", "copied", "touched"],
)
def test_an_archive_that_is_not_new_and_valid_does_not_count(place: Place, cycle: list[str]) -> None:
    (place.path / "out").mkdir()
    with gzip.open(place.path / "out" / "old.jsonl.gz", "wt") as file:
        file.write('{"timestamp": "2020-01-01T00:00:00Z"}\n')
    place.run("--archive-glob", "out/*.gz", "--", *cycle)
    assert place.outcomes == ["degraded"]


def test_without_a_glob_no_archive_is_expected_of_a_command(place: Place) -> None:
    place.run("--", "true")
    assert [(record["status"], record["archive_created"]) for record in place.records] == [("success", None)]


def test_the_cycle_script_is_expected_to_leave_planner_archives(place: Place) -> None:
    make_script(place, "scripts/run_cycle.sh", "exit 0")
    place.run()
    assert place.outcomes == ["degraded"]


# What is written


def test_two_cycles_in_one_second_have_two_logs(place: Place) -> None:
    place.run("--iterations", "5", "--", *shell("echo cycle $RUN_CYCLE_NUMBER; echo wrong >&2"))
    logs = [Path(record["log_path"]) for record in place.records]
    assert len(set(logs)) == 5
    for number, log in enumerate(logs, 1):
        datetime.strptime(log.name, f"%Y%m%dT%H%M%SZ-{number}.log").astimezone(UTC)
        assert f"cycle {number}\n" in (place.path / log).read_text()
    assert [record["stderr_tail"] for record in place.records] == ["wrong"] * 5


def test_a_long_output_keeps_its_head_and_tail_with_a_marker(place: Place) -> None:
    place.run("--max-log-bytes", "4KiB", "--", *python("for n in range(100_000): print(f'{n:06}')"))
    text = (place.path / place.records[0]["log_path"]).read_text()
    assert len(text) < 6000
    assert "000000\n" in text
    assert "099999\n" in text
    assert place.records[0]["output_bytes"] == 700_000


def test_so_many_logs_are_kept_as_is_asked(place: Place) -> None:
    place.run("--iterations", "6", "--keep-logs", "2", "--", "true")
    assert len(list((place.path / "logs" / "run_cycle").glob("*.log"))) == 2


def test_the_state_goes_where_it_is_told(place: Place) -> None:
    place.run("--state-dir", "a", "--log-dir", "b", "--history-path", "c/history.jsonl", "--", "true")
    assert place.has("a/run_cycle.lock")
    assert place.has("b/latest.json")
    assert place.has("c/history.jsonl")
    assert not place.has("state")


def test_under_systemd_the_state_goes_to_its_directories(place: Place) -> None:
    state, logs = str(place.path / "var/state"), str(place.path / "var/logs")
    place.run("--", "true", STATE_DIRECTORY=state, LOGS_DIRECTORY=logs)
    assert place.has("var/state/run_cycle_history.jsonl")
    assert place.has("var/logs/latest.json")


def test_everything_that_is_written_is_private(place: Place) -> None:
    place.run("--metrics-textfile", "loop.prom", "--", "true")
    written = [path for name in ("state", "logs/run_cycle") for path in (place.path / name).rglob("*")]
    assert len(written) > 4
    assert [path.name for path in written if path.stat().st_mode & 0o077] == []


def test_the_ancestors_lines_are_counted_and_added_to(place: Place) -> None:
    old = {
        "timestamp": "2025-01-01T00:00:00",
        "mode": "m",
        "goal": "g",
        "status": "ok",
        "prerequisites_ok": True,
        "return_code": 1,
        "duration_seconds": 1.0,
        "archive_created": False,
        "archive_path": None,
        "log_path": None,
    }
    place.write("state/run_cycle_history.jsonl", json.dumps(old) + "\n" + json.dumps(old | {"return_code": 0}) + "\n")
    place.run("--", "true")
    assert place.latest["counts"] == {"failed": 1, "success": 2}
    assert place.records[2]["number"] == 3
    listed = [json.loads(line)["status"] for line in place("history", "--json").stdout.splitlines()]
    assert sorted(listed) == ["failed", "success", "success"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema_version": 99}'])
def test_a_damaged_snapshot_is_rebuilt_from_the_history(place: Place, damage: str) -> None:
    place.run("--iterations", "2", "--", "true")
    place.write("logs/run_cycle/latest.json", damage)
    place.run("--", "false")
    assert place.latest["counts"] == {"success": 2, "failed": 1}
    assert [path.read_text() for path in (place.path / "logs/run_cycle").glob("latest.json.corrupt-2*")] == [damage]


def test_a_torn_line_does_not_swallow_the_next(place: Place) -> None:
    place.run("--", "true")
    with (place.path / "state" / "run_cycle_history.jsonl").open("a") as history:
        history.write('{"torn')
    found = place.run("--", "true")
    assert place.outcomes == ["success", "success"]
    assert found.stderr.count("state.mended") == 1


def test_a_history_that_was_rotated_away_makes_no_cycle_lost(place: Place) -> None:
    place.run("--", "true")
    history = place.path / "state" / "run_cycle_history.jsonl"
    history.rename(history.with_suffix(".1"))
    place.run("--", "true")
    assert place.outcomes == ["success"]


# Secrets

CANARY = "canary-0123456789-value"


def test_no_secret_reaches_a_file_or_the_screen(place: Place) -> None:
    spill = """
import json, os, sys
secret = os.environ["DEPLOY_TOKEN"]
sys.stdout.write("x" * 65530 + secret + "\\n"); sys.stdout.flush()
for letter in secret: sys.stderr.write(letter); sys.stderr.flush()
json.dump({"reason": secret, "usage": {secret: 1}}, open(os.environ["RUN_CYCLE_CONTROL_FILE"], "w"))
sys.exit(os.environ["RUN_CYCLE_NUMBER"] != "1")
"""
    check = make_script(place, "check", "echo checked with $DEPLOY_TOKEN")
    flags = ("--goal", f"use {CANARY}", "--metrics-textfile", "loop.prom", "--metrics-stdout", "--log-level", "debug")
    cycle = [*python(spill), CANARY]
    found = place.run("--iterations", "2", *flags, "--prereq-script", str(check), "--", *cycle, DEPLOY_TOKEN=CANARY)
    assert place.outcomes == ["success", "failed"]
    screens = [found.stdout, found.stderr]
    for view in (("status",), ("history",), ("logs",), ("run", "--dry-run", "--goal", CANARY, "--", "echo", CANARY)):
        shown = place(*view, DEPLOY_TOKEN=CANARY)
        screens += [shown.stdout, shown.stderr]
    files = [path for path in place.path.rglob("*") if path.is_file()]
    leaks = [path.name for path in files if CANARY in path.read_text(errors="replace")]
    assert (leaks, [screen for screen in screens if CANARY in screen]) == ([], [])
    assert "x" * 1000 in (place.path / place.records[0]["log_path"]).read_text()


def test_a_secret_by_another_name_is_named_by_a_setting(place: Place) -> None:
    place.run("--secret-env", "PIN", "--", *shell("echo $PIN >&2"), PIN="31415926")
    assert "31415926" not in json.dumps(place.records)


def test_the_list_of_secret_names_is_no_secret_itself(place: Place) -> None:
    place.run("--", *shell("echo $PIN of the PINK PIN >&2"), PIN="31415926", RUN_CYCLE_SECRET_ENV="PINK,PIN")
    assert place.records[0]["stderr_tail"] == "[redacted] of the PINK PIN"


# Dry run


def everything(place: Place) -> set[str]:
    return {str(path.relative_to(place.path)) for path in place.path.rglob("*")}


def test_a_dry_run_writes_nothing_and_shows_the_exact_command(place: Place) -> None:
    check = make_script(place, "check", "exit 0")
    before = everything(place)
    found = place("run", "--dry-run", "--prereq-script", str(check), "--mode", "m", "--", "touch", "a b", "$HOME")
    assert found.returncode == 0
    assert "touch 'a b' '$HOME'" in found.stdout
    assert "RUN_CYCLE_MODE=m" in found.stdout
    assert everything(place) == before


def test_a_dry_run_tells_by_its_exit_code_that_a_cycle_would_be_skipped(place: Place) -> None:
    found = place("run", "--dry-run", "--require-command", "no-such-command", "--", "true")
    assert found.returncode == 1
    assert "no-such-command" in found.stdout


# Where settings come from


def shown(place: Place, *args: str, **env: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place("config", "show", "--json", *args, **env).stdout)
    return found


def test_flag_beats_variable_beats_file_beats_default(place: Place) -> None:
    place.write("run-cycle-loop.toml", 'sleep = "1m"\nmode = "from-file"\ngoal = "from-file"\n')
    values = shown(place, "--sleep", "7", RUN_CYCLE_SLEEP="8", RUN_CYCLE_MODE="from-variable")
    assert {name: values[name]["source"] for name in ("sleep", "mode", "goal", "timeout")} == {
        "sleep": "flag --sleep",
        "mode": "variable RUN_CYCLE_MODE",
        "goal": "file run-cycle-loop.toml",
        "timeout": "default",
    }
    assert (values["mode"]["value"], values["goal"]["value"]) == ("from-variable", "from-file")


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("mode", "experimental"),
        ("iterations", "1"),
        ("sleep", "5m"),
        ("timeout", "5m"),
        ("grace", "10s"),
        ("idle-timeout", "off"),
        ("max-failures", "3"),
        ("backoff-initial", "1m"),
        ("backoff-factor", "5"),
        ("max-backoff", "30m"),
        ("backoff-jitter", "0.1"),
        ("stop-file", "state/run_cycle.stop"),
        ("cycle-script", "scripts/run_cycle.sh"),
        ("prereq-timeout", "30s"),
        ("stale-after", "3"),
        ("cap-writes", "3, or 200 for a coding agent"),
        ("history-path", "state/run_cycle_history.jsonl"),
        ("log-dir", "logs/run_cycle"),
        ("state-dir", "state"),
        ("max-log-bytes", "64MiB"),
        ("keep-logs", "500"),
        ("metrics-port", "off"),
    ],
)
def test_the_default_is_the_documented_one(defaults: dict[str, Any], name: str, default: str) -> None:
    assert defaults[name] == {"value": default, "source": "default"}


@pytest.fixture(scope="module")
def defaults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return shown(Place(tmp_path_factory.mktemp("defaults") / "place"))


def test_the_file_steers_a_run(place: Place) -> None:
    place.write("other.toml", "iterations = 2\nsleep = 0\nmode = 'm'\n")
    assert place("run", "--config", "other.toml", "--", "true").returncode == 0
    assert [record["mode"] for record in place.records] == ["m", "m"]


def test_an_unknown_key_is_refused_with_the_one_that_was_meant(place: Place) -> None:
    place.write("run-cycle-loop.toml", "slep = 1\n")
    found = place.run("--", "true")
    assert found.returncode == 2
    assert "did you mean sleep?" in found.stderr


def test_a_variable_that_sets_nothing_is_warned_of(place: Place) -> None:
    found = place.run("--", "true", RUN_CYCLE_SLEP="1")
    assert found.returncode == 0
    assert "did you mean RUN_CYCLE_SLEEP?" in found.stderr


# Metrics


def test_metrics_on_standard_output_are_one_object_a_cycle(place: Place) -> None:
    found = place.run("--iterations", "2", "--metrics-stdout", "--", *shell("echo noise"))
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(line["number"], line["status"], line["success_count"]) for line in lines] == [
        *((1, "success", 1), (2, "success", 2)),
    ]


def test_the_metrics_textfile_outlives_a_one_shot(place: Place) -> None:
    place.run("--metrics-textfile", "loop.prom", "--", "true")
    assert "# TYPE" in place.wait_for("loop.prom")


def test_the_metrics_port_answers_on_loopback_while_the_loop_runs(place: Place) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place.start("--metrics-port", str(port), "--", *shell(HELD))
    place.wait_for("begun")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        assert b"# TYPE run_cycle" in answer.read()


def test_a_reader_of_our_output_that_goes_away_ends_no_loop(place: Place) -> None:
    line = f"'{COMMAND}' run --iterations 3 --sleep 0 --metrics-stdout -- true | true"
    subprocess.run(["sh", "-c", line], cwd=place.path, env=place.env, check=True, capture_output=True, timeout=PATIENCE)
    assert place.outcomes == ["success"] * 3


@pytest.mark.parametrize("args", [("--help",), ("status",), ("config", "show"), ("run", "--dry-run", "--", "true")])
def test_output_that_nothing_takes_is_one_sentence(place: Place, args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run(
            [COMMAND, *args], cwd=place.path, env=place.env, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert found.returncode == 74
    assert found.stderr.decode().splitlines() == [
        "run-cycle-loop: what was asked for cannot be written out: No space left on device; redirect it elsewhere"
    ]


@pytest.mark.parametrize("when", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "tomorrow", "-1h", ""])
def test_a_time_that_is_none_is_one_sentence(place: Place, when: str) -> None:
    found = place("history", "--since", when)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert f"{when!r} is neither a duration" in found.stderr
