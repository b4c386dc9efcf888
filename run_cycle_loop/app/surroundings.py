"""What a plan is made in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from run_cycle_loop.kit.processes import Pulse
from run_cycle_loop.model.ports import Clock, History


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a plan is made in, and what outlives a reading of the settings."""

    environ: Mapping[str, str]
    clock: Clock
    history: History
    run_id: str  #: names this run of the loop in the ledger
    pulse: Pulse | None
    warn: Callable[[str], None]  #: told, in one sentence, what had to be mended
    dry: bool = False  #: nothing is written, and nothing launched but the check script
