"""All the ports in one file: what the supervisor needs from the world, each one to four methods wide but for runs."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from run_cycle_loop.model.decisions import Decision, StopRequest
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.findings import GuardFinding, TreeVerdict
from run_cycle_loop.model.records import (
    ArtifactVerdict,
    CheckResult,
    CycleRecord,
    CycleSpec,
    Goal,
    RunningCycle,
    RunResult,
)
from run_cycle_loop.model.snapshots import LoopSnapshot

if TYPE_CHECKING:  # a loop without budgets, breakers and runs does not pay for their words
    from run_cycle_loop.model.breakers import BreakerMarks
    from run_cycle_loop.model.runs import AttemptRecord, RunEvent, RunKind, RunRecord
    from run_cycle_loop.model.spending import Account, LedgerEntry, LedgerState


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """What a guard adds to the record of a cycle."""

    findings: tuple[GuardFinding, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)  #: fields of CycleRecord, by their names


class Clock(Protocol):
    """Time as a parameter."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC: for records only, never for measuring."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step: for every timeout, delay and duration."""
        ...


class Waited(StrEnum):
    """What ended a wait."""

    ELAPSED = "elapsed"
    STOP = "stop"
    TRIGGERED = "triggered"  #: the operator wants the next cycle now


class StopToken(Protocol):
    """Whether, why and how hard the loop is to stop. A request never goes away."""

    def requested(self) -> StopRequest | None:
        """The most urgent request so far, freshly looked for."""
        ...

    def wait(self, seconds: float) -> Waited:
        """The only sleep in the product; a stop or a trigger cuts it short."""
        ...

    def reload_requested(self) -> bool:
        """Whether the configuration is to be read again; asking clears it."""
        ...


class OutputLog(Protocol):
    """Where one cycle's output goes. It never raises: a full disk must not end a cycle."""

    def write(self, stream: str, chunk: bytes | memoryview) -> None:
        """Take raw output of ``stdout`` or ``stderr``."""
        ...

    def note(self, text: str) -> None:
        """Add a line of the supervisor's own."""
        ...

    def tail(self, stream: str) -> str:
        """The last lines of a stream, redacted, printable."""
        ...


class CycleLog(OutputLog, Protocol):
    """One cycle's log, which is finished once."""

    @property
    def path(self) -> str | None:
        """The file; None where none could be opened."""
        ...

    @property
    def error(self) -> str | None:
        """Why the file is missing or incomplete."""
        ...

    def close(self) -> None:
        """Finish the file: join head and tail where output was cut."""
        ...


class CycleLogs(Protocol):
    """The folder of per-cycle logs."""

    def open(self, number: int, started_at: datetime) -> CycleLog:
        """A fresh log that no other cycle shares."""
        ...


class Prerequisite(Protocol):
    """Something that must hold before a cycle."""

    def check(self, spec: CycleSpec, log: OutputLog) -> CheckResult:
        """The verdict; never raises for what it checks, always bounded in time."""
        ...


class Runner(Protocol):
    """One way to run a cycle."""

    def preview(self, spec: CycleSpec) -> list[str]:
        """The exact argument vector that ``run`` would start."""
        ...

    def run(self, spec: CycleSpec, log: OutputLog, flight: "InFlight") -> RunResult:
        """Run the cycle to its end; nothing of it is left afterwards.

        Raises:
            RunnerError: it could not be run at all.
        """
        ...


class Goals(Protocol):
    """Where the goal of each cycle comes from."""

    def next(self, number: int) -> Goal | None:
        """The goal of cycle ``number``; None where all goals are reached.

        Raises:
            ConfigError: it cannot be read.
        """
        ...

    def note(self, record: CycleRecord) -> None:
        """Learn what became of the cycle that worked on it, before it is asked for the next one.

        Raises:
            StateError: that cannot be kept.
        """
        ...


class Guard(Protocol):
    """Something that must allow each cycle, and learns what became of it. Its state outlives the process."""

    def admit(self, now: datetime) -> Decision | None:
        """Whether a cycle may start now: None, or what to do instead (wait, or end the loop)."""
        ...

    def begin(self, spec: CycleSpec) -> CycleSpec:
        """Note durably that this cycle is about to start; returns it with what the guard allows it.

        Raises:
            StateError: that cannot be noted.
        """
        ...

    def settle(self, spec: CycleSpec, record: CycleRecord, *, launched: bool) -> "Settled":
        """Learn what the cycle came to, before its record is written.

        Args:
            spec: what ``begin`` returned.
            record: the draft, without streak and decision.
            launched: whether anything of it ran: a cycle that failed its prerequisites costs nothing.

        Raises:
            StateError: that cannot be noted.
        """
        ...


class Ledger(Protocol):
    """What cycles cost, durably: a line before each one, and a line after it."""

    def load(self) -> "LedgerState":
        """What the end of the ledger says, at a cost that does not grow with it.

        Raises:
            StateError: it cannot be read.
        """
        ...

    def append(self, entry: "LedgerEntry", account: "Account") -> None:
        """Add an entry, with the account as it is after it; both are durable when this returns.

        Raises:
            StateError: they are not known to be durable.
        """
        ...


class BreakerStore(Protocol):
    """What is kept of the breakers beside the history. Losing it must not close one that is open."""

    def load(self) -> "BreakerMarks":
        """What is kept; where that is damaged, it is set aside, and the breakers are open from then on.

        Raises:
            StateError: it cannot be read, or not be set aside.
        """
        ...

    def save(self, marks: "BreakerMarks") -> None:
        """Replace it, durably.

        Raises:
            StateError: that cannot be done.
        """
        ...


class WorkTree(Protocol):
    """The tree that a cycle works in, measured from outside of it."""

    def mark(self, spec: CycleSpec) -> None:
        """Take the tree as it is before the cycle, so that it can be put back.

        Raises:
            RunnerError: it cannot be taken, or not be put back later: the cycle must not start.
        """
        ...

    def look(self) -> str | None:
        """A short look while the cycle runs, 20 ms at most; one sentence where it is over a cap and must be ended."""
        ...

    def settle(self, spec: CycleSpec) -> TreeVerdict:
        """Measure what the cycle did; what is over a cap is parked, and the tree put back as it was."""
        ...

    def recover(self) -> TreeVerdict | None:
        """The same for a cycle that was marked and whose supervisor did not survive it; None where there is none."""
        ...


class Chain(Protocol):
    """An append-only log in which each entry vouches for the one before it."""

    def append(self, event: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add an entry, durably; returns it whole.

        Raises:
            StateError: it is not known to be durable, or what is there is broken.
        """
        ...

    def entries(self) -> Iterator[Mapping[str, Any]]:
        """All entries, oldest first, each checked against the one before.

        Raises:
            StateError: an entry is broken; the sentence names its line.
        """
        ...


class Artifacts(Protocol):
    """The archives that a cycle is expected to leave."""

    def mark(self) -> object:
        """What there is now, for a later comparison."""
        ...

    def verify(self, mark: object, *, started_at: datetime, finished_at: datetime) -> ArtifactVerdict:
        """Whether something new and valid came since ``mark``."""
        ...


class History(Protocol):
    """The truth: append-only, one line per cycle."""

    def append(self, record: CycleRecord) -> None:
        """Add a record; it is durable when this returns.

        Raises:
            StateError: it is not known to be durable.
        """
        ...

    def last(self) -> CycleRecord | None:
        """The newest readable record."""
        ...

    def records(self) -> Iterator[CycleRecord]:
        """All readable records, oldest first."""
        ...

    def outcomes(self) -> Counter[Outcome]:
        """How many records there are of each outcome, at the least cost."""
        ...

    def newest_first(self) -> Iterator[CycleRecord]:
        """All readable records, newest first, without reading what is not asked for."""
        ...


class InFlight(Protocol):
    """The write-ahead slot of the one cycle that may be running."""

    def begin(self, cycle: RunningCycle) -> None:
        """Say durably that a cycle starts, before anything of it runs.

        Raises:
            StateError: it cannot be said.
        """
        ...

    def launched(self, leader_pid: int, leader_start_ticks: int | None, output_inodes: tuple[int, ...]) -> None:
        """Add what was launched; best effort."""
        ...

    def read(self) -> RunningCycle | None:
        """The last cycle that was begun; whether it was recorded is the history's to say.

        A damaged slot is set aside and gives None.
        """
        ...


class RunStore(Protocol):
    """Runs of this machine, durably. A change is one transaction, and only of the version that its writer knows."""

    def create(self, run: "RunRecord", events: Sequence["RunEvent"] = ()) -> "RunRecord":
        """Add a run; returns it as stored.

        Raises:
            ConfigError: a run of that name or with that idempotency key is there.
            StateError: it is not known to be durable.
        """
        ...

    def find(self, kind: "RunKind", namespace: str, *, name: str = "", key: str = "") -> "RunRecord | None":
        """The run of that name, or with that idempotency key.

        Raises:
            StateError: it cannot be read.
        """
        ...

    def runs(self, kind: "RunKind", *, unfinished: bool = False) -> Iterator["RunRecord"]:
        """All runs of a kind, newest first; or only those that are not over.

        Raises:
            StateError: they cannot be read.
        """
        ...

    def change(
        self, run: "RunRecord", *, attempts: Sequence["AttemptRecord"] = (), events: Sequence["RunEvent"] = ()
    ) -> "RunRecord":
        """Store phase, status, owner and times as they are in ``run``, with these attempts and events, all or nothing.

        A request to cancel is not touched. Returns the run as stored, with whatever was asked meanwhile.

        Raises:
            AlreadyRunning: it is not ``run.version`` any more that is stored: somebody else drives it.
            StateError: it is not known to be durable.
        """
        ...

    def ask_cancel(self, run: "RunRecord", reason: str, event: "RunEvent") -> "RunRecord":
        """Note that it is to be cancelled; the first reason stands. Whoever drives it looks at least once a second.

        Raises:
            StateError: it is not known to be durable.
        """
        ...

    def attempts(self, run: "RunRecord") -> "tuple[AttemptRecord, ...]":
        """Its attempts, in the order in which they were added.

        Raises:
            StateError: they cannot be read.
        """
        ...

    def events(self, run: "RunRecord", *, after: int = 0) -> "tuple[RunEvent, ...]":
        """Its events, oldest first, from the one behind number ``after`` on.

        Raises:
            StateError: they cannot be read.
        """
        ...


class SnapshotStore(Protocol):
    """``latest.json``: derived, replaced whole, rebuildable."""

    def replace(self, snapshot: LoopSnapshot) -> None:
        """Rewrite it atomically.

        Raises:
            StateError: it could not be rewritten; the old one still stands.
        """
        ...

    def load(self, history: History) -> LoopSnapshot:
        """The snapshot, caught up with the history; rebuilt from it where it is damaged."""
        ...


class Observer(Protocol):
    """Those who only watch. Whatever one raises is counted and forgotten."""

    def state_changed(self, snapshot: LoopSnapshot) -> None:
        """The loop entered a state."""
        ...

    def cycle_finished(self, record: CycleRecord, snapshot: LoopSnapshot) -> None:
        """A record was appended."""
        ...

    def beat(self) -> None:
        """The main loop is alive; called at least every quarter of a second while it waits."""
        ...
