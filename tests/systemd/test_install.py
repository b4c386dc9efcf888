"""``install systemd`` on a real machine, and what systemd thinks of the units that ship."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from run_cycle_loop.install.verify import parse_exposure

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.systemd.conftest import Machine, Service

pytestmark = pytest.mark.systemd
UNITS = ("run-cycle-loop.service", "run-cycle-loop@.service")


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say_against_a_shipped_unit(machine: Machine, unit: str) -> None:
    done = machine.run("systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{unit}")
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("unit", UNITS)
def test_a_shipped_unit_is_exposed_by_at_most_two_of_ten(machine: Machine, unit: str) -> None:
    done = machine.run("systemd-analyze", "security", "--offline=true", f"/etc/systemd/system/{unit}")
    assert parse_exposure(done.stdout, Path(unit)) <= 2.0


def test_an_installed_unit_verifies_and_installs_twice_without_a_change(machine: Machine) -> None:
    command = ("install", "systemd", "--system", "/tmp/units", "--config-dir", "/tmp/config", "--verify")
    first = machine.loop(*command).stdout
    assert "create    /tmp/units/run-cycle-loop.service" in first
    assert "verified  /tmp/units/run-cycle-loop.service" in first
    assert "unchanged /tmp/units/run-cycle-loop.service" in machine.loop(*command).stdout
    shipped = (machine.units / "run-cycle-loop.service").read_text()
    installed = machine.file("/tmp/units/run-cycle-loop.service").read_text()
    assert installed.replace("/tmp/config", "/etc/run-cycle-loop") == shipped


def test_a_checkout_below_home_runs_and_sees_no_other_home(
    machine: Machine, make_service: Callable[..., Service]
) -> None:
    home = "/home/operator/loop"
    machine.run("mkdir", "-p", "/home/operator", "/home/neighbour")
    machine.run("cp", "-a", "/opt/run-cycle-loop", home)
    machine.loop("install", "systemd", "--prefix", home, "--system", "/tmp/home")
    machine.run("cp", "/tmp/home/run-cycle-loop.service", "/etc/systemd/system/home.service")
    machine.run("systemctl", "daemon-reload")
    service = make_service("home.service", "run-cycle-loop")
    service.settings(cycle_script=f"{home}/cycle.sh", archive_glob="off")
    machine.file(f"{home}/cycle.sh").write_text(
        f"#!/bin/sh\ntest -r {home}/scripts && ! ls /home/neighbour && ! touch {home}/planted\n"
    )
    machine.run("chmod", "755", f"{home}/cycle.sh")
    service.start()
    assert service.wait_for_outcomes() == ["success"]
