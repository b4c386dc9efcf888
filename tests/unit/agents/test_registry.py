import subprocess
import sys
from pathlib import Path

import pytest

from run_cycle_loop.agents import registry
from run_cycle_loop.model.errors import ConfigError

WITH_ADAPTER = [name for name in registry.NAMES if name != registry.PLANNER]


@pytest.mark.parametrize("name", WITH_ADAPTER)
def test_every_name_leads_to_its_adapter(name: str) -> None:
    adapter = registry.find(name)
    assert (adapter.name, adapter.command) == (name, registry.ADAPTERS[name].program)


def test_the_order_is_the_one_in_which_the_first_installed_is_taken() -> None:
    assert registry.NAMES == ("claude", "codex", "pi", "opencode", "gemini", "command", "planner", "scripted")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("claud", "did you mean 'claude'"),
        ("Codex", "did you mean 'codex'"),
        ("zzz", "it is one of claude, codex"),
        ("", "it is one of claude"),
        ("x" * 10_000, "there is no agent 'xxx"),
        ("planner", "is built in"),
    ],
)
def test_an_agent_that_is_not_there_is_the_operators_to_change(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        registry.find(name)


def test_the_planner_is_a_name_that_can_be_chosen() -> None:
    registry.check("planner")
    with pytest.raises(ConfigError):
        registry.check("nobody")


def test_the_names_are_known_without_importing_an_adapter() -> None:
    code = (
        "import sys; from run_cycle_loop.agents import registry; assert registry.NAMES;"
        "print([m for m in sys.modules if m.startswith('run_cycle_loop.agents.')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "codex" not in told
    assert "registry" in told


def installed(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ((), "planner"),
        (("gemini", "codex"), "codex"),
        (("scripted", "command"), "planner"),
        (("claude", "pi"), "claude"),
    ],
)
def test_the_default_is_the_first_that_is_installed_else_the_planner(
    tmp_path: Path, names: tuple[str, ...], chosen: str
) -> None:
    assert registry.default_agent(installed(tmp_path / "bin", *names)) == chosen


def test_a_file_that_cannot_be_executed_is_no_agent(tmp_path: Path) -> None:
    path = installed(tmp_path / "bin", "codex")
    (tmp_path / "bin" / "codex").chmod(0o644)
    assert registry.default_agent(path) == "planner"
