import os
from pathlib import Path

import pytest

from run_cycle_loop.install.cron import (
    CronJob,
    SystemCrontab,
    block_of,
    check_schedule,
    render_block,
    schedule_of,
    with_block,
)
from run_cycle_loop.model.errors import ConfigError

SHIPPED = Path(__file__).parents[3] / "systemd" / "run-cycle-loop.crontab"
MAIL = "MAILTO=ops@example.org\n5 4 * * * backup\n"


def test_the_crontab_in_the_repository_is_the_rendered_default() -> None:
    assert SHIPPED.read_text() == render_block(CronJob())


def test_the_line_changes_to_the_checkout_and_runs_one_cycle() -> None:
    assert render_block(CronJob()).splitlines()[1] == (
        "*/30 * * * * cd /opt/run-cycle-loop && /opt/run-cycle-loop/.venv/bin/python -m run_cycle_loop run "
        "--iterations 1 --sleep 0 >> /opt/run-cycle-loop/logs/cron.log 2>&1"
    )


def test_odd_characters_of_a_path_mean_themselves_to_cron_and_to_the_shell() -> None:
    block = render_block(CronJob(workdir=Path("/opt/50% it's $HOME")))
    assert "cd '/opt/50\\% it'\\''s $HOME' && " in block


@pytest.mark.parametrize("path", ["loop", "/opt/two\nlines"])
def test_a_path_that_a_crontab_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="absolute, printable"):
        CronJob(workdir=Path(path))


@pytest.mark.parametrize(
    ("seconds", "schedule"),
    [
        (60, "* * * * *"),
        (300, "*/5 * * * *"),
        (1800, "*/30 * * * *"),
        (3600, "0 * * * *"),
        (7200, "0 */2 * * *"),
        (43200, "0 */12 * * *"),
        (86400, "0 0 * * *"),
    ],
)
def test_a_rhythm_that_cron_has_becomes_five_fields(seconds: float, schedule: str) -> None:
    assert schedule_of(seconds) == schedule
    check_schedule(schedule)


@pytest.mark.parametrize("seconds", [0, 0.5, 30, 90, 420, 2700, 5400, 18000, 90000, 172800])
def test_a_rhythm_that_cron_has_not_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="--schedule"):
        schedule_of(seconds)


@pytest.mark.parametrize("schedule", ["@hourly", "0 0 * * 7", "1,31 8-18 * * 1-5", "*/15 0-23/2 1 1,6 0"])
def test_a_schedule_that_cron_takes_is_taken(schedule: str) -> None:
    check_schedule(schedule)


@pytest.mark.parametrize(
    "schedule",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "*/0 * * * *", "9-3 * * * *",
     "*-5 * * * *", "@sometimes", "* * * * *\n* * * * * evil", "a * * * *", "*  * * * *", "1, * * * *"],
)  # fmt: skip
def test_a_schedule_that_cron_would_refuse_or_misread_is_refused(schedule: str) -> None:
    with pytest.raises(ConfigError, match="five numeric fields"):
        check_schedule(schedule)


@pytest.mark.parametrize("before", ["", MAIL, MAIL.rstrip("\n")])
def test_the_block_is_added_behind_what_is_there(before: str) -> None:
    after = with_block(before, CronJob())
    assert after.startswith(before)
    assert after.removeprefix(before).lstrip("\n") == render_block(CronJob())


def test_to_add_it_twice_changes_nothing() -> None:
    once = with_block(MAIL, CronJob())
    assert with_block(once, CronJob()) == once


def test_another_schedule_replaces_the_block_where_it_stands() -> None:
    before = with_block(MAIL, CronJob()) + "1 1 * * * more\n"
    after = with_block(before, CronJob(schedule="@hourly"))
    assert after == MAIL + render_block(CronJob(schedule="@hourly")) + "1 1 * * * more\n"


def test_two_checkouts_have_two_blocks() -> None:
    other = CronJob(workdir=Path("/srv/second"))
    both = with_block(with_block("", CronJob()), other)
    assert block_of(both, Path("/opt/run-cycle-loop")) == render_block(CronJob())
    assert block_of(both, Path("/srv/second")) == render_block(other)
    assert block_of(both, Path("/srv")) is None


def test_a_block_without_its_end_is_not_guessed_at() -> None:
    torn = "\n".join(render_block(CronJob()).splitlines()[:2])
    with pytest.raises(ConfigError, match="without its end"):
        with_block(torn, CronJob())


def test_a_block_that_begins_twice_is_not_guessed_at() -> None:
    begin, line, end = render_block(CronJob()).splitlines(keepends=True)
    with pytest.raises(ConfigError, match="twice"):
        with_block(begin + line + MAIL + begin + line + end, CronJob(schedule="@hourly"))


@pytest.mark.parametrize("schedule", ["\u0663 * * * *", "9" * 5000 + " * * * *"])
def test_digits_that_cron_does_not_read_are_refused(schedule: str) -> None:
    with pytest.raises(ConfigError, match="five numeric fields"):
        check_schedule(schedule)


def test_the_lines_of_others_come_back_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = b"MAILTO=\xe9\r\n0 0 * * * true\n"
    (tmp_path / "table").write_bytes(theirs)
    program = tmp_path / "crontab"
    program.write_text(f'#!/bin/sh\ncd {tmp_path}\nif [ "$1" = -l ]; then cat table; else cat >new; fi\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    crontab = SystemCrontab()
    crontab.write(with_block(crontab.read(), CronJob()))
    assert (tmp_path / "new").read_bytes() == theirs + render_block(CronJob()).encode()
