import pytest

from run_cycle_loop.policies.backoff import Backoff

LOW, EVEN, HIGH = 0.0, 0.5, 1.0


@pytest.mark.parametrize(
    ("streak", "delay"), [(1, 60), (2, 300), (3, 1500), (4, 1800), (5, 1800), (1000, 1800), (10**6, 1800)]
)
def test_by_default_it_waits_1_5_25_30_30_minutes(streak: int, delay: float) -> None:
    assert Backoff().delay(streak, lambda: EVEN) == pytest.approx(delay)


@pytest.mark.parametrize(("chance", "delay"), [(LOW, 54), (EVEN, 60), (HIGH, 66)])
def test_chance_moves_a_delay_by_a_tenth_at_most(chance: float, delay: float) -> None:
    assert Backoff().delay(1, lambda: chance) == pytest.approx(delay)


def test_no_chance_lifts_a_delay_above_the_longest() -> None:
    assert Backoff(longest=60).delay(1, lambda: HIGH) == 60


@pytest.mark.parametrize("chance", [LOW, HIGH])
def test_without_jitter_chance_has_no_say(chance: float) -> None:
    assert Backoff(initial=3, factor=2, jitter=0).delay(3, lambda: chance) == pytest.approx(12)


def test_a_factor_of_one_waits_the_same_every_time() -> None:
    waits = {Backoff(initial=7, factor=1, jitter=0).delay(streak, lambda: EVEN) for streak in range(1, 50)}
    assert waits == {7.0}


def test_an_initial_delay_above_the_longest_is_cut() -> None:
    assert Backoff(initial=100, longest=10, jitter=0).delay(1, lambda: EVEN) == 10
