"""The pages that people read, taken apart: screens, shell, code, links, tables; and what runs their screens."""

import atexit
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from run_cycle_loop.agents.registry import ADAPTERS
from run_cycle_loop.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("**/README.md"))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    """How a test calls a page."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks in one language."""
    return [text for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def code(text: str) -> list[str]:
    """What stands between backticks."""
    return _CODE.findall(text)


def links(page: Path) -> list[str]:
    """Where the page leads."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The fragments that the page's headings are reached by."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading, without its head."""
    lines = (ROOT / page).read_text().split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| "))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("| "):
            break
        rows.append([cell.strip() for cell in line.strip("| ").split(" | ")])
    return rows


def first_words(page: str, heading: str) -> list[str]:
    """The names in a table's first column, of which a cell may hold several."""
    return [name for row in table(page, heading) for name in code(row[0])]


# Screens


@dataclass(frozen=True)
class Step:
    """A command of a screen, and what the page shows of its output."""

    command: str
    shown: list[str]


def steps(page: Path) -> list[Step]:
    """The commands of all the screens of a page, in order."""
    found: list[Step] = []
    for line in "".join(blocks(page, "console")).splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], []))
        else:
            found[-1].shown.append(line)
    return found


#: What differs from run to run, and the word that stands for it in a comparison.
_VARIES = [
    (r"(?<!\d)\d{8}T\d{6}Z\b", "STAMP"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "TIME"),
    (r"\b\d\d:\d\d(:\d\d)?\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DAY"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{32}|(?=\d*[a-f]|\d{8}\b)[0-9a-f]{8})\b", "ID"),
    (r"\b[0-9a-f]{7}, (?=\d+ ahead)", "COMMIT, "),
    (r"\b\d+(\.\d+)?(ms|s|m|h|d)(\d+[smh])?\b", "SPAN"),
    (r"\bpid \d+", "pid N"),
    (r"\bby \S.* \(uid \d+\) on \S+, [^:]+", "by WHO"),
    (r"\b\d+ MiB free", "N MiB free"),
    (r"\.torn-\d+", ".torn-N"),
    (r" {2,}", " "),
]


def _constant(line: str) -> str:
    for pattern, word in _VARIES:
        line = re.sub(pattern, word, line)
    return line.rstrip()


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether the output is what a page shows, where ``...`` stands for any number of lines."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(agrees(shown[1:], printed[at:]) for at in range(len(printed) + 1))
    return bool(printed) and _constant(shown[0]) == _constant(printed[0]) and agrees(shown[1:], printed[1:])


@cache
def without_agents(path: str) -> str:
    """This PATH as one folder of links, without the programs of agents: no page and no example may start a real one."""
    programs = {entry.program for entry in ADAPTERS.values() if entry.program}
    if not any(shutil.which(program, path=path) for program in programs):
        return path
    links = Path(tempfile.mkdtemp(prefix="path-without-agents-"))
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    for folder in map(Path, path.split(os.pathsep)):
        with suppress(OSError):
            for program in folder.iterdir():
                if program.name not in programs and not (links / program.name).is_symlink():
                    (links / program.name).symlink_to(program)
    return str(links)


def run(command: str, cwd: Path, path: str | None = None) -> list[str]:
    """What a terminal would show of a command; an exit code other than 0 is the last line."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RUN_CYCLE_", "PYTHON"))}
    found = os.pathsep.join([sysconfig.get_path("scripts"), without_agents(ours["PATH"])]) if path is None else path
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=cwd,
        # The log as on a terminal, and a width that does not depend on who runs the tests.
        env={**ours, "PATH": found, "RUN_CYCLE_LOG_FORMAT": "text", "COLUMNS": "100", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout.splitlines() + ([f"[exit code {done.returncode}]"] if done.returncode else [])


# Calls of the command


def calls(page: Path) -> Iterator[list[str]]:
    """The arguments of every call of the product on a page, in screens, in shell and in the prose."""
    lines = [step.command for step in steps(page)]
    lines += [line for text in blocks(page, "sh") for line in text.replace("\\\n", " ").splitlines()]
    lines += code(prose(page))
    for line in lines:
        for part in re.split(r"\|\|?|&&|;|\(", line):
            yield from _call(part)


def _call(part: str) -> Iterator[list[str]]:
    try:
        words = shlex.split(part, comments=True)
    except ValueError:
        return  # a quotation that a split cut in two: no call begins in it
    if words[:2] == ["docker", "exec"]:
        words = words[3:]
    while words and "=" in words[0]:
        words = words[1:]
    if len(words) > 1 and Path(words[0]).name == "run-cycle-loop":
        yield words[1:]


def called(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words call, and the options and arguments of its own, without those behind ``--``."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words[: words.index("--")] if "--" in words else words


def flags_of(command: click.Command) -> set[str]:
    """Every flag that a command takes."""
    names = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
    return {name for name in names if name.startswith("-")} | {"--help", "-h"}


def every_flag(command: click.Command = cli) -> set[str]:
    """Every flag of a command and of those below it."""
    found = flags_of(command)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            found |= every_flag(below) if below else set()
    return found
