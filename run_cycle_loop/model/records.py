"""The values that flow along one cycle, in the order in which they arise: what is asked, what was checked, what was
observed, what is kept, and what the operator sees.

Every record is frozen. Times are aware UTC datetimes; durations are seconds as floats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from run_cycle_loop.model import reading
from run_cycle_loop.model.enums import Ending, Outcome
from run_cycle_loop.model.findings import TreeVerdict
from run_cycle_loop.model.flat import flat

SCHEMA_VERSION = 1
_LONGEST_SUMMARY = 300  #: characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a cycle is to reach, and which of the operator's sources it came from."""

    text: str
    origin: Mapping[str, Any] = field(default_factory=dict)  #: JSON: where it came from; with chance, by which seed


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
    def summary(self) -> str | None:
        """What its agent says it did: the first line of it; an agent's word, not an observation."""
        said = (self.control or {}).get("summary")
        lines = said.strip().splitlines() if isinstance(said, str) else []
        return lines[0][:_LONGEST_SUMMARY] if lines else None

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
        return {**flat(self), "supervisor": flat(self.supervisor) if self.supervisor else None}

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
        return flat(self)

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


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and ``Z``, sortable as text."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
