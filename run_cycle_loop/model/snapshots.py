"""What ``latest.json`` shows: the loop at one moment, derived from the history wherever it outlives that moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from run_cycle_loop.model import reading
from run_cycle_loop.model.enums import LoopState, Outcome, StopReason
from run_cycle_loop.model.flat import flat
from run_cycle_loop.model.records import SCHEMA_VERSION, CycleRecord, RunningCycle, SupervisorIdentity, identity_of


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSnapshot:
    """What ``latest.json`` shows. Derived from the history wherever it outlives a moment; rebuildable."""

    state: LoopState
    updated_at: str
    schema_version: int = SCHEMA_VERSION
    seq: int = 0  #: number of the last recorded cycle
    supervisor: SupervisorIdentity | None = None
    agent: str | None = None  #: what the cycles of this run start
    budget: tuple[str, ...] = ()  #: the limits of this run, as the operator writes them
    cycle: RunningCycle | None = None  #: the cycle in flight
    counts: Mapping[str, int] = field(default_factory=dict)  #: recorded cycles by outcome
    success_count: int = 0
    failure_count: int = 0
    consecutive_failures: int = 0
    stale_cycles: int = 0
    last_cycle: Mapping[str, Any] | None = None  #: cycle_id, number, status, reason, finished_at, duration, log
    charged_usd: float = 0.0  #: all that the budgets were charged, estimates included
    charged_tokens: int = 0
    last_success_at: str | None = None
    last_archive: str | None = None
    next_run_at: str | None = None
    stop_reason: StopReason | None = None
    state_errors: int = 0  #: failed attempts to write state, in this run
    observer_errors: int = 0  #: exceptions of observers, in this run
    note: str = ""  #: one sentence where there is something to say (why it is held, what was set aside)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of ``latest.json``."""
        return {
            **flat(self),
            "budget": list(self.budget),
            "supervisor": flat(self.supervisor) if self.supervisor else None,
            "cycle": self.cycle.as_dict() if self.cycle else None,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read ``latest.json``.

        Raises:
            ValueError: wrong types, or a schema newer than this version.
        """
        if value.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema version {value.get('schema_version')!r} is not {SCHEMA_VERSION}")
        numbers = (
            "seq",
            "success_count",
            "failure_count",
            "consecutive_failures",
            "stale_cycles",
            "state_errors",
            "observer_errors",
            "charged_tokens",
        )
        texts = ("updated_at", "note")
        try:
            counts = {str(Outcome(key)): reading.count(count) for key, count in dict(value.get("counts") or {}).items()}
            cycle = value.get("cycle")
            reason = value.get("stop_reason")
            last = value.get("last_cycle")
            known: dict[str, Any] = {
                "state": LoopState(value["state"]),
                "supervisor": identity_of(value.get("supervisor")),
                "cycle": RunningCycle.from_dict(reading.mapping_or_none(cycle) or {}) if cycle is not None else None,
                "counts": counts,
                "last_cycle": dict(last) if last is not None else None,
                "stop_reason": StopReason(reason) if reason is not None else None,
                "charged_usd": reading.seconds(value.get("charged_usd")),
                "budget": reading.texts(value.get("budget")),
                **{name: reading.count(value.get(name)) for name in numbers},
                **{name: reading.text(value.get(name)) for name in texts},
                **{
                    name: reading.text_or_none(value.get(name))
                    for name in ("last_success_at", "last_archive", "next_run_at", "agent")
                },
            }
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a snapshot: {error}") from error

    def counting(self, record: CycleRecord) -> "LoopSnapshot":
        """This snapshot with one more recorded cycle in it."""
        counts = dict(self.counts)
        counts[record.status] = counts.get(record.status, 0) + 1
        success = record.status is Outcome.SUCCESS
        return replace(
            self.showing(record),
            counts=counts,
            success_count=self.success_count + success,
            failure_count=self.failure_count + record.status.is_failure,
            charged_usd=round(self.charged_usd + record.charged_usd, 6),
            charged_tokens=self.charged_tokens + record.charged_tokens,
        )

    def showing(self, record: CycleRecord) -> "LoopSnapshot":
        """This snapshot with a record as its last one, whatever is counted."""
        finished_at = record.finished_at or record.timestamp
        return replace(
            self,
            seq=max(self.seq, record.number),
            consecutive_failures=record.consecutive_failures,
            stale_cycles=record.stale_cycles,
            last_cycle={
                "cycle_id": record.cycle_id,
                "number": record.number,
                "status": record.status,
                "reason": record.reason,
                "started_at": record.started_at,
                "finished_at": finished_at,
                "duration_seconds": record.duration_seconds,
                "log_path": record.log_path,
                "agent": record.agent,
                "summary": record.summary,
                "advice": record.advice,
                "guards": list(record.guards),
            },
            last_success_at=finished_at if record.status is Outcome.SUCCESS else self.last_success_at,
            last_archive=record.archive_path if record.archive_created else self.last_archive,
        )
