"""Where everything is that the loop keeps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from run_cycle_loop.config.settings import Settings
from run_cycle_loop.stores.audit import FILE_NAME


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """All of them follow from the state and log directories."""

    lock: Path
    in_flight: Path
    control_dir: Path
    latest: Path
    goals: Path
    consent_audit: Path
    budget_ledger: Path
    breakers: Path
    quarantine: Path

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The places below the state and log directories."""
        state = settings.state_dir
        return cls(
            lock=state / "run_cycle.lock",
            in_flight=state / "run_cycle_in_flight.json",
            control_dir=state.absolute() / "control",  # the cycle is told this one
            latest=settings.log_dir / "latest.json",
            goals=state / "goals.json",
            consent_audit=state / FILE_NAME,
            budget_ledger=state / "budget_ledger.jsonl",
            breakers=state / "breakers.json",
            quarantine=state / "quarantine",
        )
