"""What the checks of manifests found, for people and for scripts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding, Severity
from run_cycle_loop.report.text import Style, columns

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_SIGNS = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}
_INDENT = 4


def as_dicts(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """For ``--json``: one object for each."""
    return [{key: value for key, value in asdict(one).items() if value not in ("", 0)} for one in findings]


def lines(findings: Sequence[Finding], *, width: int, style: Style) -> Iterator[str]:
    """Each finding under its file: where, which reason, what is wrong, how to mend it."""
    file = None
    for one in findings:
        if one.file != file:
            file = one.file
            if file:
                yield style.paint(style.fit(file, width), bold=True)
        yield from _finding(one, width, style)


def _finding(one: Finding, width: int, style: Style) -> Iterator[str]:
    sign = _SIGNS[one.severity] if style.unicode else str(one.severity)
    place = f"{one.line}: " if one.line else ""
    spot = f"{one.where} {one.path}".strip()
    reason = place + one.reason
    lead = f"  {style.paint(sign, _COLOURS[one.severity])} {style.paint(reason, _COLOURS[one.severity], bold=True)}"
    if columns(f"  {sign} {reason}  {spot}") <= width:
        yield f"{lead}  {style.paint(spot, dim=True)}"
    else:  # a path is there to be copied: it is never cut
        yield lead
        yield " " * _INDENT + style.paint(spot, dim=True)
    arrow = "→ " if style.unicode else "-> "
    for text, lead in ((one.message, ""), (one.cure, arrow)):
        for number, line in enumerate(style.wrap(text, width - _INDENT - len(lead), most=8) if text else ()):
            yield " " * _INDENT + (lead if number == 0 else " " * len(lead)) + line


def summary(findings: Sequence[Finding], *, checked: str) -> str:
    """The last line: how many of each, of what was checked."""
    counts = Counter(one.severity for one in findings)
    parts = [
        f"{counts[severity]} {severity}{'' if counts[severity] == 1 else 's'}"
        for severity in Severity
        if counts[severity]
    ]
    return f"{checked}: {', '.join(parts) if parts else 'nothing to complain about'}"
