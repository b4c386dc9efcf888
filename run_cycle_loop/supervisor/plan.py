"""What the loop is to do, in the loop's own terms: everything that the operator may change between two cycles."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from run_cycle_loop.model.ports import Artifacts, Prerequisite, Runner
from run_cycle_loop.policies.continuation import Rules


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One reading of the configuration. Durations in seconds; None is no limit."""

    mode: str
    goal: Callable[[], str]  #: read afresh for every cycle; raises ConfigError where it cannot be
    rules: Rules
    timeout: float | None
    idle_timeout: float | None
    grace: float
    prerequisites: tuple[Prerequisite, ...]
    checks_take_time: bool  #: whether a child is among them; the built-in ones only look
    runner: Runner
    artifacts: Artifacts | None  #: None: no archive is expected
    control_dir: Path
