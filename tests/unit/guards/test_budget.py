from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from run_cycle_loop.guards.budget import BudgetGuard, BudgetRules
from run_cycle_loop.model.decisions import Continue, Halt
from run_cycle_loop.model.enums import GuardMode, Outcome, StopReason
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.ports import Settled
from run_cycle_loop.model.records import CycleRecord, CycleSpec, timestamp
from run_cycle_loop.model.sessions import Usage
from run_cycle_loop.model.spending import Spending
from run_cycle_loop.policies.budgets import parse_limits
from run_cycle_loop.testing import NOON, FakeClock, InMemoryLedger, make_record, make_spec

MIDNIGHT = datetime.fromisoformat("2026-01-03T00:00:30+00:00")


class Loop:
    """A guard, and cycles that pass it, one after the other."""

    def __init__(
        self,
        *limits: str,
        ledger: InMemoryLedger | None = None,
        clock: FakeClock | None = None,
        agent: str | None = "claude",
        run: str = "run-1",
        records: Iterable[CycleRecord] = (),
        **rules: Any,
    ) -> None:
        self.ledger = ledger or InMemoryLedger()
        self.clock = clock or FakeClock()
        self.agent = agent
        self.number = 0
        self.run = run
        self.guard = BudgetGuard(
            self.ledger,
            BudgetRules(limits=parse_limits(limits), **rules),
            run=run,
            agent=agent,
            is_real=lambda name: name == "claude",
            recorded=lambda: records,
        )

    def admit(self) -> Continue | Halt | None:
        return self.guard.admit(self.clock.now())

    def begin(self, **changes: Any) -> CycleSpec:
        self.number += 1
        name = f"{self.run}-{self.number}"
        known: dict[str, Any] = {"cycle_id": name, "started_at": self.clock.now(), "agent": self.agent}
        return self.guard.begin(make_spec(**known | changes))

    def settle(self, spec: CycleSpec, *, usd: float | None = None, launched: bool = True, **changes: Any) -> Settled:
        self.clock.move(60)
        usage = None if usd is None else Usage(input_tokens=100, output_tokens=100, cost_usd=usd).as_dict()
        known: dict[str, Any] = {
            "usage": usage,
            "duration_seconds": 60.0,
            "cycle_id": spec.cycle_id,
            "agent": spec.agent,
            "finished_at": timestamp(self.clock.now()),
        }
        return self.guard.settle(spec, make_record(self.number, **known | changes), launched=launched)

    def cycle(self, usd: float | None = None, **changes: Any) -> Settled:
        return self.settle(self.begin(), usd=usd, **changes)

    @property
    def today(self) -> Spending:
        return self.ledger.entries[-1][1].today


def test_a_cycle_is_reserved_for_before_it_starts_and_charged_after() -> None:
    loop = Loop("usd=20/day")
    spec = loop.begin()
    assert loop.today == Spending(usd=2, tokens=500_000, seconds=300, cycles=1)
    settled = loop.settle(spec, usd=0.5)
    assert loop.today == Spending(usd=0.5, tokens=200, seconds=60, cycles=1)
    assert settled.changes == {"charged": {"usd": 0.5, "tokens": 200, "seconds": 60.0, "cycles": 1, "estimated": []}}
    assert settled.findings == ()


def test_a_cycle_that_was_not_launched_costs_nothing() -> None:
    loop = Loop("usd=20/day", "cycles=1/day")
    settled = loop.settle(loop.begin(), launched=False)
    assert settled == Settled()
    assert loop.today == Spending()
    assert loop.admit() is None


def test_a_cycle_whose_supervisor_did_not_survive_it_costs_what_it_may_have() -> None:
    loop = Loop("usd=20/day")
    loop.begin()
    again = Loop("usd=20/day", ledger=loop.ledger, run="run-2")
    again.cycle(usd=1)
    assert again.today.usd == 3


@pytest.mark.parametrize(
    ("agent", "usd", "charged", "estimated"),
    [
        ("claude", None, 2, ["usd", "tokens"]),
        ("claude", 0.5, 0.5, []),
        (None, None, 0, []),
        (None, 0.5, 0.5, []),
        ("planner", None, 0, []),
        ("scripted", 0.5, 0.5, []),
    ],
)
def test_only_an_agent_that_costs_something_is_charged_an_estimate(
    agent: str | None, usd: float | None, charged: float, estimated: list[str]
) -> None:
    settled = Loop("usd=20/day", agent=agent).cycle(usd=usd)
    assert settled.changes["charged"]["usd"] == charged
    assert settled.changes["charged"]["estimated"] == estimated


def test_what_is_measured_takes_the_place_of_the_default_estimate() -> None:
    loop = Loop("usd=20/day")
    loop.cycle(usd=0.5)
    assert loop.cycle(usd=None).changes["charged"]["usd"] == 0.5
    again = Loop("usd=20/day", ledger=loop.ledger, run="run-2")
    assert again.cycle(usd=None).changes["charged"]["usd"] == 0.5


# --- admission -----------------------------------------------------------------------------------------------------


def test_a_spent_budget_ends_the_loop_with_what_was_used() -> None:
    loop = Loop("usd=5/day")
    loop.cycle(usd=2)
    assert loop.admit() is None
    loop.cycle(usd=2)
    halt = loop.admit()
    assert isinstance(halt, Halt)
    assert halt.reason is StopReason.BUDGET_SPENT
    assert "usd=5/day is spent: 4.00 usd used, and a cycle may cost 2.00 usd" in halt.why


def test_or_it_is_waited_for_the_next_day_of_utc_and_then_all_is_new() -> None:
    loop = Loop("usd=2/day", waits=True)
    loop.cycle(usd=2)
    wait = loop.admit()
    assert isinstance(wait, Continue)
    assert wait.until == MIDNIGHT
    loop.clock.move((MIDNIGHT - loop.clock.now()).total_seconds() - 31)
    assert isinstance(loop.admit(), Continue)
    loop.clock.move(1)
    assert loop.admit() is None


def test_a_budget_of_the_run_is_not_waited_for() -> None:
    loop = Loop("usd=2/run", waits=True)
    loop.cycle(usd=2)
    assert isinstance(loop.admit(), Halt)
    assert Loop("usd=2/run", ledger=loop.ledger, run="run-2").admit() is None


@pytest.mark.parametrize("waits", [False, True])
def test_a_budget_that_no_cycle_can_fit_is_said_once_and_ends_the_loop(waits: bool) -> None:
    """A loop elsewhere asked 20 276 times in 23 hours."""
    loop = Loop("usd=0.5/day", waits=waits)
    halt = loop.admit()
    assert isinstance(halt, Halt)
    assert halt.reason is StopReason.BUDGET_SPENT
    assert "no cycle fits into the budget usd=0.5/day: one may cost 2.00 usd; raise it" in halt.why
    assert loop.ledger.entries == []


@pytest.mark.parametrize("waits", [False, True])
def test_a_limit_that_cycle_after_cycle_goes_beyond_ends_the_loop_too(waits: bool) -> None:
    loop = Loop("usd=1/cycle", waits=waits)
    admitted = 0
    while loop.admit() is None:
        loop.cycle(usd=3)
        admitted += 1
        assert admitted < 10
    assert admitted == 3
    halt = loop.admit()
    assert isinstance(halt, Halt)
    assert "no cycle keeps to the budget usd=1/cycle" in halt.why


def test_an_agent_that_ends_a_little_beyond_its_limit_may_go_on() -> None:
    loop = Loop("usd=1/cycle")
    for _ in range(10):
        assert loop.admit() is None
        settled = loop.cycle(usd=1.05)
        assert [finding.ok for finding in settled.findings] == [False]


@pytest.mark.parametrize(
    ("limits", "spent", "usd", "tokens", "seconds"),
    [
        ((), 0, None, None, None),
        (("usd=5/cycle",), 3, 5, None, None),
        (("usd=5/cycle", "usd=6/day"), 3, 3, None, None),
        (("tokens=1k/run", "time=5m/day"), 3, None, 800, 240),
        (("cycles=40/day",), 3, None, None, None),
    ],
)
def test_a_cycle_is_told_what_is_left_for_it(
    limits: tuple[str, ...], spent: float, usd: float | None, tokens: int | None, seconds: float | None
) -> None:
    loop = Loop(*limits)
    loop.cycle(usd=spent)
    spec = loop.begin()
    assert (spec.allowed_usd, spec.allowed_tokens, spec.allowed_seconds) == (usd, tokens, seconds)


def test_what_somebody_else_allows_is_never_made_more() -> None:
    spec = Loop("usd=5/cycle").begin(allowed_usd=1.0, allowed_tokens=7)
    assert (spec.allowed_usd, spec.allowed_tokens) == (1, 7)


def test_a_guard_that_only_warns_stops_and_cuts_nothing() -> None:
    loop = Loop("usd=2/day", "usd=1/cycle", mode=GuardMode.WARN)
    loop.cycle(usd=2)
    assert loop.admit() is None
    spec = loop.begin()
    assert (spec.allowed_usd, spec.allowed_tokens, spec.allowed_seconds) == (None, None, None)
    details = [(finding.mode, finding.ok, finding.detail) for finding in loop.settle(spec, usd=2).findings]
    assert [(mode, ok) for mode, ok, _ in details] == [(GuardMode.WARN, False)] * 3
    assert "usd=2/day is spent" in details[0][2]
    assert "this cycle came to 2.00 usd" in details[1][2]
    assert "4.00 usd of the budget usd=2/day used" in details[2][2]


def test_a_guard_that_is_off_only_keeps_the_account() -> None:
    loop = Loop("usd=1/day", mode=GuardMode.OFF)
    assert loop.cycle(usd=3).findings == ()
    assert (loop.admit(), loop.today.usd) == (None, 3)


# --- days and clocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "steps", "today"),
    [
        # (wall clock steps between cycles of 1 usd) -> what the last day has
        ("2026-01-02T12:00:00", [0, 0, 0], 4),
        ("2026-01-02T23:58:30", [0, 0, 0], 2),
        ("2026-01-02T23:58:30", [3600, -3600, 0], 3),
        ("2026-01-02T00:01:00", [-3600, 0, 0], 4),
        ("2026-01-02T12:00:00", [86400, 0, 0], 3),
        ("2026-01-02T12:00:00", [86400, -86400, 0], 3),
        ("2026-01-02T12:00:00", [-86400, 86400, -86400], 4),
        ("2026-01-02T12:00:00", [3650 * 86400, -3650 * 86400, 0], 3),
        ("2026-01-02T12:00:00", [0, 0, 86400 - 60], 1),
    ],
)
def test_however_the_clock_is_set_a_day_begins_once(start: str, steps: list[float], today: float) -> None:
    clock = FakeClock(datetime.fromisoformat(start + "+00:00"))
    loop = Loop("usd=20/day", clock=clock)
    loop.cycle(usd=1)
    for step in steps:
        clock.step_wall(step)
        loop = Loop("usd=20/day", clock=clock, ledger=loop.ledger, run=f"run-{step}-{loop.number}")
        loop.number = 100
        loop.cycle(usd=1)
    assert loop.today.usd == today


def test_a_cycle_is_of_the_day_on_which_it_began() -> None:
    clock = FakeClock(datetime.fromisoformat("2026-01-02T23:59:30+00:00"))
    loop = Loop("usd=3/day", clock=clock, waits=True)
    loop.cycle(usd=3)  # it ends in the next day
    assert loop.ledger.entries[-1][0].day == "2026-01-02"
    assert loop.admit() is None
    loop.cycle(usd=3)
    assert (loop.today.usd, loop.ledger.entries[-1][1].day) == (3, "2026-01-03")
    assert isinstance(loop.admit(), Continue)


def test_a_clock_that_had_been_years_ahead_ends_the_loop_instead_of_holding_it_for_years() -> None:
    clock = FakeClock()
    loop = Loop("usd=3/day", clock=clock, waits=True)
    clock.step_wall(3650 * 86400)
    loop.cycle(usd=3)
    clock.step_wall(-3650 * 86400)
    halt = loop.admit()
    assert isinstance(halt, Halt)
    assert "set the clock right, or move the budget ledger aside" in halt.why


# --- damage --------------------------------------------------------------------------------------------------------


def test_each_damaged_line_counts_as_a_cycle() -> None:
    loop = Loop("usd=20/day")
    loop.cycle(usd=1)
    loop.ledger.damaged = 3
    again = Loop("usd=20/day", ledger=loop.ledger, run="run-2")
    again.cycle(usd=1)
    assert again.today.usd == 1 + 3 * 1 + 1  # by then a cycle is known to cost 1
    again.cycle(usd=1)
    assert again.today.usd == 6  # once, not with each cycle
    once_more = Loop("usd=20/day", ledger=loop.ledger, run="run-3")
    once_more.cycle(usd=1)
    assert once_more.today.usd == 7


def test_a_ledger_of_nothing_but_damage_stops_the_loop() -> None:
    loop = Loop("usd=20/day", ledger=InMemoryLedger(damaged=1000))
    halt = loop.admit()
    assert isinstance(halt, Halt)
    assert "2000.00 usd used" in halt.why


def test_where_the_ledger_is_gone_the_history_is_asked() -> None:
    today = [
        make_record(number, charged={"usd": 9.0, "tokens": 5, "seconds": 60.0, "cycles": 1, "estimated": []})
        for number in (4, 3)
    ]
    before = timestamp(NOON - timedelta(days=1))
    records = [*today, make_record(2, charged={"usd": "?"}), make_record(1, started_at=before, charged={"usd": 50.0})]
    loop = Loop("usd=20/day", records=records)
    loop.cycle(usd=1)
    assert loop.today == Spending(usd=19, tokens=210, seconds=180, cycles=3)


@pytest.mark.parametrize("started_at", ["", "yesterday", "9999-12-31T23:59:59Z"])
def test_no_record_of_the_history_keeps_the_guard_from_starting(started_at: str) -> None:
    records = [make_record(1, started_at=started_at, timestamp=started_at, charged={"usd": 1.0})]
    assert isinstance(Loop("usd=20/day", records=records).admit(), Halt | None)


def test_a_write_that_fails_is_made_again_and_counts_once() -> None:
    loop = Loop("usd=20/day")
    loop.ledger.refuse(1)
    spec = make_spec(cycle_id="a", agent="claude", started_at=NOON)
    with pytest.raises(StateError):
        loop.guard.begin(spec)
    assert loop.ledger.entries == []
    spec = loop.guard.begin(spec)
    loop.ledger.refuse(2)
    for _ in range(2):
        with pytest.raises(StateError):
            loop.settle(spec, usd=0.25)
    loop.settle(spec, usd=0.25)
    assert (len(loop.ledger.entries), loop.today.usd) == (2, 0.25)


@pytest.mark.parametrize("status", list(Outcome))
def test_whatever_a_launched_cycle_came_to_it_is_charged(status: Outcome) -> None:
    loop = Loop("usd=20/day")
    spec = loop.begin()
    record = replace(make_record(1, status), cycle_id=spec.cycle_id, agent="claude")
    assert loop.guard.settle(spec, record, launched=True).changes["charged"]["usd"] == 2
    assert loop.today.cycles == 1
