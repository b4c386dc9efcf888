import os
from datetime import timedelta
from pathlib import Path

import pytest

from run_cycle_loop.model.records import timestamp
from run_cycle_loop.supervisor.recovery import lost_record
from run_cycle_loop.testing import NOON, make_running


@pytest.mark.parametrize(
    ("leftovers", "reason"),
    [
        (0, "its supervisor (pid 4000) did not survive it"),
        (3, "its supervisor (pid 4000) did not survive it; 3 processes it left were ended"),
    ],
)
def test_what_was_ended_is_recorded(leftovers: int, reason: str) -> None:
    record = lost_record(make_running(), leftovers=leftovers, tree=None, now=NOON)
    assert (record.reason, record.leftovers) == (reason, leftovers)


def test_it_lasted_until_the_last_sign_of_it(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    log.touch()
    last_sign = (NOON + timedelta(seconds=90)).timestamp()
    os.utime(log, (last_sign, last_sign))
    record = lost_record(make_running(log_path=str(log)), leftovers=0, tree=None, now=NOON + timedelta(hours=8))
    assert record.duration_seconds == 90.0
    assert record.finished_at == timestamp(NOON + timedelta(hours=8))


@pytest.mark.parametrize("log_path", [None, "/nowhere/1.log"])
def test_without_a_sign_it_lasted_for_nothing(log_path: str | None) -> None:
    assert lost_record(make_running(log_path=log_path), leftovers=0, tree=None, now=NOON).duration_seconds == 0.0


def test_a_log_older_than_its_cycle_gives_no_negative_duration(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    log.touch()
    os.utime(log, (0, 0))
    assert lost_record(make_running(log_path=str(log)), leftovers=0, tree=None, now=NOON).duration_seconds == 0.0
