"""The guard that notes in the audit which cycles ran under which grant of consent, and what they came to."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.findings import GuardFinding
from run_cycle_loop.model.ports import Settled
from run_cycle_loop.model.records import CycleRecord, CycleSpec
from run_cycle_loop.policies import consent
from run_cycle_loop.policies.consent import Event


class ConsentGuard:
    """Implements the port ``Guard``. Whether a cycle may run is said by the prerequisite of the same name."""

    def __init__(
        self,
        chain: consent.Audit,
        *,
        now: Callable[[], datetime],
        mode: GuardMode,
        is_needed: Callable[[CycleSpec], bool],
        policy: Mapping[str, Any],
    ) -> None:
        self._chain = chain
        self._now = now
        self._mode = mode
        self._is_needed = is_needed
        self._policy = policy_digest(policy)
        self._noted: tuple[str, str] | None = None  #: the cycle that was begun, and its grant
        self._tried: str | None = None  #: the cycle whose end was written last; whether that was confirmed or not

    def admit(self, _now: datetime) -> None:
        """Nothing to wait for: consent does not come by itself."""
        return

    def begin(self, spec: CycleSpec) -> CycleSpec:
        """Note that a cycle starts under the grant that is live now; without one, the prerequisite keeps it back.

        Raises:
            StateError: that cannot be noted.
        """
        self._noted = None
        if not self._is_needed(spec):
            return spec
        try:
            found = self._chain.standing(besides=spec.cycle_id)
        except StateError:
            return spec  # the prerequisite finds the same, and says so
        grant = found.live(self._now(), spec.agent)
        if grant is None:
            return spec
        if spec.cycle_id not in found.noted:  # a second try, after the first could not be confirmed, notes it once
            try:
                self._chain.append(Event.CYCLE, self._start(spec, grant.id))
            except StateError:
                if self._mode is GuardMode.ENFORCE:
                    raise
                return spec
        self._noted = (spec.cycle_id, grant.id)
        return spec

    def _start(self, spec: CycleSpec, grant: str) -> dict[str, Any]:
        return {
            "cycle_id": spec.cycle_id,
            "grant": grant,
            "number": spec.number,
            "agent": spec.agent,
            "mode": spec.mode,
            "guard": self._mode,
            "policy": self._policy,
        }

    def settle(self, spec: CycleSpec, record: CycleRecord, *, launched: bool) -> Settled:
        """Note what the cycle came to; one that was not launched gives its use of the grant back.

        Raises:
            StateError: that cannot be noted, though the audit is whole.
        """
        grant = self._noted[1] if self._noted and self._noted[0] == spec.cycle_id else None
        if not self._is_needed(spec) or (grant is None and not launched):
            return Settled()
        try:
            if self._tried != spec.cycle_id or not self._has_ended(spec):
                self._tried = spec.cycle_id
                self._chain.append(Event.CYCLE_FINISHED, _end(spec, record, grant, launched=launched))
        except StateError as error:
            if self._mode is GuardMode.ENFORCE and self._is_whole():
                raise
            # Broken while the cycle ran, or only warned about: the record tells, and no further cycle gets consent.
            return self._finding(f"the end of this cycle is not in the audit: {error}")
        if grant is None:
            return self._finding(f"{spec.agent or 'the agent'} ran without consent; {consent.HOW_TO_GRANT}")
        return Settled()

    def _has_ended(self, spec: CycleSpec) -> bool:
        """Whether an attempt that could not be confirmed has left the end there all the same."""
        return any(
            entry.get("event") == Event.CYCLE_FINISHED and entry.get("cycle_id") == spec.cycle_id
            for entry in self._chain.entries()
        )

    def _is_whole(self) -> bool:
        try:
            self._chain.standing()
        except StateError:
            return False
        return True

    def _finding(self, detail: str) -> Settled:
        return Settled(findings=(GuardFinding(guard="consent", mode=self._mode, ok=False, detail=detail),))


def policy_digest(policy: Mapping[str, Any]) -> str:
    """A short name for what an agent was allowed: the SHA-256 of its canonical JSON."""
    text = json.dumps(policy, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _end(spec: CycleSpec, record: CycleRecord, grant: str | None, *, launched: bool) -> dict[str, Any]:
    calls = (record.control or {}).get("tool_calls")
    return {
        "cycle_id": spec.cycle_id,
        "grant": grant,
        "launched": launched,
        "outcome": record.status,
        "class": record.agent_class,
        "tool_calls": calls if isinstance(calls, int) else None,
        "files_changed": record.files_changed,
    }
