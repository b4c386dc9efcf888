"""The commands, on folders of a test; nothing of the machine is touched and nothing is started."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from run_cycle_loop.cli.install import install
from run_cycle_loop.install.cron import CronJob, render_block
from run_cycle_loop.install.units import UnitSettings, render_unit
from run_cycle_loop.model.errors import ConfigError


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed Python, wherever the one of the tests is: a service could not see one below /tmp."""
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "executable", "/bin/sh")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(install, arguments, catch_exceptions=False)


def systemd(tmp_path: Path, *arguments: str) -> Result:
    folders = ("--system", str(tmp_path / "units"), "--config-dir", str(tmp_path / "config"), "--workdir", "/srv/loop")
    return call("systemd", *folders, *arguments)


def test_print_shows_the_shipped_unit_for_the_shipped_place() -> None:
    shown = call("systemd", "--prefix", "/opt/run-cycle-loop", "--print").stdout
    assert shown.startswith("# ---- /etc/systemd/system/run-cycle-loop.service\n" + render_unit())
    assert "# ---- /etc/run-cycle-loop/run-cycle-loop.env\n" in shown


def test_an_installation_writes_unit_and_environment_file_and_says_how_to_go_on(tmp_path: Path) -> None:
    said = systemd(tmp_path).stdout
    assert f"create    {tmp_path}/units/run-cycle-loop.service" in said
    assert "systemctl enable --now run-cycle-loop.service" in said
    settings = UnitSettings(python=Path("/bin/sh"), workdir=Path("/srv/loop"), config_dir=tmp_path / "config")
    text = (tmp_path / "units" / "run-cycle-loop.service").read_text()
    assert "WorkingDirectory=/srv/loop\n" in text
    assert text == render_unit(settings)
    assert (tmp_path / "config" / "run-cycle-loop.env").stat().st_mode & 0o777 == 0o600


def test_an_instance_installs_the_template_and_its_own_environment_file(tmp_path: Path) -> None:
    said = systemd(tmp_path, "--instance", "night").stdout
    assert "systemctl enable --now run-cycle-loop@night.service" in said
    assert (tmp_path / "units" / "run-cycle-loop@.service").is_file()
    assert (tmp_path / "config" / "night.env").is_file()


def test_a_user_that_does_not_exist_is_the_first_step(tmp_path: Path) -> None:
    said = systemd(tmp_path, "--user", "no-such-user-here").stdout
    assert "useradd --system --shell /usr/sbin/nologin no-such-user-here\n  systemctl daemon-reload" in said


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert "create " in systemd(tmp_path, "--dry-run").stdout
    assert list(tmp_path.iterdir()) == []


def test_an_edited_unit_is_shown_and_kept_until_forced(tmp_path: Path) -> None:
    systemd(tmp_path)
    unit = tmp_path / "units" / "run-cycle-loop.service"
    rendered = unit.read_text()
    unit.write_text(rendered.replace("RestartSec=10", "RestartSec=99"))
    with pytest.raises(ConfigError, match="--force"):
        systemd(tmp_path)
    assert "-RestartSec=99\n+RestartSec=10" in systemd(tmp_path, "--force").stdout
    assert unit.read_text() == rendered


def test_a_prefix_without_a_python_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Python at /srv/nothing/\.venv/bin/python"):
        systemd(tmp_path, "--prefix", "/srv/nothing")


def test_cron_prints_the_shipped_lines_for_the_shipped_place() -> None:
    assert call("cron", "--prefix", "/opt/run-cycle-loop", "--print").stdout == render_block(CronJob())


def test_cron_takes_a_rhythm_or_a_schedule() -> None:
    assert "\n*/5 * * * * cd" in call("cron", "--every", "5m", "--print").stdout
    assert "\n@hourly cd" in call("cron", "--schedule", "@hourly", "--print").stdout


@pytest.mark.parametrize(
    "arguments",
    [("--every", "7m"), ("--every", "often"), ("--schedule", "often"), ("--every", "5m", "--schedule", "@hourly")],
)
def test_a_rhythm_that_cannot_be_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        call("cron", *arguments, "--print")
