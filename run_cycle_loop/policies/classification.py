"""What a cycle came to: the one place that assigns an outcome."""

import signal
from dataclasses import dataclass

from run_cycle_loop.model.enums import Ending, Outcome
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.records import ArtifactVerdict, CycleSpec, PrerequisiteReport, RunResult

TIMED_OUT = 124  #: the exit code of coreutils ``timeout``; only where *we* timed it out


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """An outcome with its reason and the return code that stands for it."""

    outcome: Outcome
    reason: str
    return_code: int | None = None


def judge_skipped(report: PrerequisiteReport) -> Verdict:
    """A cycle that was not run because a required check failed."""
    reason = "; ".join(f"{check.name}: {check.detail}" for check in report.failures)
    return Verdict(outcome=Outcome.PREREQ_FAILED, reason=reason)


def judge_error(error: RunnerError) -> Verdict:
    """A cycle that could not be run at all."""
    return Verdict(outcome=Outcome.ERROR, reason=str(error), return_code=error.exit_code)


def judge_run(spec: CycleSpec, result: RunResult, artifact: ArtifactVerdict | None) -> Verdict:
    """A cycle that ran.

    Args:
        spec: what was asked.
        result: what was observed.
        artifact: whether a fresh archive came; None where none is expected.
    """
    outcome, reason = _judge_ending(spec, result) or _judge_exit(result, artifact)
    return Verdict(outcome=outcome, reason=reason, return_code=_return_code(result))


def _judge_ending(spec: CycleSpec, result: RunResult) -> tuple[Outcome, str] | None:
    """The verdict where we ended it, or could not."""
    if result.survivors:
        return Outcome.ERROR, f"{result.survivors} processes could not be ended, not even by SIGKILL"
    return {
        Ending.TIMEOUT: (Outcome.TIMEOUT, f"ran past its timeout of {spec.timeout or 0:g} s"),
        Ending.IDLE_TIMEOUT: (Outcome.TIMEOUT, f"printed nothing for {spec.idle_timeout or 0:g} s"),
        Ending.INTERRUPT: (Outcome.INTERRUPTED, "ended on the operator's word"),
    }.get(result.ending)


def _judge_exit(result: RunResult, artifact: ArtifactVerdict | None) -> tuple[Outcome, str]:
    """The verdict where it ended by itself."""
    if result.signal is not None:
        return Outcome.FAILED, f"ended by {_signal_name(result.signal)}"
    if result.exit_code != 0:
        return Outcome.FAILED, f"exit code {result.exit_code}"
    if artifact is not None and not artifact.fresh:
        return Outcome.DEGRADED, artifact.detail
    return Outcome.SUCCESS, "exit code 0"


def next_streak(streak: int, outcome: Outcome) -> int:
    """Consecutive failures after this outcome: only a success ends the streak.

    A degraded or interrupted cycle neither lengthens it nor proves that the trouble is over.
    """
    if outcome.is_failure:
        return streak + 1
    return 0 if outcome is Outcome.SUCCESS else streak


def _return_code(result: RunResult) -> int | None:
    if result.ending in {Ending.TIMEOUT, Ending.IDLE_TIMEOUT}:
        return TIMED_OUT
    if result.signal is not None:
        return 128 + result.signal
    return result.exit_code


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
