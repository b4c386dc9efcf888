"""The loop as a crontab block: one-shot runs, on a schedule, between two marker lines that make it ours.

``systemd/run-cycle-loop.crontab`` is a rendering of the defaults.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from run_cycle_loop.install.units import PREFIX
from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.model.errors import ConfigError

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NICKNAMES = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})
_PART = re.compile(r"(?P<first>\*|\d+)(?:-(?P<last>\d+))?(?:/(?P<step>\d+))?", re.ASCII)
_LONGEST_PART = 20  #: characters; none that cron takes is longer
_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class CronJob:
    """One scheduled one-shot."""

    schedule: str = "*/30 * * * *"  #: five fields, or a nickname such as ``@hourly``
    python: Path = PREFIX / ".venv/bin/python"
    workdir: Path = PREFIX  #: also what tells two blocks in one crontab apart
    log: Path = PREFIX / "logs/cron.log"  #: where cron appends what the loop itself says

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        for path in (self.python, self.workdir, self.log):
            if not path.is_absolute() or not str(path).isprintable():
                raise ConfigError(f"{str(path)!r} cannot stand in a crontab: give an absolute, printable path")


class CrontabFile(Protocol):
    """Somebody's crontab."""

    def read(self) -> str:
        """Its whole text; empty where there is none."""
        ...

    def write(self, text: str) -> None:
        """Replace it."""
        ...


def schedule_of(seconds: float) -> str:
    """The five fields for "every so often".

    Raises:
        ConfigError: cron has no such rhythm: it counts anew at each hour and each day.
    """
    minutes, rest = divmod(seconds, _MINUTE)
    if rest == 0 and 0 < seconds < _HOUR and _HOUR % seconds == 0:
        return f"*/{minutes:.0f} * * * *" if minutes > 1 else "* * * * *"
    if rest == 0 and _HOUR <= seconds < _DAY and seconds % _HOUR == 0 and _DAY % seconds == 0:
        return f"0 */{seconds / _HOUR:.0f} * * *" if seconds > _HOUR else "0 * * * *"
    if seconds == _DAY:
        return "0 0 * * *"
    raise ConfigError(
        f"cron cannot run every {format_duration(seconds)}: take whole minutes that divide an hour, whole hours that "
        "divide a day, one day, or --schedule"
    )


def check_schedule(schedule: str) -> None:
    """See that cron would take the schedule.

    Raises:
        ConfigError: it would not.
    """
    fields = schedule.split(" ")
    if schedule in _NICKNAMES:
        return
    if len(fields) != len(_BOUNDS) or not all(map(_is_field, fields, _BOUNDS)):
        raise ConfigError(f"{schedule!r} is no schedule: give five numeric fields such as '*/30 * * * *', or '@hourly'")


def _is_field(field: str, bounds: tuple[int, int]) -> bool:
    return all(_is_part(part, bounds) for part in field.split(","))


def _is_part(part: str, bounds: tuple[int, int]) -> bool:
    match = _PART.fullmatch(part)
    if len(part) > _LONGEST_PART or match is None or (match["first"] == "*" and match["last"] is not None):
        return False
    numbers = [int(match[name]) for name in ("first", "last") if match[name] not in {None, "*"}]
    within = all(bounds[0] <= number <= bounds[1] for number in numbers)
    return within and numbers == sorted(numbers) and match["step"] != "0"


def render_block(job: CronJob) -> str:
    """The block, with its marker lines and a newline at its end."""
    begin, end = _markers(job.workdir)
    # A run that finds another one at work leaves with 75 at once, so an overlap does no harm.
    command = f"cd {_quoted(job.workdir)} && {_quoted(job.python)} -m run_cycle_loop run --iterations 1 --sleep 0"
    line = f"{job.schedule} {command} >> {_quoted(job.log)} 2>&1"
    return f"{begin}\n{line}\n{end}\n"


def _markers(workdir: Path) -> tuple[str, str]:
    return f"# run-cycle-loop begin {workdir}", f"# run-cycle-loop end {workdir}"


def _quoted(path: Path) -> str:
    """A path as one word of a crontab's shell command, where an unescaped per cent sign would end the line."""
    text = str(path)
    quoted = text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "'\\''") + "'"
    return quoted.replace("%", r"\%")


def block_of(crontab: str, workdir: Path) -> str | None:
    """The block for this working directory, as it stands in a crontab.

    Raises:
        ConfigError: its end is missing, or its beginning stands there twice.
    """
    span = _span(crontab.splitlines(keepends=True), workdir)
    return None if span is None else "".join(crontab.splitlines(keepends=True)[span[0] : span[1]])


def with_block(crontab: str, job: CronJob) -> str:
    """The crontab with the job's block in place of an earlier one, or at its end; all else as it was."""
    lines = crontab.splitlines(keepends=True)
    span = _span(lines, job.workdir)
    if span is not None:
        return "".join([*lines[: span[0]], render_block(job), *lines[span[1] :]])
    gap = "" if not crontab or crontab.endswith("\n") else "\n"
    return f"{crontab}{gap}{render_block(job)}"


def _span(lines: list[str], workdir: Path) -> tuple[int, int] | None:
    begin, end = _markers(workdir)
    bare = [line.rstrip("\n") for line in lines]
    if begin not in bare:
        return None
    start = bare.index(begin)
    if end not in bare[start:]:
        raise ConfigError(f"the crontab has {begin!r} without its end: add the line {end!r} behind our line")
    stop = bare.index(end, start)
    if begin in bare[start + 1 : stop]:
        raise ConfigError(f"the crontab has {begin!r} twice before its end: take out the one that is not ours")
    return start, stop + 1


class SystemCrontab:
    """The crontab of a user, through crontab(1): of our own where no user is named."""

    def __init__(self, user: str | None = None) -> None:
        self._command = ["crontab", *(["-u", user] if user else [])]

    def read(self) -> str:
        """The crontab's text.

        Raises:
            ConfigError: it cannot be read.
        """
        done = self._run("-l")
        if done.returncode == 0:
            return done.stdout
        if "no crontab for" in done.stderr:
            return ""
        raise ConfigError(f"{' '.join(self._command)} -l failed: {done.stderr.strip() or done.returncode}")

    def write(self, text: str) -> None:
        """Replace the crontab.

        Raises:
            ConfigError: cron did not take it.
        """
        done = self._run("-", stdin=text)
        if done.returncode != 0:
            raise ConfigError(f"cron did not take the crontab: {done.stderr.strip() or done.returncode}")

    def _run(self, argument: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(
                [*self._command, argument], input=os.fsencode(stdin), capture_output=True, timeout=30, check=False
            )
        except OSError as error:
            raise ConfigError(f"cannot run crontab ({error.strerror}): install cron, or use --print") from error
        except subprocess.TimeoutExpired as error:
            raise ConfigError("crontab did not answer within 30 s: look for a hung cron, or use --print") from error
        # Not as text: other people's lines go back as they came, whatever their encoding and line ends.
        return subprocess.CompletedProcess(
            done.args, done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr)
        )
