"""What the pages say is true: their screens are run, their commands and flags exist, their links and tables hold."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import pytest

from run_cycle_loop.cli.main import cli
from run_cycle_loop.config.settings import OPTIONS
from run_cycle_loop.config.sources import resolve
from run_cycle_loop.model.enums import LoopState, Outcome, StopReason
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, StateError
from run_cycle_loop.model.records import CycleRecord, LoopSnapshot, RunningCycle, SupervisorIdentity
from run_cycle_loop.policies.continuation import exit_code

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("**/README.md"))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


def prose(page: Path) -> str:
    return _BLOCK.sub("", page.read_text())


# --- screens: what stands in a ``console`` block is run, and shows what the page says


@dataclass(frozen=True)
class Step:
    """A command of a screen and what the page shows of its output."""

    command: str
    shown: list[str]


def steps(block: str) -> list[Step]:
    found: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], []))
        else:
            found[-1].shown.append(line)
    return found


#: What differs from run to run, and how it is written in a comparison.
_VARIES = [
    (r"\b\d{8}T\d{6}Z\b", "STAMP"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
    (r"\b\d\d:\d\d:\d\d\b", "TIME"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{32}\b", "ID"),
    (r"\b\d+(\.\d+)?(ms|s|m|h|d)(\d+[smh])?\b", "SPAN"),
    (r"\bpid \d+", "pid N"),
    (r"\b\d+ MiB free", "N MiB free"),
    (r"\.torn-\d+", ".torn-N"),
    (r" {2,}", " "),
]


def constant(line: str) -> str:
    for pattern, word in _VARIES:
        line = re.sub(pattern, word, line)
    return line.rstrip()


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether the output is what the page shows, where ``...`` stands for any number of lines."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(agrees(shown[1:], printed[at:]) for at in range(len(printed) + 1))
    return bool(printed) and constant(shown[0]) == constant(printed[0]) and agrees(shown[1:], printed[1:])


def run(command: str, cwd: Path) -> list[str]:
    """What a terminal would show; an exit code other than 0 is its last line."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RUN_CYCLE_", "PYTHON"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{ours['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=cwd,
        # The log as a terminal shows it, and a width of the views that does not depend on the caller's.
        env={**ours, "PATH": path, "RUN_CYCLE_LOG_FORMAT": "text", "COLUMNS": "100", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout.splitlines() + ([f"[exit code {done.returncode}]"] if done.returncode else [])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, without state, whose ``.venv`` is the Python that runs this."""
    copy = tmp_path / "checkout"
    kept = shutil.ignore_patterns(".*", "state", "logs", "sandbox", "tests", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=kept)
    python = copy / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    (copy / ".venv" / ".installed-root").write_text(f"{copy}\n")
    shutil.copy(copy / "pyproject.toml", copy / ".venv" / ".installed-pyproject.toml")
    return copy


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=name_of)
def test_the_screens_of_a_page_are_what_its_commands_show(page: Path, checkout: Path, tmp_path: Path) -> None:
    if page.parent == ROOT / "docs":
        folder = tmp_path / "anywhere"
        folder.mkdir()
    else:
        folder = checkout / page.parent.relative_to(ROOT)
    for step in [step for block in blocks(page, "console") for step in steps(block)]:
        printed = run(step.command, folder)
        assert agrees(step.shown, printed), "\n".join([f"{name_of(page)}: $ {step.command}", *printed])


@pytest.mark.parametrize(("printed", "agreed"), [(["a 9 ms", "x 2s"], True), (["a 9 ms", "y 2s"], False), ([], False)])
def test_a_screen_is_compared_line_by_line_but_for_what_varies(printed: list[str], *, agreed: bool) -> None:
    assert agrees(["...", "x 0.1s"], printed) is agreed


# --- commands and flags


def command_lines(page: Path) -> Iterator[str]:
    """Every call of the product on a page, in blocks and in the prose."""
    for text in blocks(page, "console"):
        yield from (step.command for step in steps(text))
    for text in blocks(page, "sh"):
        yield from text.replace("\\\n", " ").splitlines()
    yield from _CODE.findall(prose(page))


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of ``run-cycle-loop`` in a line of shell."""
    for part in re.split(r"\|\|?|&&|;|\(", line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue  # an unfinished quotation: a sentence, not a command
        for at, word in enumerate(words):
            if Path(word).name == "run-cycle-loop" and at + 1 < len(words):
                yield words[at + 1 :]
                break


def resolve_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words call, and what is left of them for it."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


def flags_of(command: click.Command) -> set[str]:
    given = {flag for item in command.params for flag in (*item.opts, *item.secondary_opts)}
    return {flag for flag in given if flag.startswith("-")} | {"--help", "-h"}


def every_flag() -> set[str]:
    def walk(command: click.Command) -> Iterator[str]:
        yield from flags_of(command)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from walk(found)

    return set(walk(cli))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_call_of_the_command_is_one_that_it_takes(page: Path) -> None:
    for line in command_lines(page):
        for words in calls(line):
            command, rest = resolve_command(words)
            ours = rest[: rest.index("--")] if "--" in rest else rest
            strange = {word.partition("=")[0] for word in ours if word.startswith("-")} - flags_of(command)
            assert not strange, f"{line!r}: {command.name} has no {strange}"


#: Flags of other programs that the prose names, each beside the program's name.
_FOREIGN = {"--group", "--fast", "--cov", "--all", "--init", "--assume-yes", "--no-preserve-env"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_flag_that_the_prose_names_exists(page: Path) -> None:
    named = {word for code in _CODE.findall(prose(page)) for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)}
    assert named <= every_flag() | _FOREIGN, f"{name_of(page)} names {named - every_flag() - _FOREIGN}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_variable_that_a_page_names_is_set_or_heard(page: Path) -> None:
    told = {"ID", "NUMBER", "CONTROL_FILE"}
    known = {f"RUN_CYCLE_{name}" for name in told} | {option.variable for option in OPTIONS.values()}
    named = set(re.findall(r"\bRUN_CYCLE_[A-Z_]*[A-Z]\b", page.read_text())) - {"RUN_CYCLE_TEST_ALL"}
    assert named <= known


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=name_of)
def test_every_shell_block_is_shell(page: Path) -> None:
    for block in blocks(page, "sh"):
        done = subprocess.run(["sh", "-n"], input=block, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr


def test_the_two_commands_of_the_readme_are_there() -> None:
    words = [line.split()[0] for line in blocks(ROOT / "README.md", "sh")[0].splitlines()]
    assert words == ["./scripts/run-cycle-loop", "./scripts/test"]
    assert all(os.access(ROOT / word, os.X_OK) for word in words)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=name_of)
def test_every_toml_block_is_a_configuration(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        (tmp_path / "run-cycle-loop.toml").write_text(text)
        assert resolve({}, {}, tmp_path, cycle_files=False).settings


# --- links


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings are reached by."""
    titles = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        target, _, fragment = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name_of(page)}: {link}"
        assert path.is_relative_to(ROOT)
        assert not fragment or fragment in anchors(path), f"{name_of(page)}: {link}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set(_LINK.findall(index)) == pages


# --- tables that repeat what the code says


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading, without its head."""
    text = (ROOT / page).read_text()
    assert f"{heading}\n" in text, f"{page} has no heading {heading!r}"
    lines = text.split(f"{heading}\n", 1)[1].splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| "))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("| "):
            break
        rows.append([cell.strip() for cell in line.strip("| ").split(" | ")])
    return rows


def first_words(page: str, heading: str) -> list[str]:
    """The names in the first column, of which a cell may hold several."""
    return [name for row in table(page, heading) for name in _CODE.findall(row[0])]


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


def test_the_contract_names_every_outcome_and_which_of_them_are_failures() -> None:
    rows = table("docs/cycle-contract.md", "## How it is judged")
    assert {row[0].strip("`"): row[2] == "yes" for row in rows} == {word: word.is_failure for word in Outcome}


def test_the_contract_names_every_variable_of_a_cycle(tmp_path: Path) -> None:
    tell = "import json, os; print(json.dumps([name for name in os.environ if name.startswith('RUN_CYCLE_')]))"
    program = shlex.join([sys.executable, "-c", tell])
    run(f"run-cycle-loop run --env-allow PATH -- {program}", tmp_path)
    told = json.loads(run("run-cycle-loop logs latest", tmp_path)[-1])
    assert sorted(told) == sorted(first_words("docs/cycle-contract.md", "## What it gets"))


@pytest.mark.parametrize(("page", "heading"), [("README.md", "## Exit codes"), ("docs/operations.md", "## Exit codes")])
def test_the_exit_codes_are_those_of_the_code(page: str, heading: str) -> None:
    ends = {exit_code(reason, last) for reason in StopReason for last in (None, Outcome.SUCCESS, Outcome.FAILED)}
    ends |= {error.exit_code for error in (ConfigError, AlreadyRunning, StateError)}
    assert ends <= {int(row[0]) for row in table(page, heading)}


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_what_the_unit_restarts_is_what_the_pages_say(page: str) -> None:
    unit = (ROOT / "systemd" / "run-cycle-loop.service").read_text()
    codes = {key: set(map(int, re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)[0].split())) for key in (
        "RestartPreventExitStatus", "SuccessExitStatus",
    )}  # fmt: skip
    for code, _meaning, systemd, *_rest in table(page, "## Exit codes"):
        assert ("stays down" in systemd) is (int(code) in codes["RestartPreventExitStatus"]), code
        assert ("counts as success" in systemd) is (int(code) in codes["SuccessExitStatus"]), code


def test_the_floors_of_the_architecture_are_those_that_are_enforced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    names_by_floor = [[name.strip().rpartition(".")[2] for name in layer.split("|")] for layer in reversed(layers)]
    enforced = {room: floor for floor, rooms in enumerate(names_by_floor) for room in rooms}
    drawing = blocks(ROOT / "docs" / "architecture.md", "text")[0]
    drawn = re.findall(r"^  (\w+)(?:/|\.py) +(\d) ", drawing, re.MULTILINE)
    assert {room: int(floor) for room, floor in drawn} == enforced
    folders = {path.parent.name for path in (ROOT / "run_cycle_loop").glob("*/__init__.py")}
    assert folders <= {room for room, _floor in drawn}


def test_every_metric_that_is_named_is_one_that_is_served(tmp_path: Path) -> None:
    run("run-cycle-loop run --iterations 2 --sleep 0 --metrics-textfile out.prom -- true", tmp_path)
    served = set(re.findall(r"^# TYPE (\w+) ", (tmp_path / "out.prom").read_text(), re.MULTILINE))
    # Only a loop that waits has this one.
    served.add("run_cycle_next_run_timestamp_seconds")
    assert set(first_words("docs/operations.md", "### What is measured")) == served
    rules = (ROOT / "examples" / "prometheus" / "rules.yml").read_text()
    assert set(re.findall(r"\brun_cycle_[a-z_]+", rules)) <= served
