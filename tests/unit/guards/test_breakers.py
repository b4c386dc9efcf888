from datetime import timedelta
from typing import Any

import pytest

from run_cycle_loop.guards.breakers import BreakerGuard
from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, Opened, Reset
from run_cycle_loop.model.decisions import Continue, Halt
from run_cycle_loop.model.enums import GuardMode, Outcome, StopReason
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.ports import Settled
from run_cycle_loop.model.records import CycleRecord, timestamp
from run_cycle_loop.policies.breakers import SpendRate, Thresholds
from run_cycle_loop.testing import FakeClock, InMemoryBreakers, InMemoryHistory, make_record, make_spec

THRESHOLDS = Thresholds(no_progress=3, storm_cycles=4, spend_rate=SpendRate(usd=10, seconds=1800))
LONGEST = 1800.0
BAD = Outcome.FAILED


class Loop:
    """A guard in a loop: asked before each cycle, told after it, and only then is the cycle recorded."""

    def __init__(
        self,
        *,
        store: InMemoryBreakers | None = None,
        history: InMemoryHistory | None = None,
        clock: FakeClock | None = None,
        mode: GuardMode = GuardMode.ENFORCE,
        thresholds: Thresholds = THRESHOLDS,
    ) -> None:
        self.store = store or InMemoryBreakers()
        self.history = history or InMemoryHistory()
        self.clock = clock or FakeClock()
        self.guard = BreakerGuard(
            self.store,
            thresholds,
            mode=mode,
            longest_wait=LONGEST,
            is_real=lambda name: name == "claude",
            recorded=self.history.newest_first,
        )

    def again(self, **changes: Any) -> "Loop":
        """The next start, among the same files."""
        known: dict[str, Any] = {"store": self.store, "history": self.history, "clock": self.clock}
        return Loop(**known | changes)

    def admit(self) -> Continue | Halt | None:
        return self.guard.admit(self.clock.now())

    def draft(self, **changes: Any) -> CycleRecord:
        last = self.history.last()
        self.clock.move(60)
        known: dict[str, Any] = {
            "number": last.number + 1 if last else 1,
            "duration_seconds": 60.0,
            "finished_at": timestamp(self.clock.now()),
        }
        return make_record(**known | changes)

    def cycle(self, **changes: Any) -> Settled:
        record = self.draft(**changes)
        settled = self.guard.settle(make_spec(number=record.number), record, launched=True)
        self.admit()  # the loop asks before it records, to say what follows
        self.history.append(record)
        return settled


def _halt(loop: Loop) -> str:
    halt = loop.admit()
    assert isinstance(halt, Halt)
    assert halt.reason is StopReason.BREAKER_OPEN
    return halt.why


def test_a_loop_that_gets_on_is_not_disturbed() -> None:
    loop = Loop()
    for number in range(50):
        assert loop.admit() is None
        assert loop.cycle(fingerprint=str(number)) == Settled()
    assert loop.store.marks == BreakerMarks()
    assert loop.guard.begin(make_spec()) == make_spec()


def test_without_progress_there_is_one_more_try_after_the_longest_wait_and_then_the_end() -> None:
    loop = Loop()
    for _ in range(2):
        assert loop.cycle(fingerprint="A") == Settled()
        assert loop.admit() is None
    (finding,) = loop.cycle(fingerprint="A").findings
    assert (finding.guard, finding.ok, finding.mode) == ("breaker", False, GuardMode.ENFORCE)
    assert "the no-progress breaker is half-open: 3 cycles in a row left the same workdir" in finding.detail
    wait = loop.admit()
    assert isinstance(wait, Continue)
    assert (wait.delay, wait.until) == (LONGEST, loop.clock.now() + timedelta(seconds=LONGEST))
    loop.clock.move(LONGEST - 1)
    assert isinstance(loop.admit(), Continue)
    loop.clock.move(1)
    assert loop.admit() is None
    (finding,) = loop.cycle(fingerprint="A").findings
    assert "is open: 4 cycles in a row left the same workdir, of 3" in finding.detail
    assert "`run-cycle-loop breaker reset`" in _halt(loop)


def test_a_try_that_gets_on_closes_it() -> None:
    loop = Loop()
    for _ in range(3):
        loop.cycle(fingerprint="A")
    loop.clock.move(LONGEST)
    assert loop.admit() is None
    assert loop.cycle(fingerprint="B") == Settled()
    assert loop.admit() is None


def test_the_wait_for_the_last_try_goes_on_over_a_restart() -> None:
    loop = Loop()
    for _ in range(3):
        loop.cycle(fingerprint="A")
    loop.clock.move(1000)
    wait = loop.again().admit()
    assert isinstance(wait, Continue)
    assert wait.delay == LONGEST - 1000


@pytest.mark.parametrize(("step", "more"), [(-3600, LONGEST), (-(10**8), LONGEST), (0, LONGEST - 60)])
def test_a_clock_that_is_set_back_adds_one_wait_at_most(step: float, more: float) -> None:
    loop = Loop()
    for _ in range(3):
        loop.cycle(fingerprint="A")
    assert isinstance(loop.admit(), Continue)
    loop.clock.move(60)
    loop.clock.step_wall(step)
    wait = loop.admit()
    assert isinstance(wait, Continue)
    assert wait.delay == more
    loop.clock.move(more)
    assert loop.admit() is None


@pytest.mark.parametrize(
    ("cycle", "count", "why"),
    [
        ({"status": BAD, "duration_seconds": 1.0}, 4, "storm breaker is open: 4 cycles in a row shorter than 5.0s"),
        ({"agent": "claude", "duration_seconds": 1.0}, 4, "storm breaker is open"),
        ({"charged": {"usd": 6.0}}, 2, "spending breaker is open: 12.00 usd within 30m, of 10"),
    ],
)
def test_a_storm_and_fast_spending_end_the_loop_at_once(cycle: dict[str, Any], count: int, why: str) -> None:
    loop = Loop()
    for _ in range(count):
        assert loop.admit() is None
        loop.cycle(**cycle)
    assert why in _halt(loop)


def test_an_open_breaker_stays_open_over_restarts_and_over_the_loss_of_either_file() -> None:
    loop = Loop()
    for _ in range(4):
        loop.cycle(status=BAD, duration_seconds=1.0)
    loop.clock.move(86400)
    for other in (
        loop.again(),
        loop.again(store=InMemoryBreakers()),  # the state file is gone: the history tells
        loop.again(history=InMemoryHistory()),  # the history was rotated away: the state file tells
        loop.again(thresholds=Thresholds(storm_cycles=0, no_progress=0)),
    ):
        assert "storm breaker is open" in _halt(other)


def test_damage_opens_it() -> None:
    opened = Opened(name=BreakerName.STATE, at="", number=0, why="breakers.json was damaged")
    assert "the state breaker is open: breakers.json was damaged" in _halt(
        Loop(store=InMemoryBreakers(BreakerMarks(opened=opened)))
    )


def test_state_that_cannot_be_read_ends_the_loop() -> None:
    class Unreadable(InMemoryBreakers):
        def load(self) -> BreakerMarks:
            raise StateError("breakers.json cannot be set aside: mend its folder")

    loop = Loop(store=Unreadable())
    assert "in doubt: breakers.json cannot be set aside" in _halt(loop)
    with pytest.raises(StateError):
        loop.cycle()


def _reset(loop: Loop) -> None:
    last = loop.history.last()
    number = last.number if last else 0
    loop.store.save(BreakerMarks(reset=Reset(at=timestamp(loop.clock.now()), by="me", number=number)))


def test_a_reset_closes_it_and_the_count_begins_anew() -> None:
    loop = Loop()
    for _ in range(4):
        loop.cycle(status=BAD, duration_seconds=1.0)
    _reset(loop)
    for running in (loop, loop.again()):  # the one that runs hears of it too
        assert running.admit() is None
    loop = loop.again()
    for _ in range(3):
        loop.cycle(status=BAD, duration_seconds=1.0)
        assert loop.admit() is None
    loop.cycle(status=BAD, duration_seconds=1.0)
    assert "storm breaker is open" in _halt(loop)


def test_a_reset_while_the_last_try_is_waited_for_ends_the_wait() -> None:
    loop = Loop()
    for _ in range(3):
        loop.cycle(fingerprint="A")
    assert isinstance(loop.admit(), Continue)
    _reset(loop)
    assert loop.admit() is None
    loop.cycle(fingerprint="A")
    assert loop.admit() is None


def test_a_cycle_that_is_not_recorded_yet_counts_after_a_reset_too() -> None:
    loop = Loop()
    for _ in range(2):
        loop.cycle(status=BAD, duration_seconds=1.0)
    _reset(loop)
    record = loop.draft(status=BAD, duration_seconds=1.0)
    loop.guard.settle(make_spec(), record, launched=True)
    loop.history.append(record)
    for _ in range(2):
        assert loop.admit() is None
        loop.cycle(status=BAD, duration_seconds=1.0)
    assert loop.admit() is None
    loop.cycle(status=BAD, duration_seconds=1.0)
    assert isinstance(loop.admit(), Halt)


def test_one_that_only_warns_says_so_in_each_record_and_keeps_nothing() -> None:
    loop = Loop(mode=GuardMode.WARN)
    for _ in range(3):
        assert loop.cycle(status=BAD, duration_seconds=1.0) == Settled()
    for _ in range(3):
        (finding,) = loop.cycle(status=BAD, duration_seconds=1.0).findings
        assert (finding.mode, finding.ok) == (GuardMode.WARN, False)
        assert loop.admit() is None
    assert loop.store.marks == BreakerMarks()


def test_one_that_is_off_says_nothing() -> None:
    loop = Loop(mode=GuardMode.OFF)
    for _ in range(9):
        assert loop.cycle(status=BAD, duration_seconds=1.0, fingerprint="A") == Settled()
    assert loop.admit() is None


def test_a_write_that_fails_is_made_again_and_the_cycle_counts_once() -> None:
    loop = Loop()
    for _ in range(3):
        loop.cycle(status=BAD, duration_seconds=1.0)
    record = loop.draft(status=BAD, duration_seconds=1.0)
    loop.store.refuse(2)
    for _ in range(2):
        with pytest.raises(StateError):
            loop.guard.settle(make_spec(), record, launched=True)
    (finding,) = loop.guard.settle(make_spec(), record, launched=True).findings
    assert "4 cycles in a row" in finding.detail
    assert loop.store.marks.opened is not None


def test_what_cannot_be_kept_ends_the_loop_all_the_same() -> None:
    loop = Loop()
    for _ in range(4):
        loop.history.append(loop.draft(status=BAD, duration_seconds=1.0))
    loop.store.refuse(1)
    assert "in doubt" in _halt(loop)
    assert "storm breaker is open" in _halt(loop)
