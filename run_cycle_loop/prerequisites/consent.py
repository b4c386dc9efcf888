"""Whether somebody has consented to a coding agent that works without anybody to ask."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.ports import OutputLog
from run_cycle_loop.model.records import CheckResult, CycleSpec
from run_cycle_loop.policies import consent


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsentCheck:
    """Holds where a grant is live, where ``--assume-yes`` is on, and where the agent needs neither."""

    chain: consent.Audit
    now: Callable[[], datetime]
    mode: GuardMode  #: ``warn``: what is missing is only reported
    is_needed: Callable[[CycleSpec], bool]
    assume_yes: bool

    def check(self, spec: CycleSpec, _log: OutputLog) -> CheckResult:
        """Read the audit and look for a grant."""
        fault, detail = self._fault(spec) if self.is_needed(spec) else (False, "not needed")
        required = self.mode is GuardMode.ENFORCE
        return CheckResult(name="consent", ok=not fault, detail=detail, required=required, guard="consent")

    def _fault(self, spec: CycleSpec) -> tuple[bool, str]:
        agent = spec.agent or "a coding agent"
        if not self.assume_yes:
            return True, f"{agent} would have to ask and nobody is there to answer; --assume-yes, or another --agent"
        try:
            found = self.chain.standing(besides=spec.cycle_id)
        except StateError as error:
            return True, str(error)
        now = self.now()
        grant = found.live(now, spec.agent)
        if grant is None:
            return True, f"{found.why_not(now, spec.agent)}, or --agent planner"
        # A cycle is noted before it is checked; the one with number 0 is only looked at and never starts.
        if spec.number and self.mode is GuardMode.ENFORCE and found.noted.get(spec.cycle_id) is None:
            return True, f"consent {grant.id} came while this cycle was starting; the next one makes use of it"
        return False, consent.summary(grant, now)
