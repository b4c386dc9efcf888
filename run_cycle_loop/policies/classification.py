"""What a cycle came to: the one place that assigns an outcome."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

from run_cycle_loop.model.enums import AgentClass, Ending, GuardMode, Outcome
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.records import ArtifactVerdict, CycleSpec, PrerequisiteReport, RunResult
from run_cycle_loop.model.sessions import AgentReport

TIMED_OUT = 124  #: the exit code of coreutils ``timeout``; only where *we* timed it out


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """An outcome with its reason and the return code that stands for it."""

    outcome: Outcome
    reason: str
    return_code: int | None = None
    report: AgentReport | None = None  #: what the cycle said of its agent, whoever decided in the end


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
    try:
        report = AgentReport.from_control(result.control)
    except ValueError as error:
        report, doubt = None, str(error)
    else:
        doubt = ""
    verdict = _judged(spec, result, artifact, report, doubt)
    return replace(verdict, report=report)


def _judged(
    spec: CycleSpec, result: RunResult, artifact: ArtifactVerdict | None, report: AgentReport | None, doubt: str
) -> Verdict:
    """The first that has a say: the guards, whoever ended it, the agent's own report, the exit code."""
    ending = _judge_guards(result) or _judge_ending(spec, result)
    if ending is None and doubt:
        # A cycle that says how its agent ended, in words that nobody knows, is not believed to have gone well.
        ending = Outcome.FAILED, f"its control file tells the agent's end in words that cannot be understood: {doubt}"
    judge = _AGENT_ENDS.get(report.ended) if report else None
    if ending is None and report and judge:
        return judge(report, result, artifact)
    outcome, reason = ending or _judge_exit(result, artifact)
    return Verdict(outcome=outcome, reason=reason, return_code=_return_code(result))


def _judge_guards(result: RunResult) -> tuple[Outcome, str] | None:
    """The verdict where something of it lives on, or where what it wrote had to be undone."""
    if result.survivors:
        return Outcome.ERROR, f"{result.survivors} processes could not be ended, not even by SIGKILL"
    finding = result.tree.finding if result.tree else None
    if finding is not None and not finding.ok and finding.mode is GuardMode.ENFORCE:
        return Outcome.FAILED, f"{finding.guard}: {finding.detail}"
    if result.ending is Ending.GUARD:
        return Outcome.FAILED, "write_cap: was ended over a write cap, though less stands there now"
    return None


def _judge_ending(spec: CycleSpec, result: RunResult) -> tuple[Outcome, str] | None:
    """The verdict where we ended it."""
    timed_out = f"ran past its timeout of {spec.timeout or 0:g} s"
    if spec.allowed_seconds is not None and spec.timeout == spec.allowed_seconds:
        timed_out += ", all that its budget had left"
    return {
        Ending.TIMEOUT: (Outcome.TIMEOUT, timed_out),
        Ending.IDLE_TIMEOUT: (Outcome.TIMEOUT, f"printed nothing for {spec.idle_timeout or 0:g} s"),
        Ending.INTERRUPT: (Outcome.INTERRUPTED, "ended on the operator's word"),
    }.get(result.ending)


def _judge_exit(result: RunResult, artifact: ArtifactVerdict | None) -> tuple[Outcome, str]:
    """The verdict where it ended by itself, and no agent says otherwise."""
    if result.signal is not None:
        return Outcome.FAILED, f"ended by {_signal_name(result.signal)}"
    if result.exit_code != 0:
        return Outcome.FAILED, f"exit code {result.exit_code}"
    if artifact is not None and not artifact.fresh:
        return Outcome.DEGRADED, artifact.detail
    return Outcome.SUCCESS, "exit code 0"


def _told(outcome: Outcome, return_code: int | None = None) -> Callable[..., Verdict]:
    """A verdict that is the agent's own report, whatever the exit code: agents leave with 0 after all of these."""

    def verdict(report: AgentReport, result: RunResult, _artifact: ArtifactVerdict | None) -> Verdict:
        words = "; ".join(filter(None, (report.reason, report.advice)))
        code = _return_code(result) if return_code is None else return_code
        reason = f"{report.ended}: {words.removeprefix(f'{report.ended}: ')}" if words else str(report.ended)
        return Verdict(outcome=outcome, reason=reason, return_code=code)

    return verdict


def _no_change(report: AgentReport, result: RunResult, artifact: ArtifactVerdict | None) -> Verdict:
    outcome, reason = _judge_exit(result, artifact)
    if outcome is Outcome.SUCCESS:
        outcome, reason = Outcome.DEGRADED, f"no_change: {report.reason or 'the agent changed nothing'}"
    return Verdict(outcome=outcome, reason=reason, return_code=_return_code(result))


#: How an agent's report is read where its cycle ended by itself; ``ok`` is for the exit code to confirm.
_AGENT_ENDS = {
    AgentClass.NO_CHANGE: _no_change,
    AgentClass.TOOL_ERROR: _told(Outcome.FAILED),
    AgentClass.AUTH: _told(Outcome.FAILED),
    AgentClass.BUDGET: _told(Outcome.FAILED),
    AgentClass.PERMISSION_DENIED: _told(Outcome.FAILED),
    AgentClass.RATE_LIMITED: _told(Outcome.RATE_LIMITED),
    AgentClass.TIMEOUT: _told(Outcome.TIMEOUT, TIMED_OUT),
    AgentClass.INTERRUPTED: _told(Outcome.INTERRUPTED),
}


def next_streak(streak: int, outcome: Outcome) -> int:
    """Consecutive failures after this outcome: only a success ends the streak.

    A degraded, interrupted or rate-limited cycle neither lengthens it nor proves that the trouble is over.
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
