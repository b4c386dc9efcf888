import json
from pathlib import Path

import pytest

from run_cycle_loop.agents.adapter import Capabilities, Login
from run_cycle_loop.agents.discovery import Found
from run_cycle_loop.report.agents import table
from run_cycle_loop.report.text import Style, columns

PLAIN = Style()
FOUND = (
    Found(
        name="codex",
        kind="program",
        path="/usr/local/bin/codex",
        version="0.169.0",
        login=Login(state="yes", detail="CODEX_API_KEY is set"),
        capabilities=Capabilities(usage="tokens", schema=True, resume=True, read_only=True),
    ),
    Found(
        name="pi",
        kind="program",
        path="/opt/ü\x1b[31m/pi",
        version=None,
        login=Login(state="no", detail="no key is set; run `pi` and give it `/login`"),
        capabilities=Capabilities(usage="tokens and usd"),
        trouble="it did not answer --version within 10 s",
    ),
    Found(name="gemini", kind="program", login=Login(state="no", detail="log in"), capabilities=None),
    Found(name="planner", kind="built-in", capabilities=Capabilities(usage="none", is_real=False)),
)


def lines(width: int = 100, style: Style = PLAIN) -> list[str]:
    return list(table(FOUND, default="codex", width=width, style=style))


def test_each_agent_is_a_line_and_the_one_that_is_taken_is_marked() -> None:
    head, codex, pi, gemini, planner, *_ = lines()
    assert head.split() == ["agent", "version", "login", "can", "do", "path"]
    assert codex.startswith("codex*")
    assert "0.169.0" in codex
    assert "tells tokens, schema, resume, read-only" in codex
    assert codex.endswith("/usr/local/bin/codex")
    assert "unknown" in pi
    assert "not installed" in gemini
    assert "built-in" in planner


def test_below_the_table_stands_what_a_person_has_to_see_to() -> None:
    below = "\n".join(lines()[6:])
    assert "pi: no key is set; run `pi` and give it `/login`" in below
    assert "pi: it did not answer --version within 10 s" in below
    assert "gemini" not in below  # nobody logs a program in that is not installed


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("style", [PLAIN, Style(unicode=True)])
def test_no_line_is_wider_than_the_terminal(width: int, style: Style) -> None:
    assert all(columns(line) <= width for line in lines(width, style))


def test_a_path_cannot_drive_the_terminal() -> None:
    assert not any("\x1b" in line for line in lines())


def test_colours_change_nothing_but_the_colour() -> None:
    import click  # noqa: PLC0415 - only to take the colours off again

    assert [click.unstyle(line) for line in lines(style=Style(colour=True))] == lines()


def test_as_json_everything_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(json.dumps([agent.as_dict() for agent in FOUND]))
    first, *_, gemini, planner = json.loads((tmp_path / "x").read_text())
    assert first["login"] == {"state": "yes", "detail": "CODEX_API_KEY is set"}
    assert first["capabilities"]["schema"] is True
    assert (gemini["usable"], planner["usable"]) == (False, True)
