"""One reading of the settings in the loop's own terms: settings in, a plan of objects out."""

import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from run_cycle_loop.agents import registry
from run_cycle_loop.app.checks import prerequisites
from run_cycle_loop.app.guards import guards_for, work_tree
from run_cycle_loop.app.paths import Paths
from run_cycle_loop.app.surroundings import Surroundings
from run_cycle_loop.config.files import read_goal, read_text
from run_cycle_loop.config.kinds import checked_prose, quoted
from run_cycle_loop.config.settings import DEFAULT_CYCLE_SCRIPT, OPTIONS, Settings
from run_cycle_loop.goals.single import SingleGoal
from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import ConfigError, StateError
from run_cycle_loop.model.ports import Goals, WorkTree
from run_cycle_loop.policies.backoff import Backoff
from run_cycle_loop.policies.budgets import show_limit
from run_cycle_loop.policies.conditions import Condition
from run_cycle_loop.policies.continuation import Rules
from run_cycle_loop.policies.goals import Listed, Order
from run_cycle_loop.runners.environment import Places, child_environment, handed_on
from run_cycle_loop.runners.script import ScriptRunner
from run_cycle_loop.stores.archives import PlannerArchives
from run_cycle_loop.supervisor.plan import Plan

_CAP_WRITES = 3
_CAP_WRITES_OF_AGENTS = 200
_SEEDS = 1 << 32


def plan_for(settings: Settings, around: Surroundings) -> Plan:
    """What the loop is to do.

    Raises:
        ConfigError: a value cannot be used.
    """
    _check_runs(settings)
    agent = agent_of(settings, around.environ)
    tree = work_tree(settings, agent, cap=cap_writes(settings, agent), around=around)
    runner = _runner(settings, agent, around, tree)
    return Plan(
        mode=settings.mode,
        goals=_goals(settings, around),
        rules=_rules(settings),
        timeout=settings.timeout,
        idle_timeout=settings.idle_timeout,
        grace=settings.grace,
        prerequisites=prerequisites(settings, agent, runner.environment, around),
        checks_take_time=settings.prereq_script is not None or settings.git_check != "off",
        runner=runner,
        artifacts=PlannerArchives(settings.archive_glob) if settings.archive_glob else None,
        control_dir=Paths.of(settings).control_dir,
        agent=agent,
        budget=tuple(map(show_limit, settings.budget)),
        guards=guards_for(settings, agent, around),
        tree=tree,
    )


def _check_runs(settings: Settings) -> None:
    """See that a cycle can be made of its manifest or template, before the first one fails of it."""
    if settings.runner == "agentrun":
        from run_cycle_loop.app.manifests import check_manifest  # noqa: PLC0415 - a loop of scripts pays for neither

        check_manifest(settings)
    elif settings.runner == "job":
        from run_cycle_loop.app.job_cycles import check_job  # noqa: PLC0415 - the same

        check_job(settings)


def agent_of(settings: Settings, environ: Mapping[str, str]) -> str | None:
    """The agent that a cycle starts; None where the cycle is a program of the operator's own."""
    if settings.command or settings.runner != "script":
        return None
    if settings.agent != "auto":
        return settings.agent
    if settings.cycle_script != DEFAULT_CYCLE_SCRIPT:
        return None
    return registry.default_agent(environ.get("PATH", os.defpath))


def cap_writes(settings: Settings, agent: str | None) -> int:
    """How many files a cycle may write."""
    if settings.cap_writes is not None:
        return settings.cap_writes
    return _CAP_WRITES_OF_AGENTS if registry.is_real(agent) else _CAP_WRITES


# --- what runs -----------------------------------------------------------------------------------------------------


def _runner(settings: Settings, agent: str | None, around: Surroundings, tree: WorkTree | None) -> ScriptRunner:
    environment = partial(
        child_environment,
        caller=dict(around.environ),
        allow=settings.env_allow,
        cap_writes=cap_writes(settings, agent),
        told=_places(settings).variables() | _settings_of_cycle(settings, agent),
    )
    return ScriptRunner(
        _command(settings),
        takes_goal=not settings.command and settings.runner == "script",
        environment=environment,
        resets=settings.sandbox_dir if settings.sandbox_reset else None,
        tree=tree,
        pulse=around.pulse,
    )


def _places(settings: Settings) -> Places:
    return Places(state_dir=settings.state_dir, history_path=settings.history_path, sandbox_dir=settings.sandbox_dir)


def _command(settings: Settings) -> tuple[str, ...] | Path:
    if settings.runner != "script":
        command = ("--", *settings.command) if settings.command else ()
        return (sys.executable, "-P", "-m", "run_cycle_loop", "start-cycle", *command)
    if settings.command:
        return settings.command
    if settings.agent != "auto" and not os.path.lexists(settings.cycle_script):
        # An agent was named and there is no checkout around: what the script would start is in the package.
        return (sys.executable, "-P", "-m", "run_cycle_loop.start_agent", "--cycle")
    return settings.cycle_script


def _settings_of_cycle(settings: Settings, agent: str | None) -> dict[str, str]:
    """What a program of ours that a cycle starts is told, by the names of the variables; paths are absolute."""
    if settings.runner != "script":
        endless = {"TIMEOUT": "off"} if settings.timeout is None else {}
        told = told_by_variables(settings, *_TOLD_RUNS, *TOLD, *TOLD_TOO) | endless
        return told | {"AGENT": settings.agent, "CONFIG": "none"}
    return {"AGENT": agent, **told_by_variables(settings, *TOLD, *TOLD_TOO)} if agent else {}


#: What ``start-cycle`` is told.
_TOLD_RUNS: tuple[str, ...] = (
    *("runner", "manifest", "where", "profile", "strict_cluster", "image", "job_template"),
    *("namespace", "kubeconfig", "kube_context", "timeout", "idle_timeout", "grace"),
)
#: What ``start_agent`` is told by the variables of these settings, where they are set.
TOLD = ("model", "role", "workdir", "agent_command", "agent_script", "agent_args", "agent_schema", "isolate")
TOLD_TOO = ("assume_yes", "consent_guard", "log_dir", "stop_file", "prices", "goal_order")


def told_by_variables(settings: Settings, *names: str) -> dict[str, str]:
    """These settings by the names of their variables, where they are set; paths are absolute."""
    told = {}
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            shown = str(value.absolute()) if isinstance(value, Path) else OPTIONS[name].kind.show(value)
            told[name.upper()] = shown
    return told


def _rules(settings: Settings) -> Rules:
    return Rules(
        iterations=settings.iterations,
        sleep=settings.sleep,
        max_failures=settings.max_failures,
        backoff=Backoff(
            initial=settings.backoff_initial,
            factor=settings.backoff_factor,
            longest=settings.max_backoff,
            jitter=settings.backoff_jitter,
        ),
        condition=Condition(settings.while_) if settings.while_ else None,
        limit_margin=settings.limit_margin,
        longest_limit=settings.max_limit_wait,
    )


# --- what it is to reach -------------------------------------------------------------------------------------------


def _goals(settings: Settings, around: Surroundings) -> Goals:
    if settings.goal_command is not None:
        return _goal_command(settings, settings.goal_command, around)
    if settings.goals is not None:
        return _several_goals(settings, settings.goals, around)
    if (path := settings.goal_file) is not None:
        return SingleGoal(lambda: read_goal(path), source=str(path))
    return SingleGoal(lambda: settings.goal)


def _goal_command(settings: Settings, line: str, around: Surroundings) -> Goals:
    from run_cycle_loop.goals.command import CommandGoal  # noqa: PLC0415 - most loops have one goal

    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"--goal-command is no command line: {error}; quote it as for a shell") from None
    if not argv:
        raise ConfigError("--goal-command names no command; name one")
    if around.dry:
        return SingleGoal(lambda: f"(the first line that {quoted(argv[0])} prints)")
    shared = handed_on(around.environ, settings.env_allow)
    told = {f"RUN_CYCLE_{name}": value for name, value in _places(settings).variables().items()}
    return CommandGoal(
        argv,
        environment=lambda number: {**shared, **told, "RUN_CYCLE_NUMBER": str(number), "RUN_CYCLE_MODE": settings.mode},
        timeout=settings.goal_timeout,
        grace=settings.grace,
        check=checked_prose,
        pulse=around.pulse,
    )


def _several_goals(settings: Settings, path: Path, around: Surroundings) -> Goals:
    from run_cycle_loop.goals.listing import read_plain, read_yaml  # noqa: PLC0415 - the same
    from run_cycle_loop.goals.several import SeveralGoals  # noqa: PLC0415

    def read() -> tuple[Listed, ...]:
        try:
            text = read_text(path)
            return (read_yaml if path.suffix in {".yaml", ".yml"} else read_plain)(text, checked_prose)
        except ValueError as error:
            raise ConfigError(f"the goals file {quoted(str(path))} {error}") from error

    read()  # a bad line is said at the start, not hours later
    return SeveralGoals(
        read,
        source=str(path),
        order=Order(settings.goal_order),
        seed=settings.goal_seed,
        draw=partial(secrets.randbelow, _SEEDS),
        path=Paths.of(settings).goals,
        records=around.history.newest_first,
        mend=partial(_set_aside, around),
    )


def _set_aside(around: Surroundings, path: Path, error: Exception) -> None:
    if not around.dry:
        try:
            kept = files.set_aside(path, "corrupt")
        except OSError as failed:
            raise StateError(
                f"damaged {path} ({error}) cannot be set aside: {failed.strerror or failed}; mend its folder"
            ) from failed
        around.warn(f"damaged {path} ({error}) was set aside as {kept.name}; the history tells what it told")
