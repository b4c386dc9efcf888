import sys
from pathlib import Path

import pytest

from run_cycle_loop.model.records import CheckResult
from run_cycle_loop.prerequisites.available import CommandCheck, ModuleCheck
from run_cycle_loop.testing import InMemoryCycleLog, make_spec

LOG = InMemoryCycleLog("log")


def module(name: str, *, required: bool = True) -> CheckResult:
    return ModuleCheck(module=name, required=required).check(make_spec(), LOG)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("json", True),
        ("json.decoder", True),
        ("importlib.metadata", True),
        ("sys", True),
        ("no_such_module", False),
        ("json.no_such_part", False),
        ("sys.path", False),
        ("no.such.parent", False),
        ("..json", False),
    ],
)
def test_a_module_is_found_by_its_dotted_name(name: str, found: bool) -> None:
    assert module(name).ok is found


def test_to_look_for_a_module_runs_nothing_of_it(tmp_path: Path) -> None:
    package = tmp_path / "explosive_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it was run')")
    (package / "part.py").write_text("raise SystemExit('it was run')")
    sys.path.insert(0, str(tmp_path))
    try:
        assert module("explosive_package.part").ok
        assert not module("explosive_package.other").ok
    finally:
        sys.path.remove(str(tmp_path))
    assert "explosive_package" not in sys.modules


def test_what_is_missing_is_named_with_the_next_step() -> None:
    result = module("no_such_module", required=False)
    assert (result.name, result.required) == ("module no_such_module", False)
    assert result.detail == "module 'no_such_module' is not installed; pip install it"


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_a_command_is_found_on_the_cycles_own_path(tmp_path: Path, mode: int) -> None:
    tool = tmp_path / "tool"
    tool.touch()
    tool.chmod(mode)
    check = CommandCheck(command="tool", required=True, path=lambda _spec: str(tmp_path))
    result = check.check(make_spec(), LOG)
    assert result.ok is (mode == 0o755)
    assert (str(tool) if result.ok else "install it, or name it by its path") in result.detail
