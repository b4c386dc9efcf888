"""Clocks that step while the loop runs, or between two runs; only the wall clock is faked, as a kernel steps it."""

import signal
import time
from pathlib import Path

import pytest

from tests.faults.lab import Lab, wait_until

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
STEPS = ("+1h", "-1h", "+3650d", "-20000d")


class WallClock:
    """The wall clock of the lab's processes; monotonic clocks go on as they are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set("+0")
        self.env = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, step: str) -> None:
        self._path.write_text(f"{step}\n")


@pytest.fixture
def wall(lab: Lab) -> WallClock:
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed")
    lab.allowed |= {"I5"}  # it compares wall clocks
    return WallClock(lab.scratch / "clock")


@pytest.mark.root
@pytest.mark.parametrize("step", STEPS)
def test_a_step_during_a_cycle_changes_neither_its_timeout_nor_its_duration(
    lab: Lab, wall: WallClock, step: str
) -> None:
    cycle = lab.script(
        'echo up > $S/up; until [ -e $S/go ]; do sleep 0.02; done; [ "$RUN_CYCLE_NUMBER" = 1 ] || sleep 60'
    )
    loop = lab.start("--iterations", "2", "--timeout", "1.5", cycle=(cycle,), env=wall.env)
    lab.await_file("up")
    wall.set(step)
    time.sleep(0.3)
    (lab.scratch / "go").touch()
    assert loop.ended() == 1
    assert lab.outcomes() == ["success", "timeout"]
    assert all(0 <= record["duration_seconds"] < 10 for record in lab.history())


@pytest.mark.root
@pytest.mark.parametrize("step", STEPS)
def test_a_step_while_waiting_neither_hurries_nor_delays_the_next_cycle(lab: Lab, wall: WallClock, step: str) -> None:
    loop = lab.start("--iterations", "2", "--sleep", "1.0", env=wall.env)
    lab.await_state("waiting")
    began = time.monotonic()
    wall.set(step)
    time.sleep(0.4)
    assert len(lab.history()) == 1
    assert loop.ended(10) == 0
    assert 0.5 < time.monotonic() - began < 5


@pytest.mark.root
@pytest.mark.parametrize("step", STEPS)
def test_a_step_between_two_runs_neither_loses_a_log_nor_a_number_nor_extends_the_backoff(
    lab: Lab, wall: WallClock, step: str
) -> None:
    options = ("--backoff-initial", "0.5", "--backoff-factor", "1", "--max-failures", "0")
    assert lab.run("--iterations", "2", *options, cycle=("false",), env=wall.env).code == 1
    wall.set(step)
    began = time.monotonic()
    assert lab.run("--iterations", "2", *options, cycle=("false",), env=wall.env).code == 1
    assert time.monotonic() - began < 6
    assert [record["number"] for record in lab.history()] == [1, 2, 3, 4]
    assert len(list(lab.logs.glob("*.log"))) == 4
    wall.set("+0")
    for view in ("status", "history", "logs"):
        assert lab.command(view).code == 0


@pytest.mark.root
def test_logs_of_a_clock_that_stands_still_never_share_a_name(lab: Lab, wall: WallClock) -> None:
    wall.set("2026-01-01 00:00:00")
    assert lab.run("--iterations", "5", cycle=("sh", "-c", "echo $RUN_CYCLE_NUMBER"), env=wall.env).code == 0
    logs = [Path(lab.root, record["log_path"]) for record in lab.history()]
    assert len(set(logs)) == 5
    assert all(str(number) in log.read_text().splitlines() for number, log in enumerate(logs, 1))


def test_backoff_grows_to_its_limit_and_ends_with_a_success(lab: Lab) -> None:
    cycle = lab.script('[ "$RUN_CYCLE_NUMBER" = 6 ]')
    options = ("--backoff-initial", "0.02", "--backoff-factor", "5", "--max-backoff", "0.3")
    assert lab.run("--iterations", "8", *options, cycle=(cycle,)).code == 1
    delays = [record["next_delay_seconds"] for record in lab.history()]
    assert delays[:5] == pytest.approx([0.02, 0.1, 0.3, 0.3, 0.3])
    assert delays[5:7] == pytest.approx([0.0, 0.02])


def test_jitter_stays_within_its_share(lab: Lab) -> None:
    options = ("--backoff-initial", "0.05", "--backoff-factor", "1", "--backoff-jitter", "0.5")
    assert lab.run("--iterations", "20", *options, cycle=("false",)).code == 1
    delays = [record["next_delay_seconds"] for record in lab.history()[:-1]]
    assert all(0.025 <= delay <= 0.075 for delay in delays)
    assert len(set(delays)) > 10


def test_no_sleep_still_backs_off(lab: Lab) -> None:
    loop = lab.start("--continuous", "--sleep", "0", "--backoff-initial", "1h", cycle=("false",))
    lab.await_state("backoff")
    loop.send(signal.SIGTERM)
    assert loop.ended() == 0
    assert lab.history()[0]["next_delay_seconds"] == 1800


def test_the_streak_and_the_backoff_survive_a_killed_supervisor(lab: Lab) -> None:
    options = ("--continuous", "--backoff-initial", "0.05", "--backoff-factor", "100", "--max-backoff", "1h")
    first = lab.start(*options, cycle=("false",))
    wait_until(lambda: lab.latest().get("consecutive_failures") == 2 and lab.latest()["state"] == "backoff", "backoff")
    first.kill()
    second = lab.start(*options, cycle=("false",))
    wait_until(lambda: lab.latest()["supervisor"]["pid"] == second.pid and lab.latest()["state"] == "backoff", "again")
    assert len(lab.history()) == 2
    assert lab.latest()["consecutive_failures"] == 2
    second.send(signal.SIGTERM)
    assert second.ended() == 0


@pytest.mark.parametrize("delay", ["1e9", "-5", "1e300", "NaN", '"soon"', "[]"])
def test_a_forged_delay_never_holds_the_loop_for_longer_than_the_longest_backoff(lab: Lab, delay: str) -> None:
    lab.allowed |= {"I1", "I2"}  # the test has written NaN
    lab.run(cycle=("false",))
    record = lab.history_path.read_bytes().replace(
        b'"next_delay_seconds":null', b'"next_delay_seconds":' + delay.encode()
    )
    lab.history_path.write_bytes(record)
    assert delay.encode() in record
    loop = lab.start("--iterations", "2", "--max-backoff", "0.2")
    assert loop.ended(10) == 0
