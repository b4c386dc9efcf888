"""The stop token: signals and the kill switch in one place, and the only sleep in the product."""

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.controls.stop_file import Sight, StopFile
from run_cycle_loop.kit import inotify
from run_cycle_loop.kit.processes import Demand
from run_cycle_loop.model.decisions import StopRequest
from run_cycle_loop.model.enums import StopReason, Urgency
from run_cycle_loop.model.ports import Clock, Waited

_LOOK_EVERY = 0.25  #: seconds between two looks at the kill switch
_ANSWER_WITHIN = 0.05  #: seconds given to one look before the loop attends to other things
_DOUBT = 30.0  #: seconds without an answer after which doubt means stop


class StopControl:
    """Implements the ports ``StopToken`` and ``kit.processes.Pulse``."""

    def __init__(self, inbox: SignalInbox, stop_file: StopFile, clock: Clock, *, watch: bool = True) -> None:
        self._inbox = inbox
        self._stop_file = stop_file
        self._clock = clock
        self._request: StopRequest | None = None
        self._triggered = False
        self._reload = False
        self._signals = 0
        self._looked_at = -_LOOK_EVERY
        self._answered_at = clock.monotonic()
        self._on_beat: Callable[[], None] = _nothing
        self._on_request: Callable[[StopRequest], None] = _nobody
        self._poll = select.epoll()
        self._poll.register(inbox.fileno(), select.EPOLLIN)
        self._watch = stop_file.watch() if watch else None
        if self._watch is not None:
            self._poll.register(self._watch, select.EPOLLIN)

    def listen(self, *, beat: Callable[[], None], request: Callable[[StopRequest], None]) -> None:
        """Call ``beat`` at least four times a second while the loop waits, ``request`` when a stop is asked."""
        self._on_beat = beat
        self._on_request = request

    def fileno(self) -> int:
        """Readable when a signal arrived or a name appeared beside the kill switch."""
        return self._poll.fileno()

    def beat(self) -> Demand:
        """Attend to whatever came; what is wanted of a running cycle."""
        self._attend()
        urgency = self._request.urgency if self._request else Urgency.AFTER_CYCLE
        return {Urgency.NOW: Demand.TERMINATE, Urgency.KILL: Demand.KILL}.get(urgency, Demand.NOTHING)

    def requested(self) -> StopRequest | None:
        """The most urgent request; the kill switch is looked at afresh, and doubt means stop."""
        self._attend(look=True)
        while self._request is None and self._in_doubt():
            self._poll.poll(_ANSWER_WITHIN)
            self._attend(look=True)
        return self._request

    def wait(self, seconds: float) -> Waited:
        """Wait until the time is up, a stop is asked, or the next cycle is wanted now."""
        until = self._clock.monotonic() + seconds
        while True:
            self._attend()
            if self._request is not None:
                return Waited.STOP
            if self._triggered:
                self._triggered = False
                return Waited.TRIGGERED
            left = until - self._clock.monotonic()
            if left <= 0:
                return Waited.ELAPSED
            self._poll.poll(min(left, _LOOK_EVERY))

    def reload_requested(self) -> bool:
        """Whether SIGHUP came since the last call."""
        self._attend()
        asked, self._reload = self._reload, False
        return asked

    def _attend(self, *, look: bool = False) -> None:
        for number in self._inbox.drain():
            self._take(number)
        hinted = self._watch is not None and inotify.drain(self._watch)
        if look or hinted or self._clock.monotonic() - self._looked_at >= _LOOK_EVERY:
            self._look()
        self._on_beat()

    def _take(self, number: signal.Signals) -> None:
        if number in {signal.SIGTERM, signal.SIGINT}:
            self._signals += 1
            urgency = Urgency(min(self._signals, Urgency.KILL))
            self._ask(StopReason.SIGNAL, urgency, f"stopped by {number.name}")
        elif number == signal.SIGQUIT:
            self._ask(StopReason.SIGNAL, Urgency.NOW, "stopped by SIGQUIT")
        elif number == signal.SIGUSR1:
            self._triggered = True
        elif number == signal.SIGHUP:
            self._reload = True

    def _look(self) -> None:
        sight = self._stop_file.look(_ANSWER_WITHIN)
        self._looked_at = self._clock.monotonic()
        if sight is not Sight.UNKNOWN:
            self._answered_at = self._looked_at
        elif self._looked_at - self._answered_at > _DOUBT:
            self._ask(StopReason.STOP_FILE, Urgency.AFTER_CYCLE, f"stop-file {self._stop_file.path} cannot be seen")
        if isinstance(sight.value, Urgency):
            detail = f"stop-file {self._stop_file.path} was in place; `run-cycle-loop resume` removes it"
            self._ask(StopReason.STOP_FILE, sight.value, detail)

    def _in_doubt(self) -> bool:
        return self._looked_at != self._answered_at

    def _ask(self, reason: StopReason, urgency: Urgency, detail: str) -> None:
        """Keep the first request's reason; a later one can only raise its urgency."""
        known = self._request
        if known is not None and urgency <= known.urgency:
            return
        self._request = StopRequest(
            reason=known.reason if known else reason,
            urgency=urgency,
            detail=known.detail if known else detail,
        )
        self._on_request(self._request)

    def close(self) -> None:
        """Give the descriptors back."""
        self._poll.close()
        if self._watch is not None:
            with suppress(OSError):
                os.close(self._watch)


def _nothing() -> None:
    """Nobody listens yet."""


def _nobody(_request: StopRequest) -> None:
    """Nobody listens yet."""
