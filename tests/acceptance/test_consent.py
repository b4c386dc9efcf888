"""Consent to agents that nobody watches: without a grant that is live none of them starts, whoever calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.agents import SWIFT, hostile, own_session
from tests.acceptance.place import PATIENCE, Place, wait_until

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
RAN = "touch $P/ran-$RUN_CYCLE_NUMBER"


def grant(place: Place, *more: str, until: str = "1h", **env: str) -> str:
    """Grant consent; the id of the grant."""
    found = place("consent", "grant", "--until", until, "--reason", "a night's work", *more, **env)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()[1]


def agent(place: Place, mode: str = "enforce", script: str = RAN) -> tuple[str, ...]:
    """The options for a coding agent that says that it ran; the loop alone has to keep it back."""
    return (*own_session(place, script, consent=mode), *SWIFT)


def entries(place: Place) -> list[dict[str, Any]]:
    """The lines of the audit."""
    text = (place.path / "state" / "consent_audit.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def by_hand(place: Place, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """``start_agent.py`` as a person, or an agent, calls it."""
    argv = [sys.executable, str(ROOT / "scripts" / "start_agent.py"), "--state-dir", "state", "--sandbox", "sandbox"]
    argv += ["--agent", "command", "--agent-command", f"sh {place.path}/agent.sh", "--isolate", "none", *args]
    return subprocess.run(
        argv, cwd=place.path, env=place.env | env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip


def refused(place: Place, *options: str) -> str:
    """The one sentence by which a cycle is kept back; nothing was started."""
    found = place.run(*agent(place), *options)
    assert (found.returncode, place.outcomes[-1]) == (1, "prereq_failed")
    assert "Traceback" not in found.stderr
    record = place.records[-1]
    (sentence,) = record["failed_checks"]
    assert record["return_code"] is None
    assert [item["guard"] for item in record["guards"]] == ["consent"]
    assert not place.has(f"ran-{record['number']}")
    return str(sentence)


# No grant that is live


def test_without_any_grant_no_agent_starts(place: Place) -> None:
    assert "no consent to unattended agents was ever granted; run-cycle-loop consent grant" in refused(place)


@pytest.mark.parametrize(("mode", "guards"), [("warn", ["consent", "consent"]), ("off", [])])
def test_without_enforcement_it_starts_and_is_told_at_most(place: Place, mode: str, guards: list[str]) -> None:
    assert place.run(*agent(place, mode)).returncode == 0
    assert place.has("ran-1")
    (record,) = place.records
    assert {item["guard"] for item in record["guards"]} - {"session"} == set(guards)
    assert all(item["mode"] == mode for item in record["guards"] if item["guard"] == "consent")


def test_an_expired_grant_is_none(place: Place) -> None:
    name = grant(place, until="1s")
    wait_until(lambda: json.loads(place("consent", "list", "--json").stdout)[0]["state"] == "expired", "its end")
    assert f"consent {name} expired at" in refused(place)


@pytest.mark.parametrize("until", ["2020-01-01T00:00", "-1h", "31d", "soon"])
def test_a_grant_that_is_over_before_it_begins_or_never_is_refused(place: Place, until: str) -> None:
    found = place("consent", "grant", f"--until={until}", "--reason", "x")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "--until" in found.stderr
    assert not place.has("state/consent_audit.jsonl")


def test_a_revoked_grant_is_none_though_an_older_one_was_never_revoked(place: Place) -> None:
    name = grant(place)
    assert place.run(*agent(place)).returncode == 0
    assert place("consent", "revoke", name, "--reason", "enough").returncode == 0
    assert f"consent {name} was revoked at" in refused(place)
    assert "(enough)" in refused(place)


def test_what_is_revoked_in_mid_loop_stops_the_next_cycle(place: Place) -> None:
    grant(place)
    loop = place.start(
        *agent(place, script="echo > $P/begun; until [ -e $P/go ]; do sleep 0.01; done"), "--max-failures", "1"
    )
    place.wait_for("begun")
    assert place("consent", "revoke", "--all", "--reason", "enough").returncode == 0
    place.write("go", "")
    assert loop.wait() == 11
    assert place.outcomes == ["success", "prereq_failed"]


def test_a_grant_is_used_up_across_loops(place: Place) -> None:
    grant(place, "--max-cycles", "3")
    assert place.run(*agent(place), "--iterations", "2").returncode == 0
    assert place.run(*agent(place), "--iterations", "2").returncode == 1
    assert place.outcomes == ["success"] * 3 + ["prereq_failed"]
    assert "is used up, 3 of 3 cycles" in place.records[-1]["reason"]
    assert not place.has("ran-4")


def test_a_cycle_that_never_started_uses_nothing_up(place: Place) -> None:
    grant(place, "--max-cycles", "1")
    assert place.run(*agent(place), "--require-command", "no-such-command-anywhere").returncode == 1
    assert place.run(*agent(place)).returncode == 0
    assert place.outcomes == ["prereq_failed", "success"]


def test_a_cycle_whose_supervisor_was_killed_has_used_its_grant(place: Place) -> None:
    grant(place, "--max-cycles", "1")
    loop = place.start(*agent(place, script="echo > $P/begun; sleep 600"))
    place.wait_for("begun")
    loop.end()
    assert "is used up, 1 of 1 cycle" in refused(place)


def test_a_grant_for_another_agent_is_none(place: Place) -> None:
    name = grant(place, "--for-agent", "codex")
    assert f"consent {name} is for codex and not for command" in refused(place)
    grant(place, "--for-agent", "command")
    assert place.run(*agent(place)).returncode == 0


def test_the_session_itself_looks_for_a_grant_too(place: Place) -> None:
    options = (*hostile(place, RAN, consent="enforce"), *SWIFT)
    found = place.run(*options)
    assert (found.returncode, place.outcomes) == (1, ["prereq_failed"])
    grant(place, "--max-cycles", "1")
    assert place.run(*options).returncode == 0
    assert place.has("ran-2")


def test_nobody_to_ask_and_no_leave_not_to_ask_is_no_consent(place: Place) -> None:
    grant(place)
    assert "--assume-yes" in refused(place, "--no-assume-yes")


# The audit


def test_each_cycle_stands_in_the_audit_before_it_runs_and_after_it(place: Place) -> None:
    name = grant(place)
    look = "tail -n 1 $P/state/consent_audit.jsonl > $P/seen"
    assert place.run(*agent(place, script=look)).returncode == 0
    (record,) = place.records
    seen = json.loads(place.wait_for("seen"))
    assert (seen["event"], seen["cycle_id"], seen["grant"]) == ("cycle", record["cycle_id"], name)
    assert [entry["event"] for entry in entries(place)] == ["grant", "cycle", "cycle_finished"]
    assert entries(place)[-1]["outcome"] == "success"
    assert "chain whole" in place("consent", "verify").stdout
    assert place("consent", "verify").returncode == 0


TAMPERED = {
    "later": "s/YEAR/2099/",
    "more cycles": 's/"max_cycles":1/"max_cycles":9/',
    "a line less": "1d",
    "the last line less": "$d",
    "emptied": "d",
}


@pytest.mark.parametrize("script", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_audit_is_no_consent_and_stays_as_it_is(place: Place, script: str) -> None:
    grant(place, "--max-cycles", "1", "--for-agent", "codex", "--for-agent", "command")
    assert place.run(*agent(place)).returncode == 0
    path = place.path / "state" / "consent_audit.jsonl"
    whole = path.read_bytes()
    subprocess.run(["sed", "-i", script.replace("YEAR", entries(place)[0]["until"][:4]), path], check=True)
    forged = path.read_bytes()
    assert forged != whole
    assert "is broken at line" in refused(place)
    assert path.read_bytes() == forged


def test_a_tampered_audit_is_said_to_be_and_takes_no_further_word_at_its_end(place: Place) -> None:
    grant(place)
    path = place.path / "state" / "consent_audit.jsonl"
    path.write_text(path.read_text().replace("night", "nigHt"))
    forged = path.read_bytes()
    verified = place("consent", "verify")
    assert (verified.returncode, verified.stdout.count("\n")) == (1, 1)
    assert "is broken at line 1: its content is not what its hash says" in verified.stdout
    for words in (("grant", "--until", "1h"), ("revoke", "--all")):
        found = place("consent", *words, "--reason", "x")
        assert (found.returncode, found.stderr.count("\n")) == (74, 1)
    assert path.read_bytes() == forged


@pytest.mark.parametrize("kind", ["gone", "with its head", "link", "FIFO", "writable for all"])
def test_an_audit_that_is_not_there_or_not_ours_is_no_consent(place: Place, kind: str) -> None:
    grant(place)
    path = place.path / "state" / "consent_audit.jsonl"
    elsewhere = place.path / "elsewhere"
    if kind == "writable for all":
        path.chmod(0o666)
    else:
        path.rename(elsewhere)
    if kind == "with its head":
        path.with_suffix(".head").unlink()
    if kind == "link":
        path.symlink_to(elsewhere)
    if kind == "FIFO":
        os.mkfifo(path)
    sentence = refused(place)
    assert "consent" in sentence


@pytest.mark.parametrize(
    ("forge", "is_seen"), [('\'s/"max_cycles":1/"max_cycles":9/\'', False), ("'$d'", True), ("'$s/enforce/off/'", True)]
)
def test_an_agent_that_forges_the_audit_gets_no_further_cycle(place: Place, forge: str, is_seen: bool) -> None:
    """The end of the audit is looked at when a cycle ends, all of it before one begins."""
    grant(place, "--max-cycles", "1")
    script = f"{RAN}; sed -i {forge} $P/state/consent_audit.jsonl"
    found = place.run(*agent(place, script=script), "--iterations", "2")
    assert (found.returncode, place.outcomes) == (1, ["success", "prereq_failed"])
    assert ("the end of this cycle is not in the audit" in json.dumps(place.records[0]["guards"])) is is_seen
    assert "is broken at line" in place.records[1]["reason"]
    assert not place.has("ran-2")


# By hand


def test_by_hand_it_needs_the_same_grant(place: Place) -> None:
    place.write("agent.sh", f"touch {place.path}/ran\n")
    without = by_hand(place, "--assume-yes")
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "no consent to unattended agents was ever granted" in without.stderr
    assert not place.has("ran")
    nobody = by_hand(place)
    assert (nobody.returncode, "no terminal to ask for consent on" in nobody.stderr) == (2, True)
    grant(place, "--for-agent", "command")
    assert by_hand(place, "--assume-yes").returncode == 0
    assert place.has("ran")


def test_the_name_of_a_cycle_that_is_long_over_is_no_way_around_the_count(place: Place) -> None:
    """Whoever calls by hand with the id of a cycle that the audit knows gets its use back, and no more than that."""
    grant(place, "--max-cycles", "1")
    assert place.run(*agent(place)).returncode == 0
    place.write("agent.sh", f"touch {place.path}/ran\n")
    assert by_hand(place, "--assume-yes").returncode == 2
    assert by_hand(place, "--assume-yes", RUN_CYCLE_ID="made-up").returncode == 2
    assert not place.has("ran")


# The clock


def clock(step: str) -> dict[str, str]:
    """The variables that set the wall clock of a process."""
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed")
    return {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": step, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.root
@pytest.mark.parametrize(("step", "why"), [("+2h", "expired at"), ("-2h", "so the clock was set back")])
def test_a_grant_holds_neither_after_its_end_nor_before_its_beginning(place: Place, step: str, why: str) -> None:
    grant(place)
    found = place.run(*agent(place), **clock(step))
    assert (found.returncode, place.outcomes) == (1, ["prereq_failed"])
    assert why in place.records[0]["reason"]
    assert not place.has("ran-1")


@pytest.mark.root
def test_time_that_was_seen_to_pass_does_not_come_back(place: Place) -> None:
    """A clock that is set back after its end revives no grant of which the audit knows that it was over."""
    name = grant(place)
    grant(place, until="30m", **clock("+2h"))
    found = place.run(*agent(place))
    assert (found.returncode, place.outcomes) == (1, ["prereq_failed"])
    assert "so the clock was set back" in place.records[0]["reason"] or name in place.records[0]["reason"]
    assert not place.has("ran-1")
