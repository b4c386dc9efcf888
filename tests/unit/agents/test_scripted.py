"""The scripted agent's two halves: a script becomes events, and events become a result."""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents import scripted
from run_cycle_loop.agents.adapter import AgentResult, Ended, Request
from run_cycle_loop.agents.scripted import Scripted, ScriptedReader, chosen
from run_cycle_loop.agents.scripted_steps import parse_script, replay
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.errors import ConfigError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def request(root: Path, **more: Any) -> Request:
    return Request(**{"prompt": "do", "workdir": root, "scratch": root, **more})


def played(root: Path, *steps: dict[str, Any], reads_only: bool = False) -> list[dict[str, Any]]:
    """The events of a replay in a folder."""
    events: list[dict[str, Any]] = []
    descriptor = os.open(root, os.O_RDONLY)
    replay(steps, lambda event: events.append(dict(event)), root=descriptor, reads_only=reads_only)
    os.close(descriptor)
    return events


def read(root: Path, *events: dict[str, Any], exit_code: int | None = 0, **more: Any) -> AgentResult:
    reader = ScriptedReader(request(root))
    for event in events:
        reader.feed("stdout", json.dumps(event).encode() + b"\n")
    return reader.result(Ended(exit_code=exit_code, signal=None, at=NOW, **more))


# The script


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "line 1 is no JSON"),
        ('{"print": "a"}\n[1]', "line 2 is no step"),
        ('{"fly": "away"}', "a step is one of write, append"),
        ('{"write": 3}', "line 1 is no step"),
        ('{"write": "a", "delete": "b"}', "line 1 is no step"),
        ('{"cycle": 2}', "the blocks are"),
        ("[" * 100_000, "line 1 is no JSON"),
    ],
)
def test_a_line_that_is_no_step_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s").write_text(text)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        chosen(tmp_path / "s", "1")
    assert said in str(caught.value)


def test_blank_lines_and_remarks_are_no_steps() -> None:
    assert parse_script('# a remark\n\n{"exit": 1}\n') == [[{"exit": 1}]]


@pytest.mark.parametrize(("number", "turn"), [("1", 1), ("2", 2), ("3", 1), ("200", 2), ("", 1), ("x", 1)])
def test_the_number_of_the_cycle_chooses_the_block(tmp_path: Path, number: str, turn: int) -> None:
    (tmp_path / "s").write_text('{"cycle": 1}\n{"exit": 1}\n{"cycle": 2}\n{"exit": 2}\n')
    assert chosen(tmp_path / "s", number) == [{"exit": turn}]


def test_a_script_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file or directory; name another"):
        chosen(tmp_path / "none", "1")
    with pytest.raises(ConfigError, match="--agent-script"):
        Scripted().invoke(request(tmp_path), {})


# The steps


def test_files_are_written_appended_and_deleted(tmp_path: Path) -> None:
    events = played(
        tmp_path,
        {"write": "deep/a.txt", "text": "one"},
        {"append": "deep/a.txt", "text": "two"},
        {"write": "big", "bytes": 3_000_000},
        {"write": "many", "text": "ab", "repeat": 3},
        {"mkdir": "folder/inner"},
        {"write": "gone", "text": "x"},
        {"delete": "gone"},
    )
    assert all(event["ok"] for event in events)
    assert (tmp_path / "deep/a.txt").read_text() == "onetwo"
    assert (tmp_path / "big").stat().st_size == 3_000_000
    assert (tmp_path / "many").read_text() == "ababab"
    assert (tmp_path / "folder/inner").is_dir()
    assert not (tmp_path / "gone").exists()


def test_writing_again_leaves_nothing_of_what_was_there(tmp_path: Path) -> None:
    played(tmp_path, {"write": "a", "text": "long text"}, {"write": "a", "text": "x"})
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.parametrize("path", ["/tmp/x", "../x", "a/../../x", "", ".", "out/x", "leaf", "twin", "pipe"])
@pytest.mark.parametrize("kind", ["write", "append"])
def test_nothing_is_written_outside_of_the_workdir(tmp_path: Path, path: str, kind: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (root / "out").symlink_to(outside)
    (root / "leaf").symlink_to(outside / "kept")
    (root / "twin").hardlink_to(outside / "kept")
    os.mkfifo(root / "pipe")
    (event,) = played(root, {kind: path, "text": "stolen"})
    assert event["ok"] is False
    assert event["error"]
    assert [(item.name, item.read_text()) for item in outside.iterdir()] == [("kept", "kept")]


def test_a_planted_link_leads_anywhere_and_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    root = tmp_path / "root"
    root.mkdir()
    planted, written, deleted = played(
        root, {"symlink": "link", "to": "../kept"}, {"write": "link", "text": "x"}, {"delete": "link"}
    )
    assert (planted["ok"], written["ok"], deleted["ok"]) == (True, False, True)
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    (event,) = played(tmp_path, {"write": "a", "text": "x"}, reads_only=True)
    assert event == {"event": "tool", "name": "write", "path": "a", "ok": False, "error": "the role is read-only"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("amount", [-1, 1 << 60, "many", True])
def test_an_amount_that_is_no_count_is_a_failed_step(tmp_path: Path, amount: object) -> None:
    (event,) = played(tmp_path, {"write": "a", "bytes": amount})
    assert event["ok"] is False


def test_an_exit_ends_the_replay(tmp_path: Path) -> None:
    events = played(tmp_path, {"final": "done"}, {"exit": 3}, {"write": "a"})
    assert [event["event"] for event in events] == ["final"]


# The events


WROTE = {"event": "tool", "name": "write", "ok": True}


def test_a_good_run_is_ok_and_counts_its_calls(tmp_path: Path) -> None:
    result = read(tmp_path, WROTE, {**WROTE, "ok": False}, {"event": "final", "text": "done"})
    assert (result.ended, result.text) == (AgentClass.OK, "done")
    assert (result.tool_calls, result.tool_failures) == (2, 1)


def test_an_answer_without_a_call_changed_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, {"event": "final", "text": "done"}).ended is AgentClass.NO_CHANGE


def test_usage_is_added_up_while_it_runs(tmp_path: Path) -> None:
    reader = ScriptedReader(request(tmp_path))
    step = {"event": "usage", "told": {"usage": {"input_tokens": 100, "output_tokens": 20, "cost_usd": 0.5}}}
    for turn in (1, 2):
        reader.feed("stdout", json.dumps(step).encode() + b"\n")
        assert reader.usage is not None
        assert (reader.usage.tokens, reader.usage.cost_usd, reader.usage.calls) == (120 * turn, 0.5 * turn, turn)


@pytest.mark.parametrize("ended", list(AgentClass))
def test_every_class_can_be_told(tmp_path: Path, ended: AgentClass) -> None:
    told = {"class": ended, "reason": "because", "advice": "see to it", "permanent": True}
    result = read(tmp_path, {"event": "class", "told": told}, exit_code=1)
    assert (result.ended, result.reason, result.advice, result.permanent) == (ended, "because", "see to it", True)


@pytest.mark.parametrize(
    ("told", "at"),
    [
        ({"retry_after": 90}, NOW + timedelta(seconds=90)),
        ({"retry_after": 1e300}, None),
        ({"retry_at": "2026-03-01T13:00:00+00:00"}, NOW + timedelta(hours=1)),
        ({"retry_at": "2026-03-01T13:00:00"}, None),
        ({"retry_at": "soon"}, None),
    ],
)
def test_a_limit_tells_when_it_ends(tmp_path: Path, told: dict[str, Any], at: datetime | None) -> None:
    assert read(tmp_path, {"event": "class", "told": {"class": "rate_limited", **told}}).retry_at == at


def test_a_class_that_is_none_is_an_error(tmp_path: Path) -> None:
    assert read(tmp_path, {"event": "class", "told": {"class": "fine"}}).ended is AgentClass.TOOL_ERROR


def test_a_bad_exit_code_is_an_error_and_being_stopped_is_none_of_its_own(tmp_path: Path) -> None:
    failed = read(tmp_path, WROTE, {"event": "final", "text": "done"}, exit_code=3, stderr_tail="boom")
    assert (failed.ended, failed.reason) == (AgentClass.TOOL_ERROR, "exit code 3: boom")
    assert read(tmp_path, WROTE, stopped=AgentClass.BUDGET).ended is AgentClass.BUDGET


def test_it_needs_no_consent_and_no_login(tmp_path: Path) -> None:
    assert Scripted.capabilities.is_real is False
    assert Scripted().login({}, tmp_path).state == "yes"


def test_what_is_started_reads_a_copy_in_the_scratch_folder(tmp_path: Path) -> None:
    (tmp_path / "s").write_text('{"exit": 1}\n')
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    asked = request(tmp_path, scratch=scratch, template=str(tmp_path / "s"), role=Role.READ_ONLY)
    invocation = Scripted().invoke(asked, {"PYTHONPATH": "/mine"})
    argv = invocation.argv
    # An isolated agent has a /tmp of its own: what replays must be seen there, although it may stand below it.
    assert {Path(sys.prefix), Path(scripted.__file__).parents[1]} <= set(invocation.reads)
    assert argv[-2:] == (str(scratch / "steps.jsonl"), "read-only")
