"""What ``check`` and a dry run say: the prerequisites, and what else would keep a loop from its next cycle."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from run_cycle_loop.config.settings import Settings
from run_cycle_loop.controls import stop_file
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.breakers import BreakerState
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.records import CheckResult, PrerequisiteReport


def with_guards(report: PrerequisiteReport, settings: Settings) -> PrerequisiteReport:
    """The report with the kill switch, the budgets and the breakers in it; nothing is written."""
    return PrerequisiteReport(checks=(*report.checks, *_standing(settings)))


def _standing(settings: Settings) -> Iterator[CheckResult]:
    from run_cycle_loop.cli import breaker, budget  # noqa: PLC0415 - only where they are looked at
    from run_cycle_loop.policies.breakers import HOW_TO_RESET, gravest  # noqa: PLC0415

    if stop_file.is_present(settings.stop_file):
        yield CheckResult(name="stop-file", ok=False, detail="present; run-cycle-loop resume")
    if settings.budget and settings.budget_guard == GuardMode.ENFORCE:
        refusal = budget.standing(settings, datetime.now(UTC)).refusal
        yield CheckResult(name="budget", ok=refusal is None, detail=refusal.why if refusal else "there is room")
    if settings.breaker_guard == GuardMode.ENFORCE:
        worst = gravest(breaker.standing(settings)[0])
        if worst.state is BreakerState.OPEN:
            detail = f"{worst.name} is open: {worst.detail}; {HOW_TO_RESET}"
            yield CheckResult(name="breaker", ok=False, detail=detail)


def show_report(report: PrerequisiteReport) -> None:
    """One line a check, then the verdict."""
    for check in report.checks:
        mark, colour = ("ok", "green") if check.ok else ("FAIL", "red") if check.required else ("warn", "yellow")
        click.echo(f"{click.style(f'{mark:>4}', fg=colour)}  {check.name}: {printable(check.detail)}")
    failed = len(report.failures)
    verdict = "all required checks hold" if report.ok else f"{failed} of {len(report.checks)} checks failed"
    click.echo(f"prerequisites: {verdict}")


def report_as_dict(report: PrerequisiteReport) -> dict[str, Any]:
    """The report as a JSON object."""
    return {"ok": report.ok, "checks": [asdict(check) for check in report.checks]}
