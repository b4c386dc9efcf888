"""The closed vocabularies: what a cycle came to, what the loop is doing, why it stopped and how hard."""

from enum import IntEnum, StrEnum


class Outcome(StrEnum):
    """What one cycle came to; assigned in one place, ``policies.classification``."""

    SUCCESS = "success"  #: exit 0, and the artifact is fresh where one is expected
    DEGRADED = "degraded"  #: exit 0, but no new and valid artifact
    FAILED = "failed"  #: the cycle ended by itself with another exit code or by a signal
    TIMEOUT = "timeout"  #: ended by us: past its deadline, or silent for too long
    PREREQ_FAILED = "prereq_failed"  #: skipped: a required check failed
    ERROR = "error"  #: could not be run at all, or could not be ended
    INTERRUPTED = "interrupted"  #: ended by us on the operator's word
    LOST = "lost"  #: the supervisor did not survive it
    RATE_LIMITED = "rate_limited"  #: the far end asked to wait; no failure, and no iteration is counted for it
    SKIPPED = "skipped"  #: not run on purpose

    @property
    def is_failure(self) -> bool:
        """Whether it lengthens the streak that leads to backoff and to the failure limit."""
        return self in _FAILURES


_FAILURES = frozenset({Outcome.FAILED, Outcome.TIMEOUT, Outcome.PREREQ_FAILED, Outcome.ERROR, Outcome.LOST})


class LoopState(StrEnum):
    """What the loop is doing now, as ``latest.json`` and systemd's STATUS show it."""

    STARTING = "starting"
    CHECKING = "checking"
    RUNNING = "running"
    WAITING = "waiting"  #: between cycles, by ``--sleep``
    BACKOFF = "backoff"  #: between cycles, after a failure
    HELD = "held"  #: state cannot be written; no cycle is started until it can
    STOPPING = "stopping"
    STOPPED = "stopped"


class Urgency(IntEnum):
    """How hard a stop is meant; a later request can only raise it."""

    AFTER_CYCLE = 1  #: finish the current cycle first
    NOW = 2  #: end the current cycle: TERM, grace, KILL
    KILL = 3  #: end it without grace


class StopReason(StrEnum):
    """Why the loop ended; each maps to one exit code in ``policies.continuation``."""

    ITERATIONS_DONE = "iterations_done"
    CONDITION_FALSE = "condition_false"
    CONDITION_ERROR = "condition_error"
    SIGNAL = "signal"
    STOP_FILE = "stop_file"
    FAILURE_LIMIT = "failure_limit"
    PERMANENT_FAILURE = "permanent_failure"  #: what failed will fail again until a person has changed something
    BREAKER_OPEN = "breaker_open"
    BUDGET_SPENT = "budget_spent"
    RATE_LIMITED = "rate_limited"  #: a single cycle was asked for, and the far end asked to wait
    GOALS_DONE = "goals_done"
    STATE_UNWRITABLE = "state_unwritable"


class GuardMode(StrEnum):
    """What a guard does about what it finds."""

    OFF = "off"
    WARN = "warn"  #: says so in the record, and lets it pass
    ENFORCE = "enforce"


class AgentClass(StrEnum):
    """How an agent's session ended; an adapter assigns it from structured events, never from echoed text."""

    OK = "ok"
    NO_CHANGE = "no_change"  #: ended well, and neither used a tool nor changed anything
    TOOL_ERROR = "tool_error"  #: ended with an error of its own, or without a usable answer
    AUTH = "auth"  #: not logged in, key refused, account not allowed
    RATE_LIMITED = "rate_limited"  #: asked to wait
    BUDGET = "budget"  #: money or credit is used up: the provider's, or what this session was allowed
    PERMISSION_DENIED = "permission_denied"  #: wanted something that nobody was there to allow
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class Role(StrEnum):
    """What an agent may do to its workdir."""

    WRITE = "write"
    READ_ONLY = "read-only"


class Ending(StrEnum):
    """What ended a child process: itself, or we."""

    EXIT = "exit"
    TIMEOUT = "timeout"
    IDLE_TIMEOUT = "idle_timeout"
    INTERRUPT = "interrupt"
    GUARD = "guard"  #: a guard that looked on would not let it go on
