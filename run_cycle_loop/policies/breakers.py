"""Breakers: whether the loop still gets anywhere, by what its last cycles came to.

Everything is worked out from the records, so that no file which is lost or damaged can close a breaker that is open.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from run_cycle_loop.kit.durations import format_duration, parse_duration, parse_number
from run_cycle_loop.model import reading
from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, BreakerState, Opened
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.records import CycleRecord

HOW_TO_RESET = "have a look, then `run-cycle-loop breaker reset`"
_LOOKED_THROUGH = 5000  #: records at a start; in a history that goes well a few are enough
_KEPT = 4096  #: amounts within the time of the spend rate
_EXAMPLE = "write such as 10usd/30m"
_RATE = re.compile(r"(?i)\s*(?:usd\s*=\s*)?([0-9.]+)\s*(?:usd)?\s*/\s*(\S+)\s*")
#: What says nothing of the work: nothing of it ran, or somebody else ended it.
_PASSED_OVER = frozenset({Outcome.RATE_LIMITED, Outcome.PREREQ_FAILED, Outcome.INTERRUPTED, Outcome.SKIPPED})
#: Of these it is asked whether the workdir changed.
_WORKED = frozenset({Outcome.SUCCESS, Outcome.DEGRADED, Outcome.FAILED, Outcome.TIMEOUT})


@dataclass(frozen=True, kw_only=True, slots=True)
class SpendRate:
    """More than so much within so long is too fast."""

    usd: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """When each breaker opens; 0 and None: never."""

    no_progress: int = 5  #: cycles in a row that left the same workdir; 1 is taken as 2, for it takes two to compare
    storm_cycles: int = 10
    storm_seconds: float = 5.0
    spend_rate: SpendRate | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """What the recorded cycles add up to."""

    newest: int = 0  #: number of the last cycle in it
    fingerprint: str | None = None
    same: int = 0  #: cycles in a row that left this fingerprint
    since: datetime | None = None  #: when the last of them ended
    short: int = 0  #: short cycles in a row
    spent: tuple[tuple[datetime, float], ...] = ()  #: USD within the time of the rate, oldest first


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one breaker says."""

    name: BreakerName
    state: BreakerState
    detail: str  #: what was counted, as part of a sentence


def parse_spend_rate(text: str) -> SpendRate:
    """Read ``10usd/30m``.

    Raises:
        ValueError: the reason and the next step, without the value.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"is no rate of spending; {_EXAMPLE}")
    try:
        rate = SpendRate(usd=parse_number(found[1]), seconds=parse_duration(found[2]))
    except ValueError:
        raise ValueError(f"is no rate of spending; {_EXAMPLE}") from None
    if not 0 < rate.usd <= 1e9 or not rate.seconds:
        raise ValueError(f"has an amount or a time that is not above 0; {_EXAMPLE}")
    return rate


def show_spend_rate(rate: SpendRate) -> str:
    """The same, as it is written."""
    short = format_duration(rate.seconds)
    time = short if parse_duration(short) == rate.seconds else f"{rate.seconds!r}s"
    return f"{rate.usd:.10g}usd/{time}"


# --- what is counted -----------------------------------------------------------------------------------------------


def adding(watch: Watch, record: CycleRecord, thresholds: Thresholds, *, is_real: bool) -> Watch:
    """The watch with one more cycle in it.

    Args:
        watch: what came before.
        record: the cycle.
        thresholds: the operator's.
        is_real: whether it ran an agent that costs something.
    """
    watch = replace(watch, newest=max(watch.newest, record.number), spent=_spent(watch, record, thresholds))
    if record.status in _PASSED_OVER:
        return watch
    watch = replace(watch, short=watch.short + 1 if _is_short(record, thresholds, is_real=is_real) else 0)
    if record.fingerprint is None or record.status not in _WORKED:
        return watch
    same = watch.same + 1 if record.fingerprint == watch.fingerprint else 1
    return replace(watch, fingerprint=record.fingerprint, same=same, since=_ended(record))


def _is_short(record: CycleRecord, thresholds: Thresholds, *, is_real: bool) -> bool:
    """Over in no time, and either without success or at the cost of an agent's session that changed nothing."""
    if record.duration_seconds >= thresholds.storm_seconds:
        return False
    return record.status is not Outcome.SUCCESS or (is_real and not record.files_changed)


def _spent(watch: Watch, record: CycleRecord, thresholds: Thresholds) -> tuple[tuple[datetime, float], ...]:
    """What was spent in the time of the rate that ends with this cycle; of a clock that was set back all counts."""
    usd, at = charged_usd(record.charged), _ended(record)
    if thresholds.spend_rate is None or at is None:
        return watch.spent
    start = at - timedelta(seconds=thresholds.spend_rate.seconds)
    kept = tuple(item for item in watch.spent if item[0] >= start)
    return (*kept, (at, usd))[-_KEPT:] if usd else kept


def charged_usd(charged: Mapping[str, object] | None) -> float:
    """What the budgets charged; nothing where it cannot be read."""
    try:
        return reading.seconds((charged or {}).get("usd"))
    except ValueError:
        return 0.0


def _ended(record: CycleRecord) -> datetime | None:
    try:
        return datetime.fromisoformat(record.finished_at or record.timestamp).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def watched(
    newest_first: Iterable[CycleRecord],
    thresholds: Thresholds,
    marks: BreakerMarks,
    is_real: Callable[[str | None], bool],
) -> Watch:
    """What the recorded cycles since the last reset add up to; no more of them are read than say something."""
    records = iter(newest_first)
    newest = next(records, None)
    if newest is None:
        return Watch()
    reset = marks.reset.number if marks.reset else 0
    # A history whose numbers began anew has none that was looked at before.
    first = reset if newest.number >= reset else 0
    needed = _Needed(thresholds, newest, is_real)
    found = [newest] if newest.number > first else []
    for record in islice(records, _LOOKED_THROUGH if found else 0):
        if record.number <= first or needed.is_enough():
            break
        needed.take(record)
        found.append(record)
    watch = Watch()
    for record in reversed(found):
        watch = adding(watch, record, thresholds, is_real=is_real(record.agent))
    return watch


class _Needed:
    """How far back the records still matter."""

    def __init__(self, thresholds: Thresholds, newest: CycleRecord, is_real: Callable[[str | None], bool]) -> None:
        self._thresholds = thresholds
        self._is_real = is_real
        self._fingerprint: str | None = None
        self._same = self._short = self._blank = 0
        self._progress_known = not thresholds.no_progress
        self._storm_known = not thresholds.storm_cycles
        self._spending_known = thresholds.spend_rate is None
        end = _ended(newest)
        self._start = end - timedelta(seconds=thresholds.spend_rate.seconds) if thresholds.spend_rate and end else None
        self.take(newest)

    def is_enough(self) -> bool:
        return self._progress_known and self._storm_known and self._spending_known

    def take(self, record: CycleRecord) -> None:
        at = _ended(record)
        self._spending_known |= self._start is None or (at is not None and at < self._start)
        if record.status in _PASSED_OVER:
            return
        if _is_short(record, self._thresholds, is_real=self._is_real(record.agent)):
            self._short += 1
        else:
            self._storm_known = True
        self._storm_known |= self._short >= self._thresholds.storm_cycles
        if record.fingerprint is None:
            # Cycles without an agent have none; a few of them in a row, and nothing older is of this kind of loop.
            self._blank += 1
            self._progress_known |= self._blank > 2 * _least(self._thresholds)
            return
        if record.status not in _WORKED:
            return
        self._fingerprint = self._fingerprint or record.fingerprint
        self._same += 1
        self._progress_known |= record.fingerprint != self._fingerprint or self._same > _least(self._thresholds) + 1


# --- what follows --------------------------------------------------------------------------------------------------


def judge(watch: Watch, thresholds: Thresholds, marks: BreakerMarks) -> tuple[Verdict, ...]:
    """What each breaker says, in a fixed order; one that has opened stays so until it is reset."""
    verdicts = (_progress(watch, thresholds), _storm(watch, thresholds), _spending(watch, thresholds))
    opened = marks.opened
    if opened is None:
        return verdicts
    known = Verdict(name=opened.name, state=BreakerState.OPEN, detail=opened.why)
    others = tuple(verdict for verdict in verdicts if verdict.name is not opened.name)
    return (known, *others)


def gravest(verdicts: Iterable[Verdict]) -> Verdict:
    """The first one of those that say most."""
    states = list(BreakerState)
    return max(verdicts, key=lambda verdict: states.index(verdict.state))


def opened_by(verdict: Verdict, watch: Watch, at: str) -> Opened:
    """What is kept of a breaker that has opened."""
    return Opened(name=verdict.name, at=at, number=watch.newest, why=verdict.detail)


def _least(thresholds: Thresholds) -> int:
    return max(2, thresholds.no_progress)


def _progress(watch: Watch, thresholds: Thresholds) -> Verdict:
    if not thresholds.no_progress:
        return Verdict(name=BreakerName.NO_PROGRESS, state=BreakerState.CLOSED, detail="off")
    most = _least(thresholds)
    state = BreakerState.CLOSED
    if watch.same >= most:
        state = BreakerState.HALF_OPEN if watch.same == most else BreakerState.OPEN
    detail = f"{watch.same} {_cycles(watch.same)} in a row left the same workdir, of {most}"
    return Verdict(name=BreakerName.NO_PROGRESS, state=state, detail=detail)


def _storm(watch: Watch, thresholds: Thresholds) -> Verdict:
    most = thresholds.storm_cycles
    if not most or not thresholds.storm_seconds:
        return Verdict(name=BreakerName.STORM, state=BreakerState.CLOSED, detail="off")
    state = BreakerState.OPEN if watch.short >= most else BreakerState.CLOSED
    length = format_duration(thresholds.storm_seconds)
    detail = f"{watch.short} {_cycles(watch.short)} in a row shorter than {length}, of {most}"
    return Verdict(name=BreakerName.STORM, state=state, detail=detail)


def _spending(watch: Watch, thresholds: Thresholds) -> Verdict:
    rate = thresholds.spend_rate
    if rate is None:
        return Verdict(name=BreakerName.SPENDING, state=BreakerState.CLOSED, detail="off")
    total = sum(usd for _, usd in watch.spent)
    state = BreakerState.OPEN if total > rate.usd + 1e-9 else BreakerState.CLOSED
    detail = f"{total:.2f} usd within {format_duration(rate.seconds)}, of {rate.usd:.10g}"
    return Verdict(name=BreakerName.SPENDING, state=state, detail=detail)


def _cycles(count: int) -> str:
    return "cycle" if count == 1 else "cycles"
