from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from run_cycle_loop.guards.consent import ConsentGuard, policy_digest
from run_cycle_loop.model.enums import GuardMode, Outcome
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.records import CheckResult, CycleSpec, timestamp
from run_cycle_loop.policies.consent import HOW_TO_GRANT, Consent, fold
from run_cycle_loop.prerequisites.consent import ConsentCheck
from run_cycle_loop.testing import NOON, FakeClock, InMemoryCycleLog, make_record, make_spec


class Entries:
    """A chain without hashes, which can be broken, or refuse to take more."""

    def __init__(self, clock: FakeClock) -> None:
        self.all: list[Mapping[str, Any]] = []
        self.broken = self.full = self.unsure = False
        self._clock = clock

    def append(self, event: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.full or self.broken:
            raise StateError("the audit cannot be written")
        entry = {"event": event, "timestamp": timestamp(self._clock.now()), **facts}
        self.all.append(entry)
        if self.unsure:
            raise StateError("the head cannot be written")
        return entry

    def entries(self) -> Iterator[Mapping[str, Any]]:
        if self.broken:
            raise StateError("the audit is broken at line 7")
        return iter(list(self.all))

    def standing(self, *, besides: str | None = None) -> Consent:
        return fold(self.entries(), besides=besides)

    def grant(self, name: str = "g", **facts: Any) -> None:
        until = timestamp(self._clock.now() + timedelta(hours=8))
        self.append("grant", {"grant": name, "until": until, "reason": "nightly", **facts})

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self.all]


class Night:
    """A guard and its prerequisite over one chain."""

    def __init__(self, mode: GuardMode = GuardMode.ENFORCE, *, assume_yes: bool = True) -> None:
        self.clock = FakeClock(NOON)
        self.chain = Entries(self.clock)
        needed = lambda spec: spec.agent == "codex"  # noqa: E731 - a parameter of both
        self.guard = ConsentGuard(
            self.chain, now=self.clock.now, mode=mode, is_needed=needed, policy={"argv": ["--assume-yes"]}
        )
        self._check = ConsentCheck(
            chain=self.chain, now=self.clock.now, mode=mode, is_needed=needed, assume_yes=assume_yes
        )

    def check(self, spec: CycleSpec) -> CheckResult:
        return self._check.check(spec, InMemoryCycleLog("log"))

    def cycle(self, name: str = "c") -> CheckResult:
        """One cycle of an agent, launched where it may be."""
        spec = self.guard.begin(agent(cycle_id=name))
        found = self.check(spec)
        self.guard.settle(spec, make_record(cycle_id=name), launched=found.ok or not found.required)
        return found


def agent(**changes: Any) -> CycleSpec:
    return make_spec(**{"agent": "codex"} | changes)


def test_a_cycle_under_a_grant_is_noted_before_and_after() -> None:
    night = Night()
    night.chain.grant()
    spec = night.guard.begin(agent(cycle_id="c", number=3))
    start = night.chain.all[-1]
    assert (start["event"], start["cycle_id"], start["grant"], start["number"]) == ("cycle", "c", "g", 3)
    assert (start["agent"], start["mode"]) == ("codex", "experimental")
    assert start["policy"] == policy_digest({"argv": ["--assume-yes"]})
    record = make_record(status=Outcome.FAILED, agent_class="tool_error", control={"tool_calls": 12}, files_changed=4)
    assert night.guard.settle(spec, record, launched=True).findings == ()
    assert night.chain.all[-1] == {
        "event": "cycle_finished", "timestamp": timestamp(NOON), "cycle_id": "c", "grant": "g", "launched": True,
        "outcome": "failed", "class": "tool_error", "tool_calls": 12, "files_changed": 4,
    }  # fmt: skip


def test_the_last_cycle_of_a_grant_runs_and_the_next_does_not() -> None:
    night = Night()
    night.chain.grant(max_cycles=2)
    found = [night.cycle(name) for name in ("a", "b", "c")]
    assert [check.ok for check in found] == [True, True, False]
    assert found[2].required
    assert found[2].detail == f"consent g is used up, 2 of 2 cycles; {HOW_TO_GRANT}, or --agent planner"


def test_a_cycle_that_was_not_launched_gives_its_use_back() -> None:
    night = Night()
    night.chain.grant(max_cycles=1)
    spec = night.guard.begin(agent(cycle_id="a"))
    night.guard.settle(spec, make_record(status=Outcome.PREREQ_FAILED), launched=False)
    assert night.cycle("b").ok


def test_a_cycle_whose_end_nobody_noted_counts_as_used() -> None:
    night = Night()
    night.chain.grant(max_cycles=1)
    night.guard.begin(agent(cycle_id="killed"))
    assert not night.cycle("b").ok


def test_without_consent_nothing_is_noted_and_the_cycle_is_kept_back() -> None:
    night = Night()
    assert night.cycle().detail.endswith(f"{HOW_TO_GRANT}, or --agent planner")
    assert night.chain.all == []


def test_agents_that_write_only_in_the_sandbox_need_none() -> None:
    night = Night(assume_yes=False)
    spec = night.guard.begin(make_spec(agent="planner"))
    assert night.check(spec) == CheckResult(name="consent", ok=True, detail="not needed", guard="consent")
    night.guard.settle(spec, make_record(), launched=True)
    assert night.chain.all == []


def test_a_revocation_between_the_beginning_and_the_check_is_heard() -> None:
    night = Night()
    night.chain.grant()
    spec = night.guard.begin(agent())
    night.chain.append("revoke", {"grant": "g", "reason": "enough"})
    assert not night.check(spec).ok


def test_consent_that_comes_while_a_cycle_starts_is_for_the_next_one() -> None:
    night = Night()
    spec = night.guard.begin(agent())
    night.chain.grant()
    assert "the next one makes use of it" in night.check(spec).detail
    assert night.cycle("next").ok


def test_a_look_ahead_of_any_cycle_tells_whether_one_would_run() -> None:
    night = Night()
    preview = agent(cycle_id="dry-run", number=0)
    assert not night.check(preview).ok
    night.chain.grant()
    assert night.check(preview) == CheckResult(
        name="consent", ok=True, detail="until 20:00 (in 8h), 0 cycles used: nightly", guard="consent"
    )


def test_without_assume_yes_a_grant_does_not_help() -> None:
    night = Night(assume_yes=False)
    night.chain.grant()
    found = night.cycle()
    assert (found.ok, found.required) == (False, True)
    assert "--assume-yes" in found.detail


@pytest.mark.parametrize(("mode", "required"), [(GuardMode.ENFORCE, True), (GuardMode.WARN, False)])
def test_a_broken_audit_is_no_consent(mode: GuardMode, required: bool) -> None:
    night = Night(mode)
    night.chain.grant()
    night.chain.broken = True
    found = night.check(night.guard.begin(agent()))
    assert (found.ok, found.required, found.detail) == (False, required, "the audit is broken at line 7")


def test_a_beginning_that_cannot_be_noted_holds_the_loop_and_is_noted_once_later() -> None:
    night = Night()
    night.chain.grant(max_cycles=1)
    night.chain.full = True
    with pytest.raises(StateError):
        night.guard.begin(agent(cycle_id="c"))
    night.chain.full = False
    for _ in range(2):
        spec = night.guard.begin(agent(cycle_id="c"))
    assert night.chain.events == ["grant", "cycle"]
    assert night.check(spec).ok


def test_an_end_that_cannot_be_noted_holds_the_loop() -> None:
    night = Night()
    night.chain.grant()
    spec = night.guard.begin(agent())
    night.chain.full = True
    with pytest.raises(StateError):
        night.guard.settle(spec, make_record(), launched=True)


def test_an_audit_that_was_broken_during_the_cycle_is_told_in_its_record() -> None:
    night = Night()
    night.chain.grant()
    spec = night.guard.begin(agent())
    night.chain.broken = True
    (finding,) = night.guard.settle(spec, make_record(), launched=True).findings
    assert (finding.guard, finding.ok) == ("consent", False)
    night.chain.broken = False
    assert night.chain.events == ["grant", "cycle"]


def test_a_warning_lets_a_cycle_run_and_tells_that_nobody_consented() -> None:
    night = Night(GuardMode.WARN)
    spec = night.guard.begin(agent())
    found = night.check(spec)
    assert (found.ok, found.required) == (False, False)
    (finding,) = night.guard.settle(spec, make_record(), launched=True).findings
    assert finding.detail == f"codex ran without consent; {HOW_TO_GRANT}"
    assert (night.chain.events, night.chain.all[-1]["grant"]) == (["cycle_finished"], None)


def test_a_warning_never_holds_the_loop() -> None:
    night = Night(GuardMode.WARN)
    night.chain.grant()
    night.chain.full = True
    spec = night.guard.begin(agent())
    assert night.guard.settle(spec, make_record(), launched=True).findings


def test_nothing_is_waited_for() -> None:
    Night().guard.admit(NOON)


def test_the_digest_of_a_policy_does_not_depend_on_its_order() -> None:
    assert policy_digest({"a": 1, "b": [2]}) == policy_digest({"b": [2], "a": 1})
    assert policy_digest({"a": 1}) != policy_digest({"a": 2})


def test_an_end_that_stands_there_though_it_was_not_confirmed_is_not_written_twice() -> None:
    night = Night()
    night.chain.grant()
    spec = night.guard.begin(agent(cycle_id="c"))
    night.chain.unsure = True
    with pytest.raises(StateError):
        night.guard.settle(spec, make_record(cycle_id="c"), launched=True)
    night.chain.unsure = False
    assert night.guard.settle(spec, make_record(cycle_id="c"), launched=True).findings == ()
    assert night.chain.events == ["grant", "cycle", "cycle_finished"]
