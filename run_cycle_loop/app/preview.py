"""What a run would check and start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from run_cycle_loop.app.plan import plan_for
from run_cycle_loop.app.redaction import redactor_for
from run_cycle_loop.app.surroundings import Surroundings
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.kit import process_tree
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.records import CycleSpec, Goal, PrerequisiteReport
from run_cycle_loop.runners.script import ScriptRunner
from run_cycle_loop.stores.cycle_logs import CycleLogFile
from run_cycle_loop.stores.history import JsonlHistory


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a dry run shows."""

    report: PrerequisiteReport
    argv: Sequence[str]
    environment: Mapping[str, str]  #: only what is added to the caller's


def preview(settings: Settings, environ: Mapping[str, str]) -> Preview:
    """Check the prerequisites, and tell what a cycle would start; nothing is written, nothing else is launched.

    Raises:
        ConfigError: a value cannot be used.
    """
    process_tree.adopt_orphans()
    redactor = redactor_for(settings, environ)
    clock = SystemClock()
    around = Surroundings(
        environ=environ,
        clock=clock,
        history=JsonlHistory(settings.history_path),
        run_id="dry-run",
        pulse=None,
        warn=lambda _sentence: None,
        dry=True,
    )
    plan = plan_for(settings, around)
    goal = plan.goals.next(0) or Goal(text="(all goals are reached: no cycle would start)")
    spec = CycleSpec(
        cycle_id="dry-run",
        number=0,
        index=1,
        mode=plan.mode,
        goal=goal.text,
        goal_origin=goal.origin,
        agent=plan.agent,
        started_at=clock.now(),
        timeout=plan.timeout,
        idle_timeout=plan.idle_timeout,
        grace=plan.grace,
        control_file=f"{plan.control_dir}/dry-run.json",
        log_path=None,
    )
    log = CycleLogFile(None, None, redactor)
    checks = tuple(check.check(spec, log) for check in plan.prerequisites)
    runner = plan.runner
    added = runner.environment(spec) if isinstance(runner, ScriptRunner) else {}
    return Preview(
        report=PrerequisiteReport(checks=checks),
        argv=redactor.value(runner.preview(spec)),
        environment={name: redactor.text(value) for name, value in added.items() if name.startswith("RUN_CYCLE_")},
    )
