import signal
from typing import Any

import pytest

from run_cycle_loop.model.enums import Ending, Outcome
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.records import ArtifactVerdict, CheckResult, PrerequisiteReport
from run_cycle_loop.policies.classification import judge_error, judge_run, judge_skipped, next_streak
from run_cycle_loop.testing import make_result, make_spec

FRESH = ArtifactVerdict(fresh=True, path=None, detail="new")
STALE = ArtifactVerdict(fresh=False, path=None, detail="no new archive")


@pytest.mark.parametrize(
    ("observed", "artifact", "outcome", "return_code", "reason"),
    [
        ({}, None, Outcome.SUCCESS, 0, "exit code 0"),
        ({}, FRESH, Outcome.SUCCESS, 0, "exit code 0"),
        ({}, STALE, Outcome.DEGRADED, 0, "no new archive"),
        ({"leftovers": 3}, None, Outcome.SUCCESS, 0, "exit code 0"),
        ({"exit_code": 1}, None, Outcome.FAILED, 1, "exit code 1"),
        ({"exit_code": 1}, FRESH, Outcome.FAILED, 1, "exit code 1"),
        ({"exit_code": 1}, STALE, Outcome.FAILED, 1, "exit code 1"),
        ({"exit_code": 255}, None, Outcome.FAILED, 255, "exit code 255"),
        # An inner timeout(1) or a shell that reports a signal is the cycle's own affair.
        ({"exit_code": 124}, None, Outcome.FAILED, 124, "exit code 124"),
        ({"exit_code": 137}, None, Outcome.FAILED, 137, "exit code 137"),
        ({"exit_code": None, "signal": 9}, None, Outcome.FAILED, 137, "ended by SIGKILL"),
        ({"exit_code": None, "signal": 11}, STALE, Outcome.FAILED, 139, "ended by SIGSEGV"),
        ({"exit_code": None, "signal": 40}, None, Outcome.FAILED, 168, "ended by signal 40"),
        ({"ending": Ending.TIMEOUT}, FRESH, Outcome.TIMEOUT, 124, "ran past its timeout of 300 s"),
        (
            {"ending": Ending.TIMEOUT, "exit_code": None, "signal": 15},
            None,
            Outcome.TIMEOUT,
            124,
            "ran past its timeout of 300 s",
        ),
        ({"ending": Ending.IDLE_TIMEOUT}, None, Outcome.TIMEOUT, 124, "printed nothing for 7 s"),
        ({"ending": Ending.INTERRUPT}, FRESH, Outcome.INTERRUPTED, 0, "ended on the operator's word"),
        (
            {"ending": Ending.INTERRUPT, "exit_code": None, "signal": 15},
            None,
            Outcome.INTERRUPTED,
            143,
            "ended on the operator's word",
        ),
        ({"survivors": 2}, FRESH, Outcome.ERROR, 0, "2 processes could not be ended, not even by SIGKILL"),
        (
            {"survivors": 1, "ending": Ending.TIMEOUT},
            None,
            Outcome.ERROR,
            124,
            "1 processes could not be ended, not even by SIGKILL",
        ),
    ],
)
def test_what_was_observed_means_this(
    observed: dict[str, Any], artifact: ArtifactVerdict | None, outcome: Outcome, return_code: int, reason: str
) -> None:
    verdict = judge_run(make_spec(idle_timeout=7.0), make_result(**observed), artifact)
    assert (verdict.outcome, verdict.return_code, verdict.reason) == (outcome, return_code, reason)


def test_every_exit_code_of_the_cycle_is_kept_and_only_zero_is_a_success() -> None:
    verdicts = [judge_run(make_spec(), make_result(code), None) for code in range(256)]
    assert [verdict.return_code for verdict in verdicts] == list(range(256))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.SUCCESS] + [Outcome.FAILED] * 255


def test_every_signal_is_a_failure_above_128() -> None:
    numbers = sorted(signal.valid_signals())
    verdicts = [judge_run(make_spec(), make_result(None, signal=number), None) for number in numbers]
    assert [verdict.return_code for verdict in verdicts] == [128 + number for number in numbers]
    assert {verdict.outcome for verdict in verdicts} == {Outcome.FAILED}


def test_a_skipped_cycle_names_each_required_check_that_failed() -> None:
    checks = (
        CheckResult(name="disk", ok=False, detail="full"),
        CheckResult(name="colour", ok=False, detail="grey", required=False),
        CheckResult(name="script", ok=False, detail="exit code 3"),
        CheckResult(name="memory", ok=True, detail="plenty"),
    )
    verdict = judge_skipped(PrerequisiteReport(checks=checks))
    assert (verdict.outcome, verdict.return_code) == (Outcome.PREREQ_FAILED, None)
    assert verdict.reason == "disk: full; script: exit code 3"


@pytest.mark.parametrize("code", [126, 127])
def test_a_cycle_that_could_not_run_keeps_the_code_of_its_error(code: int) -> None:
    verdict = judge_error(RunnerError("no such command", exit_code=code))
    assert (verdict.outcome, verdict.return_code, verdict.reason) == (Outcome.ERROR, code, "no such command")


@pytest.mark.parametrize(
    ("outcome", "streak"),
    [
        (Outcome.SUCCESS, 0),
        (Outcome.DEGRADED, 2),
        (Outcome.FAILED, 3),
        (Outcome.TIMEOUT, 3),
        (Outcome.PREREQ_FAILED, 3),
        (Outcome.ERROR, 3),
        (Outcome.INTERRUPTED, 2),
        (Outcome.LOST, 3),
        (Outcome.RATE_LIMITED, 2),
        (Outcome.SKIPPED, 2),
    ],
)
def test_only_a_success_ends_a_streak_of_two(outcome: Outcome, streak: int) -> None:
    assert next_streak(2, outcome) == streak


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01", "tomorrow", "", 5, ["now"]]
)
def test_a_time_that_cannot_be_counted_is_no_word_to_go_by(moment: object) -> None:
    verdict = judge_run(make_spec(), make_result(0, control={"class": "rate_limited", "retry_at": moment}), None)
    assert verdict.outcome is Outcome.FAILED
    assert "cannot be understood" in verdict.reason
