"""What the pages say can be done: their screens are run, their commands and flags exist, their links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from run_cycle_loop.config.settings import OPTIONS
from run_cycle_loop.config.sources import CHILD_VARIABLES, Source, resolve
from tests.acceptance import pages
from tests.acceptance.pages import PAGES, ROOT, agrees, blocks, every_flag, name_of

#: Flags of other programs that the prose names without a command before them.
_FOREIGN = {"--init", "--stop-timeout", "--restart", "--collector", "--kill-whom"}
#: Variables of a cycle that are no settings, and the one of these tests.
_NO_SETTINGS = CHILD_VARIABLES

EVERYTHING = os.environ.get("RUN_CYCLE_TEST_ALL") == "1"


def with_block(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, without state, whose ``.venv`` is the Python that runs this."""
    copy = tmp_path / "checkout"
    left_out = shutil.ignore_patterns(".*", "state", "logs", "sandbox", "out", "tests", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=left_out)
    python = copy / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    (copy / ".venv" / ".installed-root").write_text(f"{copy}\n")
    shutil.copy(copy / "pyproject.toml", copy / ".venv" / ".installed-pyproject.toml")
    return copy


@pytest.mark.parametrize("page", with_block("console"), ids=name_of)
def test_the_screens_of_a_page_are_what_its_commands_show(page: Path, checkout: Path, tmp_path: Path) -> None:
    folder = checkout / page.parent.relative_to(ROOT)
    if page.parent == ROOT / "docs":
        folder = tmp_path / "anywhere"
        folder.mkdir()
    without_jq = shutil.which("jq") is None and not EVERYTHING
    left_out = [step for step in pages.steps(page) if without_jq and re.search(r"\bjq\b", step.command)]
    for step in pages.steps(page):
        if step in left_out:
            continue
        printed = pages.run(step.command, folder)
        assert agrees(step.shown, printed), "\n".join([f"{name_of(page)}: $ {step.command}", *printed])
    if left_out:
        pytest.skip(
            f"jq is not installed, so {len(left_out)} commands were left out; the others did what the page says"
        )


@pytest.mark.parametrize(("printed", "agreed"), [(["a 9 ms", "x 2s"], True), (["a 9 ms", "y 2s"], False), ([], False)])
def test_a_screen_is_compared_line_by_line_but_for_what_varies(printed: list[str], *, agreed: bool) -> None:
    assert agrees(["...", "x 0.1s"], printed) is agreed


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_call_of_the_command_is_one_that_it_takes(page: Path) -> None:
    for words in pages.calls(page):
        command, ours = pages.called(words)
        strange = {word.partition("=")[0] for word in ours if word.startswith("-")} - pages.flags_of(command)
        assert not strange, f"{name_of(page)}: {command.name} has no {strange}"


def test_calls_are_found_wherever_they_stand() -> None:
    found = list(pages.calls(ROOT / "docs" / "operations.md"))
    assert ["install", "cron", "--every", "30m"] in found  # shell
    assert ["run", "--", "true"] in found  # a screen
    assert ["stop", "--now"] in found  # prose
    assert ["status"] in found  # behind docker exec


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_flag_that_the_prose_names_exists(page: Path) -> None:
    spans = " ".join(pages.code(pages.prose(page)))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", spans))
    allowed = every_flag() | _FOREIGN | scripts_flags()
    assert named <= allowed, f"{name_of(page)} names {named - allowed}"


def scripts_flags() -> set[str]:
    """The flags of ``scripts/test``, as its head describes them, and those of ``scripts/start_agent.py``."""
    described = set(re.findall(r"^#   (--[a-z-]+)", (ROOT / "scripts" / "test").read_text(), re.MULTILINE))
    argv = [sys.executable, str(ROOT / "scripts" / "start_agent.py"), "--help"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    return described | set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", told))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_variable_that_a_page_names_sets_something_or_is_told_to_a_cycle(page: Path) -> None:
    named = set(re.findall(r"\bRUN_CYCLE_[A-Z_]*[A-Z]\b", page.read_text()))
    assert named <= _NO_SETTINGS | {option.variable for option in OPTIONS.values()}


@pytest.mark.parametrize("page", with_block("sh"), ids=name_of)
def test_every_shell_block_is_shell(page: Path) -> None:
    for block in blocks(page, "sh"):
        done = subprocess.run(["sh", "-n"], input=block, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", with_block("toml"), ids=name_of)
def test_every_toml_block_is_a_configuration(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        (tmp_path / "run-cycle-loop.toml").write_text(text)
        sources = resolve({}, {}, tmp_path, cycle_files=False).sources.values()
        assert Source.FILE in {origin.source for origin in sources}


def test_the_two_commands_of_the_readme_are_there() -> None:
    words = [line.split()[0] for line in blocks(ROOT / "README.md", "sh")[0].splitlines()]
    assert words == ["./scripts/run-cycle-loop", "./scripts/test"]
    assert all(os.access(ROOT / word, os.X_OK) for word in words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in pages.links(page):
        if link.startswith("https://"):
            continue
        target, _, fragment = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name_of(page)}: {link}"
        assert path.is_relative_to(ROOT)
        assert not fragment or fragment in pages.anchors(path), f"{name_of(page)}: {link}"


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    assert {page.name for page in index.parent.glob("*.md")} - {index.name} == set(pages.links(index))
