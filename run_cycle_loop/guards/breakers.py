"""The guard that ends a loop which goes on without getting anywhere, or spends too fast."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from run_cycle_loop.model.breakers import BreakerMarks, BreakerState
from run_cycle_loop.model.decisions import Continue, Decision, Halt
from run_cycle_loop.model.enums import GuardMode, StopReason
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.findings import GuardFinding
from run_cycle_loop.model.ports import BreakerStore, Settled
from run_cycle_loop.model.records import CycleRecord, CycleSpec, timestamp
from run_cycle_loop.policies import breakers
from run_cycle_loop.policies.breakers import HOW_TO_RESET, Thresholds, Verdict, Watch


class BreakerGuard:
    """Implements the port ``Guard``. It stands behind the budgets, for it counts what they have charged."""

    def __init__(
        self,
        store: BreakerStore,
        thresholds: Thresholds,
        *,
        mode: GuardMode,
        longest_wait: float,
        is_real: Callable[[str | None], bool],
        recorded: Callable[[], Iterable[CycleRecord]],
    ) -> None:
        """Nothing is read before the first cycle.

        Args:
            store: what is kept beside the history.
            thresholds: the operator's.
            mode: what it does about what it finds.
            longest_wait: seconds before the one cycle that a half-open breaker still allows.
            is_real: whether an agent of that name costs something.
            recorded: the history, newest first.
        """
        self._store = store
        self._thresholds = thresholds
        self._mode = mode
        self._longest_wait = timedelta(seconds=longest_wait)
        self._is_real = is_real
        self._recorded = recorded
        self._watch: Watch | None = None
        self._marks: BreakerMarks | None = None  #: those that the watch began with
        self._draft: CycleRecord | None = None  #: settled last; the history may not know it yet
        self._due: tuple[int, datetime] | None = None  #: for which cycle a half-open breaker waits, and until when

    def admit(self, now: datetime) -> Decision | None:
        """Whether a breaker is open, which ends the loop, or half-open, which delays one last cycle."""
        if self._mode is not GuardMode.ENFORCE:
            return None
        try:
            watch, verdict = self._look()
            if verdict.state is BreakerState.OPEN:
                self._keep_open(verdict, watch, now)
        except StateError as error:
            return Halt(reason=StopReason.BREAKER_OPEN, why=f"what the breakers remember is in doubt: {error}")
        if verdict.state is BreakerState.OPEN:
            return Halt(reason=StopReason.BREAKER_OPEN, why=_open(verdict))
        return self._probe(verdict, watch, now) if verdict.state is BreakerState.HALF_OPEN else None

    def _probe(self, verdict: Verdict, watch: Watch, now: datetime) -> Continue | None:
        """The wait before one cycle more; None once it is over. A clock that is set back adds one wait at most."""
        number, due = self._due or (0, now)
        if number != watch.newest:
            due = (watch.since or now) + self._longest_wait
        due = min(due, now + self._longest_wait)
        self._due = (watch.newest, due)
        if due <= now:
            return None
        return Continue(delay=(due - now).total_seconds(), why=_half_open(verdict), backoff=True, until=due)

    def begin(self, spec: CycleSpec) -> CycleSpec:
        """Nothing to note: a cycle counts by its record."""
        return spec

    def settle(self, spec: CycleSpec, record: CycleRecord, *, launched: bool) -> Settled:  # noqa: ARG002 - the port's
        """Count the cycle; what has opened by it is kept.

        Raises:
            StateError: that cannot be kept, or what is kept cannot be read.
        """
        if self._mode is GuardMode.OFF:
            return Settled()
        self._count(record)
        watch, verdict = self._look()
        if verdict.state is BreakerState.CLOSED:
            return Settled()
        if verdict.state is BreakerState.OPEN and self._mode is GuardMode.ENFORCE:
            self._keep_open(verdict, watch, datetime.fromisoformat(record.finished_at))
        detail = _open(verdict) if verdict.state is BreakerState.OPEN else _half_open(verdict)
        return Settled(findings=(GuardFinding(guard="breaker", mode=self._mode, ok=False, detail=detail),))

    # --- what is counted -------------------------------------------------------------------------------------------

    def _look(self) -> tuple[Watch, Verdict]:
        """What the cycles add up to, with what an operator has reset meanwhile, and what that means."""
        marks = self._store.load()
        watch = self._watched(marks)
        return watch, breakers.gravest(breakers.judge(watch, self._thresholds, marks))

    def _watched(self, marks: BreakerMarks) -> Watch:
        if self._watch is None or self._marks is None or self._marks.reset != marks.reset:
            self._watch = breakers.watched(self._records(), self._thresholds, marks, self._is_real)
            self._marks = marks
        return self._watch

    def _records(self) -> Iterable[CycleRecord]:
        """The history, newest first, with the cycle that was settled and may not be in it yet."""
        draft = self._draft
        for record in self._recorded():
            if draft is not None and record.cycle_id != draft.cycle_id:
                yield draft
            draft = None
            yield record
        if draft is not None:
            yield draft

    def _count(self, record: CycleRecord) -> None:
        """Take the cycle in, once: a second attempt to settle it changes nothing."""
        if self._draft is not None and self._draft.cycle_id == record.cycle_id:
            return
        if self._watch is not None:
            is_real = self._is_real(record.agent)
            self._watch = breakers.adding(self._watch, record, self._thresholds, is_real=is_real)
        self._draft = record

    def _keep_open(self, verdict: Verdict, watch: Watch, now: datetime) -> None:
        marks = self._store.load()
        if marks.opened is None:
            self._store.save(replace(marks, opened=breakers.opened_by(verdict, watch, timestamp(now))))


def _open(verdict: Verdict) -> str:
    return f"the {verdict.name} breaker is open: {verdict.detail}; {HOW_TO_RESET}"


def _half_open(verdict: Verdict) -> str:
    return f"the {verdict.name} breaker is half-open: {verdict.detail}; one cycle more, then it opens"
