"""What every prerequisite promises: a verdict of one line, whatever it finds."""

import sys
from pathlib import Path

import pytest

from run_cycle_loop.model.ports import Prerequisite
from run_cycle_loop.prerequisites.available import CommandCheck, ModuleCheck
from run_cycle_loop.prerequisites.resources import DiskCheck, MemoryCheck, WritableCheck
from run_cycle_loop.prerequisites.script import ScriptCheck
from run_cycle_loop.testing import InMemoryCycleLog, ScriptedCheck, make_spec

HUGE = 1 << 62


def _script(path: Path) -> ScriptCheck:
    return ScriptCheck(path=path, timeout=30.0, grace=1.0, environment=lambda _spec: {}, pulse=None)


PAIRS: dict[str, tuple[Prerequisite, Prerequisite]] = {
    "module": (ModuleCheck(module="json.decoder", required=True), ModuleCheck(module="no.such", required=True)),
    "command": (
        CommandCheck(command=sys.executable, required=True, path=lambda _spec: None),
        CommandCheck(command="no such command", required=True, path=lambda _spec: "/nowhere"),
    ),
    "writable": (WritableCheck(path=Path("/tmp")), WritableCheck(path=Path("/dev/null/under"))),
    "disk": (DiskCheck(path=Path("/"), least=1), DiskCheck(path=Path("/"), least=HUGE)),
    "memory": (MemoryCheck(least=1), MemoryCheck(least=HUGE)),
    "script": (_script(Path("/bin/true")), _script(Path("/bin/false"))),
    "missing script": (_script(Path("/bin/true")), _script(Path("/nowhere/check"))),
    "scripted": (ScriptedCheck(), ScriptedCheck(verdicts=[False])),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_it_holds_or_says_in_one_line_why_not(pair: tuple[Prerequisite, Prerequisite], tmp_path: Path) -> None:
    found = [check.check(make_spec(), InMemoryCycleLog(str(tmp_path / "log"))) for check in pair]
    assert [verdict.ok for verdict in found] == [True, False]
    assert all(verdict.name and verdict.detail and "\n" not in verdict.detail for verdict in found)
    assert all(verdict.required for verdict in found)
