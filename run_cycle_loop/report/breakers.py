"""The breakers as an operator sees them."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, BreakerState
from run_cycle_loop.policies.breakers import HOW_TO_RESET, Verdict, gravest
from run_cycle_loop.report.text import Style, clock_time, moment

_NAME = max(map(len, BreakerName))
_STATE = max(map(len, BreakerState))
_COLOURS = {BreakerState.CLOSED: "green", BreakerState.HALF_OPEN: "yellow", BreakerState.OPEN: "red"}


def as_dict(verdicts: Sequence[Verdict], marks: BreakerMarks) -> dict[str, Any]:
    """The JSON object."""
    return {
        "state": gravest(verdicts).state,
        "breakers": [{"name": item.name, "state": item.state, "detail": item.detail} for item in verdicts],
        **marks.as_dict(),
    }


def summary(verdicts: Sequence[Verdict]) -> tuple[str, str | None] | None:
    """What ``status`` says of them, and its colour; None where all are closed."""
    worst = gravest(verdicts)
    if worst.state is BreakerState.CLOSED:
        return None
    what = HOW_TO_RESET if worst.state is BreakerState.OPEN else "one cycle more, then it opens"
    return f"{worst.name} is {worst.state}: {worst.detail}; {what}", _COLOURS[worst.state]


def render(
    verdicts: Sequence[Verdict], marks: BreakerMarks, *, width: int, style: Style, now: datetime
) -> Iterator[str]:
    """A line for each breaker, then the last reset, and what to do about one that is open."""
    for item in verdicts:
        name = f"{item.name:<{_NAME}}  "
        state = f"{item.state:<{_STATE}}"
        if len(name) + _STATE >= width:
            yield style.fit(f"{item.name} {item.state}", width)
            continue
        rest = style.fit(f"  {item.detail}", width - len(name) - _STATE)
        yield name + style.paint(state, _COLOURS[item.state]) + rest
    if marks.reset:
        at = moment(marks.reset.at)
        when = clock_time(at, now) if at else marks.reset.at
        why = f": {marks.reset.reason}" if marks.reset.reason else ""
        yield style.fit(f"reset after cycle {marks.reset.number}, {when}, by {marks.reset.by}{why}", width)
    if gravest(verdicts).state is BreakerState.OPEN:
        yield style.fit(HOW_TO_RESET, width)
