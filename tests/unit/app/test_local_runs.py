"""What is said of runs of this machine: a cancel that came too late."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from run_cycle_loop.agentrun.cluster.cancel import CancelResult
from run_cycle_loop.app import local_runs
from run_cycle_loop.app.cycle import CycleStops
from run_cycle_loop.app.local_runs import LocalRuns
from run_cycle_loop.config.sources import resolve
from run_cycle_loop.model.runs import RunRecord

RUNNING = RunRecord(namespace="agents", name="demo", uid="u", manifest={}, phase="Running")


@pytest.mark.parametrize(
    ("phase", "result"), [("Succeeded", CancelResult.ALREADY_FINAL), ("Cancelled", CancelResult.CANCELLED)]
)
def test_a_cancel_that_its_run_outran_says_so(
    phase: str, result: CancelResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_runs, "known_run", lambda *_: RUNNING)
    monkeypatch.setattr(local_runs, "request_cancel", lambda *_, **__: replace(RUNNING, phase=phase, is_final=True))
    place = LocalRuns.of(resolve({"state_dir": str(tmp_path)}, {}, tmp_path).settings, _Unhurried(), is_to_write=True)
    with closing(place.store):
        done = place.cancel("demo", message="", delete=False, drop_finalizer=False)
    assert (done.result, phase in done.message) == (result, True)


class _Unhurried(CycleStops):
    def __init__(self) -> None:
        """Nothing asks for an end."""

    def wait(self, _seconds: float) -> bool:
        return False
