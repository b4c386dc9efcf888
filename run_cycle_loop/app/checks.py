"""What must hold before each cycle, put together from the settings."""

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from run_cycle_loop.agents import registry
from run_cycle_loop.app.paths import Paths
from run_cycle_loop.app.surroundings import Surroundings
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.ports import Prerequisite
from run_cycle_loop.model.records import CycleSpec
from run_cycle_loop.prerequisites.available import CommandCheck, ModuleCheck
from run_cycle_loop.prerequisites.resources import DiskCheck, MemoryCheck, WritableCheck
from run_cycle_loop.prerequisites.script import ScriptCheck

Environment = Callable[[CycleSpec], Mapping[str, str]]


def prerequisites(
    settings: Settings, agent: str | None, environment: Environment, around: Surroundings
) -> tuple[Prerequisite, ...]:
    """The checks, the cheap ones first; each of them is made, whatever the others say."""
    return (
        *_available(settings, agent, environment),
        *_resources(settings),
        *_guards(settings, agent, around),
        *_script(settings, environment, around),
    )


def _available(settings: Settings, agent: str | None, environment: Environment) -> list[Prerequisite]:
    def path_of(spec: CycleSpec) -> str:
        return environment(spec).get("PATH", os.defpath)

    modules = [(name, True) for name in settings.require_module] + [(name, False) for name in settings.optional_module]
    programs = dict.fromkeys([*_programs_of(agent, settings), *settings.require_command])
    commands = [(name, True) for name in programs] + [(name, False) for name in settings.optional_command]
    checks: list[Prerequisite] = [ModuleCheck(module=name, required=required) for name, required in modules]
    return checks + [CommandCheck(command=name, required=required, path=path_of) for name, required in commands]


def _programs_of(agent: str | None, settings: Settings) -> list[str]:
    """The programs that an agent needs."""
    if agent is None:
        return []
    own = registry.program_of(agent)
    if agent == "command":
        first = next(iter(shlex.split(settings.agent_command or "")), "")
        own = None if os.sep in first else first  # a path counts from the workdir, which may not be there yet
    return ([own] if own else []) + (["bwrap"] if settings.isolate == "bwrap" else [])


def _resources(settings: Settings) -> list[Prerequisite]:
    writable = dict.fromkeys([settings.state_dir, settings.log_dir, *map(Path, settings.require_writable)])
    checks: list[Prerequisite] = [WritableCheck(path=path) for path in writable]
    if settings.min_free_disk:
        checks.append(DiskCheck(path=settings.state_dir, least=settings.min_free_disk))
    if settings.min_free_memory:
        checks.append(MemoryCheck(least=settings.min_free_memory))
    return checks


def _guards(settings: Settings, agent: str | None, around: Surroundings) -> list[Prerequisite]:
    checks: list[Prerequisite] = []
    if settings.consent_guard != GuardMode.OFF and registry.is_real(agent):
        from run_cycle_loop.prerequisites.consent import ConsentCheck  # noqa: PLC0415 - most commands need none of it
        from run_cycle_loop.stores.consent_audit import ConsentAudit  # noqa: PLC0415 - the same

        checks.append(
            ConsentCheck(
                chain=ConsentAudit(Paths.of(settings).consent_audit, around.clock.now, around.warn),
                now=around.clock.now,
                mode=GuardMode(settings.consent_guard),
                is_needed=lambda spec: registry.is_real(spec.agent),
                assume_yes=settings.assume_yes,
            )
        )
    if settings.git_check != "off":
        from run_cycle_loop.prerequisites.git import GitCheck  # noqa: PLC0415 - the same

        checks.append(
            GitCheck(
                folder=settings.workdir,
                mode=settings.git_check,
                update=settings.git_update,
                max_fetch_age=settings.git_fetch_age,
                timeout=settings.git_timeout,
                environ=around.environ,
                now=around.clock.now,
                pulse=around.pulse,
            )
        )
    return checks


def _script(settings: Settings, environment: Environment, around: Surroundings) -> list[Prerequisite]:
    if settings.prereq_script is None:
        return []
    return [
        ScriptCheck(
            path=settings.prereq_script,
            timeout=settings.prereq_timeout,
            grace=settings.grace,
            environment=environment,
            pulse=around.pulse,
        )
    ]
