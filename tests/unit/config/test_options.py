"""The flags made from the declarations: sparse, raw, grouped in the help; and what importing them costs."""

import ast
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import run_cycle_loop.config
from run_cycle_loop.config.declaration import Group
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.config.settings import OPTIONS


@click.command(cls=SettingsCommand)
@options()
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def example(ctx: click.Context, flags: dict[str, Any], command: tuple[str, ...], *, as_json: bool) -> None:
    """Show what came in."""
    ctx.obj.append((flags, command, as_json))


def come_in(*words: str) -> tuple[dict[str, Any], tuple[str, ...], bool]:
    seen: list[Any] = []
    result = CliRunner().invoke(example, words, obj=seen, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    came: tuple[dict[str, Any], tuple[str, ...], bool] = seen[0]
    return came


def help_text() -> str:
    return CliRunner().invoke(example, ["--help"], terminal_width=80).output


def test_a_flag_that_is_not_given_is_absent() -> None:
    assert come_in() == ({}, (), False)


def test_the_text_of_a_flag_is_handed_on_as_it_stands() -> None:
    flags, command, as_json = come_in("--sleep", "nonsense", "--while", "x", "--json", "--", "ls", "--sleep", "5")
    assert flags == {"sleep": "nonsense", "while_": "x"}
    assert (command, as_json) == (("ls", "--sleep", "5"), True)


def test_a_switch_can_be_given_either_way() -> None:
    assert come_in("--dry-run", "--no-sandbox-reset", "--continuous")[0] == {
        "dry_run": True,
        "sandbox_reset": False,
        "continuous": True,
    }


def test_a_list_is_a_repeated_flag() -> None:
    assert come_in("--env-allow", "A", "--env-allow", "B,C")[0] == {"env_allow": ("A", "B,C")}


def test_an_empty_value_is_given() -> None:
    assert come_in("--prereq-script", "", "--env-allow", "")[0] == {"prereq_script": "", "env_allow": ("",)}


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.on_command_line])
def test_the_help_shows_every_flag_once(name: str) -> None:
    option = OPTIONS[name]
    written = f"--[no-]{option.key}" if option.kind.switch else f"{option.flag} {option.kind.metavar}"
    assert [line.strip().startswith(written) for line in help_text().splitlines()].count(True) == 1


def test_the_help_has_the_groups_in_their_order_and_fits_80_columns() -> None:
    lines = help_text().splitlines()
    headings = [line.removesuffix(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options", *Group]
    assert max(map(len, lines)) <= 80


def test_the_settings_are_read_without_click() -> None:
    """Only the module of the options imports it, so that whoever resolves settings alone does not pay for it."""
    folder = Path(run_cycle_loop.config.__file__).parent
    importers = {path.name for path in folder.glob("*.py") if "click" in imported(path)}
    assert importers == {"options.py"}


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in whole | parts}
