"""How a prerequisite report looks on a screen."""

from dataclasses import asdict
from typing import Any

import click

from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.records import PrerequisiteReport


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
