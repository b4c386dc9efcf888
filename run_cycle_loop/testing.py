"""Stand-ins for everything outside the loop, for tests of whoever builds on its ports.

Each passes the same contract suite as the real implementation beside it. None sleeps, starts a process or touches a
file: waiting moves a clock, and what the world answers is scripted.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from run_cycle_loop.goals.single import SingleGoal
from run_cycle_loop.model.breakers import BreakerMarks
from run_cycle_loop.model.decisions import Decision, StopRequest
from run_cycle_loop.model.enums import Ending, GuardMode, LoopState, Outcome, StopReason, Urgency
from run_cycle_loop.model.errors import AlreadyRunning, RunnerError, StateError
from run_cycle_loop.model.findings import GuardFinding, TreeVerdict
from run_cycle_loop.model.ports import History, InFlight, OutputLog, Settled, Waited
from run_cycle_loop.model.records import (
    ArtifactVerdict,
    CheckResult,
    CycleRecord,
    CycleSpec,
    RunningCycle,
    RunResult,
    SupervisorIdentity,
    timestamp,
)
from run_cycle_loop.model.runs import AttemptRecord, RunEvent, RunKind, RunRecord
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.model.spending import Account, EntryKind, LedgerEntry, LedgerState, Unit
from run_cycle_loop.policies.backoff import Backoff
from run_cycle_loop.policies.continuation import Rules
from run_cycle_loop.stores.runs import changed_meanwhile, refuse_taken
from run_cycle_loop.supervisor.board import Board
from run_cycle_loop.supervisor.controller import Finish, Supervisor, World
from run_cycle_loop.supervisor.plan import Plan

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)  #: when everything here begins, unless it is told otherwise


class FakeClock:
    """Both clocks stand still until they are moved; the wall clock can also step by itself, as NTP makes it."""

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that never step."""
        return self._monotonic

    def move(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        if seconds < 0:
            raise ValueError(f"time does not pass backwards, as {seconds} would have it; use step_wall")
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, and nothing else."""
        self._now += timedelta(seconds=seconds)


class FakeStop:
    """A stop token whose waits move the clock instead of sleeping, and are remembered in ``waits``."""

    def __init__(self, clock: FakeClock) -> None:
        self.waits: list[float] = []  #: seconds asked for, one by one
        self._clock = clock
        self._request: StopRequest | None = None
        self._triggered = False
        self._reload = False
        self._due: list[tuple[float, Callable[[], None]]] = []

    def ask(
        self,
        urgency: Urgency = Urgency.AFTER_CYCLE,
        reason: StopReason = StopReason.SIGNAL,
        detail: str = "stopped by SIGTERM",
    ) -> None:
        """Ask for a stop; the first request's reason stands, a later one can only raise its urgency."""
        known = self._request
        if known is None:
            self._request = StopRequest(reason=reason, urgency=urgency, detail=detail)
        elif urgency > known.urgency:
            self._request = replace(known, urgency=urgency)

    def trigger(self) -> None:
        """Ask for the next cycle now."""
        self._triggered = True

    def reload(self) -> None:
        """Ask for the configuration to be read again."""
        self._reload = True

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Let ``event`` happen during a later wait, so many seconds from now."""
        self._due.append((self._clock.monotonic() + seconds, event))
        self._due.sort(key=lambda item: item[0])

    def requested(self) -> StopRequest | None:
        """The most urgent request so far."""
        return self._request

    def wait(self, seconds: float) -> Waited:
        """Move the clock to the end of the wait, or to the event that cuts it short."""
        if seconds > 0:  # a wait of nothing only takes a waiting trigger away
            self.waits.append(seconds)
        until = self._clock.monotonic() + seconds
        while (ended := self._cut_short()) is None and self._due and self._due[0][0] <= until:
            moment, event = self._due.pop(0)
            self._clock.move(max(0.0, moment - self._clock.monotonic()))
            event()
        if ended is None:
            self._clock.move(until - self._clock.monotonic())
        return ended or Waited.ELAPSED

    def _cut_short(self) -> Waited | None:
        if self._request is not None:
            return Waited.STOP
        triggered, self._triggered = self._triggered, False
        return Waited.TRIGGERED if triggered else None

    def reload_requested(self) -> bool:
        """Whether a reload was asked since the last call."""
        asked, self._reload = self._reload, False
        return asked


Step = RunResult | RunnerError | Callable[[CycleSpec], RunResult]


class ScriptedRunner:
    """Gives one scripted answer for each cycle, and keeps what it was asked in ``specs``.

    A step is a result, an error to raise, or a function of the spec: the place to let things happen during a cycle.
    """

    def __init__(self, *steps: Step) -> None:
        self.specs: list[CycleSpec] = []
        self._steps = list(steps)

    def preview(self, spec: CycleSpec) -> list[str]:
        """A command that names the mode and the goal."""
        return ["scripted", spec.mode, spec.goal]

    def run(self, spec: CycleSpec, log: OutputLog, flight: InFlight) -> RunResult:
        """The next answer.

        Raises:
            RunnerError: the script says so.
            AssertionError: the script has no further step.
        """
        if not self._steps:
            raise AssertionError(f"cycle {spec.number} is one more than was scripted")
        self.specs.append(spec)
        step = self._steps.pop(0)
        if isinstance(step, RunnerError):
            raise step
        flight.launched(4000 + spec.number, 100, ())
        result = step if isinstance(step, RunResult) else step(spec)
        log.write("stderr", result.stderr_tail.encode())
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptedCheck:
    """A prerequisite that holds or does not, cycle by cycle; the last verdict repeats."""

    name: str = "scripted"
    verdicts: list[bool] = field(default_factory=lambda: [True])
    required: bool = True

    def check(self, _spec: CycleSpec, log: OutputLog) -> CheckResult:
        """The next verdict."""
        ok = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        log.write("stdout", b"checked\n")
        return CheckResult(name=self.name, ok=ok, detail="holds" if ok else "does not hold", required=self.required)


class ScriptedArtifacts:
    """Verdicts on the archives of one cycle after the other: whether each was fresh."""

    def __init__(self, *fresh: bool) -> None:
        self._fresh = list(fresh)
        self._marks = 0

    def mark(self) -> object:
        """The number of the look."""
        self._marks += 1
        return self._marks

    def verify(self, mark: object, *, started_at: datetime, finished_at: datetime) -> ArtifactVerdict:
        """The next verdict.

        Raises:
            AssertionError: it is asked about another mark than the last, or about a time that runs backwards.
        """
        if mark != self._marks or started_at > finished_at:
            raise AssertionError(f"asked about mark {mark} from {started_at} to {finished_at}")
        fresh = self._fresh.pop(0)
        path = Path(f"archive-{mark}.jsonl.gz")
        return ArtifactVerdict(fresh=fresh, path=path if fresh else None, detail="new" if fresh else "no new archive")


class ScriptedGuard:
    """Gives scripted answers, and keeps what it was told in ``events``; without answers left, it allows everything."""

    def __init__(self, *answers: Decision | None, allows: dict[str, Any] | None = None) -> None:
        self.answers = list(answers)  #: to ``admit``, one by one
        self.allows = allows or {}  #: fields of CycleSpec that ``begin`` sets
        self.settles = Settled()  #: what ``settle`` gives
        self.refusals = 0  #: how many times from now on neither begin nor settle can be noted
        self.events: list[str] = []
        self.seen: list[CycleRecord] = []

    def admit(self, now: datetime) -> Decision | None:  # noqa: ARG002 - the port's signature
        """The next answer."""
        return self.answers.pop(0) if self.answers else None

    def begin(self, spec: CycleSpec) -> CycleSpec:
        """Note the beginning, and allow what is scripted."""
        self._refuse()
        self.events.append(f"begin {spec.number}")
        return replace(spec, **self.allows)

    def settle(self, spec: CycleSpec, record: CycleRecord, *, launched: bool) -> Settled:
        """Note the end."""
        self._refuse()
        self.events.append(f"settle {spec.number} {record.status}{'' if launched else ' not launched'}")
        self.seen.append(record)
        return self.settles

    def _refuse(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StateError("the guard's state cannot be written")


class _Refusals:
    """Writes that fail on request."""

    def __init__(self) -> None:
        self._left = 0

    def refuse(self, times: int) -> None:
        """Let the next writes fail, as on a full disk."""
        self._left = times

    def _may_fail(self, what: str) -> None:
        if self._left:
            self._left -= 1
            raise StateError(f"{what} cannot be written: No space left on device; free space")


class InMemoryHistory(_Refusals):
    """A history of JSON lines that lives as long as the object."""

    def __init__(self, records: Iterable[CycleRecord] = ()) -> None:
        super().__init__()
        self.lines: list[str] = []
        for record in records:
            self.append(record)

    def append(self, record: CycleRecord) -> None:
        """Add a record.

        Raises:
            StateError: it was told to refuse.
        """
        self._may_fail("history")
        self.lines.append(json.dumps(record.as_dict()))

    def last(self) -> CycleRecord | None:
        """The newest record."""
        return next(self.newest_first(), None)

    def records(self) -> Iterator[CycleRecord]:
        """All records, oldest first."""
        return (CycleRecord.from_dict(json.loads(line)) for line in list(self.lines))

    def outcomes(self) -> Counter[Outcome]:
        """How many records there are of each outcome."""
        return Counter(record.status for record in self.records())

    def newest_first(self) -> Iterator[CycleRecord]:
        """All records, newest first."""
        return (CycleRecord.from_dict(json.loads(line)) for line in reversed(self.lines))


class InMemoryInFlight(_Refusals):
    """The slot of the one cycle that may be running."""

    def __init__(self, cycle: RunningCycle | None = None) -> None:
        super().__init__()
        self._cycle = cycle

    def begin(self, cycle: RunningCycle) -> None:
        """Say that a cycle starts.

        Raises:
            StateError: it was told to refuse.
        """
        self._may_fail("the slot")
        self._cycle = cycle

    def launched(self, leader_pid: int, leader_start_ticks: int | None, output_inodes: tuple[int, ...]) -> None:
        """Add what was launched."""
        if self._cycle is not None:
            self._cycle = replace(
                self._cycle,
                leader_pid=leader_pid,
                leader_start_ticks=leader_start_ticks,
                output_inodes=output_inodes,
            )

    def read(self) -> RunningCycle | None:
        """The last cycle that was begun."""
        return self._cycle


class InMemorySnapshots(_Refusals):
    """Every snapshot that was ever shown, in ``shown``."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[LoopSnapshot] = []

    @property
    def states(self) -> list[LoopState]:
        """The states that were shown, in order."""
        return [snapshot.state for snapshot in self.shown]

    def replace(self, snapshot: LoopSnapshot) -> None:
        """Show a snapshot.

        Raises:
            StateError: it was told to refuse.
        """
        self._may_fail("the snapshot")
        self.shown.append(snapshot)

    def load(self, history: History) -> LoopSnapshot:
        """What was shown last, with everything that can be counted counted from the history."""
        counted = LoopSnapshot(state=LoopState.STARTING, updated_at="")
        for record in history.records():
            counted = counted.counting(record)
        if not self.shown:
            return counted
        last = self.shown[-1]
        return replace(
            counted,
            last_cycle=last.last_cycle if last.seq > counted.seq else counted.last_cycle,
            state=last.state,
            updated_at=last.updated_at,
            supervisor=last.supervisor,
            cycle=last.cycle,
            next_run_at=last.next_run_at,
            stop_reason=last.stop_reason,
        )


class InMemoryCycleLog:
    """One cycle's log."""

    def __init__(self, path: str) -> None:
        self.path: str | None = path
        self.error: str | None = None
        self.notes: list[str] = []
        self.closed = False
        self._streams = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, chunk: bytes | memoryview) -> None:
        """Take output."""
        self._streams[stream] += bytes(chunk)

    def note(self, text: str) -> None:
        """Add a line of the supervisor's own."""
        self.notes.append(text)

    def tail(self, stream: str) -> str:
        """The last twenty lines of a stream."""
        return "\n".join(self._streams[stream].decode("utf-8", "replace").splitlines()[-20:])

    def close(self) -> None:
        """Finish it."""
        self.closed = True


class InMemoryCycleLogs:
    """Every log that was opened, in ``opened``."""

    def __init__(self) -> None:
        self.opened: list[InMemoryCycleLog] = []

    def open(self, number: int, started_at: datetime) -> InMemoryCycleLog:
        """A fresh log that no other cycle shares."""
        name = f"{started_at:%Y%m%dT%H%M%SZ}-{number}-{len(self.opened)}.log"
        self.opened.append(InMemoryCycleLog(f"memory/{name}"))
        return self.opened[-1]


class RecordingObserver:
    """Keeps what it is told; ``fault`` makes it fail from then on."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.states: list[LoopState] = []
        self.records: list[CycleRecord] = []
        self.beats = 0

    def state_changed(self, snapshot: LoopSnapshot) -> None:
        """Keep the state."""
        self.states.append(snapshot.state)
        self._fail()

    def cycle_finished(self, record: CycleRecord, _snapshot: LoopSnapshot) -> None:
        """Keep the record."""
        self.records.append(record)
        self._fail()

    def beat(self) -> None:
        """Count it."""
        self.beats += 1
        self._fail()

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


def make_identity(**changes: Any) -> SupervisorIdentity:
    """A supervisor's identity, with these changes."""
    known: dict[str, Any] = {
        "pid": 4000,
        "start_ticks": 100,
        "boot_id": "boot-1",
        "host": "box",
        "version": "0",
        "started_at": timestamp(NOON),
    }
    return SupervisorIdentity(**known | changes)


def make_spec(**changes: Any) -> CycleSpec:
    """What is asked of a cycle, with these changes."""
    known: dict[str, Any] = {
        "cycle_id": "cycle-1",
        "number": 1,
        "index": 1,
        "mode": "experimental",
        "goal": "plan",
        "started_at": NOON,
        "timeout": 300.0,
        "idle_timeout": None,
        "grace": 10.0,
        "control_file": "control/cycle-1.json",
        "log_path": None,
    }
    return CycleSpec(**known | changes)


def make_result(exit_code: int | None = 0, **changes: Any) -> RunResult:
    """What was observed of a cycle that ended by itself, with these changes."""
    known: dict[str, Any] = {"ending": Ending.EXIT, "exit_code": exit_code, "signal": None, "duration": 1.0}
    return RunResult(**known | changes)


def make_record(number: int = 1, status: Outcome = Outcome.SUCCESS, **changes: Any) -> CycleRecord:
    """What is kept of a cycle, with these changes."""
    known: dict[str, Any] = {
        "timestamp": timestamp(NOON),
        "mode": "experimental",
        "goal": "plan",
        "status": status,
        "prerequisites_ok": True,
        "return_code": 1 if status is Outcome.FAILED else 0,
        "duration_seconds": 1.0,
        "archive_created": None,
        "archive_path": None,
        "log_path": None,
        "cycle_id": f"cycle-{number}",
        "number": number,
        "started_at": timestamp(NOON),
        "finished_at": timestamp(NOON),
        "consecutive_failures": int(status.is_failure),
        "next_delay_seconds": 300.0,
    }
    return CycleRecord(**known | changes)


def make_running(number: int = 1, **changes: Any) -> RunningCycle:
    """A cycle in flight, with these changes."""
    known: dict[str, Any] = {
        "cycle_id": f"cycle-{number}",
        "number": number,
        "mode": "experimental",
        "goal": "plan",
        "started_at": timestamp(NOON),
        "boot_id": "boot-1",
        "log_path": None,
        "supervisor_pid": 4000,
    }
    return RunningCycle(**known | changes)


class FakeWorld:
    """A loop among stand-ins: arrange its parts, ``run`` it, and look at what they hold afterwards."""

    def __init__(self, records: Iterable[CycleRecord] = (), in_flight: RunningCycle | None = None) -> None:
        self.clock = FakeClock()
        self.stop = FakeStop(self.clock)
        self.history = InMemoryHistory(records)
        self.flight = InMemoryInFlight(in_flight)
        self.snapshots = InMemorySnapshots()
        self.logs = InMemoryCycleLogs()
        self.observer = RecordingObserver()
        self.runner = ScriptedRunner()
        self.last_words: list[CycleRecord] = []
        self.private = "\0"  #: what redaction takes out
        self.hold_instance: Callable[[], None] = lambda: None

    @property
    def outcomes(self) -> list[Outcome]:
        """What the recorded cycles came to."""
        return [record.status for record in self.history.records()]

    @property
    def snapshot(self) -> LoopSnapshot:
        """What was shown last."""
        return self.snapshots.shown[-1]

    def plan(self, *steps: Step, rules: Rules | None = None, **changes: Any) -> Plan:
        """A plan of these cycles: by default as many iterations, with backoff by no chance."""
        self.runner = ScriptedRunner(*steps)
        known: dict[str, Any] = {
            "mode": "experimental",
            "goals": SingleGoal(lambda: "plan"),
            "rules": rules or Rules(iterations=len(steps), backoff=Backoff(jitter=0)),
            "timeout": 300.0,
            "idle_timeout": None,
            "grace": 10.0,
            "prerequisites": (),
            "runner": self.runner,
            "artifacts": None,
            "control_dir": Path("control"),
            "checks_take_time": True,
        }
        return Plan(**known | changes)

    def supervisor(self, plan: Plan, reload: Callable[[], Plan | None] = lambda: None) -> Supervisor:
        """The real supervisor, which knows nothing but these parts."""
        board = Board(self.snapshots.load(self.history), self.snapshots, [self.observer], self.clock)
        world = World(
            clock=self.clock,
            stop=self.stop,
            history=self.history,
            flight=self.flight,
            logs=self.logs,
            board=board,
            identity=make_identity(),
            boot_id="boot-1",
            chance=lambda: 0.5,
            redact=self._redacted,
            redact_value=lambda value: json.loads(self._redacted(json.dumps(value))),
            hold_instance=lambda: self.hold_instance(),  # noqa: PLW0108 - looked up anew: a test may change it
            last_words=self.last_words.append,
        )
        return Supervisor(world, plan, reload)

    def _redacted(self, text: str) -> str:
        return text.replace(self.private, "***")

    def run(self, *steps: Step, rules: Rules | None = None, **changes: Any) -> Finish:
        """Run these cycles to the loop's end."""
        return self.supervisor(self.plan(*steps, rules=rules, **changes)).run()


class InMemoryLedger(_Refusals):
    """A ledger that lives as long as the object; its entries in ``entries``, each with the account after it."""

    def __init__(self, *, damaged: int = 0) -> None:
        super().__init__()
        self.entries: list[tuple[LedgerEntry, Account]] = []
        self.damaged = damaged  #: lines that cannot be read, after the newest entry

    def load(self) -> LedgerState:
        """What the end of it says."""
        measured: dict[Unit, list[float]] = {}
        for entry, _ in reversed(self.entries):
            for unit in entry.measured if entry.event is EntryKind.CHARGE else ():
                measured.setdefault(unit, []).append(entry.amount.of(unit))
        return LedgerState(
            account=self.entries[-1][1] if self.entries else None,
            damaged=self.damaged,
            measured={unit: tuple(values[:20]) for unit, values in measured.items()},
        )

    def append(self, entry: LedgerEntry, account: Account) -> None:
        """Add an entry.

        Raises:
            StateError: it was told to refuse.
        """
        self._may_fail("the budget ledger")
        self.damaged = 0
        if not self.entries or self.entries[-1] != (entry, account):
            self.entries.append((entry, account))


class InMemoryBreakers(_Refusals):
    """What is kept of the breakers, in ``marks``."""

    def __init__(self, marks: BreakerMarks | None = None) -> None:
        super().__init__()
        self.marks = marks or BreakerMarks()

    def load(self) -> BreakerMarks:
        """What was saved last."""
        return self.marks

    def save(self, marks: BreakerMarks) -> None:
        """Replace it.

        Raises:
            StateError: it was told to refuse.
        """
        self._may_fail("the state of the breakers")
        self.marks = marks


class ScriptedWorkTree:
    """A tree of which only is known how much a cycle writes to it: what ``write`` is told while the cycle runs."""

    def __init__(self, *, cap_files: int = 3) -> None:
        self.marked: list[CycleSpec] = []
        self.settled: list[str] = []  #: ids of cycles
        self.refusal: RunnerError | None = None  #: what the next marks raise
        self._cap = cap_files
        self._files = self._bytes = 0
        self._pending: str | None = None

    def write(self, files: int, size: int = 0) -> None:
        """Let the cycle create so many files, with so many bytes together."""
        self._files += files
        self._bytes += size

    def mark(self, spec: CycleSpec) -> None:
        """A cycle begins.

        Raises:
            RunnerError: it was told to refuse.
        """
        if self.refusal is not None:
            raise self.refusal
        self.marked.append(spec)
        self._files = self._bytes = 0
        self._pending = spec.cycle_id

    def look(self) -> str | None:
        """A sentence, once more files were written than a cycle may write."""
        return f"{self._files} files are more than {self._cap}" if self._files > self._cap else None

    def settle(self, spec: CycleSpec) -> TreeVerdict:
        """What was written; over the cap it is gone afterwards."""
        self._pending = None
        self.settled.append(spec.cycle_id)
        verdict = TreeVerdict(files=self._files, bytes=self._bytes, fingerprint=f"tree-{self._files}")
        if sentence := self.look():
            finding = GuardFinding(guard="write_cap", mode=GuardMode.ENFORCE, ok=False, detail=sentence)
            verdict = replace(verdict, finding=finding, quarantine=Path("quarantine") / spec.cycle_id)
            self._files = self._bytes = 0
        return verdict

    def recover(self) -> TreeVerdict | None:
        """The verdict on a cycle that was never settled."""
        return None if self._pending is None else self.settle(make_spec(cycle_id=self._pending))


class InMemoryRuns(_Refusals):
    """A run store that lives as long as the object."""

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[str, RunRecord] = {}
        self._attempts: dict[str, dict[str, AttemptRecord]] = {}
        self._events: dict[str, list[RunEvent]] = {}

    def create(self, run: RunRecord, events: Iterable[RunEvent] = ()) -> RunRecord:
        """Add a run.

        Raises:
            ConfigError: its name or its key is taken.
            StateError: it was told to refuse.
        """
        self._may_fail("the run store")
        refuse_taken(run, self.find(run.kind, run.namespace, name=run.name))
        if run.idempotency_key:
            refuse_taken(run, self.find(run.kind, run.namespace, key=run.idempotency_key))
        self._runs[run.uid] = replace(run, version=1)
        self._attempts[run.uid], self._events[run.uid] = {}, []
        self._add_events(run, events)
        return self._runs[run.uid]

    def find(self, kind: RunKind, namespace: str, *, name: str = "", key: str = "") -> RunRecord | None:
        """The run of that name, or with that idempotency key."""
        wanted = (kind, namespace, name or key)
        every = self._runs.values()
        return next((one for one in every if (one.kind, one.namespace, self._word(one, name)) == wanted), None)

    def _word(self, run: RunRecord, name: str) -> str | None:
        return run.name if name else run.idempotency_key or None

    def runs(self, kind: RunKind, *, unfinished: bool = False) -> Iterator[RunRecord]:
        """All runs of a kind, newest first; or only those that are not over."""
        every = reversed(list(self._runs.values()))
        return (one for one in every if one.kind is kind and not (unfinished and one.is_final))

    def change(
        self, run: RunRecord, *, attempts: Iterable[AttemptRecord] = (), events: Iterable[RunEvent] = ()
    ) -> RunRecord:
        """Store what changed.

        Raises:
            AlreadyRunning: somebody else has changed it since.
            StateError: it was told to refuse.
        """
        self._may_fail("the run store")
        known = self._runs.get(run.uid)
        if known is None or known.version != run.version:
            raise AlreadyRunning(changed_meanwhile(run))
        self._runs[run.uid] = replace(
            known,
            phase=run.phase,
            is_final=run.is_final,
            status=run.status,
            owner=run.owner,
            updated_at=run.updated_at,
            version=run.version + 1,
        )
        self._attempts[run.uid] |= {one.name: one for one in attempts}
        self._add_events(run, events)
        return self._runs[run.uid]

    def ask_cancel(self, run: RunRecord, reason: str, event: RunEvent) -> RunRecord:
        """Note that it is to be cancelled; the first reason stands.

        Raises:
            StateError: it was told to refuse.
        """
        self._may_fail("the run store")
        known = self._runs[run.uid]
        if not known.cancel_reason and not known.is_final:
            self._runs[run.uid] = replace(known, cancel_reason=reason)
            self._add_events(run, (event,))
        return self._runs[run.uid]

    def attempts(self, run: RunRecord) -> tuple[AttemptRecord, ...]:
        """Its attempts, in the order in which they were added."""
        return tuple(self._attempts.get(run.uid, {}).values())

    def events(self, run: RunRecord, *, after: int = 0) -> tuple[RunEvent, ...]:
        """Its events, oldest first."""
        return tuple(self._events.get(run.uid, [])[after:])

    def _add_events(self, run: RunRecord, events: Iterable[RunEvent]) -> None:
        kept = self._events[run.uid]
        for event in events:
            kept.append(replace(event, seq=len(kept) + 1))


def make_run(name: str = "demo", **changes: Any) -> RunRecord:
    """A run that was just created, with these changes."""
    known: dict[str, Any] = {
        "namespace": "agents",
        "name": name,
        "uid": f"uid-{name}",
        "manifest": {"kind": "AgentRun", "metadata": {"name": name}},
        "profile": "guide",
        "created_at": timestamp(NOON),
        "updated_at": timestamp(NOON),
    }
    return RunRecord(**known | changes)
