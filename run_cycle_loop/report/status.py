"""One screen: what the loop does now, how the last cycles went, what comes next."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice, takewhile
from math import isfinite
from typing import Any

from run_cycle_loop.model.enums import LoopState, Outcome, StopReason
from run_cycle_loop.model.ports import History
from run_cycle_loop.model.records import CycleRecord, SupervisorIdentity, timestamp
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.model.spending import Unit
from run_cycle_loop.policies.budgets import show_amount
from run_cycle_loop.report.text import Style, clock_time, colour_of, moment, pad, span

RECENT = 30

_LABEL = 14
#: Rows that may hold a command to give: they are wrapped, not cut.
_WHOLE = frozenset({"", "note", "to do", "guard", "consent", "budget", "breaker"})
_STATE_COLOURS = {LoopState.BACKOFF: "yellow", LoopState.HELD: "red", LoopState.STOPPING: "yellow"}
_STOP_COLOURS = {StopReason.FAILURE_LIMIT: "red", StopReason.STATE_UNWRITABLE: "red", StopReason.CONDITION_ERROR: "red"}
_LETTERS = {
    Outcome.FAILED: "F",
    Outcome.TIMEOUT: "T",
    Outcome.PREREQ_FAILED: "P",
    Outcome.ERROR: "E",
    Outcome.INTERRUPTED: "I",
    Outcome.LOST: "L",
    Outcome.RATE_LIMITED: "R",
    Outcome.SKIPPED: "s",
}

Row = tuple[str, str, str | None]  #: a label, a text, and its colour


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What is known of a loop at one moment."""

    now: datetime
    snapshot: LoopSnapshot | None  #: None: there is no ``latest.json`` yet
    is_alive: bool  #: whether the supervisor that wrote the snapshot still runs
    stop_file_present: bool
    recent: tuple[CycleRecord, ...]  #: the last cycles, oldest first
    guards: tuple[Row, ...] = ()  #: how the guards stand

    @property
    def died(self) -> bool:
        """Whether the supervisor is gone without having said that it stops."""
        return self.snapshot is not None and self.snapshot.state is not LoopState.STOPPED and not self.is_alive

    @property
    def cycle_seconds(self) -> float | None:
        """How long the cycle in flight runs by now."""
        if self.snapshot is None or self.snapshot.cycle is None or not self.is_alive:
            return None
        started_at = moment(self.snapshot.cycle.started_at)
        return None if started_at is None else (self.now - started_at).total_seconds()

    @property
    def next_run_in(self) -> float | None:
        """Seconds to the next cycle."""
        if self.snapshot is None or not self.is_alive:
            return None
        at = moment(self.snapshot.next_run_at)
        return None if at is None else (at - self.now).total_seconds()

    def as_dict(self) -> dict[str, Any]:
        """The JSON object: ``latest.json`` and what only a look at the machine can tell."""
        return {
            **(self.snapshot.as_dict() if self.snapshot else {"state": None}),
            "checked_at": timestamp(self.now),
            "alive": self.is_alive,
            "died": self.died,
            "cycle_seconds": self.cycle_seconds,
            "next_run_in_seconds": self.next_run_in,
            "stop_file_present": self.stop_file_present,
            "guards": {label: text for label, text, _ in self.guards},
            "recent": [
                {"number": record.number, "status": record.status, "duration_seconds": record.duration_seconds}
                for record in self.recent
            ],
        }


def status(
    snapshot: LoopSnapshot | None,
    history: History,
    *,
    is_alive: Callable[[SupervisorIdentity], bool],
    stop_file_present: bool,
    now: datetime,
    guards: Iterable[Row] = (),
) -> Status:
    """Put together what is known; of the history only the last lines are read.

    Args:
        snapshot: what ``latest.json`` says, as it stands.
        history: newest records count even where the snapshot was not rewritten any more.
        is_alive: whether exactly this process still runs.
        stop_file_present: whether something stands at the stop-file's path.
        now: aware; its zone is the one that times are shown in.
        guards: how they stand, a row each.
    """
    recent = list(islice(history.newest_first(), RECENT))
    if snapshot is None and recent:
        snapshot = _from_history(recent[0])
    if snapshot is not None:
        snapshot = _caught_up(snapshot, recent)
    alive = snapshot is not None and snapshot.supervisor is not None and is_alive(snapshot.supervisor)
    return Status(
        now=now,
        snapshot=snapshot,
        is_alive=alive,
        stop_file_present=stop_file_present,
        recent=tuple(reversed(recent)),
        guards=tuple(guards),
    )


def _from_history(last: CycleRecord) -> LoopSnapshot:
    """What can be said without ``latest.json``: the last cycle, and no counts."""
    empty = LoopSnapshot(state=LoopState.STOPPED, updated_at=last.finished_at or last.timestamp)
    return replace(empty.counting(last), counts={}, success_count=0, failure_count=0)


def _caught_up(snapshot: LoopSnapshot, newest_first: list[CycleRecord]) -> LoopSnapshot:
    """The snapshot with the records that came after it: its supervisor may have died between the two writes."""
    seen = snapshot.seq
    for record in reversed(list(takewhile(lambda record: record.number > seen, newest_first))):
        snapshot = snapshot.counting(record)
    if snapshot.cycle is not None and snapshot.cycle.number <= snapshot.seq:
        return replace(snapshot, cycle=None)
    return snapshot


def render(found: Status, *, width: int, style: Style) -> str:
    """The screen: the first line says it all, the rest says why."""
    lines = [_headline(found, width, style)]
    for label, text, colour in _rows(found):
        shown = style.wrap(text, width - _LABEL) if label in _WHOLE else [style.fit(text, width - _LABEL)]
        for head, part in zip((label, *[""] * len(shown)), shown, strict=False):
            lines.append(style.paint(pad(head, _LABEL), dim=True) + style.paint(part, colour))
    if found.recent:
        lines.insert(1, style.paint(pad("recent", _LABEL), dim=True) + _bar(found.recent, width - _LABEL, style))
    return "\n".join(lines) + "\n"


def _headline(found: Status, width: int, style: Style) -> str:
    text, colour = _state(found)
    bullet = "● " if style.unicode else "* "
    return style.paint(bullet, colour) + style.paint(style.fit(text, width - 2), colour, bold=True)


def _state(found: Status) -> tuple[str, str | None]:
    """What the loop does, in one sentence, and its colour."""
    snapshot = found.snapshot
    if snapshot is None:
        return "never run here", None
    if found.died:
        return f"not running (died while {_activity(snapshot)}); start it again, it mends what is left", "red"
    if snapshot.state is LoopState.STOPPED:
        why = f" ({snapshot.stop_reason.replace('_', ' ')})" if snapshot.stop_reason else ""
        return f"stopped{why}{_since(found)}", _STOP_COLOURS.get(snapshot.stop_reason) if snapshot.stop_reason else None
    return f"{_activity(snapshot)}{_progress(found)}", _STATE_COLOURS.get(snapshot.state, "green")


def _activity(snapshot: LoopSnapshot) -> str:
    number = snapshot.cycle.number if snapshot.cycle else snapshot.seq + 1
    match snapshot.state:
        case LoopState.CHECKING:
            return f"checking the prerequisites of cycle {number}"
        case LoopState.RUNNING:
            return f"running cycle {number}"
        case LoopState.BACKOFF:
            return "backing off"
        case LoopState.HELD:
            return "held: state cannot be written"
        case state:
            return state.value


def _progress(found: Status) -> str:
    if found.cycle_seconds is not None:
        return f" for {span(found.cycle_seconds)}"
    if found.next_run_in is None or found.snapshot is None:
        return _since(found)
    at = moment(found.snapshot.next_run_at)
    return f", next cycle in {span(found.next_run_in)}" + (f" (at {clock_time(at, found.now)})" if at else "")


def _since(found: Status) -> str:
    at = moment(found.snapshot.updated_at) if found.snapshot else None
    return f" since {clock_time(at, found.now)} ({_ago(at, found.now)})" if at else ""


def _ago(at: datetime, now: datetime) -> str:
    return f"{span((now - at).total_seconds())} ago"


def _rows(found: Status) -> Iterator[Row]:
    if found.stop_file_present:
        yield "stop-file", "present: no cycle starts until `run-cycle-loop resume`", "yellow"
    snapshot = found.snapshot
    if snapshot is None:
        return
    if snapshot.note:
        yield "note", snapshot.note, "yellow"
    if snapshot.cycle and found.is_alive:
        yield "cycle", f"{snapshot.cycle.number}  {snapshot.cycle.mode}  {snapshot.cycle.goal}", None
    yield from _past(found, snapshot)
    yield from found.guards
    if found.is_alive and snapshot.supervisor:
        yield "supervisor", _supervisor(snapshot.supervisor, found.now), None


def _past(found: Status, snapshot: LoopSnapshot) -> Iterator[Row]:
    if snapshot.last_cycle:
        yield from _last_cycle(snapshot.last_cycle, found.now)
    if at := moment(snapshot.last_success_at):
        yield "last success", f"{_ago(at, found.now)} ({clock_time(at, found.now)})", None
    if snapshot.last_archive:
        yield "last archive", snapshot.last_archive, None
    if snapshot.stale_cycles:
        yield "stale", f"no fresh archive for {_counted(snapshot.stale_cycles, 'cycle')}", "yellow"
    if snapshot.counts:
        yield "cycles", _counts(snapshot.counts), None
    if snapshot.charged_usd or snapshot.charged_tokens:
        guessed = any((record.charged or {}).get("estimated") for record in found.recent)
        usd, tokens = show_amount(Unit.USD, snapshot.charged_usd), show_amount(Unit.TOKENS, snapshot.charged_tokens)
        text = f"{usd} and {tokens} in all"
        yield "charged", f"{text}, in part an estimate" if guessed else text, None
    if snapshot.consecutive_failures:
        yield "streak", f"{_counted(snapshot.consecutive_failures, 'failure')} in a row", "red"


def _last_cycle(last: Mapping[str, Any], now: datetime) -> Iterator[Row]:
    at = moment(last.get("finished_at"))
    outcome = str(last.get("status"))
    seconds = last.get("duration_seconds")
    took = f" in {span(seconds)}" if isinstance(seconds, int | float) and isfinite(seconds) else ""
    when = f", {_ago(at, now)}" if at else ""
    colour = colour_of(Outcome(outcome)) if outcome in set(Outcome) else None
    yield "last cycle", f"{last.get('number')}  {outcome}{took}{when}", colour
    if last.get("reason"):
        yield "", str(last["reason"]), None
    if last.get("log_path"):
        yield "", str(last["log_path"]), None
    if last.get("summary"):
        yield "it says", str(last["summary"]), None
    if last.get("advice"):
        yield "to do", str(last["advice"]), "yellow"
    yield from _findings(last.get("guards"), str(last.get("reason")))


def _findings(guards: object, reason: str) -> Iterator[Row]:
    """What guards had to say of the last cycle, beside its reason."""
    for finding in guards if isinstance(guards, list) else ():
        if isinstance(finding, dict) and str(finding.get("detail")) not in reason:
            colour = "red" if finding.get("mode") == "enforce" else "yellow"
            yield "guard", f"{finding.get('guard')}: {finding.get('detail')}", colour


def _counts(counts: Mapping[str, int]) -> str:
    most_first = sorted(counts.items(), key=lambda item: -item[1])
    return f"{sum(counts.values())}: " + ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in most_first)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _supervisor(identity: SupervisorIdentity, now: datetime) -> str:
    at = moment(identity.started_at)
    since = f", up {span((now - at).total_seconds())}" if at else ""
    return f"pid {identity.pid} on {identity.host}, version {identity.version}{since}"


def _bar(recent: tuple[CycleRecord, ...], width: int, style: Style) -> str:
    """One sign a cycle, newest on the right: what went well is even, what did not is a letter."""
    shown = [record.status for record in recent[-max(width, 1) :]]
    signs = "".join(style.paint(_sign(outcome, style), colour_of(outcome)) for outcome in shown)
    legend = "  ".join(f"{_LETTERS[word]} {word.replace('_', ' ')}" for word in _LETTERS if word in shown)
    room = width - len(shown) - 2
    return f"{signs}  {style.paint(style.fit(legend, room), dim=True)}" if legend and room > 8 else signs


def _sign(outcome: Outcome, style: Style) -> str:
    if outcome is Outcome.SUCCESS:
        return "▇" if style.unicode else "."
    if outcome is Outcome.DEGRADED:
        return "▅" if style.unicode else "d"
    return _LETTERS[outcome]
