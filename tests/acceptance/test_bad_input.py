"""What an operator may get wrong: one clear sentence each, nothing started, nothing lost, and never a traceback."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.agents import hostile, scripted
from tests.acceptance.place import Place
from tests.trees import seen


def furnished(place: Place) -> Place:
    """A place with a cycle on record, and with all that a setting should not name."""
    assert place.run("--", "true").returncode == 0
    place.write("steps.jsonl", '{"write": "a"}\n')
    (place.path / "work").mkdir()
    (place.path / "link").symlink_to("work")
    (place.path / "work" / "inner").symlink_to("..")
    place.write("empty", "")
    place.write("blank", " \n\n")
    place.write("long", "x" * 200_000)
    place.write("nul", "a\0b")
    place.write("bad-steps", '{"write": "a"}\n{"wipe": "everything"}\n')
    (place.path / "latin").write_bytes(b"caf\xe9")
    os.mkfifo(place.path / "fifo")
    return place


@pytest.fixture
def kept(place: Place) -> Place:
    """One for this test alone."""
    return furnished(place)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all those that touch nothing."""
    made = furnished(Place(tmp_path_factory.mktemp("untouched") / "place"))
    yield made
    made.end()


AGENT = ("--agent", "scripted", "--agent-script", "steps.jsonl")

USAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown agent": (("--agent", "claud"), "there is no agent 'claud'; did you mean 'claude'?"),
    "an agent and a command": (("--agent", "planner", "--", "true"), "contradicts"),
    "no command line for it": (("--agent", "command"), "--agent-command"),
    "an open quote": (("--agent", "command", "--agent-command", "a 'b"), "close"),
    "an unknown placeholder": (("--agent", "command", "--agent-command", "true {nonsense}"), "{nonsense}"),
    "no steps": (("--agent", "scripted"), "--agent-script"),
    "steps that are missing": (("--agent", "scripted", "--agent-script", "no"), "does not exist"),
    "steps in a FIFO": (("--agent", "scripted", "--agent-script", "fifo"), "no regular file"),
    "an unknown isolation": ((*AGENT, "--isolate", "jail"), "jail"),
    "a reading planner": (("--agent", "planner", "--role", "read-only"), "--cap-writes 0"),
    "no goal file": ((*AGENT, "--goal-file", "no"), "does not exist"),
    "a goal file that is a FIFO": ((*AGENT, "--goal-file", "fifo"), "no regular file"),
    "an empty goal file": ((*AGENT, "--goal-file", "empty"), "is blank"),
    "a goal of 200 kB": ((*AGENT, "--goal-file", "long"), "200000 bytes long"),
    "a goal with NUL": ((*AGENT, "--goal-file", "nul"), "NUL byte"),
    "a goal in Latin-1": ((*AGENT, "--goal-file", "latin"), "not valid UTF-8"),
    "an empty goal": ((*AGENT, "--goal", ""), "is blank"),
    "two goals": ((*AGENT, "--goals", "steps.jsonl", "--goal-command", "true"), "contradicts"),
    "an unknown order": ((*AGENT, "--goals", "steps.jsonl", "--goal-order", "best"), "best"),
    "a negative budget": ((*AGENT, "--budget", "usd=-5/day"), "not above 0"),
    "a budget of nothing": ((*AGENT, "--budget", "usd=0/day"), "not above 0"),
    "a budget that is no number": ((*AGENT, "--budget", "usd=nan/day"), "nan"),
    "a budget of what": ((*AGENT, "--budget", "beer=5/day"), "beer"),
    "half a token": ((*AGENT, "--budget", "tokens=0.5/day"), "a part of one"),
    "two budgets for one thing": ((*AGENT, "--budget", "usd=5/day", "--budget", "usd=6/day"), "limit the same"),
    "cycles for a cycle": ((*AGENT, "--budget", "cycles=5/cycle"), "always 1"),
    "a rate that is none": ((*AGENT, "--spend-rate", "fast"), "no rate"),
    "prices that are none": ((*AGENT, "--prices", "cheap"), "prices"),
    "a negative estimate": ((*AGENT, "--estimate-usd=-1"), "-1"),
    "a negative cap": ((*AGENT, "--cap-writes=-1"), "-1"),
    "an unknown guard mode": ((*AGENT, "--write-guard", "strict"), "strict"),
    "a workdir outside": ((*AGENT, "--workdir", ".."), "lies outside of"),
    "a workdir that leads out": ((*AGENT, "--workdir", "work/../../x"), "lies outside of"),
    "a link as workdir": ((*AGENT, "--workdir", "link"), "leads through the link"),
    "a workdir behind a link": ((*AGENT, "--workdir", "work/inner/work"), "leads through the link"),
    "a file as workdir": ((*AGENT, "--workdir", "steps.jsonl"), "is no folder"),
    "a missing workdir": ((*AGENT, "--workdir", "no"), "make the folder"),
    "the state as workdir": ((*AGENT, "--workdir", "state"), "which is the loop's own"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "word"), USAGE.values(), ids=USAGE)
def test_it_is_one_sentence_and_nothing_is_touched(untouched: Place, args: tuple[str, ...], word: str) -> None:
    before = seen(untouched.path)
    found = untouched("run", "--isolate", "none", *args)
    assert found.returncode == 2
    assert word in found.stderr
    assert (found.stderr.count("\n"), found.stdout) == (1, "")
    assert "Traceback" not in found.stderr
    assert seen(untouched.path) == before


def test_who_only_looks_gets_an_answer_beside_a_broken_settings_file(kept: Place) -> None:
    kept.write("run-cycle-loop.toml", 'budget = ["usd=-5/day"]\nagent = "claud"\n')
    for words in (("budget",), ("consent", "list"), ("breaker", "show"), ("status",), ("agents",)):
        found = kept(*words)
        assert (found.returncode, "Traceback" in found.stderr) == (0, False), words
        assert "going on without that file" in found.stderr or found.stderr == "", words


def test_an_agent_that_is_not_installed_is_a_check_that_fails(kept: Place) -> None:
    """It is looked for before each cycle: it may be installed while the loop waits."""
    before = seen(kept.path / "work")
    for agent in ("claude", "codex", "pi", "opencode", "gemini"):
        options = ("--agent", agent, "--workdir", "work", "--consent-guard", "off", "--max-failures", "0")
        found = kept.run(*options, PATH="/usr/bin:/bin")
        assert (found.returncode, kept.outcomes[-1]) == (1, "prereq_failed")
        assert any(f"command {agent}" in check for check in kept.records[-1]["failed_checks"])
        assert "Traceback" not in found.stderr
    assert seen(kept.path / "work") == before


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        ('{"wipe": "all"}', "line 1 is no step"),
        ("[", "line 1 is no JSON"),
        ('{"cycle": 3}', "the blocks are"),
        ("\udce9", ""),
    ],
)
def test_steps_that_are_none_end_the_loop_with_the_line(kept: Place, steps: str, word: str) -> None:
    kept.write("empty", "")
    (kept.path / "steps.jsonl").write_bytes(steps.encode("utf-8", "surrogateescape"))
    found = kept.run(*AGENT, "--isolate", "none", "--continuous")
    assert (found.returncode, kept.outcomes) == (11, ["success", "failed"])
    assert word in kept.records[1]["reason"]
    assert "Traceback" not in (kept.path / kept.records[1]["log_path"]).read_text()
    assert kept.latest["stop_reason"] == "permanent_failure"


def test_a_schema_that_is_none_ends_the_loop_with_its_reason(kept: Place) -> None:
    kept.write("schema", "[1")
    found = kept.run(*AGENT, "--isolate", "none", "--agent-schema", "schema", "--continuous")
    assert (found.returncode, kept.outcomes) == (11, ["success", "failed"])
    assert "schema" in kept.records[1]["reason"]


def test_an_agents_command_that_is_not_there_is_a_check_that_fails(kept: Place) -> None:
    options = ("--agent", "command", "--agent-command", "no-such-tool-anywhere {prompt_file}", "--consent-guard", "off")
    found = kept.run(*options, "--isolate", "none", "--continuous", "--max-failures", "1")
    assert (found.returncode, kept.outcomes) == (11, ["success", "prereq_failed"])
    assert "'no-such-tool-anywhere' is not on PATH" in kept.records[1]["reason"]
    assert "Traceback" not in found.stderr


def test_a_tampered_audit_or_a_grant_that_is_over_loses_nothing_of_the_state(kept: Place) -> None:
    granted = kept("consent", "grant", "--until", "1h", "--reason", "x")
    assert granted.returncode == 0
    audit = kept.path / "state" / "consent_audit.jsonl"
    subprocess.run(["sed", "-i", 's/1h/2h/;s/reason":"x/reason":"y/', audit], check=True)
    forged = audit.read_bytes()
    history = (kept.path / "state" / "run_cycle_history.jsonl").read_bytes()
    found = kept.run(*hostile(kept, "touch $P/ran", consent="enforce"))
    assert (found.returncode, kept.outcomes, kept.has("ran")) == (1, ["success", "prereq_failed"], False)
    assert audit.read_bytes() == forged
    assert (kept.path / "state" / "run_cycle_history.jsonl").read_bytes().startswith(history)


def test_a_workdir_that_became_a_link_since_the_start_gets_no_session(kept: Place, tmp_path: Path) -> None:
    """The loop refuses one that is a link at the start; the session looks again, each time."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (kept.path / "sandbox").symlink_to(outside)
    found = kept.run(*scripted(kept, {"write": "a"}), "--max-failures", "1")
    assert found.returncode in {1, 2, 11}
    assert list(outside.iterdir()) == []
    assert "Traceback" not in found.stderr
    assert "link" in (kept.records[-1]["reason"] + found.stderr)
