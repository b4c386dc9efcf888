"""One cycle that is an AgentRun or a Job: what it is started with, what it hears, and where its words go."""

import select
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from run_cycle_loop.config.settings import Settings
from run_cycle_loop.controls.signals import HANDLED, SignalInbox
from run_cycle_loop.kit import files
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.runners.marks import Marks

_ENDS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})


class CycleStops:
    """How often an end was asked for, and the only pauses of such a cycle.

    A first signal ends what was started, a second one the waiting for its end.
    """

    def __init__(self, inbox: SignalInbox, ignored: frozenset[signal.Signals]) -> None:
        self._inbox = inbox
        self._heeded = _ENDS - ignored
        self._asked = 0

    def fileno(self) -> int:
        """Readable when a signal has arrived."""
        return self._inbox.fileno()

    def wait(self, seconds: float) -> bool:
        """Wait so long; True, and at once, where an end was asked for."""
        return self._wait(seconds, 1)

    def hurry(self, seconds: float) -> bool:
        """The same, for who is ending already: True where it was asked for once more."""
        return self._wait(seconds, 2)

    def _wait(self, seconds: float, times: int) -> bool:
        until = time.monotonic() + seconds
        while True:
            self._asked += sum(number in self._heeded for number in self._inbox.drain())
            left = until - time.monotonic()
            if self._asked >= times or left <= 0:
                return self._asked >= times
            select.select([self._inbox.fileno()], [], [], left)


def ignored_signals() -> frozenset[signal.Signals]:
    """Those that this process was started to ignore, as under nohup; asked before the inbox is opened."""
    return frozenset(number for number in HANDLED if signal.getsignal(number) is signal.SIG_IGN)


#: What a program in a pod is told of its cycle, where the loop tells it.
_TOLD = ("ID", "NUMBER", "MODE", "GOAL", "CAP_WRITES", "ALLOWED_USD", "ALLOWED_TOKENS")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cycle:
    """What one cycle is started with."""

    settings: Settings
    environ: Mapping[str, str]
    marks: Marks
    stops: CycleStops
    ending: float  #: seconds to end what was started, once that is asked for

    @property
    def told(self) -> dict[str, str]:
        """The variables that a program elsewhere is told."""
        names = (f"RUN_CYCLE_{name}" for name in _TOLD)
        return {name: self.environ[name] for name in names if name in self.environ}

    def say(self, sentence: str) -> None:
        """A line of ours in the cycle's log."""
        with suppress(OSError):
            files.write_all(sys.stderr.fileno(), f"run-cycle-loop: {printable(sentence)}\n".encode())

    def output(self, data: bytes) -> None:
        """What somebody else printed, as it is."""
        with suppress(OSError):  # where nobody reads along any more, the work goes on
            files.write_all(sys.stdout.fileno(), data)
