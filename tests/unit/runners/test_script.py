from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.runners.script import ScriptRunner
from run_cycle_loop.testing import make_spec


def runner(command: Any) -> ScriptRunner:
    return ScriptRunner(
        command, takes_goal=isinstance(command, Path), environment=lambda spec: {"RUN_CYCLE_NUMBER": str(spec.number)}
    )


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (("echo", "$HOME", "a b", ""), ["echo", "$HOME", "a b", ""]),
        (Path("scripts/run_cycle.sh"), [str(Path.cwd() / "scripts/run_cycle.sh"), "m", "the goal"]),
        (Path("/opt/cycle"), ["/opt/cycle", "m", "the goal"]),
    ],
)
def test_a_command_stands_as_it_is_and_a_script_gets_mode_and_goal(command: Any, argv: list[str]) -> None:
    assert runner(command).preview(make_spec(mode="m", goal="the goal")) == argv


def test_the_environment_is_made_for_each_cycle() -> None:
    assert runner(("true",)).environment(make_spec(number=3)) == {"RUN_CYCLE_NUMBER": "3"}
