"""``install systemd`` and ``install cron``: show, place and verify what starts the loop without an operator."""

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import click

from run_cycle_loop.install import cron, interpreter, units, verify
from run_cycle_loop.install.placing import Comparison, Placement, Verdict, compare, diff_of, place
from run_cycle_loop.kit.durations import parse_duration
from run_cycle_loop.model.errors import ConfigError, RunCycleLoopError

#: What ``--verify`` refuses to exceed, on systemd's scale from 0.0 to 10.0.
MOST_EXPOSED = 2.0

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group("install")
def install() -> None:
    """Start the loop without an operator, by systemd or by cron."""


@install.command("systemd")
@click.option("--instance", metavar="NAME", help="Install the template, for one loop per instance, and this instance.")
@click.option("--user", metavar="USER", help="Run as this user; otherwise as one that systemd makes up.")
@click.option("--prefix", type=_FOLDER, help="The folder whose .venv is to run; otherwise the Python that runs this.")
@click.option("--workdir", type=_FOLDER, help="The checkout; otherwise the folder of the .venv.")
@click.option("--system", type=_FOLDER, default=Path("/etc/systemd/system"), show_default=True, help="For the units.")
@click.option(
    "--config-dir", type=_FOLDER, default=units.CONFIG_DIR, show_default=True, help="For the environment file."
)
@click.option("--print", "show", is_flag=True, help="Print the files, and do nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--force", is_flag=True, help="Replace a unit that differs; an environment file never is.")
@click.option("--verify", "check", is_flag=True, help="Have systemd-analyze judge the unit afterwards.")
def systemd_command(  # noqa: PLR0913 - one parameter for each option
    *,
    instance: str | None,
    user: str | None,
    prefix: Path | None,
    workdir: Path | None,
    system: Path,
    config_dir: Path,
    show: bool,
    dry_run: bool,
    force: bool,
    check: bool,
) -> None:
    """Install the unit and its environment file."""
    python = interpreter.python_of(prefix)
    settings = units.UnitSettings(
        python=python,
        workdir=(workdir or prefix or interpreter.workdir_of(python)).absolute(),
        user=user,
        config_dir=config_dir.absolute(),
        visible=interpreter.homes_of(python),
    )
    placements = _unit_placements(settings, system.absolute(), instance)
    if show:
        _print_files(placements)
        return
    interpreter.require(python)
    comparisons = [compare(placement) for placement in placements]
    _print_plan(comparisons)
    if not dry_run:
        place(comparisons, force=force)
    if check and not dry_run:
        _print_judgement(placements[0].path)
    _print_steps(user, instance)


def _unit_placements(settings: units.UnitSettings, system: Path, instance: str | None) -> list[Placement]:
    template = instance is not None
    return [
        Placement(
            path=system / units.unit_file(template=template), text=units.render_unit(settings, template=template)
        ),
        Placement(
            path=settings.config_dir / units.environment_file(instance),
            text=units.render_environment_file(),
            mode=0o600,
            operators=True,
        ),
    ]


def _print_files(placements: Sequence[Placement]) -> None:
    for placement in placements:
        click.echo(f"# ---- {placement.path}")
        click.echo(placement.text)


def _print_plan(comparisons: Sequence[Comparison]) -> None:
    for item in comparisons:
        click.echo(f"{item.verdict:<9} {item.placement.path}")
        if item.verdict is Verdict.REPLACE:
            click.echo(item.diff)


def _print_judgement(unit: Path) -> None:
    complaints = verify.complaints([unit])
    if complaints:
        raise RunCycleLoopError(f"systemd-analyze verify does not accept {unit}: {'; '.join(complaints)}")
    score = verify.exposure(unit)
    click.echo(f"verified  {unit}, exposure {score} of 10")
    if score > MOST_EXPOSED:
        raise RunCycleLoopError(f"{unit} exposes {score}, more than {MOST_EXPOSED}: see `systemd-analyze security`")


def _print_steps(user: str | None, instance: str | None) -> None:
    click.echo("\nTo start it, now and at every boot:")
    if user is not None and not _exists(user):
        click.echo(f"  useradd --system --shell /usr/sbin/nologin {user}")
    click.echo("  systemctl daemon-reload")
    click.echo(f"  systemctl enable --now {units.unit_name(instance)}")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


@install.command("cron")
@click.option("--every", metavar="DURATION", help="How often: 10m, 30m, 2h, 1d; 30m if nothing is said.")
@click.option("--schedule", metavar="FIELDS", help="The five fields of a crontab instead, or @hourly.")
@click.option("--user", metavar="USER", help="In this user's crontab; needs root.")
@click.option("--prefix", type=_FOLDER, help="The folder whose .venv is to run; otherwise the Python that runs this.")
@click.option("--workdir", type=_FOLDER, help="The checkout; otherwise the folder of the .venv.")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Otherwise logs/cron.log in the checkout.")
@click.option("--print", "show", is_flag=True, help="Print the lines, and do nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--force", is_flag=True, help="Replace our own lines where they differ.")
def cron_command(  # noqa: PLR0913 - one parameter for each option
    *,
    every: str | None,
    schedule: str | None,
    user: str | None,
    prefix: Path | None,
    workdir: Path | None,
    log: Path | None,
    show: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Install a one-shot run into a crontab, between two marker lines."""
    python = interpreter.python_of(prefix)
    folder = (workdir or prefix or interpreter.workdir_of(python)).absolute()
    job = cron.CronJob(
        schedule=_schedule(every, schedule),
        python=python,
        workdir=folder,
        log=(log or folder / "logs" / "cron.log").absolute(),
    )
    if show:
        click.echo(cron.render_block(job), nl=False)
        return
    interpreter.require(python)
    _place_block(job, cron.SystemCrontab(user), force=force, dry_run=dry_run)


def _schedule(every: str | None, schedule: str | None) -> str:
    if every is not None and schedule is not None:
        raise ConfigError(f"--every {every} and --schedule {schedule!r} say two things: give one of them")
    if schedule is not None:
        return schedule
    try:
        return cron.schedule_of(parse_duration(every or "30m"))
    except ValueError as error:
        raise ConfigError(f"--every: {error}") from error


def _place_block(job: cron.CronJob, crontab: cron.CrontabFile, *, force: bool, dry_run: bool) -> None:
    text = crontab.read()
    present, wanted = cron.block_of(text, job.workdir), cron.render_block(job)
    if present == wanted:
        click.echo("unchanged crontab")
        return
    click.echo(diff_of(present or "", wanted, "crontab"))
    if dry_run:
        return
    if present is not None and not force:
        raise ConfigError("the crontab has other lines of ours; nothing was changed; pass --force to replace them")
    _make_log_folder(job.log)
    crontab.write(cron.with_block(text, job))
    click.echo("installed; see it with crontab -l, and remove it by deleting the lines between the markers")


def _make_log_folder(log: Path) -> None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {log.parent} for the log ({error.strerror}): name another --log") from error
    if not os.access(log.parent, os.W_OK):
        raise ConfigError(f"cannot write to {log.parent}, where the log is to be: name another --log")
