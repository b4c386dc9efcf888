"""What is measured, what is tried next, and what the verdict is."""

from collections.abc import Sequence

import pytest

from run_cycle_loop.agents.experiments import (
    Experiment,
    Metric,
    Mode,
    Result,
    Verdict,
    choose_metric,
    judge,
    measure,
    one_line,
    propose,
)
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.records import CycleRecord


def cycle(number: int, status: Outcome = Outcome.SUCCESS, seconds: float = 1.0, **more: object) -> CycleRecord:
    line = {"number": number, "status": status, "duration_seconds": seconds, "archive_created": True, **more}
    return CycleRecord.from_dict(line)


def cycles(*seconds: float, first: int = 1) -> list[CycleRecord]:
    return [cycle(number, seconds=value) for number, value in enumerate(seconds, first)]


FAILED = cycle(3, Outcome.FAILED, 9.0, archive_created=False, reason="exit code 1", log_path="logs/3.log")


@pytest.mark.parametrize(
    ("metric", "records", "expected"),
    [
        (Metric.DURATION, cycles(3.0, 1.0, 2.0), 2.0),
        (Metric.DURATION, cycles(1.0, 2.0), 1.5),
        (Metric.DURATION, [*cycles(2.0), cycle(2, Outcome.PREREQ_FAILED, 0.0)], 2.0),
        (Metric.DURATION, [], None),
        (Metric.FAILURE_RATE, [*cycles(1.0, 1.0), FAILED, cycle(4, Outcome.DEGRADED)], 0.25),
        (Metric.FAILURE_RATE, [], None),
        (Metric.FRESHNESS, [*cycles(1.0), FAILED], 0.5),
        (Metric.FRESHNESS, [cycle(1, archive_created=None)], None),
        (Metric.SPREAD, cycles(1.0, 1.0, 4.0), 4.0),
        (Metric.SPREAD, cycles(0.0, 0.0), None),
    ],
)
def test_each_metric_is_measured_on_the_records_that_tell_it(
    metric: Metric, records: Sequence[CycleRecord], expected: float | None
) -> None:
    assert measure(metric, records) == expected


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        ("make it FAST", Metric.DURATION),
        ("find out why it is slow", Metric.DURATION),
        ("fewer flaky runs, less time", Metric.FAILURE_RATE),
        ("less time, fewer errors", Metric.DURATION),
        ("a timeout every night", Metric.FAILURE_RATE),
        ("the archive goes stale", Metric.FRESHNESS),
        ("sometimes breakfast", Metric.FAILURE_RATE),
    ],
)
def test_the_word_of_the_goal_that_comes_first_chooses_the_metric(goal: str, expected: Metric) -> None:
    chosen = choose_metric(goal, Mode.EXPERIMENTAL, previous=Metric.DURATION, running=frozenset())
    assert chosen is expected


@pytest.mark.parametrize("mode", list(Mode))
def test_without_such_a_word_no_metric_comes_twice_in_a_row(mode: Mode) -> None:
    previous = None
    for running in (frozenset[Metric](), frozenset({Metric.SPREAD}), frozenset(Metric)):
        for _ in range(len(Metric) + 1):
            chosen = choose_metric("plan something", mode, previous=previous, running=running)
            assert chosen is not previous
            previous = chosen


def test_the_rotation_leaves_out_what_is_being_measured() -> None:
    running = frozenset({Metric.FAILURE_RATE, Metric.FRESHNESS})
    assert choose_metric("", Mode.EXPERIMENTAL, previous=Metric.DURATION, running=running) is Metric.SPREAD


def test_a_stable_rotation_keeps_to_failures_and_flakiness() -> None:
    chosen = {choose_metric("", Mode.STABILIZE, previous=metric, running=frozenset()) for metric in Metric}
    assert chosen == {Metric.FAILURE_RATE, Metric.SPREAD}


def proposed(metric: Metric, records: Sequence[CycleRecord], mode: str = "experimental") -> Experiment:
    return propose(number=1, metric=metric, mode=mode, records=records, after_cycle=len(records) + 1)


@pytest.mark.parametrize(
    ("mode", "metric", "target"),
    [
        ("experimental", Metric.DURATION, 0.9),
        ("stabilize", Metric.DURATION, 1.1),
        ("review", Metric.DURATION, 1.2),
        ("experimental", Metric.FAILURE_RATE, 0.0),
        ("stabilize", Metric.FAILURE_RATE, 0.0),
        ("review", Metric.FAILURE_RATE, 0.333333),
        ("experimental", Metric.FRESHNESS, 1.0),
        ("review", Metric.FRESHNESS, 0.666667),
    ],
)
def test_the_target_follows_from_baseline_and_strategy(mode: str, metric: Metric, target: float) -> None:
    experiment = proposed(metric, [*cycles(1.0, 1.0), FAILED], mode)
    assert experiment.target == pytest.approx(target)


def test_most_failures_gone_is_asked_for_in_whole_cycles() -> None:
    always = [cycle(number, Outcome.FAILED) for number in range(1, 4)]
    assert proposed(Metric.FAILURE_RATE, always).target == pytest.approx(1 / 3, abs=1e-6)


def test_without_records_there_is_no_baseline_and_the_first_measurement_meets_the_aim() -> None:
    experiment = proposed(Metric.DURATION, [])
    assert (experiment.baseline, experiment.target) == (None, None)
    verdict = judge(experiment, cycles(1.0, 2.0, 3.0, first=2))
    assert verdict is not None
    assert (verdict.result, verdict.measured) == (Result.MET, 2.0)


def test_the_change_names_the_slowest_cycle_and_its_log() -> None:
    change = proposed(Metric.DURATION, [*cycles(1.0, 2.0), FAILED]).change
    assert "cycle 3" in change
    assert "logs/3.log" in change


def test_the_change_names_the_most_frequent_reason() -> None:
    others = [cycle(number, Outcome.FAILED, reason="exit code 7") for number in (4, 5)]
    change = proposed(Metric.FAILURE_RATE, [FAILED, *others]).change
    assert "exit code 7 (2 of 3)" in change
    assert "cycle 5" in change


def test_the_change_names_the_cycle_that_left_no_archive() -> None:
    assert "cycle 3 (exit code 1, log logs/3.log)" in proposed(Metric.FRESHNESS, [*cycles(1.0), FAILED]).change


@pytest.mark.parametrize("metric", list(Metric))
def test_a_review_changes_nothing(metric: Metric) -> None:
    assert proposed(metric, [*cycles(1.0), FAILED], "review").change.startswith("Change nothing")


@pytest.mark.parametrize("metric", [Metric.FAILURE_RATE, Metric.FRESHNESS])
def test_where_all_is_well_an_experiment_dares_more_and_a_stable_loop_stands_still(metric: Metric) -> None:
    well = cycles(1.0, 1.0)
    assert "halve" in proposed(metric, well).change
    assert "hold the configuration still" in proposed(metric, well, "stabilize").change


@pytest.mark.parametrize(
    ("metric", "after", "result"),
    [
        (Metric.DURATION, cycles(0.9, 0.9, 5.0, first=3), Result.MET),
        (Metric.DURATION, cycles(0.91, 0.91, 0.1, first=3), Result.NOT_MET),
        (Metric.FRESHNESS, cycles(1.0, 1.0, 1.0, first=3), Result.MET),
        (Metric.FRESHNESS, [*cycles(1.0, 1.0, first=4), FAILED], Result.NOT_MET),
        (Metric.DURATION, [cycle(number, Outcome.SKIPPED) for number in (4, 5, 6)], Result.INCONCLUSIVE),
    ],
)
def test_the_verdict_compares_the_window_with_the_target(
    metric: Metric, after: Sequence[CycleRecord], result: Result
) -> None:
    baseline = cycles(1.0, 1.0)
    experiment = propose(number=1, metric=metric, mode="experimental", records=baseline, after_cycle=2)
    verdict = judge(experiment, [*baseline, *after])
    assert verdict is not None
    assert verdict.result is result


def test_the_cycle_that_proposed_the_experiment_does_not_count() -> None:
    experiment = proposed(Metric.DURATION, cycles(1.0, 1.0))
    assert experiment.after_cycle == 3
    assert judge(experiment, cycles(1.0, 1.0, 0.1, 0.1, 0.1)) is None
    assert judge(experiment, cycles(1.0, 1.0, 9.0, 0.1, 0.1, 0.1)) is not None


def test_only_the_first_window_counts() -> None:
    experiment = proposed(Metric.DURATION, cycles(1.0))
    verdict = judge(experiment, cycles(1.0, 1.0, 0.5, 0.5, 0.5, 9.0, 9.0, 9.0, 9.0))
    assert verdict is not None
    assert (verdict.result, verdict.cycles) == (Result.MET, 3)


def test_an_early_verdict_takes_what_there_is_and_none_of_nothing() -> None:
    experiment = proposed(Metric.DURATION, cycles(1.0))
    assert judge(experiment, cycles(1.0, 1.0), early=True) is None
    verdict = judge(experiment, cycles(1.0, 1.0, 0.5), early=True)
    assert verdict is not None
    assert (verdict.result, verdict.cycles) == (Result.MET, 1)


def test_a_history_begun_anew_leaves_the_experiment_undecided() -> None:
    experiment = proposed(Metric.DURATION, cycles(1.0, 1.0, 1.0))
    verdict = judge(experiment, cycles(1.0))
    assert verdict is not None
    assert verdict.result is Result.INCONCLUSIVE


def test_experiment_and_verdict_read_back_as_they_were_written() -> None:
    experiment = proposed(Metric.SPREAD, cycles(1.0, 2.0))
    assert Experiment.from_dict(experiment.as_dict()) == experiment
    verdict = judge(experiment, cycles(*[1.0] * 9))
    assert verdict is not None
    assert Verdict.from_dict(verdict.as_dict()) == verdict


@pytest.mark.parametrize(
    "damage",
    [
        {"number": -1},
        {"number": True},
        {"metric": "beauty"},
        {"baseline": "1"},
        {"target": float("inf")},
        {"window": None},
    ],
)
def test_a_damaged_experiment_is_refused_by_value(damage: dict[str, object]) -> None:
    good = proposed(Metric.SPREAD, cycles(1.0, 2.0)).as_dict()
    with pytest.raises(ValueError, match=r"no|not"):
        Experiment.from_dict({**good, **damage})


def test_foreign_text_becomes_one_short_harmless_line() -> None:
    assert one_line("a\n\n b\t\x1b[31mred\x1b[0m", 40) == "a b red"
    assert one_line("x" * 50, 10) == "xxxxxxx..."
