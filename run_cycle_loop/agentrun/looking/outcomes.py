"""How looking at a run may end, and the exit code of each ending."""

from enum import StrEnum

from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus, read_status
from run_cycle_loop.agentrun.looking.objects import Object


class Result(StrEnum):
    """What a run came to, or why nobody looks any longer."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INVALID = "invalid"  #: refused before anything started
    CANCELLED = "cancelled"
    DELETED = "deleted"  #: it went away while it was watched, or another one has taken its name
    TEMPLATE = "template"  #: it is kept to be copied, and never starts
    TIMED_OUT = "timed-out"  #: the time to wait is over, and it still runs
    BLOCKED = "blocked"  #: the time to wait is over, and it was not let in yet, or nobody has touched it
    STOPPED = "stopped"  #: whoever watched was asked to stop; the run goes on

    @property
    def exit_code(self) -> int:
        """What a command leaves with."""
        return EXIT_CODES[self]

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come of the run itself."""
        return self not in (Result.TIMED_OUT, Result.BLOCKED, Result.STOPPED)


EXIT_CODES = {
    Result.SUCCEEDED: 0,
    Result.FAILED: 1,
    Result.INVALID: 2,
    Result.TEMPLATE: 2,
    Result.CANCELLED: 3,
    Result.DELETED: 4,
    Result.BLOCKED: 5,
    Result.TIMED_OUT: 6,
    Result.STOPPED: 130,
}

_REFUSALS = ("InvalidSpec", "Duplicate")


def result_of(run: Object) -> Result | None:
    """What a run has come to; None while it is on its way."""
    return result_in(read_status(run.get("status")))


def result_in(status: RunStatus) -> Result | None:
    """The same, from its status."""
    match status.phase:
        case Phase.SUCCEEDED:
            return Result.SUCCEEDED
        case Phase.CANCELLED:
            return Result.CANCELLED
        case Phase.FAILED:
            return Result.INVALID if any(_holds(status, kind) for kind in _REFUSALS) else Result.FAILED
        case Phase.TEMPLATE:
            return Result.TEMPLATE
        case _:
            return None


def _holds(status: RunStatus, kind: str) -> bool:
    found = status.condition(kind)
    return found is not None and found.get("status") == "True"
