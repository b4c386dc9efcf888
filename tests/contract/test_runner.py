"""What every runner promises."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from run_cycle_loop.model.enums import Ending
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.ports import Runner
from run_cycle_loop.runners.script import ScriptRunner
from run_cycle_loop.testing import (
    InMemoryCycleLog,
    InMemoryInFlight,
    ScriptedRunner,
    make_result,
    make_running,
    make_spec,
)

Make = Callable[[Path, int | None], Runner]


def _script(_folder: Path, exit_code: int | None) -> Runner:
    """A command that ends with a code and says so; with None, one that does not exist."""
    code = f"import sys; sys.stderr.write('said'); sys.exit({exit_code})"
    command = ["/nowhere/to/be/found"] if exit_code is None else [sys.executable, "-S", "-c", code]
    return ScriptRunner(command, takes_goal=False, environment=lambda _spec: {})


def _scripted(_folder: Path, exit_code: int | None) -> Runner:
    if exit_code is None:
        return ScriptedRunner(RunnerError("command '/nowhere' does not exist", exit_code=127))
    return ScriptedRunner(make_result(exit_code, stderr_tail="said"))


RUNNERS: dict[str, Make] = {"script": _script, "scripted": _scripted}


@pytest.fixture(params=RUNNERS)
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = RUNNERS[request.param]
    return made


@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_run_is_observed_and_not_judged(make: Make, tmp_path: Path, exit_code: int) -> None:
    log, flight = InMemoryCycleLog(str(tmp_path / "log")), InMemoryInFlight(make_running())
    spec = make_spec(control_file=str(tmp_path / "control.json"))
    result = make(tmp_path, exit_code).run(spec, log, flight)
    assert (result.ending, result.exit_code, result.signal) == (Ending.EXIT, exit_code, None)
    assert (result.stderr_tail, log.tail("stderr")) == ("said", "said")
    assert (result.leftovers, result.survivors, result.control) == (0, 0, None)


def test_what_is_launched_is_named_in_the_slot(make: Make, tmp_path: Path) -> None:
    flight = InMemoryInFlight(make_running())
    spec = make_spec(control_file=str(tmp_path / "control.json"))
    make(tmp_path, 0).run(spec, InMemoryCycleLog(str(tmp_path / "log")), flight)
    slot = flight.read()
    assert slot is not None
    assert isinstance(slot.leader_pid, int)


def test_what_cannot_run_is_an_error_and_names_nothing(make: Make, tmp_path: Path) -> None:
    flight = InMemoryInFlight(make_running())
    spec = make_spec(control_file=str(tmp_path / "control.json"))
    with pytest.raises(RunnerError) as caught:
        make(tmp_path, None).run(spec, InMemoryCycleLog(str(tmp_path / "log")), flight)
    assert caught.value.exit_code == 127
    assert flight.read() == make_running()


def test_a_preview_is_a_command_and_runs_nothing(make: Make, tmp_path: Path) -> None:
    preview = make(tmp_path, None).preview(make_spec())
    assert preview
    assert all(isinstance(part, str) for part in preview)
