"""What the pages repeat of the code is what the code says: keys, words, exit codes, floors, metrics, events."""

import json
import re
import shlex
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents import session_report
from run_cycle_loop.agents.adapter import AgentResult
from run_cycle_loop.agents.scripted_steps import KINDS
from run_cycle_loop.agents.session import Session
from run_cycle_loop.config.docs import page as configuration_page
from run_cycle_loop.config.settings import OPTIONS
from run_cycle_loop.model.enums import AgentClass, LoopState, Outcome, StopReason
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, StateError
from run_cycle_loop.model.records import CycleRecord, RunningCycle, SupervisorIdentity
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.policies.continuation import exit_code
from tests.acceptance.pages import ROOT, anchors, blocks, first_words, run, table

AGENTS = "docs/agents.md"
CONTRACT = "docs/cycle-contract.md"
OPERATIONS = "docs/operations.md"
UNIT = (ROOT / "systemd" / "run-cycle-loop.service").read_text()


def names(record: type[Any]) -> list[str]:
    return [item.name for item in fields(record)]


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("### The keys of a line", names(CycleRecord)),
        ("### `supervisor`", names(SupervisorIdentity)),
        ("## `latest.json`", names(LoopSnapshot)),
        ("## The in-flight slot", names(RunningCycle)),
        ("### States of the loop", list(LoopState)),
        ("### Reasons for its end", list(StopReason)),
    ],
)
def test_the_state_format_names_every_key_and_word(heading: str, expected: list[str]) -> None:
    assert sorted(first_words("docs/state-format.md", heading)) == sorted(expected)


def test_the_planners_digest_has_the_keys_that_the_state_format_names(tmp_path: Path) -> None:
    agent = shlex.join([sys.executable, str(ROOT / "scripts" / "start_agent.py")])
    run(f"{agent} --assume-yes --state-dir state --sandbox sandbox", tmp_path)
    digest = json.loads((tmp_path / "state" / "planner_digests.jsonl").read_text())
    assert sorted(first_words("docs/state-format.md", "## Planner digests")) == sorted(digest)


def test_the_contract_names_every_outcome_and_which_of_them_are_failures() -> None:
    rows = table(CONTRACT, "## How it is judged")
    assert {row[0].strip("`"): row[2] == "yes" for row in rows} == {word: word.is_failure for word in Outcome}


def test_the_contract_names_every_variable_of_a_cycle(tmp_path: Path) -> None:
    tell = "import json, os; print(json.dumps([name for name in os.environ if name.startswith('RUN_CYCLE_')]))"
    run(f"run-cycle-loop run --env-allow PATH -- {shlex.join([sys.executable, '-c', tell])}", tmp_path)
    told = json.loads(run("run-cycle-loop logs latest", tmp_path)[-2])  # the last line is the verdict
    assert sorted(told) == sorted(first_words(CONTRACT, "## What it gets"))


def test_the_page_of_agents_names_every_end_of_a_session_with_its_exit_code() -> None:
    told = {row[0].strip("`"): int(row[3]) for row in table(AGENTS, "## How a session ends")}
    assert told == dict(session_report.EXIT_CODES)


def test_the_page_of_agents_names_every_key_that_a_session_leaves() -> None:
    asked = session_report.Asked(agent="scripted", mode="review", goal="Look.", until_done=True)
    session = Session(result=AgentResult(ended=AgentClass.OK, reason="it finished"))
    left = session_report.control(asked, session, isolation="none", outputs={})
    assert sorted(first_words(AGENTS, "## What a cycle leaves")) == sorted(left)


def test_the_page_of_agents_names_every_kind_of_scripted_step() -> None:
    shown = " ".join(first_words(AGENTS, "## `scripted`"))
    assert {kind for kind in KINDS if f'{{"{kind}":' not in shown} == set()


def test_every_guard_of_the_first_table_has_its_section() -> None:
    page = (ROOT / "docs" / "guards.md").read_text()
    table_of_guards = page[: page.index("\n## ")]
    assert set(re.findall(r"\]\(#([a-z-]+)\)", table_of_guards)) == anchors(ROOT / "docs" / "guards.md") - {"guards"}


@pytest.mark.parametrize("page", ["README.md", OPERATIONS])
def test_the_exit_codes_are_those_of_the_code(page: str) -> None:
    ends = {exit_code(reason, last) for reason in StopReason for last in (None, Outcome.SUCCESS, Outcome.FAILED)}
    ends |= {error.exit_code for error in (ConfigError, AlreadyRunning, StateError)}
    assert ends <= {int(row[0]) for row in table(page, "## Exit codes")}


def test_the_state_format_gives_each_reason_its_exit_code() -> None:
    for row in table("docs/state-format.md", "### Reasons for its end"):
        reason = StopReason(row[0].strip("`"))
        codes = {exit_code(reason, last) for last in (None, Outcome.SUCCESS, Outcome.FAILED)}
        assert {int(number) for number in re.findall(r"\d+", row[2])} == codes


@pytest.mark.parametrize("page", ["README.md", OPERATIONS])
@pytest.mark.parametrize(
    ("directive", "phrase"), [("RestartPreventExitStatus", "stays down"), ("SuccessExitStatus", "counts as success")]
)
def test_the_unit_does_with_an_exit_code_what_the_pages_say(page: str, directive: str, phrase: str) -> None:
    found = re.search(rf"^{directive}=(.*)$", UNIT, re.MULTILINE)
    assert found is not None
    listed = set(map(int, found[1].split()))
    rows = table(page, "## Exit codes")
    assert {int(row[0]) for row in rows if phrase in row[2]} == listed & {int(row[0]) for row in rows}


def test_the_floors_of_the_architecture_are_those_that_are_enforced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [[name.strip().rpartition(".")[2] for name in layer.split("|")] for layer in reversed(layers)]
    enforced = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    drawing = blocks(ROOT / "docs" / "architecture.md", "text")[0]
    drawn = {room: int(floor) for room, floor in re.findall(r"^  (\w+)(?:/|\.py) +(\d) ", drawing, re.MULTILINE)}
    assert drawn == enforced
    assert {path.parent.name for path in (ROOT / "run_cycle_loop").glob("*/__init__.py")} <= set(drawn)


def test_every_metric_that_is_named_is_one_that_is_served(tmp_path: Path) -> None:
    run("run-cycle-loop run --metrics-textfile out.prom -- true", tmp_path)
    served = set(re.findall(r"^# TYPE (\w+) ", (tmp_path / "out.prom").read_text(), re.MULTILINE))
    served.add("run_cycle_next_run_timestamp_seconds")  # absent where no cycle follows
    assert set(first_words(OPERATIONS, "### What is measured")) == served
    rules = (ROOT / "examples" / "prometheus" / "rules.yml").read_text()
    assert set(re.findall(r"\brun_cycle_[a-z_]+", rules)) <= served


def test_every_event_of_the_log_is_named() -> None:
    spoken = re.compile(r'\b(?:debug|info|warning|error|say)\(\s*"([a-z]+\.[a-z]+)"')
    sources = (ROOT / "run_cycle_loop").glob("**/*.py")
    events = {event for source in sources for event in spoken.findall(source.read_text())}
    assert set(first_words(OPERATIONS, "## Logs")) == events


def test_every_setting_is_on_the_configuration_page() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == configuration_page(), "run: python -m run_cycle_loop.config.docs > docs/configuration.md"
    flags = [option.flag for option in OPTIONS.values() if option.on_command_line]
    assert [flag for flag in flags if f"`{flag}" not in written] == []
