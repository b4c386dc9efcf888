"""A loop after one of its iterations has succeeded: whether it goes on, ends, or cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from run_cycle_loop.agentrun.lifecycle.actions import LookAgain, Verdict
from run_cycle_loop.agentrun.lifecycle.control import Control
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.lifecycle.status import IterationStatus, LoopStatus, LoopStop, Phase, StepStatus
from run_cycle_loop.agentrun.model import LoopCondition, Step
from run_cycle_loop.policies.expressions import Expression, ExpressionError, SyntaxFault

CONTINUING = "Loop continuing"
_ENDED_BADLY = (Phase.FAILED, Phase.CANCELLED)


def after_iteration(step: Step, status: StepStatus, control: Control, *, now: datetime, history_limit: int) -> Verdict:
    """What follows an iteration whose work has succeeded.

    Args:
        step: the step, with a loop.
        status: of the step, whose iteration it is.
        control: what the iteration left for the condition.
        now: the moment.
        history_limit: iterations that a status keeps.
    """
    spec, loop = step.loop, status.loop
    if spec is None or loop is None:
        return Verdict(replace(status, phase=Phase.SUCCEEDED))
    iteration = loop.iteration(loop.current) or IterationStatus(index=loop.current, attempts=status.attempt)
    loop = replace(loop, completed=max(loop.completed, iteration.index))
    turn = _Turn(step=step, status=status, loop=loop, iteration=iteration, history_limit=history_limit, now=now)
    if loop.completed >= spec.max_iterations:  # looked at first: the last iteration's control is never read
        return turn.ends(LoopStop.MAX_ITERATIONS)
    if spec.condition is None:
        return turn.goes_on()
    if control.payload is None:
        return _without_payload(replace(turn, loop=replace(loop, last_control=None)), spec.condition, control)
    turn = replace(turn, loop=replace(loop, last_control=control.payload))
    wanted = _is_wanted(spec.condition, loop.completed, spec.max_iterations, control.payload)
    if isinstance(wanted, str):
        return turn.fails(wanted)
    return turn.goes_on() if wanted else turn.ends(LoopStop.CONDITION_FALSE)


def kept(loop: LoopStatus, iteration: IterationStatus, history_limit: int) -> LoopStatus:
    """The loop with this iteration in it; of too many the oldest are dropped, but never the last failed one."""
    every = sorted([one for one in loop.iterations if one.index != iteration.index] + [iteration], key=_index)
    surplus = len(every) - history_limit
    if surplus <= 0:
        return replace(loop, iterations=tuple(every), retained=len(every))
    dropped, left = every[:surplus], every[surplus:]
    failed = [one for one in dropped if one.phase in _ENDED_BADLY]
    if failed and not any(one.phase in _ENDED_BADLY for one in left):
        left = sorted([failed[-1], *left[1:]], key=_index)
    return replace(loop, iterations=tuple(left), retained=len(left), pruned=loop.pruned + len(dropped))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    """The iteration that has succeeded, with the step and the loop that it belongs to."""

    step: Step
    status: StepStatus
    loop: LoopStatus  #: with this iteration counted
    iteration: IterationStatus
    history_limit: int
    now: datetime

    def goes_on(self) -> Verdict:
        waiting = replace(
            self.status,
            phase=Phase.PENDING,
            message=CONTINUING,
            attempt=0,
            started_at="",
            finished_at="",
            next_retry_at="",
            job_observed_at="",
            job=None,
            loop=replace(self._with(Phase.SUCCEEDED, ""), current=self.loop.completed + 1, stop=""),
        )
        return Verdict(waiting, (LookAgain(at=self.now, why="the next iteration begins"),))

    def ends(self, stop: LoopStop) -> Verdict:
        loop = replace(self._with(Phase.SUCCEEDED, str(stop)), stop=str(stop))
        return Verdict(replace(self.status, phase=Phase.SUCCEEDED, loop=loop))

    def fails(self, message: str) -> Verdict:
        """The iteration counts as failed although its work succeeded, and nothing is tried again."""
        told = f"workflow step {self.step.name}: {message}"
        loop = replace(self._with(Phase.FAILED, told), stop=str(LoopStop.CONDITION_ERROR))
        failed = replace(self.status, phase=Phase.FAILED, message=told, loop=loop)
        return Verdict(failed, failure=Refusal(reason="WorkflowLoopConditionError", message=told))

    def _with(self, phase: Phase, message: str) -> LoopStatus:
        return kept(self.loop, replace(self.iteration, phase=phase, message=message), self.history_limit)


def _without_payload(turn: _Turn, condition: LoopCondition, control: Control) -> Verdict:
    policy = condition.on_missing if control.is_missing else condition.on_invalid
    if policy == "fail":
        return turn.fails(control.fault or f"loop control payload is missing at {condition.path}")
    return turn.ends(LoopStop.CONDITION_FALSE)


def _is_wanted(condition: LoopCondition, completed: int, limit: int, control: Mapping[str, Any]) -> bool | str:
    """Whether the condition wants another iteration; a sentence where it gave an error."""
    last = {"phase": str(Phase.SUCCEEDED), "control": control}
    try:
        expression = Expression(condition.expression, doubles=True)
        return expression.holds({"index": completed, "maxIterations": limit, "last": last})
    except SyntaxFault as fault:
        return f"failed to evaluate loop condition expression: {fault}"
    except ExpressionError as error:
        return f"loop condition {condition.expression!r}: {error}"


def _index(iteration: IterationStatus) -> int:
    return iteration.index
