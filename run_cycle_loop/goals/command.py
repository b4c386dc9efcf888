"""A goal that a command gives: the first line of its output, bounded in time and in size."""

from collections.abc import Callable, Mapping, Sequence

from run_cycle_loop.kit import processes
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.records import CycleRecord, Goal

_LONGEST = 64 * 1024  #: bytes of the first line
_SHOWN = 200


class CommandGoal:
    """Implements the port ``Goals``."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Callable[[int], Mapping[str, str]],
        timeout: float,
        grace: float,
        check: Callable[[str], str],
        pulse: processes.Pulse | None,
    ) -> None:
        self._argv = tuple(argv)
        self._environment = environment  #: by the number of the cycle
        self._timeout = timeout  #: seconds
        self._grace = grace  #: seconds
        self._check = check  #: gives the goal back, or raises ValueError with the reason and the next step
        self._pulse = pulse

    def next(self, number: int) -> Goal:
        """Run the command, and take its first line.

        Raises:
            ConfigError: it cannot be started, takes too long, fails, or prints no goal.
        """
        first, errors = _FirstLine(), _FirstLine()
        try:
            ended = processes.supervise(
                self._argv,
                self._environment(number),
                limits=processes.Limits(timeout=self._timeout, grace=self._grace),
                output=lambda stream, chunk: (first if stream == "stdout" else errors).take(chunk),
                pulse=self._pulse,
            )
        except processes.LaunchError as error:
            raise ConfigError(f"--goal-command: {error}") from error
        except OSError as error:
            raise ConfigError(f"--goal-command {self._argv[0]!r} could not be run: {error}; see the command") from error
        if ended.ended_by is not processes.EndedBy.ITSELF:
            raise ConfigError(
                f"--goal-command {self._argv[0]!r} was ended after {ended.duration:.1f} s; it may take "
                f"{self._timeout:g} s (--goal-timeout)"
            )
        if ended.exit_code != 0:
            how = f"exit code {ended.exit_code}" if ended.signal is None else f"signal {ended.signal}"
            said = f", saying {errors.text()[:_SHOWN]!r}" if errors.text() else ""
            raise ConfigError(f"--goal-command {self._argv[0]!r} failed with {how}{said}; mend it")
        return Goal(text=self._goal(first), origin={"source": "command", "command": self._argv[0]})

    def _goal(self, first: "_FirstLine") -> str:
        if first.is_too_long:
            raise ConfigError(
                f"--goal-command {self._argv[0]!r} printed more than {_LONGEST} bytes on its first line; print less"
            )
        try:
            return self._check(first.text().strip())
        except ValueError as error:
            raise ConfigError(f"the first line that --goal-command {self._argv[0]!r} printed {error}") from error

    def note(self, record: CycleRecord) -> None:
        """Nothing follows for the next cycle: the command looks for itself."""


class _FirstLine:
    """Keeps the first line of a stream, and not more than a goal can have."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._is_whole = False

    def take(self, chunk: memoryview) -> None:
        if self._is_whole or self.is_too_long:
            return
        head = bytes(chunk[: _LONGEST + 1 - len(self._kept)])
        line, newline, _ = head.partition(b"\n")
        self._kept += line
        self._is_whole = bool(newline)

    @property
    def is_too_long(self) -> bool:
        return len(self._kept) > _LONGEST

    def text(self) -> str:
        return self._kept.decode(errors="replace")
