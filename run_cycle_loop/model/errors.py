"""Errors, cut by who must act. Each message is one sentence with the wrong value and the next step.

A cycle's own failure is never an exception: it is an :class:`~run_cycle_loop.model.enums.Outcome`.
"""


class RunCycleLoopError(Exception):
    """The root of every error this product raises on purpose; ``exit_code`` is what the command leaves with."""

    exit_code = 1


class ConfigError(RunCycleLoopError):
    """The operator must change a setting."""

    exit_code = 2


class AlreadyRunning(RunCycleLoopError):  # noqa: N818 - the word of the architecture; it is a fact, not a fault
    """Another instance holds the lock of this state directory."""

    exit_code = 75


class StateError(RunCycleLoopError):
    """What happened cannot be recorded: stop rather than run blind."""

    exit_code = 74


class RunnerError(RunCycleLoopError):
    """This cycle could not be run at all; the loop goes on. ``exit_code`` follows coreutils ``timeout``: 126, 127."""

    def __init__(self, message: str, *, exit_code: int = 126) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ClientError(RunCycleLoopError):
    """A far end (a remote repository, an API) did not answer as it should; each client has its own kind of it."""
