"""Measurable experiments, without effects: what can be measured on cycle records, what to try next, and the verdict."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.records import CycleRecord

#: A cycle with one of these outcomes ran, so that its duration says something.
_RAN = frozenset({Outcome.SUCCESS, Outcome.DEGRADED, Outcome.FAILED, Outcome.TIMEOUT})
#: Measures within this distance are equal: they are quotients of small numbers.
_TOLERANCE = 1e-9
#: Longest text taken over from a record.
_QUOTE = 120


class Metric(StrEnum):
    """What an experiment measures; the order is that of the rotation."""

    DURATION = "median_duration_seconds"  #: of the cycles that ran
    FAILURE_RATE = "failure_rate"  #: share of failures, 0 to 1
    FRESHNESS = "fresh_archive_rate"  #: share of cycles that left a new archive, 0 to 1
    SPREAD = "slowest_to_median_ratio"  #: 1 where all cycles take the same time


class Mode(StrEnum):
    """The strategies; a mode with another name is a label on the first one."""

    EXPERIMENTAL = "experimental"  #: propose a change to try
    STABILIZE = "stabilize"  #: go after failures and flakiness, over a longer window
    REVIEW = "review"  #: judge what was proposed earlier; measure, change nothing

    @classmethod
    def of(cls, label: str) -> "Mode":
        """The strategy behind a mode's label."""
        return cls(label) if label in set(cls) else cls.EXPERIMENTAL

    @property
    def window(self) -> int:
        """How many recorded cycles decide about an experiment."""
        return 5 if self is Mode.STABILIZE else 3


class Result(StrEnum):
    """How an experiment ended."""

    MET = "met"
    NOT_MET = "not_met"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One change and the measure that decides about it."""

    number: int  #: 1-based over the life of the digests
    metric: Metric
    mode: str
    change: str  #: what to try, one sentence
    baseline: float | None  #: None where nothing had been recorded
    baseline_cycles: int
    target: float | None  #: None: the measurement itself is the aim
    window: int  #: recorded cycles that decide
    after_cycle: int  #: the cycles with higher numbers count

    @property
    def criterion(self) -> str:
        """The success criterion, one clause."""
        if self.target is None:
            return f"{self.metric} can be measured, as the first baseline"
        bound = "at least" if self.metric is Metric.FRESHNESS else "at most"
        return f"{self.metric} is {bound} {show(self.metric, self.target)}"

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of a digest, the criteria spelled out for readers."""
        return {
            **asdict(self),
            "success_criteria": [self.criterion],
            "how_measured": f"{_HOW[self.metric]}, over the cycles that follow cycle {self.after_cycle} in the history",
            "judged": f"once {self.window} cycles after cycle {self.after_cycle} are recorded",
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read an experiment back.

        Raises:
            ValueError: the object is none.
        """
        try:
            return cls(
                number=_count(value["number"]),
                metric=Metric(value["metric"]),
                mode=str(value["mode"]),
                change=str(value["change"]),
                baseline=_measure_of(value["baseline"]),
                baseline_cycles=_count(value["baseline_cycles"]),
                target=_measure_of(value["target"]),
                window=max(1, _count(value["window"])),
                after_cycle=_count(value["after_cycle"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an experiment: {error!r}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What became of an experiment."""

    experiment: int
    result: Result
    measured: float | None
    cycles: int  #: recorded cycles that decided
    why: str  #: one clause

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of a digest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read a verdict back.

        Raises:
            ValueError: the object is none.
        """
        try:
            return cls(
                experiment=_count(value["experiment"]),
                result=Result(value["result"]),
                measured=_measure_of(value["measured"]),
                cycles=_count(value["cycles"]),
                why=str(value["why"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a verdict: {error!r}") from error


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _measure_of(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no measure")
    return float(value)


def durations(records: Sequence[CycleRecord]) -> list[float]:
    """Seconds of the cycles that ran, in their order; what is no usable number is left out."""
    return [
        record.duration_seconds
        for record in records
        if record.status in _RAN and math.isfinite(record.duration_seconds) and record.duration_seconds >= 0
    ]


def median(values: Sequence[float]) -> float | None:
    """The middle value; None of nothing."""
    # Importing statistics would cost half of the planner's start.
    if not values:
        return None
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _failure_rate(records: Sequence[CycleRecord]) -> float | None:
    return sum(record.status.is_failure for record in records) / len(records) if records else None


def _freshness(records: Sequence[CycleRecord]) -> float | None:
    told = [record.archive_created for record in records if record.archive_created is not None]
    return sum(map(bool, told)) / len(told) if told else None


def _spread(records: Sequence[CycleRecord]) -> float | None:
    seconds = durations(records)
    middle = median(seconds)
    return max(seconds) / middle if middle else None


_MEASURES: dict[Metric, Callable[[Sequence[CycleRecord]], float | None]] = {
    Metric.DURATION: lambda records: median(durations(records)),
    Metric.FAILURE_RATE: _failure_rate,
    Metric.FRESHNESS: _freshness,
    Metric.SPREAD: _spread,
}
_HOW = {
    Metric.DURATION: "median of duration_seconds of the cycles that ran",
    Metric.FAILURE_RATE: "failed, timed out, unprepared, lost and broken cycles divided by all",
    Metric.FRESHNESS: "cycles with archive_created true divided by those where it is told",
    Metric.SPREAD: "greatest duration_seconds divided by their median",
}
# The first word of the goal that fits decides.
_WORDS = (
    (
        Metric.DURATION,
        re.compile(r"\b(time|times|timing|fast\w*|slow\w*|speed\w*|duration\w*|latency|quick\w*)\b", re.IGNORECASE),
    ),
    (
        Metric.FAILURE_RATE,
        re.compile(r"\b(fail\w*|error\w*|flak\w*|reliab\w*|crash\w*|timeouts?|stab\w*)\b", re.IGNORECASE),
    ),
    (Metric.FRESHNESS, re.compile(r"\b(archiv\w*|fresh\w*|stale\w*)\b", re.IGNORECASE)),
)


def measure(metric: Metric, records: Sequence[CycleRecord]) -> float | None:
    """The metric over some cycles; None where they tell nothing."""
    value = _MEASURES[metric](records)
    return None if value is None else round(value, 6)


def show(metric: Metric, value: float | None) -> str:
    """A measure for people."""
    if value is None:
        return "nothing measured"
    if metric is Metric.DURATION:
        return f"{value:.3g} s"
    return f"{value:.2f}" if metric is Metric.SPREAD else f"{value:.0%}"


def choose_metric(goal: str, mode: Mode, *, previous: Metric | None, running: frozenset[Metric]) -> Metric:
    """What to measure next: what the goal speaks of first, else the next of the rotation.

    The rotation never takes ``previous`` again, and leaves out what is being measured where it can.
    """
    hits = [(match.start(), metric) for metric, words in _WORDS if (match := words.search(goal))]
    if hits:
        return min(hits)[1]
    order = [Metric.FAILURE_RATE, Metric.SPREAD] if mode is Mode.STABILIZE else list(Metric)
    start = order.index(previous) + 1 if previous in order else 0
    turn = [metric for metric in order[start:] + order[:start] if metric is not previous]
    return next((metric for metric in turn if metric not in running), turn[0])


def propose(*, number: int, metric: Metric, mode: str, records: Sequence[CycleRecord], after_cycle: int) -> Experiment:
    """The next experiment on a metric, its baseline taken from ``records``."""
    strategy = Mode.of(mode)
    baseline = measure(metric, records)
    return Experiment(
        number=number,
        metric=metric,
        mode=mode,
        change=_change(metric, strategy, records),
        baseline=baseline,
        baseline_cycles=len(records),
        target=None if baseline is None else round(_target(metric, strategy, baseline), 6),
        window=strategy.window,
        after_cycle=after_cycle,
    )


def _target(metric: Metric, mode: Mode, baseline: float) -> float:
    if metric is Metric.FRESHNESS:
        return baseline if mode is Mode.REVIEW else 1.0
    if mode is Mode.REVIEW:
        return baseline if metric is Metric.FAILURE_RATE else baseline * 1.2
    if metric is Metric.FAILURE_RATE:
        # Half the failures, in whole cycles of the window; none at all where the aim is to be stable.
        return 0.0 if mode is Mode.STABILIZE else math.floor(baseline * mode.window / 2) / mode.window
    if metric is Metric.SPREAD:
        return 1 + (baseline - 1) * 0.8
    return baseline * (1.1 if mode is Mode.STABILIZE else 0.9)


def _change(metric: Metric, mode: Mode, records: Sequence[CycleRecord]) -> str:
    if mode is Mode.REVIEW:
        return "Change nothing: measure once more, so that the earlier verdicts have something to stand beside."
    if not records:
        return "Change nothing yet: no cycle is recorded, so the first ones give the baseline."
    if metric is Metric.FAILURE_RATE:
        return _against_failures(mode, records)
    if metric is Metric.FRESHNESS:
        return _against_staleness(mode, records)
    ran = [record for record in records if durations([record])]
    if not ran:
        return "Change nothing yet: no recorded cycle ran, so none has a duration to improve on."
    slowest = max(ran, key=lambda record: record.duration_seconds)
    return (
        f"Shorten the one step that made cycle {slowest.number} the slowest of the last {len(ran)} "
        f"({slowest.duration_seconds:.3g} s{_log_of(slowest)}), and change nothing else."
    )


def _against_failures(mode: Mode, records: Sequence[CycleRecord]) -> str:
    failures = [record for record in records if record.status.is_failure]
    if not failures:
        quiet = f"Nothing failed in the last {len(records)} cycles: "
        if mode is Mode.STABILIZE:
            return quiet + "hold the configuration still and see whether that lasts."
        return quiet + "halve the pause between cycles (--sleep) and see whether that holds."
    (reason, times), *_ = Counter(reason_of(record) for record in failures).most_common(1)
    newest = next(record for record in reversed(failures) if reason_of(record) == reason)
    return (
        f"Remove the most frequent reason for failure, {reason} ({times} of {len(failures)}), "
        f"beginning with cycle {newest.number}{_log_of(newest)}."
    )


def _against_staleness(mode: Mode, records: Sequence[CycleRecord]) -> str:
    missed = [record for record in records if record.archive_created is False]
    if missed:
        newest = missed[-1]
        return (
            f"Make the cycle leave its archive where it did not: {len(missed)} of the last {len(records)} cycles, "
            f"the newest being cycle {newest.number} ({reason_of(newest)}{_log_of(newest)})."
        )
    if mode is Mode.STABILIZE:
        return "No archive is missing: hold the configuration still and see whether that lasts."
    return "No archive is missing: halve --timeout and see whether every cycle still leaves one."


def reason_of(record: CycleRecord) -> str:
    """Why a cycle came to its outcome, short and printable."""
    return one_line(str(record.reason), _QUOTE) or f"{record.status} with return code {record.return_code}"


def _log_of(record: CycleRecord) -> str:
    return f", log {one_line(str(record.log_path), _QUOTE)}" if record.log_path else ""


def one_line(text: str, limit: int) -> str:
    """Foreign text on one line, harmless for a terminal, at most ``limit`` characters."""
    words = " ".join(printable(text[: 4 * limit], keep="\n\t").split())
    return words if len(words) <= limit else words[: limit - 3] + "..."


def judge(experiment: Experiment, records: Sequence[CycleRecord], *, early: bool = False) -> Verdict | None:
    """The verdict, or None while the window is not full.

    ``early`` takes what there is, if there is anything. ``records`` are the newest of the history, oldest first.
    """
    if _restarted(experiment, records):
        why = f"the history no longer holds cycle {experiment.after_cycle}"
        return Verdict(experiment=experiment.number, result=Result.INCONCLUSIVE, measured=None, cycles=0, why=why)
    since = [record for record in records if record.number > experiment.after_cycle][: experiment.window]
    if not since or (len(since) < experiment.window and not early):
        return None
    measured = measure(experiment.metric, since)
    return Verdict(
        experiment=experiment.number,
        result=_result(experiment, measured),
        measured=measured,
        cycles=len(since),
        why=f"{show(experiment.metric, measured)} over {len(since)} of {experiment.window} cycles, "
        f"baseline {show(experiment.metric, experiment.baseline)}",
    )


def _restarted(experiment: Experiment, records: Sequence[CycleRecord]) -> bool:
    """Whether the history was begun anew since the experiment was proposed."""
    return max((record.number for record in records), default=0) + 1 < experiment.after_cycle


def _result(experiment: Experiment, measured: float | None) -> Result:
    if measured is None:
        return Result.INCONCLUSIVE
    if experiment.target is None:
        return Result.MET
    gap = measured - experiment.target
    good = gap >= -_TOLERANCE if experiment.metric is Metric.FRESHNESS else gap <= _TOLERANCE
    return Result.MET if good else Result.NOT_MET
