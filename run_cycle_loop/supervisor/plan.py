"""What the loop is to do, in the loop's own terms: everything that the operator may change between two cycles."""

from dataclasses import dataclass
from pathlib import Path

from run_cycle_loop.model.ports import Artifacts, Goals, Guard, Prerequisite, Runner, WorkTree
from run_cycle_loop.policies.continuation import Rules


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One reading of the configuration. Durations in seconds; None is no limit."""

    mode: str
    goals: Goals  #: asked afresh for every cycle
    rules: Rules
    timeout: float | None
    idle_timeout: float | None
    grace: float
    prerequisites: tuple[Prerequisite, ...]
    checks_take_time: bool  #: whether a child is among them; the built-in ones only look
    runner: Runner
    artifacts: Artifacts | None  #: None: no archive is expected
    control_dir: Path
    agent: str | None = None  #: what the cycle starts; None: a command of the operator's
    budget: tuple[str, ...] = ()  #: the operator's limits, as they are written: for those who look
    guards: tuple[Guard, ...] = ()  #: each must allow a cycle, in this order
    tree: WorkTree | None = None  #: the one that the runner measures
