"""How far AgentRuns are: one run as a screen, many as a table, and whether their system prompt was the one meant."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from run_cycle_loop.agentrun.cluster.flags import FlagReport, Origin
from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState
from run_cycle_loop.agentrun.looking.progress import Progress, StepProgress
from run_cycle_loop.agentrun.looking.rows import RunRow
from run_cycle_loop.agentrun.looking.verify import AttemptVerdict, Verdict, Verification
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.report.text import Style, clock_time, columns, moment, pad, span

_COLOURS = {
    "Succeeded": "green",
    "Running": "cyan",
    "Pending": "yellow",
    "Retrying": "yellow",
    "Failed": "red",
    "Cancelled": "magenta",
    AttemptState.SUCCEEDED: "green",
    AttemptState.ACTIVE: "cyan",
    AttemptState.FAILED: "red",
    AttemptState.DELETING: "yellow",
    AttemptState.GONE: "yellow",
}
_VERDICTS = {Verdict.PASS: "green", Verdict.UNKNOWN: "yellow", Verdict.STALE_SOURCE: "yellow"}
_OF_LOOPS = ("loops_enabled", "max_iterations", "history_limit")
_LABEL = 13
_BAR = 24  #: columns of a loop's bar


def screen(seen: Progress, *, where: str, width: int, style: Style, now: datetime) -> Iterator[str]:
    """One run.

    Args:
        seen: how far it is.
        where: ``on this machine``, or which cluster.
        width: columns.
        style: what the output can show.
        now: in the zone that times are shown in.
    """
    phase = seen.phase or "untouched"
    dot = "●" if style.unicode else "*"
    took = f", {span(seen.seconds)}" if seen.seconds is not None else ""
    head = f"{dot} {phase}"
    yield style.paint(head, _COLOURS.get(phase), bold=True) + style.fit(
        f"  {seen.name}  in {seen.namespace}, {where}{took}", width - columns(head)
    )
    if seen.blocked:
        yield from _labelled("blocked", f"{seen.blocked}: {seen.message}", width, style, "yellow")
    elif seen.reason or seen.message:
        words = f"{seen.reason}: {seen.message}" if seen.reason and seen.message else seen.reason or seen.message
        yield from _labelled("reason", words, width, style, _COLOURS.get(phase))
    for step in seen.steps:
        yield from _step(step, width, style)
    for late in seen.overdue:
        yield from _labelled("overdue", late.message, width, style, "yellow")
    for hint in seen.hints:
        yield from _labelled("note", f"{hint.reason}: {hint.message}", width, style, "yellow")
    if seen.attempts:
        yield ""
        yield from _attempts(seen.attempts, width, style, now)


def within(lines: Sequence[str], height: int) -> list[str]:
    """The lines, of which those in the middle give way where there are more than so many."""
    if len(lines) <= height:
        return [*lines]
    first = max(height // 2, 1)
    last = max(height - first - 1, 0)
    return [*lines[:first], f"  ({len(lines) - first - last} lines more)", *lines[len(lines) - last :]]


def _step(step: StepProgress, width: int, style: Style) -> Iterator[str]:
    words = f"{step.name}  {step.phase}"
    if step.maximum:
        words += f"  iteration {step.iteration}/{step.maximum}, {step.completed} completed"
    if step.attempts > 1 and step.attempt:
        words += f", attempt {step.attempt} of {step.attempts}"
    yield from _labelled("step", words, width, style, _COLOURS.get(step.phase))
    if step.maximum and step.completed is not None:
        yield " " * _LABEL + " " + _bar(step.completed, step.maximum, style, _COLOURS.get(step.phase))
    if step.stop_reason:
        detail = f": {step.stop_detail}" if step.stop_detail else ""
        yield from _labelled("stop reason", f"{step.stop_reason}{detail}", width, style)
    if step.next_retry_at and step.phase == "Retrying":
        yield from _labelled("next attempt", step.next_retry_at, width, style)
    if step.message:
        yield from _labelled("", step.message, width, style)
    if step.pruned:
        yield from _labelled("", f"{step.pruned} earlier iterations are no longer listed", width, style)


def _bar(done: int, whole: int, style: Style, colour: str | None) -> str:
    full, empty = ("█", "░") if style.unicode else ("#", ".")
    filled = round(_BAR * min(done / whole, 1))
    return style.paint(full * filled, colour) + style.paint(empty * (_BAR - filled), dim=True) + f" {done}/{whole}"


def _labelled(label: str, words: str, width: int, style: Style, colour: str | None = None) -> Iterator[str]:
    for number, line in enumerate(style.wrap(words, width - _LABEL - 1, most=6)):
        lead = pad(label if number == 0 else "", _LABEL)
        yield f"{style.paint(lead, dim=True)} {style.paint(line, colour) if colour else line}"


def _attempts(rows: Sequence[Attempt], width: int, style: Style, now: datetime) -> Iterator[str]:
    """A row for each attempt, and below it why it waits or failed."""
    loops = any(row.iteration is not None for row in rows)
    many = len({row.step for row in rows}) > 1
    job = max(columns(row.job) for row in rows)
    head = (f"{'step':<10} " if many else "") + ("iter  " if loops else "")
    head += f"try  {'state':<10} {'started':<9} {'took':>7}  {'exit':>4}  job"
    yield style.paint(style.fit(head, width), dim=True)
    for row in rows:
        state = pad(str(row.state), 10)
        line = (pad(style.fit(row.step, 10), 10) + " ") if many else ""
        line += f"{row.iteration if row.iteration is not None else '-':>4}  " if loops else ""
        line += f"{row.attempt:>3}  "
        started, took = moment(row.started_at), span(row.seconds) if row.seconds is not None else "-"
        code = row.pod.exit_code if row.pod and row.pod.exit_code is not None else "-"
        tail = f" {clock_time(started, now) if started else '-':<9} {took:>7}  {code:>4}  "
        room = max(width - len(line) - 10 - len(tail), 12)
        yield line + style.paint(state, _COLOURS.get(row.state)) + tail + style.fit(row.job, min(job, room))
        yield from _trouble(row, width, style)


def _trouble(row: Attempt, width: int, style: Style) -> Iterator[str]:
    words = []
    if row.fault is not None:
        words.append(f"{row.fault.reason}: {row.fault.message}; {row.fault.cure}")
    elif row.pod is not None and row.pod.waiting:
        words.append(f"waits: {row.pod.waiting}{f' ({row.pod.message})' if row.pod.message else ''}")
    if row.state is AttemptState.FAILED and (row.reason or row.message):
        words.append(": ".join(part for part in (row.reason, row.message) if part))
    for text in words:
        for line in style.wrap(text, width - 6, most=3):
            yield "      " + style.paint(line, "yellow")


def one_line(seen: Progress) -> str:
    """How far a run is, for a log that grows: a line for each change."""
    parts = [seen.phase or "untouched"]
    step = next((one for one in seen.steps if one.name == seen.step), None)
    if step is not None:
        parts.append(f"step {step.name} {step.phase}")
        if step.maximum:
            parts.append(f"iteration {step.iteration}/{step.maximum}")
        if step.attempt > 1:
            parts.append(f"attempt {step.attempt} of {step.attempts}")
        if step.stop_reason:
            parts.append(step.stop_reason)
    if seen.blocked or seen.reason:
        parts.append(f"{seen.blocked or seen.reason}: {seen.message}" if seen.message else seen.blocked or seen.reason)
    for row in seen.active:
        if row.fault is not None:
            parts.append(f"{row.job}: {row.fault.reason}")
        elif row.pod is not None and row.pod.waiting:
            parts.append(f"{row.job} waits: {row.pod.waiting}")
    parts += [f"overdue: {late.what}" for late in seen.overdue]
    return printable(", ".join(parts))


def table(rows: Sequence[RunRow], *, width: int, style: Style, everywhere: bool = False) -> Iterator[str]:
    """Many runs, a line for each."""
    called = [f"{row.namespace}/{row.name}" if everywhere else row.name for row in rows]
    name = min(max([4, *map(columns, called)]), 63)  # a name is there to be copied
    head = f"{pad('name', name)}  {'phase':<10} {'loop':>6}  {'age':>7}  {'took':>7}  reason"
    yield style.paint(style.fit(head, width), dim=True)
    for row, words in zip(rows, called, strict=True):
        phase = row.phase or "untouched"
        took = span(row.seconds) if row.seconds is not None else "-"
        age = span(row.age) if row.age is not None else "-"
        why = row.reason or row.stop_reason or ("overdue" if row.overdue else "")
        left = f"{pad(style.fit(words, name), name)}  "
        right = f" {row.iteration or '-':>6}  {age:>7}  {took:>7}  "
        room = max(width - columns(left) - 10 - columns(right), 10)
        yield (left + style.paint(f"{phase:<10}", _COLOURS.get(phase)) + right + style.fit(why, room)).rstrip()


def flags(found: FlagReport, *, width: int, style: Style, every: bool) -> Iterator[str]:
    """The controller's flags: those of loops, those that are set, or all."""
    if found.note:
        yield from _labelled("note", found.note, width, style, "yellow")
    wanted = [row for row in found.rows if every or row.name in _OF_LOOPS or row.origin is not Origin.DEFAULT]
    name = max(columns(row.variable) for row in wanted)
    for row in wanted:
        value = _shown(row.value)
        colour = {Origin.SET: "green", Origin.DEFAULT: None}.get(row.origin, "yellow")
        note = f"  {row.note}" if row.note else ""
        text = style.fit(f"{value:<12} {row.origin}{note}", max(width - name - 2, 20))
        yield f"{pad(row.variable, name)}  {style.paint(text, colour)}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "(none)"
    return str(value) if value not in ("", {}) else "(none)"


def verification(found: Verification, *, width: int, style: Style) -> Iterator[str]:
    """What was found of a run's system prompt: the verdict, then each attempt with its facts."""
    yield style.paint(f"{found.verdict}", _VERDICTS.get(found.verdict, "red"), bold=True) + style.fit(
        f"  system prompt of {found.run} in {found.namespace}", width - len(found.verdict)
    )
    yield from _labelled("why", found.why, width, style)
    source = f"{found.source.kind} {found.source.name} {found.source.key}".strip() or "none"
    yield from _labelled("source", f"{source} {found.source.hash or found.source.note}", width, style)
    yield from _labelled("status", found.status_hash or "no hash", width, style)
    for note in found.notes:
        yield from _labelled("note", note, width, style)
    for attempt in found.attempts:
        yield ""
        yield from _verdict(attempt, width, style)


def _verdict(one: AttemptVerdict, width: int, style: Style) -> Iterator[str]:
    turn = f"iteration {one.iteration}, " if one.iteration is not None else ""
    yield style.paint(f"{one.verdict:<13}", _VERDICTS.get(one.verdict, "red"), bold=True) + style.fit(
        f" {turn}attempt {one.attempt}: {one.job}", width - 13
    )
    yield from _labelled("", one.why, width, style)
    name = max([0, *(len(fact.name) for fact in one.facts)])
    marks = {True: "✓", False: "✗", None: "?"} if style.unicode else {True: "ok", False: "NO", None: "?"}
    for fact in one.facts:
        colour = {True: "green", False: "red", None: "yellow"}[fact.holds]
        value = fact.value or ("(absent)" if fact.holds else "(not seen)")
        wanted = f"  wanted {fact.wanted}" if fact.holds is False and fact.wanted else ""
        mark = pad(marks[fact.holds], 2)
        yield f"  {style.paint(mark, colour)} {pad(fact.name, name)}  " + style.fit(value + wanted, width - name - 8)
    for note in one.notes:
        yield from _labelled("note", note, width, style)
