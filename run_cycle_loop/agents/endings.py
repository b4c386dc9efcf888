"""The results of sessions that did not end well, alike for every agent."""

from dataclasses import replace

from run_cycle_loop.agents.adapter import AgentResult, Ended
from run_cycle_loop.agents.failures import Failure, how_ended, judge_failure, one_line, why_stopped
from run_cycle_loop.model.enums import AgentClass


def failed(failure: Failure, reason: str) -> AgentResult:
    """The result of a failure that was judged; the reader adds what it has counted."""
    return AgentResult(
        ended=failure.ended,
        reason=one_line(reason),
        advice=failure.advice,
        retry_at=failure.retry_at,
        permanent=failure.permanent,
    )


def without_final_event(ended: Ended, agent: str, *, began: bool, sign_in: str) -> AgentResult:
    """The result of a session whose closing event was never seen.

    Args:
        ended: how its process ended; why *we* ended it decides over all else.
        agent: its name.
        began: whether it had begun to work. Before that, standard error holds its own complaint about its settings;
            after that, anything may stand there.
        sign_in: what a person does to log this agent in.
    """
    if ended.stopped is not None:
        return AgentResult(ended=ended.stopped, reason=why_stopped(ended.stopped))
    if began:
        reason = one_line(f"{agent} ended without its closing event: {how_ended(ended)}")
        return AgentResult(ended=AgentClass.TOOL_ERROR, reason=reason)
    failure = judge_failure(ended.stderr_tail[-4096:], status=None, retry_after=None, now=ended.at, sign_in=sign_in)
    if failure.ended is AgentClass.RATE_LIMITED:
        # Nothing was asked yet, so nobody can have asked to wait.
        failure = replace(failure, ended=AgentClass.TOOL_ERROR, retry_at=None)
    return failed(failure, f"{agent} did not begin: {how_ended(ended)}")
