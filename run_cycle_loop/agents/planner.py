"""The planner that ships: without a model, it turns what the cycles left behind into a recap, one measurable
experiment and a plan, the same for the same files and the same moment.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.agents import digests as kept
from run_cycle_loop.agents.experiments import (
    Experiment,
    Metric,
    Mode,
    Result,
    Verdict,
    choose_metric,
    durations,
    judge,
    measure,
    median,
    one_line,
    propose,
    reason_of,
    show,
)
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.records import CycleRecord, timestamp

PLAN = "plan.md"
SCHEMA_VERSION = 1
AGENT_KIND = "agent"  #: of a digest that a coding agent's session left: it holds no experiment

_BASELINE_CYCLES = 20
_FAILURES_TOLD = 3
_LOGGED = 50
_GOAL_LENGTH = 300
#: Below this many durations a trend is noise.
_TREND_FROM = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What one cycle asks of the planner."""

    mode: str
    goal: str
    sandbox: Path
    state_dir: Path
    history_path: Path
    cap_writes: int  #: files it may create or change in the sandbox
    cycle_id: str = ""
    number: int | None = None  #: of the cycle; None outside the loop
    control_file: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What the planner did."""

    recap: tuple[str, str, str]
    experiment: Experiment
    verdicts: tuple[Verdict, ...]
    plan_path: Path | None  #: None where the cap left no room
    archive_path: Path
    note: str  #: one sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ledger:
    """The experiments so far, folded out of the digests."""

    experiments: Mapping[int, Experiment]
    verdicts: Mapping[int, Verdict]
    last: Experiment | None  #: the one of the last digest
    last_at: datetime | None
    damaged: int  #: digests without a readable experiment

    @property
    def running(self) -> list[Experiment]:
        return [item for number, item in self.experiments.items() if number not in self.verdicts]

    def closing(self, verdicts: Iterable[Verdict]) -> "_Ledger":
        return replace(self, verdicts={**self.verdicts, **{verdict.experiment: verdict for verdict in verdicts}})


def plan_cycle(request: Request, now: datetime) -> Planned:
    """Read, recap, judge, propose, and leave plan, digest, archive and control payload.

    Raises:
        StateError: something of it could not be written.
        ConfigError: the sandbox is no folder of its own.
    """
    try:
        with kept.journal(request.state_dir) as journal:
            return _plan(request, now, journal)
    except OSError as error:
        where = error.filename or request.state_dir
        raise StateError(f"{where} cannot be written: {error.strerror}; free it and run the cycle again") from error


def _plan(request: Request, now: datetime, journal: int) -> Planned:
    digests = kept.read_digests(request.state_dir)
    history = kept.read_history(request.history_path)
    ledger = _folded(digests.values)
    metric = choose_metric(
        request.goal,
        Mode.of(request.mode),
        previous=ledger.last.metric if ledger.last else None,
        running=frozenset(item.metric for item in ledger.running),
    )
    verdicts = _verdicts(ledger, history.values, metric, request.mode)
    ledger = ledger.closing(verdicts)
    experiment = _next_experiment(request, ledger, history.values, metric)
    survey = kept.survey(request.sandbox, since=ledger.last_at, leave_out=PLAN)
    recap = (
        _recap_cycles(history, digests.values),
        _recap_experiments(ledger, verdicts, history.values, digests.trouble),
        _recap_sandbox(survey, ledger.last_at),
    )
    digest = _digest(request, now, recap=recap, experiment=experiment, verdicts=verdicts, ledger=ledger, survey=survey)
    plan_path = None
    if request.cap_writes > 0:
        text = _rendered(request, experiment, ledger, (*digests.values, digest))
        plan_path = kept.write_plan(request.sandbox, PLAN, text)
    kept.append(journal, digest)
    archive_path = kept.archive(request.state_dir, (*digests.values, digest), now)
    planned = Planned(
        recap=recap,
        experiment=experiment,
        verdicts=verdicts,
        plan_path=plan_path,
        archive_path=archive_path,
        note=_note(request, experiment, ledger),
    )
    if request.control_file is not None:
        kept.write_control(request.control_file, _control(planned))
    return planned


def _folded(digests: Sequence[Mapping[str, Any]]) -> _Ledger:
    experiments: dict[int, Experiment] = {}
    verdicts: dict[int, Verdict] = {}
    last, last_at, damaged = None, None, 0
    for digest in digests:
        if digest.get("kind") == AGENT_KIND:
            continue
        try:
            last = Experiment.from_dict(digest["experiment"])
            closed = [Verdict.from_dict(item) for item in digest["verdicts"]]
            last_at = datetime.fromisoformat(digest["timestamp"]).astimezone(UTC)
        except (KeyError, TypeError, ValueError):
            damaged += 1
            continue
        experiments.setdefault(last.number, last)
        verdicts |= {verdict.experiment: verdict for verdict in closed}
    return _Ledger(experiments=experiments, verdicts=verdicts, last=last, last_at=last_at, damaged=damaged)


def _verdicts(ledger: _Ledger, records: Sequence[CycleRecord], metric: Metric, mode: str) -> tuple[Verdict, ...]:
    """Those that end now: due, called in by a review, or in the way of another strategy on the same metric."""
    early = Mode.of(mode) is Mode.REVIEW
    found = []
    for experiment in ledger.running:
        other = Mode.of(experiment.mode) is not Mode.of(mode)
        verdict = judge(experiment, records, early=early and other)
        if verdict is None and other and experiment.metric is metric:
            verdict = Verdict(
                experiment=experiment.number,
                result=Result.INCONCLUSIVE,
                measured=None,
                cycles=0,
                why=f"given up for mode {one_line(mode, 40)} before enough cycles were recorded",
            )
        found += [verdict] if verdict else []
    return tuple(found)


def _next_experiment(request: Request, ledger: _Ledger, records: Sequence[CycleRecord], metric: Metric) -> Experiment:
    """The one that runs on this metric, which goes on, or a new one: two changes at once would tell nothing."""
    for running in ledger.running:
        if running.metric is metric:
            return running
    newest = max((record.number for record in records), default=0)
    return propose(
        number=max(ledger.experiments, default=0) + 1,
        metric=metric,
        mode=one_line(request.mode, 40),
        records=records[-_BASELINE_CYCLES:],
        after_cycle=newest if request.number is None else request.number,
    )


def _recap_cycles(history: kept.Found[CycleRecord], digests: Sequence[Mapping[str, Any]]) -> str:
    records = history.values[-_BASELINE_CYCLES:]
    if not records:
        return _with_trouble("Cycles: none is recorded yet.", history.trouble)
    counts = Counter(record.status.value for record in records)
    outcomes = ", ".join(f"{times} {outcome}" for outcome, times in counts.most_common())
    parts = [outcomes, _streak(records), *_pace(records), *_failures(records), *_last_session(digests)]
    newest = f"the last {len(records)} recorded, up to number {records[-1].number}"
    return _with_trouble(f"Cycles ({newest}): {'; '.join(parts)}.", history.trouble)


def _with_trouble(sentence: str, trouble: str) -> str:
    return f"{sentence} ({trouble}.)" if trouble else sentence


def _streak(records: Sequence[CycleRecord]) -> str:
    failing = records[-1].status.is_failure
    run = 0
    for record in reversed(records):
        if record.status.is_failure is not failing:
            break
        run += 1
    run = max(run, records[-1].consecutive_failures) if failing else run
    return f"streak: {run} {'failed' if failing else 'without a failure'}"


def _pace(records: Sequence[CycleRecord]) -> list[str]:
    seconds = durations(records)
    if not seconds:
        return []
    told = [f"median {median(seconds):.3g} s"]
    half = len(seconds) // 2
    before, after = median(seconds[:half]), median(seconds[half:])
    if len(seconds) >= _TREND_FROM and before and after is not None:
        told = [f"{told[0]}, the newer half {after / before - 1:+.0%} against the older"]
    return told


def _failures(records: Sequence[CycleRecord]) -> list[str]:
    failures = [record for record in records if record.status.is_failure]
    told = [f"cycle {item.number} {item.status} ({reason_of(item)})" for item in failures[-_FAILURES_TOLD:]]
    more = len(failures) - len(told)
    return [*told, f"{more} failures before those"] if more else told


def _last_session(digests: Sequence[Mapping[str, Any]]) -> list[str]:
    session = next((digest for digest in reversed(digests) if digest.get("kind") == AGENT_KIND), None)
    return [] if session is None else [f"last session of a coding agent: {_session(session, 120)}"]


def _session(digest: Mapping[str, Any], length: int) -> str:
    told = [one_line(str(digest.get(key) or ""), length) for key in ("agent", "class", "summary")]
    return f"{told[0]} {told[1]}" + (f" ({told[2]})" if told[2] else "")


def _recap_experiments(ledger: _Ledger, closed: Sequence[Verdict], records: Sequence[CycleRecord], trouble: str) -> str:
    damaged = f"digests without a readable experiment: {ledger.damaged}" if ledger.damaged else ""
    trouble = "; ".join(filter(None, (trouble, damaged)))
    if ledger.last is None:
        return _with_trouble("Experiments: none is on record yet.", trouble)
    told = [_standing(ledger.last, ledger, records)]
    told += [
        _standing(ledger.experiments[verdict.experiment], ledger, records)
        for verdict in closed
        if verdict.experiment != ledger.last.number
    ]
    totals = Counter(verdict.result for verdict in ledger.verdicts.values())
    told += [", ".join(f"{totals[result]} {_RESULT_WORDS[result]}" for result in Result) + " so far"]
    return _with_trouble(f"Experiments: {'; '.join(told)}.", trouble)


_RESULT_WORDS = {Result.MET: "met", Result.NOT_MET: "not met", Result.INCONCLUSIVE: "inconclusive"}


def _standing(experiment: Experiment, ledger: _Ledger, records: Sequence[CycleRecord]) -> str:
    name = f"experiment {experiment.number} ({experiment.criterion})"
    verdict = ledger.verdicts.get(experiment.number)
    if verdict is not None:
        return f"{name} {_RESULT_WORDS[verdict.result]}, {one_line(verdict.why, 200)}"
    since = [record for record in records if record.number > experiment.after_cycle]
    so_far = f", {show(experiment.metric, measure(experiment.metric, since))}" if since else ""
    return f"{name} is running, {len(since)} of {experiment.window} cycles recorded{so_far}"


def _recap_sandbox(survey: kept.Survey, since: datetime | None) -> str:
    told = f"Sandbox: files {survey.files}, bytes {survey.size}"
    if since is not None:
        names = ", ".join(one_line(name, 80) for name in survey.changed)
        more = survey.changes - len(survey.changed)
        news = (
            f"changed {survey.changes} ({names}{f' and {more} more' if more else ''})" if names else "nothing changed"
        )
        told += f"; besides the plan {news} since {timestamp(since)}"
    return _with_trouble(f"{told}.", survey.trouble)


def _digest(
    request: Request,
    now: datetime,
    *,
    recap: Sequence[str],
    experiment: Experiment,
    verdicts: Sequence[Verdict],
    ledger: _Ledger,
    survey: kept.Survey,
) -> dict[str, Any]:
    verdict = ledger.verdicts.get(ledger.last.number) if ledger.last else None
    return {
        "schema_version": SCHEMA_VERSION,
        "timestamp": timestamp(now),
        "cycle_id": request.cycle_id,
        "number": request.number,
        "mode": one_line(request.mode, 40),
        "strategy": Mode.of(request.mode),
        "goal": one_line(request.goal, _GOAL_LENGTH),
        "recap": list(recap),
        "experiment": experiment.as_dict(),
        "verdict": verdict.as_dict() if verdict else None,  # of the experiment of the digest before
        "verdicts": [item.as_dict() for item in verdicts],  # all that ended with this cycle
        "sandbox": {"files": survey.files, "bytes": survey.size},
        "plan_written": request.cap_writes > 0,
    }


def _note(request: Request, experiment: Experiment, ledger: _Ledger) -> str:
    verb = "goes on" if experiment.number in ledger.experiments else "begins"
    told = f"experiment {experiment.number} {verb}: {experiment.criterion}"
    if request.mode not in set(Mode):
        told += f"; mode {one_line(request.mode, 40)!r} is a label on the {Mode.EXPERIMENTAL} strategy"
    if request.cap_writes == 0:
        told += "; the cap on writes is 0, so the plan stands in the digest only"
    return told


def _control(planned: Planned) -> dict[str, Any]:
    return {
        "class": AgentClass.OK,
        "agent": "planner",
        "continue": True,
        "reason": planned.note,
        "outputs": {
            "plan": str(planned.plan_path) if planned.plan_path else None,
            "archive": str(planned.archive_path),
            "experiment": planned.experiment.number,
        },
        "usage": {"input_tokens": 0, "output_tokens": 0, "cost_usd": 0},
    }


def _rendered(request: Request, experiment: Experiment, ledger: _Ledger, digests: Sequence[Mapping[str, Any]]) -> str:
    """The plan: this cycle on top, then the log of experiments, then the cycles before, newest first."""
    *earlier, current = digests
    experiments = {**ledger.experiments, experiment.number: experiment}
    rows = [_row(experiments[number], ledger) for number in sorted(experiments, reverse=True)[:_LOGGED]]
    parts = [
        f"# Plan\n\nGoal: {one_line(request.goal, _GOAL_LENGTH)}\n\nMode: {current['mode']} ({current['strategy']})",
        _section("##", current),
        _experiment_part(experiment, current),
        "## Experiments\n\n| # | after cycle | success criterion | baseline | verdict |\n|---|---|---|---|---|\n"
        + "\n".join(rows),
        "## Earlier cycles" if earlier else "",
        *[_section("###", digest) for digest in reversed(earlier[-_LOGGED:])],
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(heading: str, digest: Mapping[str, Any]) -> str:
    number = digest.get("number")
    title = f"Cycle {number}" if isinstance(number, int) else "By hand"
    recap = digest.get("recap")
    bullets = [one_line(str(item), 1000) for item in recap] if isinstance(recap, list) else []
    if digest.get("kind") == AGENT_KIND:
        bullets = [_session(digest, 1000)]
    lines = "\n".join(f"- {bullet}" for bullet in bullets)
    return f"{heading} {title}, {one_line(str(digest.get('timestamp')), 40)}\n\n{lines}"


def _experiment_part(experiment: Experiment, digest: Mapping[str, Any]) -> str:
    told = digest["experiment"]
    return "\n".join(
        (
            f"### Experiment {experiment.number}",
            "",
            experiment.change,
            "",
            f"- Metric: {experiment.metric}, {told['how_measured']}.",
            f"- Baseline: {show(experiment.metric, experiment.baseline)}, over {experiment.baseline_cycles} cycles.",
            f"- Success: {experiment.criterion}.",
            f"- Judged: {told['judged']}.",
        )
    )


def _row(experiment: Experiment, ledger: _Ledger) -> str:
    verdict = ledger.verdicts.get(experiment.number)
    told = f"{_RESULT_WORDS[verdict.result]}: {one_line(verdict.why, 200)}" if verdict else "running"
    cells = (
        str(experiment.number),
        str(experiment.after_cycle),
        experiment.criterion,
        show(experiment.metric, experiment.baseline),
        told,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
