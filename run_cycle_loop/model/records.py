"""The values that flow along one cycle, in the order in which they arise: what is asked, what was checked, what was
observed, what is kept, and what the operator sees.

Every record is frozen. Times are aware UTC datetimes; durations are seconds as floats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from run_cycle_loop.model import reading
from run_cycle_loop.model.enums import AgentClass, Ending, GuardMode, LoopState, Outcome, StopReason, Urgency

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a cycle is to reach, and which of the operator's sources it came from."""

    text: str
    origin: Mapping[str, Any] = field(default_factory=dict)  #: JSON: where it came from; with chance, by which seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What an agent's session consumed, in the same terms whichever agent it was."""

    input_tokens: int = 0  #: all of them, those read from a cache included
    cached_input_tokens: int = 0
    output_tokens: int = 0  #: all of them, those spent on reasoning included
    reasoning_tokens: int = 0
    cost_usd: float | None = None  #: None: no price is known. An agent's zero beside tokens means the same
    calls: int | None = None  #: requests to a model, where the agent tells
    complete: bool = True  #: False: of a session that was cut off, so at least so much
    source: str = ""  #: how it was read: what of the agent's output was added up

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.input_tokens + self.output_tokens

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of a control payload and a record."""
        return _flat(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read a usage that somebody else wrote.

        Raises:
            ValueError: something in it is no count or no price: none of it can be believed.
        """
        counts = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
        calls = value.get("calls")
        return cls(
            **{name: reading.count(value.get(name)) for name in counts},
            cost_usd=reading.seconds_or_none(value.get("cost_usd")),
            calls=None if calls is None else reading.count(calls),
            complete=bool(reading.truth(value.get("complete"), default=True)),
            source=reading.text(value.get("source")),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentReport:
    """What a cycle says of the agent that it ran: the part of the control payload that decides."""

    agent: str
    ended: AgentClass
    reason: str = ""  #: one sentence
    advice: str = ""  #: what a person is to do, where only a person can help
    retry_at: datetime | None = None  #: when the far end can be asked again, by its own word
    permanent: bool = False  #: it will fail again in the same way until a person has changed something

    @classmethod
    def from_control(cls, control: Mapping[str, Any] | None) -> Self | None:
        """Read it out of a control payload; None where the payload says nothing of an agent's end.

        Raises:
            ValueError: it says something that cannot be understood.
        """
        ended = (control or {}).get("class")
        if control is None or ended is None:
            return None
        at = reading.text_or_none(control.get("retry_at"))
        return cls(
            agent=reading.text(control.get("agent")),
            ended=AgentClass(reading.text(ended)),
            reason=reading.text(control.get("reason")),
            advice=reading.text(control.get("advice")),
            retry_at=None if at is None else _moment(at),
            permanent=bool(reading.truth(control.get("permanent"), default=False)),
        )


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r:.80} lies beyond all time that can be counted") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardFinding:
    """What one guard has to say of one cycle; only what the operator should read is kept."""

    guard: str  #: ``write_cap consent git budget breaker isolation``
    mode: GuardMode
    ok: bool
    detail: str  #: one sentence: what was found, and what follows

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of a record."""
        return _flat(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeVerdict:
    """What a cycle did to the tree it works in, as measured from outside."""

    files: int = 0  #: created, changed or deleted
    bytes: int = 0  #: in created and changed files
    fingerprint: str | None = None  #: of the tree as it is left; None where it could not be taken
    finding: GuardFinding | None = None  #: None: within the caps, or nothing is measured
    quarantine: Path | None = None  #: where what was written over the cap is parked


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleSpec:
    """What is asked of one cycle."""

    cycle_id: str  #: unique for ever; every process of the cycle carries it as RUN_CYCLE_ID
    number: int  #: 1-based over the life of the state directory
    index: int  #: 1-based within this run of the supervisor
    mode: str
    goal: str
    started_at: datetime
    timeout: float | None  #: seconds; None: none
    idle_timeout: float | None  #: seconds without output; None: none
    grace: float  #: seconds between TERM and KILL
    control_file: str  #: where the cycle may leave its control payload, a JSON object
    log_path: str | None  #: None where no log could be opened
    goal_origin: Mapping[str, Any] = field(default_factory=dict)  #: see :class:`Goal`
    agent: str | None = None  #: the agent that the cycle starts; None: the cycle is a command of the operator's
    allowed_usd: float | None = None  #: what is left of the budgets for this cycle; None is no limit
    allowed_tokens: int | None = None
    allowed_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """One prerequisite's verdict."""

    name: str
    ok: bool
    detail: str  #: one line: what was found, and what to do where it is not ok
    required: bool = True
    guard: str | None = None  #: the guard that asks; what it finds is kept in the record


@dataclass(frozen=True, kw_only=True, slots=True)
class PrerequisiteReport:
    """All the verdicts, not only the first that failed."""

    checks: tuple[CheckResult, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether a cycle may start: optional checks do not count."""
        return all(check.ok or not check.required for check in self.checks)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The required checks that did not hold."""
        return tuple(check for check in self.checks if check.required and not check.ok)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What was observed of the child. No judgement."""

    ending: Ending
    exit_code: int | None  #: of the leader; None where a signal ended it
    signal: int | None  #: the signal that ended the leader
    duration: float
    stderr_tail: str = ""
    output_bytes: int = 0
    leftovers: int = 0  #: processes that outlived the leader and were ended by us
    survivors: int = 0  #: processes that could not be ended (uninterruptible sleep)
    control: Mapping[str, Any] | None = None
    control_error: str | None = None  #: why the control file could not be taken
    tree: TreeVerdict | None = None  #: what it did to its workdir; None where that is not measured


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactVerdict:
    """Whether the cycle left a new, valid archive."""

    fresh: bool
    path: Path | None  #: the newest archive, fresh or not
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisorIdentity:
    """Who runs the loop; pid, start time and boot id together never name a stranger."""

    pid: int
    start_ticks: int  #: kernel clock ticks after boot, /proc/PID/stat field 22
    boot_id: str
    host: str
    version: str
    started_at: str  #: ISO 8601


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleRecord:
    """What is kept of one cycle: one line of the history.

    The first ten keys are those of the design's first implementation, whose lines still read.
    """

    timestamp: str  #: ISO 8601, when the record was made
    mode: str
    goal: str
    status: Outcome
    prerequisites_ok: bool
    return_code: int | None  #: 124 only where *we* timed it out, 128+n for signal n, 126/127 could not run
    duration_seconds: float
    archive_created: bool | None  #: None where no archive is expected
    archive_path: str | None
    log_path: str | None
    schema_version: int = SCHEMA_VERSION
    cycle_id: str = ""
    number: int = 0
    started_at: str = ""
    finished_at: str = ""
    reason: str = ""
    signal: int | None = None
    consecutive_failures: int = 0
    stale_cycles: int = 0  #: cycles in a row whose archive was not fresh
    failed_checks: tuple[str, ...] = ()
    log_error: str | None = None  #: why the log is missing or incomplete
    stderr_tail: str = ""
    output_bytes: int = 0
    leftovers: int = 0
    usage: Mapping[str, Any] | None = None
    control: Mapping[str, Any] | None = None
    next_delay_seconds: float | None = None  #: None where the loop ended with this cycle
    goal_origin: Mapping[str, Any] | None = None
    agent: str | None = None
    agent_class: str | None = None  #: an AgentClass, as the cycle's control payload gave it
    advice: str | None = None  #: what a person is to do, where only a person can help
    retry_at: str | None = None  #: ISO 8601: no cycle starts before, because the far end asked to wait
    permanent: bool = False  #: it fails again until a person has changed something
    guards: tuple[Mapping[str, Any], ...] = ()  #: findings of guards, each with guard, mode, ok, detail
    files_changed: int | None = None  #: None where the workdir is not measured
    bytes_changed: int | None = None
    fingerprint: str | None = None  #: of the workdir as the cycle left it
    quarantine: str | None = None  #: where what was written over the cap is parked
    charged: Mapping[str, Any] | None = None  #: what the budgets were charged: usd, tokens, seconds, estimated
    supervisor: SupervisorIdentity | None = None

    @property
    def charged_usd(self) -> float:
        """What the budgets were charged for it, in USD; what cannot be read counts as nothing."""
        return _amount(self.charged, "usd")

    @property
    def charged_tokens(self) -> int:
        """What the budgets were charged for it, in tokens."""
        return int(_amount(self.charged, "tokens"))

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of one history line."""
        return {**_flat(self), "supervisor": _flat(self.supervisor) if self.supervisor else None}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> Self:
        """Read a line of any version.

        Raises:
            ValueError: the object is no record of ours.
        """
        try:
            known = {name: read(line.get(name)) for name, read in _RECORD_READERS.items()}
        except ValueError as error:
            raise ValueError(f"not a cycle record: {error}") from error
        known["status"] = outcome_of(line)
        known["supervisor"] = identity_of(line.get("supervisor"))
        known["timestamp"] = known["timestamp"] or known["finished_at"]
        return cls(**known)


def outcome_of(line: Mapping[str, Any]) -> Outcome:
    """The outcome of a history line of any version; the ancestor's ``ok`` beside a non-zero code is a failure.

    Raises:
        ValueError: the line has none.
    """
    word = line.get("status")
    if not isinstance(word, str) or not word:
        raise ValueError(f"not a cycle record: its status is {word!r}")
    try:
        outcome = _ANCESTOR_WORDS.get(word) or Outcome(word)
    except ValueError:
        # A word this version does not know is no success.
        outcome = Outcome.ERROR
    if outcome is Outcome.SUCCESS and line.get("return_code") not in (0, None):
        return Outcome.FAILED
    return outcome


_ANCESTOR_WORDS = {
    "ok": Outcome.SUCCESS,
    "completed": Outcome.SUCCESS,
    "failure": Outcome.FAILED,
    "prerequisites_failed": Outcome.PREREQ_FAILED,
    "prereq_failure": Outcome.PREREQ_FAILED,
}


def identity_of(value: object) -> SupervisorIdentity | None:
    """Who a foreign JSON value names; None where it is no identity."""
    if not isinstance(value, dict):
        return None
    try:
        return SupervisorIdentity(
            pid=reading.count(value["pid"]),
            start_ticks=reading.count(value["start_ticks"]),
            **{name: reading.text(value[name]) for name in ("boot_id", "host", "version", "started_at")},
        )
    except (KeyError, ValueError):
        return None


def _amount(charged: Mapping[str, Any] | None, unit: str) -> float:
    try:
        return reading.seconds((charged or {}).get(unit))
    except ValueError:
        return 0.0


def _flat(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


#: How each field of a history line is read; ``status`` and ``supervisor`` have readers of their own.
_RECORD_READERS: Mapping[str, Callable[[object], Any]] = {
    **dict.fromkeys(("timestamp", "mode", "goal", "cycle_id", "started_at", "finished_at"), reading.text),
    **dict.fromkeys(("reason", "stderr_tail"), reading.text),
    **dict.fromkeys(("archive_path", "log_path", "log_error"), reading.text_or_none),
    **dict.fromkeys(("number", "consecutive_failures", "stale_cycles", "output_bytes", "leftovers"), reading.count),
    **dict.fromkeys(("agent", "agent_class", "advice", "retry_at", "fingerprint", "quarantine"), reading.text_or_none),
    **dict.fromkeys(("return_code", "signal", "files_changed", "bytes_changed"), reading.whole_or_none),
    **dict.fromkeys(("usage", "control", "goal_origin", "charged"), reading.mapping_or_none),
    "guards": reading.mappings,
    "permanent": lambda value: reading.truth(value, default=False),
    "schema_version": reading.whole,
    "prerequisites_ok": lambda value: reading.truth(value, default=True),
    "archive_created": lambda value: reading.truth(value, default=None),
    "duration_seconds": reading.seconds,
    "next_delay_seconds": reading.seconds_or_none,
    "failed_checks": reading.texts,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningCycle:
    """The cycle in flight, as written ahead of its launch: enough to find and end what a dead supervisor left."""

    cycle_id: str
    number: int
    mode: str
    goal: str
    started_at: str
    boot_id: str
    log_path: str | None
    supervisor_pid: int
    leader_pid: int | None = None
    leader_start_ticks: int | None = None
    output_inodes: tuple[int, ...] = ()  #: the pipes that the cycle's processes write to
    agent: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of the in-flight slot."""
        return _flat(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read the slot.

        Raises:
            ValueError: the object is no in-flight cycle.
        """
        try:
            known = {name: read(value.get(name)) for name, read in _RUNNING_READERS.items()}
        except ValueError as error:
            raise ValueError(f"not a cycle in flight: {error}") from error
        if not known["cycle_id"]:
            raise ValueError("not a cycle in flight: it has no cycle_id")
        return cls(**known)


_RUNNING_READERS: Mapping[str, Callable[[object], Any]] = {
    **dict.fromkeys(("cycle_id", "mode", "goal", "started_at", "boot_id"), reading.text),
    **dict.fromkeys(("number", "supervisor_pid"), reading.count),
    **dict.fromkeys(("leader_pid", "leader_start_ticks"), reading.whole_or_none),
    **dict.fromkeys(("log_path", "agent"), reading.text_or_none),
    "output_inodes": reading.counts,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSnapshot:
    """What ``latest.json`` shows. Derived from the history wherever it outlives a moment; rebuildable."""

    state: LoopState
    updated_at: str
    schema_version: int = SCHEMA_VERSION
    seq: int = 0  #: number of the last recorded cycle
    supervisor: SupervisorIdentity | None = None
    cycle: RunningCycle | None = None  #: the cycle in flight
    counts: Mapping[str, int] = field(default_factory=dict)  #: recorded cycles by outcome
    success_count: int = 0
    failure_count: int = 0
    consecutive_failures: int = 0
    stale_cycles: int = 0
    last_cycle: Mapping[str, Any] | None = None  #: cycle_id, number, status, reason, finished_at, duration, log
    charged_usd: float = 0.0  #: all that the budgets were charged, estimates included
    charged_tokens: int = 0
    last_success_at: str | None = None
    last_archive: str | None = None
    next_run_at: str | None = None
    stop_reason: StopReason | None = None
    state_errors: int = 0  #: failed attempts to write state, in this run
    observer_errors: int = 0  #: exceptions of observers, in this run
    note: str = ""  #: one sentence where there is something to say (why it is held, what was set aside)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of ``latest.json``."""
        return {
            **_flat(self),
            "supervisor": _flat(self.supervisor) if self.supervisor else None,
            "cycle": self.cycle.as_dict() if self.cycle else None,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read ``latest.json``.

        Raises:
            ValueError: wrong types, or a schema newer than this version.
        """
        if value.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema version {value.get('schema_version')!r} is not {SCHEMA_VERSION}")
        numbers = (
            "seq",
            "success_count",
            "failure_count",
            "consecutive_failures",
            "stale_cycles",
            "state_errors",
            "observer_errors",
            "charged_tokens",
        )
        texts = ("updated_at", "note")
        try:
            counts = {str(Outcome(key)): reading.count(count) for key, count in dict(value.get("counts") or {}).items()}
            cycle = value.get("cycle")
            reason = value.get("stop_reason")
            last = value.get("last_cycle")
            known: dict[str, Any] = {
                "state": LoopState(value["state"]),
                "supervisor": identity_of(value.get("supervisor")),
                "cycle": RunningCycle.from_dict(reading.mapping_or_none(cycle) or {}) if cycle is not None else None,
                "counts": counts,
                "last_cycle": dict(last) if last is not None else None,
                "stop_reason": StopReason(reason) if reason is not None else None,
                "charged_usd": reading.seconds(value.get("charged_usd")),
                **{name: reading.count(value.get(name)) for name in numbers},
                **{name: reading.text(value.get(name)) for name in texts},
                **{
                    name: reading.text_or_none(value.get(name))
                    for name in ("last_success_at", "last_archive", "next_run_at")
                },
            }
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a snapshot: {error}") from error

    def counting(self, record: CycleRecord) -> "LoopSnapshot":
        """This snapshot with one more recorded cycle in it."""
        counts = dict(self.counts)
        counts[record.status] = counts.get(record.status, 0) + 1
        success = record.status is Outcome.SUCCESS
        return replace(
            self.showing(record),
            counts=counts,
            success_count=self.success_count + success,
            failure_count=self.failure_count + record.status.is_failure,
            charged_usd=round(self.charged_usd + record.charged_usd, 6),
            charged_tokens=self.charged_tokens + record.charged_tokens,
        )

    def showing(self, record: CycleRecord) -> "LoopSnapshot":
        """This snapshot with a record as its last one, whatever is counted."""
        finished_at = record.finished_at or record.timestamp
        return replace(
            self,
            seq=max(self.seq, record.number),
            consecutive_failures=record.consecutive_failures,
            stale_cycles=record.stale_cycles,
            last_cycle={
                "cycle_id": record.cycle_id,
                "number": record.number,
                "status": record.status,
                "reason": record.reason,
                "started_at": record.started_at,
                "finished_at": finished_at,
                "duration_seconds": record.duration_seconds,
                "log_path": record.log_path,
                "agent": record.agent,
                "advice": record.advice,
                "guards": list(record.guards),
            },
            last_success_at=finished_at if record.status is Outcome.SUCCESS else self.last_success_at,
            last_archive=record.archive_path if record.archive_created else self.last_archive,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequest:
    """Who wants the loop stopped, and how hard."""

    reason: StopReason
    urgency: Urgency
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Continue:
    """The loop goes on after ``delay`` seconds, and not before ``until`` by the wall clock."""

    delay: float
    why: str
    backoff: bool = False
    until: datetime | None = None  #: looked at again and again: clocks are set, machines sleep
    instead: StopReason | None = None  #: why a loop ends that may not wait; None: it goes on at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Halt:
    """The loop ends."""

    reason: StopReason
    why: str


Decision = Continue | Halt


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and ``Z``, sortable as text."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
