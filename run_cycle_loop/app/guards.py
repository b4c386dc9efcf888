"""What must allow each cycle and learns what became of it, put together from the settings."""

import sys
from pathlib import Path

from run_cycle_loop.agents import registry
from run_cycle_loop.app.paths import Paths
from run_cycle_loop.app.surroundings import Surroundings
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.guards.breakers import BreakerGuard
from run_cycle_loop.model.enums import GuardMode, Role
from run_cycle_loop.model.ports import Guard, WorkTree
from run_cycle_loop.model.spending import Spending
from run_cycle_loop.policies.breakers import Thresholds
from run_cycle_loop.stores.breakers import BreakerFile


def guards_for(settings: Settings, agent: str | None, around: Surroundings) -> tuple[Guard, ...]:
    """The guards in the order in which they are asked.

    Raises:
        StateError: what one of them keeps cannot be read.
    """
    if around.dry:
        return ()
    # The budget comes first: what a cycle is charged is what the breakers look at.
    return (*_budget(settings, agent, around), *_breakers(settings, around), *_consent(settings, agent, around))


def _breakers(settings: Settings, around: Surroundings) -> list[Guard]:
    if settings.breaker_guard == GuardMode.OFF:
        return []
    return [
        BreakerGuard(
            BreakerFile(Paths.of(settings).breakers, around.clock.now, around.warn),
            thresholds(settings),
            mode=GuardMode(settings.breaker_guard),
            longest_wait=settings.max_backoff,
            is_real=registry.is_real,
            recorded=around.history.newest_first,
        )
    ]


def thresholds(settings: Settings) -> Thresholds:
    """When each breaker opens."""
    return Thresholds(
        no_progress=settings.no_progress,
        storm_cycles=settings.storm_cycles,
        storm_seconds=settings.storm_seconds,
        spend_rate=settings.spend_rate,
    )


def _budget(settings: Settings, agent: str | None, around: Surroundings) -> list[Guard]:
    """What costs nothing and has no limit needs no ledger."""
    wanted = bool(settings.budget) or settings.spend_rate is not None or registry.is_real(agent)
    # A rate of spending needs to know what was charged, also where no budget is kept.
    is_off = settings.budget_guard == GuardMode.OFF and settings.spend_rate is None
    if is_off or not wanted:
        return []
    from run_cycle_loop.guards.budget import BudgetGuard, BudgetRules  # noqa: PLC0415 - most commands need none of it
    from run_cycle_loop.stores.ledger import JsonlLedger  # noqa: PLC0415

    rules = BudgetRules(
        limits=settings.budget,
        mode=GuardMode(settings.budget_guard),
        waits=settings.on_budget == "wait",
        estimate=Spending(usd=settings.estimate_usd, tokens=settings.estimate_tokens),
    )
    return [
        BudgetGuard(
            JsonlLedger(Paths.of(settings).budget_ledger, around.warn),
            rules,
            run=around.run_id,
            agent=agent,
            is_real=registry.is_real,
            recorded=around.history.newest_first,
        )
    ]


def _consent(settings: Settings, agent: str | None, around: Surroundings) -> list[Guard]:
    if settings.consent_guard == GuardMode.OFF or not registry.is_real(agent):
        return []
    from run_cycle_loop.guards.consent import ConsentGuard  # noqa: PLC0415 - the same
    from run_cycle_loop.stores.consent_audit import ConsentAudit  # noqa: PLC0415 - the same

    policy = {name: str(getattr(settings, name)) for name in _POLICY}
    return [
        ConsentGuard(
            ConsentAudit(Paths.of(settings).consent_audit, around.clock.now, around.warn),
            now=around.clock.now,
            mode=GuardMode(settings.consent_guard),
            is_needed=lambda spec: registry.is_real(spec.agent),
            policy=policy,
        )
    ]


#: What somebody consents to, as far as settings decide it; the audit keeps the digest for each cycle.
_POLICY = (
    *("agent", "model", "role", "workdir", "agent_command", "agent_args", "isolate", "assume_yes"),
    *("write_guard", "cap_writes", "cap_bytes", "budget_guard", "budget", "breaker_guard"),
)


def work_tree(settings: Settings, agent: str | None, *, cap: int, around: Surroundings) -> WorkTree | None:
    """The tree that cycles work in; None where nobody wants to know what they do to it."""
    mode = GuardMode(settings.write_guard)
    # Who only reads is not expected to leave the workdir any other than it was.
    wanted = settings.breaker_guard != GuardMode.OFF and settings.no_progress > 0 and settings.role == Role.WRITE
    fingerprint = agent is not None and wanted
    if mode is GuardMode.OFF and not fingerprint:
        return None
    from run_cycle_loop.stores.work_tree import Caps, MeasuredTree  # noqa: PLC0415 - the same

    ours = (settings.log_dir, settings.history_path, settings.stop_file, Path(sys.prefix), settings.sandbox_dir)
    root = settings.sandbox_dir if agent == registry.PLANNER else settings.workdir  # the planner knows no other place
    return MeasuredTree(
        root,
        settings.state_dir,
        mode=mode,
        caps=Caps(files=cap, bytes=settings.cap_bytes),
        clock=around.clock,
        exclude=[path for path in ours if path != root],
        fingerprint=fingerprint,
        beat=around.pulse.beat if around.pulse else lambda: None,
    )
