"""The run's own log: how an event becomes a line, and which events the loop's life makes.

Events are dotted constants, facts are fields. A person at a terminal reads ``12:00:03 cycle.finished  number=3``;
everything else reads one JSON object a line.
"""

import json
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.records import CycleRecord, timestamp
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.observers.lines import ERASE, LineWriter

Redact = Callable[[Any], Any]
_Fields = MutableMapping[str, Any]

#: What needs no look of the operator's in the morning.
_CALM = frozenset({Outcome.SUCCESS, Outcome.INTERRUPTED, Outcome.SKIPPED})


_FINDING = ("guard", "mode", "detail")


class LoggerFactory(Protocol):
    """Narrows the log to one speaker: ``run``, ``cycle``, ``runner``."""

    def __call__(self, name: str, /) -> FilteringBoundLogger:
        """A logger whose every line carries ``logger=name``."""
        ...


def configure(
    *,
    level: str = "info",
    format: str = "auto",  # noqa: A002 - the word of the setting
    stream: TextIO | None = None,
    redact: Redact = lambda value: value,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> LoggerFactory:
    """Set the log up and return what makes loggers; nothing global is touched.

    ``level`` is ``debug info warning error``, ``format`` is ``auto text json`` (``auto``: text on a terminal).
    ``redact`` sees every value, nested ones as they stand. A stream that cannot be written to loses lines, no more.
    """
    writer = LineWriter(stream or sys.stderr)
    text = format == "text" or (format == "auto" and writer.isatty())
    logger = structlog.wrap_logger(
        _Sink(writer),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _stamp(now),
            _redacting(redact),
            render_text if text else render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return lambda name: logger.bind(logger=name)


class _Sink:
    """The end of the processor chain; a line that cannot be written is counted and forgotten."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer
        self._start = ERASE if writer.isatty() else ""  # a progress line may stand there
        self.lost = 0

    def msg(self, line: str) -> None:
        try:
            self._writer.write(self._start + line)
        except OSError:
            self.lost += 1

    debug = info = warning = error = critical = msg


def _stamp(now: Callable[[], datetime]) -> Callable[[Any, str, _Fields], _Fields]:
    def stamp(_logger: Any, _method: str, fields: _Fields) -> _Fields:
        return {"timestamp": now(), **fields}

    return stamp


def _redacting(redact: Redact) -> Callable[[Any, str, _Fields], _Fields]:
    def apply(_logger: Any, _method: str, fields: _Fields) -> _Fields:
        return {key: value if isinstance(value, datetime) else redact(value) for key, value in fields.items()}

    return apply


def render_json(_logger: Any, _method: str, fields: _Fields) -> str:
    """One JSON object: the time in UTC, then the event, then the facts."""
    moment = timestamp(fields.pop("timestamp"))
    event = fields.pop("event")
    facts = {key: value for key, value in fields.items() if value is not None}
    return json.dumps({"timestamp": moment, "event": event, **facts}, default=str)


def render_text(_logger: Any, _method: str, fields: _Fields) -> str:
    """``12:00:03 cycle.finished  number=3 outcome=success``, in local time; warnings and errors say so."""
    moment = fields.pop("timestamp").astimezone().strftime("%H:%M:%S")
    event = printable(str(fields.pop("event")))
    level = fields.pop("level")
    fields.pop("logger", None)
    trace = fields.pop("exception", None)
    mark = "" if level in {"debug", "info"} else f"{level.upper()} "
    facts = " ".join(f"{key}={_fact(value)}" for key, value in fields.items() if value is not None)
    line = f"{moment} {mark}{event}" + (f"  {facts}" if facts else "")
    return line if trace is None else "\n".join((line, printable(trace, keep="\n")))


def _fact(value: Any) -> str:
    """A value as one word where it can be; quoted where it holds spaces, quotes or a terminal's control characters."""
    text = str(value) if isinstance(value, str | int | float) else json.dumps(value, default=str)
    if isinstance(value, str) and (not text or any(char in text for char in ' "=')):
        text = json.dumps(text, ensure_ascii=False)
    return printable(text)


class LogObserver:
    """The loop's life in the log: states, finished cycles, and one alert when the archive has gone stale."""

    def __init__(self, log: FilteringBoundLogger, *, stale_after: int = 0) -> None:
        """``stale_after``: alert after this many cycles in a row without a fresh archive; 0: never."""
        self._log = log
        self._stale_after = stale_after
        self._started = False

    def state_changed(self, snapshot: LoopSnapshot) -> None:
        """Quiet, but for the states in which an operator would ask why nothing runs."""
        facts = {"state": str(snapshot.state), "next_run_at": snapshot.next_run_at, "note": snapshot.note or None}
        match snapshot.state:
            case LoopState.RUNNING if snapshot.cycle:
                self._log.info("cycle.started", number=snapshot.cycle.number, log=snapshot.cycle.log_path)
            case LoopState.HELD:
                self._log.warning("loop.held", **facts)
            case LoopState.BACKOFF:
                self._log.info("loop.backoff", **facts, consecutive_failures=snapshot.consecutive_failures)
            case LoopState.WAITING if snapshot.note:
                self._log.info("loop.waiting", **facts)
            case LoopState.STARTING if not self._started:
                self._started = True
                self._log.info("loop.started", recorded_cycles=snapshot.seq)
            case LoopState.STOPPING if snapshot.cycle:
                self._log.info("loop.stopping", number=snapshot.cycle.number, note=snapshot.note or None)
            case _:
                self._log.debug("loop.state", **facts)

    def cycle_finished(self, record: CycleRecord, snapshot: LoopSnapshot) -> None:
        """One line a cycle; a second one in the cycle at which its archive counts as stale, and only in that one."""
        say = self._log.info if record.status in _CALM else self._log.warning
        say("cycle.finished", **_facts_of(record, stopping=snapshot.state is LoopState.STOPPING))
        for finding in record.guards:
            self._log.warning("guard.finding", number=record.number, **{key: finding.get(key) for key in _FINDING})
        # A cycle of which no archive is expected carries the count along unchanged: it must not alert again.
        if self._stale_after and snapshot.stale_cycles == self._stale_after and record.archive_created is False:
            self._log.warning("artifact.stale", cycles=snapshot.stale_cycles, last_archive=snapshot.last_archive)

    def beat(self) -> None:
        """Not worth a line."""


def _facts_of(record: CycleRecord, *, stopping: bool) -> Mapping[str, Any]:
    delay = None if stopping else record.next_delay_seconds
    return {
        "number": record.number,
        "outcome": str(record.status),
        "duration": format_duration(record.duration_seconds),
        "reason": record.reason or None,
        "consecutive_failures": record.consecutive_failures or None,
        "next": None if delay is None else format_duration(delay),
        "agent": record.agent,
        "usd": record.charged_usd or None,
        "tokens": record.charged_tokens or None,
        "estimated": ",".join(map(str, (record.charged or {}).get("estimated") or ())) or None,
        "stderr": _last_line(record.stderr_tail) if record.status not in _CALM else None,
        "log": record.log_path,
        "log_error": record.log_error,
    }


def _last_line(text: str) -> str | None:
    return text.strip().rpartition("\n")[2] or None
