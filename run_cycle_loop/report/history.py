"""The recorded cycles: chosen from the end, shown as a table or as JSON lines."""

import json
import signal
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import islice

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.ports import History
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.report.text import Style, colour_of, moment, pad, span

_OUTCOME = max(len(outcome) for outcome in Outcome)
_WIDE = 100  #: columns from which on a date is shown with its year
_WIDER = 120  #: columns from which on it is told what a cycle was charged


def select(
    history: History, *, tail: int | None = None, outcomes: Collection[Outcome] = (), since: datetime | None = None
) -> Iterator[CycleRecord]:
    """The records asked for, oldest first; with ``tail`` or ``since`` no more of the file is read than needed.

    Args:
        history: where they come from.
        tail: so many of the newest that pass the other filters.
        outcomes: only these; empty is all.
        since: only cycles that finished at this time or later.
    """
    if tail is None and since is None:
        yield from (record for record in history.records() if not outcomes or record.status in outcomes)
        return
    newest = _back_to(since, history.newest_first())
    wanted = (record for record in newest if not outcomes or record.status in outcomes)
    yield from reversed(list(islice(wanted, tail)))


def _back_to(since: datetime | None, newest_first: Iterable[CycleRecord]) -> Iterator[CycleRecord]:
    for record in newest_first:
        at = _finished(record)
        if since is not None and at is not None and at < since:
            return
        yield record


def _finished(record: CycleRecord) -> datetime | None:
    return moment(record.finished_at or record.timestamp)


def json_lines(records: Iterable[CycleRecord]) -> Iterator[str]:
    """Each record as one line of JSON, in ASCII: nothing in it can drive a terminal."""
    return (json.dumps(record.as_dict(), separators=(",", ":")) for record in records)


def table(records: Iterable[CycleRecord], *, width: int, style: Style, now: datetime) -> Iterator[str]:
    """A header and a line for each record; the reason takes what is left of the width."""
    when = "%Y-%m-%d %H:%M:%S" if width >= _WIDE else "%m-%d %H:%M:%S"
    stamp = len(f"{now:{when}}")
    spent = f"{'spent':>8}  " if width >= _WIDER else ""
    head = f"{'cycle':>6}  {'finished':<{stamp}}  {'outcome':<{_OUTCOME}}  {'took':>6}  {'code':<6}  {spent}reason"
    yield style.paint(style.fit(head, width).rstrip(), bold=True)
    for record in records:
        at = _finished(record)
        finished = f"{at.astimezone(now.tzinfo):{when}}" if at else ""
        yield _row(record, pad(finished, stamp), width, style)


def _row(record: CycleRecord, finished: str, width: int, style: Style) -> str:
    before = f"{record.number:>6}  {finished}  "
    outcome = f"{record.status:<{_OUTCOME}}"
    spent = f"{_spent(record):>8}  " if width >= _WIDER else ""
    after = f"  {span(record.duration_seconds):>6}  {_code(record):<6}  {spent}{record.reason}".rstrip()
    if len(before) + len(outcome) > width:
        return style.fit(before + outcome, width)
    rest = style.fit(after, width - len(before) - len(outcome))
    return before + style.paint(outcome, colour_of(record.status)) + rest


def _code(record: CycleRecord) -> str:
    """The signal's name, or the exit code."""
    if record.signal is None:
        return "" if record.return_code is None else str(record.return_code)
    try:
        return signal.Signals(record.signal).name.removeprefix("SIG")
    except ValueError:
        return f"SIG {record.signal}"


def _spent(record: CycleRecord) -> str:
    """What the budgets were charged, in money where there is a price; with a ~ where some of it is an estimate."""
    mark = "~" if (record.charged or {}).get("estimated") else ""
    if record.charged_usd:
        return f"{mark}${record.charged_usd:.2f}"
    tokens = record.charged_tokens
    return f"{mark}{tokens / 1000:.0f}k" if tokens >= 1000 else f"{mark}{tokens}" if tokens else ""
