"""The shipped unit under a real systemd: what it promises about starting, stopping, crashing and staying down."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.systemd.conftest import Machine, Service

pytestmark = pytest.mark.systemd

#: A cycle that runs until it is let go.
GATED = "touch started; while [ ! -e go ]; do sleep 0.05; done; rm go started"


def alive(machine: Machine, pid: int) -> bool:
    try:
        status = machine.file(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_started_means_ready_and_a_cycle_is_recorded(service: Service) -> None:
    service.cycle("echo hello", sleep=300)
    service.start()
    assert service.wait_for_outcomes() == ["success"]
    service.wait_for_status("next cycle at")
    assert service.facts("ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}


def test_a_hung_loop_is_ended_by_the_watchdog_and_comes_back(service: Service, machine: Machine) -> None:
    service.override(RestartSec="200ms", WatchdogSec="2s", TimeoutAbortSec="2s")
    service.cycle("echo hello", sleep=300)
    service.start()
    service.wait_for_outcomes()
    hung = service.main_pid()
    machine.run("kill", "-STOP", str(hung))
    service.wait_for_restart(after=hung)
    assert service.wait_for_outcomes(2) == ["success", "success"]
    assert "Watchdog timeout" in service.journal()


def test_a_loop_that_waits_longer_than_the_watchdogs_patience_is_left_alone(service: Service) -> None:
    service.override(WatchdogSec="500ms")
    service.cycle(f"{GATED}", sleep=300)
    service.start()
    service.wait_for_file("started")
    service.stays("active", seconds=1.5)
    service.touch("go")
    service.wait_for_outcomes()
    service.stays("active", seconds=1.5)
    assert service.show("NRestarts") == "0"


def test_after_kill_9_the_cycle_is_recorded_as_lost_and_nothing_of_it_lives(service: Service, machine: Machine) -> None:
    service.cycle(f"setsid sh -c 'echo $$ > escaped; exec sleep 1000' & echo $$ > leader\n{GATED}", sleep=300)
    service.start()
    service.wait_for_file("started")
    service.wait_for_file("escaped")
    old = [service.pid_in("leader"), service.pid_in("escaped")]
    killed = service.main_pid()
    machine.run("kill", "-KILL", str(killed))
    service.wait_for_restart(after=killed)
    assert service.wait_for_outcomes()[0] == "lost"
    assert not any(alive(machine, pid) for pid in old)


def test_a_stop_lets_the_cycle_end_however_long_it_takes(service: Service) -> None:
    # The loop has to ask for more time: two seconds would not do.
    service.override(TimeoutStopSec="2s")
    service.cycle(GATED, sleep=0)
    service.start()
    service.wait_for_file("started")
    service.stop("--no-block")
    service.stays("deactivating", seconds=4)
    service.touch("go")
    service.wait_for_state("inactive")
    assert service.outcomes() == ["success"]
    assert service.facts("Result", "ExecMainStatus", "NRestarts") == {
        "Result": "success",
        "ExecMainStatus": "0",
        "NRestarts": "0",
    }


def test_the_stop_file_keeps_it_down_until_resume_and_start(service: Service, machine: Machine) -> None:
    service.cycle("echo hello", sleep=300)
    service.start()
    service.wait_for_outcomes()
    machine.loop("stop", "--state-dir", service.inside)
    service.wait_for_state("inactive")
    service.stays("inactive", seconds=1)
    assert service.facts("Result", "ExecMainStatus", "NRestarts") == {
        "Result": "success",
        "ExecMainStatus": "10",
        "NRestarts": "0",
    }
    machine.loop("resume", "--state-dir", service.inside)
    service.start()
    assert service.wait_for_outcomes(2) == ["success", "success"]


def test_a_start_against_the_stop_file_is_no_failure(service: Service, machine: Machine) -> None:
    service.cycle("echo hello", sleep=300)
    service.start()
    service.wait_for_outcomes()
    machine.loop("stop", "--state-dir", service.inside)
    service.wait_for_state("inactive")
    service.start()
    service.wait_for_state("inactive")
    assert service.show("Result") == "success"
    assert service.outcomes() == ["success"]


def test_the_failure_limit_keeps_it_down_and_a_start_tries_again(service: Service) -> None:
    service.cycle("test -e mended", max_failures=2, backoff_initial=0.1, backoff_factor=1, sleep=300)
    service.start()
    service.wait_for_state("failed")
    service.stays("failed", seconds=1)
    assert service.outcomes() == ["failed", "failed"]
    assert service.facts("ExecMainStatus", "NRestarts") == {"ExecMainStatus": "11", "NRestarts": "0"}
    service.touch("mended")
    service.start()
    assert service.wait_for_outcomes(3)[2] == "success"
    assert service.state() == "active"


def test_wrong_settings_keep_it_down(service: Service, machine: Machine) -> None:
    service.settings(sleep="soon")
    machine.run("systemctl", "start", service.unit, check=False)
    service.stays("failed", seconds=1)
    assert service.facts("ExecMainStatus", "NRestarts") == {"ExecMainStatus": "2", "NRestarts": "0"}
    assert "RUN_CYCLE_SLEEP" in service.journal()
    service.cycle("echo hello")
    service.start()
    assert service.wait_for_outcomes() == ["success"]


def test_a_held_lock_is_tried_again_for_ever(service: Service, make_service: Callable[..., Service]) -> None:
    holder = make_service("holder.service", service.folder)
    shutil.copy(service.machine.units / service.unit, service.machine.units / holder.unit)
    service.cycle("echo hello", sleep=300)
    holder.start()
    service.override(RestartSec="100ms")
    service.machine.run("systemctl", "start", "--no-block", service.unit)
    # Five starts in ten seconds are where systemd's own limit would have ended it.
    service.wait_for(lambda: int(service.show("NRestarts")) >= 7, "seven restarts")
    assert "status=75" in service.journal()
    holder.stop()
    service.wait_for_state("active")


def test_crash_after_crash_meets_no_start_limit(service: Service, machine: Machine) -> None:
    service.cycle("echo hello", sleep=300)
    service.start()
    for _ in range(6):
        killed = service.main_pid()
        machine.run("kill", "-KILL", str(killed))
        service.wait_for_restart(after=killed)
    assert service.state() == "active"


def test_two_instances_run_side_by_side(make_service: Callable[..., Service]) -> None:
    alpha, beta = make_service("run-cycle-loop@alpha.service"), make_service("run-cycle-loop@beta.service")
    for instance in (alpha, beta):
        instance.cycle("echo hello", sleep=300, mode=instance.unit)
        instance.start()
    for instance in (alpha, beta):
        instance.wait_for_outcomes()
        assert [record["mode"] for record in instance.history()] == [instance.unit]
        assert instance.state() == "active"


def test_the_shipped_cycle_works_under_the_full_hardening(service: Service) -> None:
    service.settings(sleep=300)
    service.start()
    assert service.wait_for_outcomes() == ["success"]
    (record,) = service.history()
    assert record["archive_created"] is True
    assert record["archive_path"].startswith(("/var/lib/run-cycle-loop/", "/var/lib/private/run-cycle-loop/"))


def test_the_cycle_cannot_write_to_the_checkout_nor_see_a_home(service: Service, machine: Machine) -> None:
    machine.run("touch", "/root/secret")
    service.cycle(
        "touch /opt/run-cycle-loop/planted && exit 1; ls /root && exit 2; ls /home && exit 3; "
        "mkdir -p $RUN_CYCLE_SANDBOX_DIR && touch $HOME/mine $RUN_CYCLE_SANDBOX_DIR/mine /tmp/mine"
    )
    service.start()
    assert service.wait_for_outcomes() == ["success"]
    assert not machine.file("/tmp/mine").exists()


def test_prometheus_accepts_what_the_service_serves(service: Service, machine: Machine) -> None:
    service.cycle("echo hello", sleep=300, metrics_port=9464)
    service.start()
    service.wait_for_outcomes()
    scrape = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics', timeout=9).read().decode())"
    judged = machine.run("sh", "-c", f'python3 -c "{scrape}" | tee /dev/stderr | promtool check metrics')
    assert 'run_cycle_cycles_total{outcome="success"} 1.0' in judged.stderr
    assert judged.stdout == ""


def test_records_are_readable_by_nobody_else(service: Service) -> None:
    service.cycle("echo hello", sleep=300)
    service.start()
    service.wait_for_outcomes()
    assert oct(service.state_dir.stat().st_mode & 0o777) == "0o700"
    files = [path for path in service.state_dir.rglob("*") if path.is_file()]
    assert files
    assert {oct(path.stat().st_mode & 0o077) for path in files} == {"0o0"}


def test_a_reload_takes_new_settings_before_the_next_cycle(service: Service, machine: Machine) -> None:
    file = machine.checkout / "reloaded.toml"
    file.write_text('mode = "day"\n')
    service.cycle("echo hello", sleep=300, config="/opt/run-cycle-loop/reloaded.toml")
    service.start()
    service.wait_for_outcomes()
    file.write_text('mode = "night"\n')
    machine.run("systemctl", "reload", service.unit)
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=USR1", service.unit)
    service.wait_for_outcomes(2)
    assert [record["mode"] for record in service.history()] == ["day", "night"]
