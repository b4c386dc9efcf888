"""The loop itself: stop asked? -> one cycle -> record -> show -> decide -> wait."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from run_cycle_loop.model.decisions import Continue, Decision, Halt, StopRequest
from run_cycle_loop.model.enums import LoopState, Outcome, StopReason, Urgency
from run_cycle_loop.model.errors import ConfigError, StateError
from run_cycle_loop.model.ports import Clock, CycleLogs, History, InFlight, StopToken, Waited
from run_cycle_loop.model.records import (
    CheckResult,
    CycleRecord,
    CycleSpec,
    Goal,
    RunningCycle,
    SupervisorIdentity,
    timestamp,
)
from run_cycle_loop.policies import continuation
from run_cycle_loop.policies.classification import next_streak
from run_cycle_loop.supervisor import guarding, recovery
from run_cycle_loop.supervisor.board import Board
from run_cycle_loop.supervisor.cycle import CycleRun, Observed, ShownFlight, draft_record, redacted, unbegun_record
from run_cycle_loop.supervisor.plan import Plan

_T = TypeVar("_T")
_HOLDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  #: seconds between attempts to write state; the last one repeats
_RECENT = 1000  #: records among which the cycle of the in-flight slot is looked for
_LOOK_AGAIN = 60.0  #: seconds between two looks at the wall clock while a moment is waited for
_BOUNDED_HOLDS = 3  #: a bounded run gives up after so many: somebody waits for its exit code


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """How a run of the loop ended."""

    reason: StopReason
    why: str
    exit_code: int


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Everything outside the loop, behind ports."""

    clock: Clock
    stop: StopToken
    history: History
    flight: InFlight
    logs: CycleLogs
    board: Board
    identity: SupervisorIdentity
    boot_id: str
    chance: Callable[[], float]  #: a number from 0 to 1
    redact: Callable[[str], str]
    redact_value: Callable[[Any], Any]
    hold_instance: Callable[[], None]  #: makes sure that this is still the only instance; raises where it is not
    last_words: Callable[[CycleRecord], None]  #: takes a record that could not be written anywhere else


class Supervisor:
    """Runs cycles until a reason to stop; one object per run."""

    def __init__(self, world: World, plan: Plan, reload: Callable[[], Plan | None]) -> None:
        self._world = world
        self._plan = plan
        self._reload = reload  #: a new plan, or None where the new configuration is not usable
        self._board = world.board
        self._shown_cycle = world.board.snapshot.cycle  #: in flight, by the last run's latest.json
        self._index = 0  #: cycles that this run has completed
        self._limits = 0  #: rate limits in a row
        self._last: Outcome | None = None
        self._in_cycle = False

    def hear(self, request: StopRequest) -> None:
        """A stop was asked: show that the current cycle is the last, what becomes of it, and what more can be asked."""
        if not self._in_cycle:
            return
        what = {
            Urgency.AFTER_CYCLE: "after the current cycle; asked again, it is ended now",
            Urgency.NOW: f"the cycle is ended: TERM, KILL after {self._plan.grace:g} s; asked again, it is killed",
            Urgency.KILL: "the cycle is killed",
        }[request.urgency]
        self._board.enter(LoopState.STOPPING, note=f"{request.detail}: {what}")

    def run(self) -> Finish:
        """Run until there is a reason to stop.

        Raises:
            StateError: what happened cannot be recorded.
            AlreadyRunning: another instance took over while the lock file was gone.
        """
        try:
            return self._loop()
        except StateError as error:
            self._board.enter(LoopState.STOPPED, stop_reason=StopReason.STATE_UNWRITABLE, note=str(error))
            raise

    def _loop(self) -> Finish:
        self._board.enter(
            LoopState.STARTING,
            supervisor=self._world.identity,
            agent=self._plan.agent,
            budget=self._plan.budget,
            cycle=None,
            stop_reason=None,
            next_run_at=None,
        )
        decision = self._resume()
        hurried = False
        while True:
            if isinstance(decision, Continue):
                hurried = self._await(decision) is Waited.TRIGGERED
            if request := self._world.stop.requested():
                decision = continuation.halt_for(request)
            if isinstance(decision, Halt):
                return self._finish(decision)
            self._heed_reload()
            held = self._held_by_guards()
            if held is None or (hurried and isinstance(held, Continue) and held.instead is None):
                decision = self._one_cycle()  # the operator's word ends a wait that is only a pace, no other
            else:
                self._show_waiting(held)
                decision = held

    def _await(self, wait: Continue) -> Waited:
        """Wait as long as a decision says; where it names a moment, until either clock says that it has come.

        The wall clock is looked at again and again: it may be set, and the machine may sleep meanwhile.
        """
        if wait.until is None:
            return self._world.stop.wait(wait.delay)
        clock = self._world.clock
        longest = clock.monotonic() + min((wait.until - clock.now()).total_seconds(), self._plan.rules.longest_limit)
        while True:
            left = min((wait.until - clock.now()).total_seconds(), longest - clock.monotonic())
            if left <= 0:
                return Waited.ELAPSED
            if (ended := self._world.stop.wait(min(left, _LOOK_AGAIN))) is not Waited.ELAPSED:
                return ended

    def _held_by_guards(self) -> Decision | None:
        """What the guards want instead of a cycle; who asked for one cycle, now, is not made to wait."""
        held = guarding.held(self._plan.guards, self._world.clock.now())
        if isinstance(held, Continue) and self._plan.rules.iterations == 1:
            return Halt(reason=held.instead, why=held.why) if held.instead else None
        return held

    def _show_waiting(self, decision: Decision) -> None:
        if isinstance(decision, Halt):
            return
        state, due = self._next_state(decision)
        note = decision.why if decision.until else ""
        if (state, due, note) != (
            self._board.snapshot.state,
            self._board.snapshot.next_run_at,
            self._board.snapshot.note,
        ):
            self._board.enter(state, next_run_at=due, note=note)

    def _finish(self, halt: Halt) -> Finish:
        self._board.enter(LoopState.STOPPED, stop_reason=halt.reason, next_run_at=None, note=halt.why)
        return Finish(reason=halt.reason, why=halt.why, exit_code=continuation.exit_code(halt.reason, self._last))

    def _heed_reload(self) -> None:
        if self._world.stop.reload_requested() and (plan := self._reload()):
            self._plan = plan

    # --- what a dead supervisor left -------------------------------------------------------------------------------

    def _resume(self) -> Decision:
        """Close a lost cycle, and take up the backoff where the last run left it."""
        closed = self._close_lost()
        record = closed or self._world.history.last()
        if record and (held := continuation.held_by_limit(self._plan.rules, record, self._world.clock.now())):
            self._show_waiting(held)
            return held
        if record is None or not record.status.is_failure or record.next_delay_seconds is None:
            return Continue(delay=0.0, why="")
        if closed and (halt := continuation.limit_reached(self._plan.rules, closed)):
            return halt
        if self._plan.rules.iterations == 1:
            # One cycle was asked for, now: its pace is the caller's (cron, a person).
            return Continue(delay=0.0, why="")
        # No line of the history, whoever wrote it, and no lower --max-backoff may hold the loop for longer than this.
        longest = self._plan.rules.backoff.longest
        left = min(
            continuation.left_of(record.next_delay_seconds, record.finished_at, self._world.clock.now()), longest
        )
        resumed = Continue(delay=left, why=f"after {record.consecutive_failures} failures in a row", backoff=True)
        self._show_waiting(resumed)
        return resumed

    def _close_lost(self) -> CycleRecord | None:
        cycle = self._unfinished()
        if cycle is None:
            return None
        leftovers = recovery.end_leftovers(cycle)
        tree = self._plan.tree.recover() if self._plan.tree else None
        record = recovery.lost_record(cycle, leftovers=leftovers, tree=tree, now=self._world.clock.now())
        record = self._with_streak(record, stale=self._board.snapshot.stale_cycles)
        delay = self._plan.rules.backoff.delay(record.consecutive_failures, self._world.chance)
        record = replace(record, next_delay_seconds=delay)
        self._insist(lambda: self._world.history.append(record))
        self._board.count(record, LoopState.STARTING)
        return record

    def _unfinished(self) -> RunningCycle | None:
        """The cycle in flight that the history does not know."""
        # latest.json names the cycle too: where the slot was damaged or removed, that is the next best.
        cycle = self._world.flight.read() or self._shown_cycle
        # latest.json names a cycle as the last one after its record was durable: it may have been rotated away since.
        if cycle is None or cycle.cycle_id == (self._board.snapshot.last_cycle or {}).get("cycle_id"):
            return None
        # Its record is the last one, unless somebody has sorted, merged or added lines.
        recent = islice(self._world.history.newest_first(), _RECENT)
        return None if any(record.cycle_id == cycle.cycle_id for record in recent) else cycle

    # --- one cycle -------------------------------------------------------------------------------------------------

    def _one_cycle(self) -> Decision:
        self._insist(self._world.hold_instance)
        started = self._world.clock.monotonic()
        number = self._next_number()
        goal, goal_check = self._goal(number)
        if goal is None:
            return Halt(reason=StopReason.GOALS_DONE, why="all goals are reached; change their list to go on")
        if self._world.stop.requested():
            return Continue(delay=0.0, why="")  # while the goal was looked for: nothing of the cycle has begun
        began = self._world.clock.now()
        log = self._world.logs.open(number, began)
        spec = self._spec(number, goal, began, log.path)
        try:
            spec = guarding.begun(self._plan.guards, spec, self._insist)
            flight = ShownFlight(self._world.flight, self._board, self._announce(spec))
        except StateError as error:
            log.close()
            guarding.given_back(self._plan.guards, spec, unbegun_record(spec, error, at=self._world.clock.now()))
            raise
        self._in_cycle = True
        try:
            observed = CycleRun(
                spec,
                self._plan,
                log=log,
                flight=flight,
                board=self._board,
                stop=self._world.stop,
                clock=self._world.clock,
                goal_check=goal_check,
            ).carry_out()
            verdict = observed.verdict
            log.note(f"{verdict.outcome}: {verdict.reason}")
        finally:
            self._in_cycle = False
            log.close()
        observed = replace(observed, log_error=log.error)
        duration = self._world.clock.monotonic() - started
        return self._record(spec, observed, duration)

    def _goal(self, number: int) -> tuple[Goal | None, CheckResult | None]:
        try:
            return self._plan.goals.next(number), None
        except ConfigError as error:
            return Goal(text=""), CheckResult(name="goal", ok=False, detail=str(error))

    def _next_number(self) -> int:
        snapshot = self._board.snapshot
        return max(snapshot.seq, sum(snapshot.counts.values())) + 1

    def _spec(self, number: int, goal: Goal, began: datetime, log_path: str | None) -> CycleSpec:
        cycle_id = uuid.uuid4().hex
        plan = self._plan
        return CycleSpec(
            cycle_id=cycle_id,
            number=number,
            index=self._index + 1,
            mode=plan.mode,
            goal=goal.text,
            goal_origin=goal.origin,
            agent=plan.agent,
            started_at=began,
            timeout=plan.timeout,
            idle_timeout=plan.idle_timeout,
            grace=plan.grace,
            control_file=f"{plan.control_dir}/{cycle_id}.json",
            log_path=log_path,
        )

    def _announce(self, spec: CycleSpec) -> RunningCycle:
        """Say durably that the cycle starts; nothing of it runs before that."""
        cycle = RunningCycle(
            cycle_id=spec.cycle_id,
            number=spec.number,
            mode=spec.mode,
            goal=self._world.redact(spec.goal),
            started_at=timestamp(spec.started_at),
            boot_id=self._world.boot_id,
            log_path=spec.log_path,
            supervisor_pid=self._world.identity.pid,
            agent=spec.agent,
        )
        self._insist(lambda: self._world.flight.begin(cycle))
        self._board.enter(LoopState.CHECKING, write=self._plan.checks_take_time, cycle=cycle, next_run_at=None, note="")
        return cycle

    def _record(self, spec: CycleSpec, observed: Observed, duration: float) -> Decision:
        world = self._world
        draft = draft_record(spec, observed, finished_at=world.clock.now(), duration=duration)
        draft = self._settled(spec, self._limited(draft), launched=observed.result is not None)
        draft = redacted(draft, world.redact, world.redact_value)
        stale = self._board.snapshot.stale_cycles
        if observed.artifact is not None:
            stale = 0 if observed.artifact.fresh else stale + 1
        record = self._with_streak(draft, stale=stale)
        self._index += record.status is not Outcome.RATE_LIMITED
        self._last = record.status
        decision = self._decision(record)
        delay = continuation.seconds_to_wait(decision, world.clock.now())
        record = replace(record, next_delay_seconds=delay, supervisor=world.identity)
        try:
            self._insist(lambda: world.history.append(record))
        except StateError:
            world.last_words(record)
            raise
        state, due = self._next_state(decision)
        note = decision.why if isinstance(decision, Continue) and decision.until else self._board.snapshot.note
        self._board.count(record, state, next_run_at=due, note=note)
        return decision

    def _limited(self, record: CycleRecord) -> CycleRecord:
        """The record with the moment before which no cycle is to start, where the far end asked to wait."""
        if record.status is not Outcome.RATE_LIMITED:
            self._limits = 0
            return record
        from run_cycle_loop.policies import limits  # noqa: PLC0415 - a loop that meets no limit does not pay for it

        self._limits += 1
        rules = self._plan.rules
        at = limits.wait_until(
            None if record.retry_at is None else datetime.fromisoformat(record.retry_at),
            self._world.clock.now(),
            hits=self._limits,
            margin=rules.limit_margin,
            least=rules.limit_margin,
            longest=rules.longest_limit,
        )
        return replace(record, retry_at=timestamp(at))

    def _settled(self, spec: CycleSpec, record: CycleRecord, *, launched: bool) -> CycleRecord:
        """The record with what the guards make of it; they and the goals have noted it durably by then."""
        record = guarding.settled(self._plan.guards, spec, record, launched=launched, insist=self._insist)
        self._insist(partial(self._plan.goals.note, record))
        return record

    def _decision(self, record: CycleRecord) -> Decision:
        """What follows: the loop's own rules first, then what the guards will not allow anyway."""
        decision = continuation.decide(self._plan.rules, record, self._index, self._world.chance)
        if isinstance(decision, Halt):
            return decision
        held = self._held_by_guards()
        return held if isinstance(held, Halt) else decision if held is None else continuation.later(decision, held)

    def _with_streak(self, record: CycleRecord, *, stale: int) -> CycleRecord:
        streak = next_streak(self._board.snapshot.consecutive_failures, record.status)
        return replace(record, consecutive_failures=streak, stale_cycles=stale, supervisor=self._world.identity)

    # --- between cycles --------------------------------------------------------------------------------------------

    def _next_state(self, decision: Decision) -> tuple[LoopState, str | None]:
        """The state that follows a decision, and when the next cycle is due."""
        if isinstance(decision, Halt) or self._board.snapshot.state is LoopState.STOPPING:
            return LoopState.STOPPING, None
        due = decision.until or self._world.clock.now() + timedelta(seconds=decision.delay)
        return LoopState.BACKOFF if decision.backoff else LoopState.WAITING, timestamp(due)

    def _insist(self, write: Callable[[], _T]) -> _T:
        """Write what must be written before the loop may go on; hold the loop until it can be.

        Raises:
            StateError: a stop was asked meanwhile, or a bounded run has tried often enough.
        """
        attempt = 0
        while True:
            try:
                return write()
            except StateError as error:
                self._board.blame_state()
                self._board.enter(LoopState.HELD, next_run_at=None, note=str(error))
                if self._plan.rules.iterations and attempt >= _BOUNDED_HOLDS:
                    raise
            if self._world.stop.wait(_HOLDS[min(attempt, len(_HOLDS) - 1)]) is Waited.STOP:
                return write()  # once more; its error is the last word
            attempt += 1
