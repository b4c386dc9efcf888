"""An attempt's end, as its row and its files tell it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from run_cycle_loop.agentrun.lifecycle.observed import JobState
from run_cycle_loop.agentrun.local import observation
from run_cycle_loop.model.runs import AttemptRecord

RECORD = AttemptRecord(name="a", step=1, iteration=None, attempt=1, folder="/nowhere", started_at="s")


@pytest.mark.parametrize(
    ("record", "state", "retryable"),
    [
        (RECORD, JobState.ACTIVE, True),
        (replace(RECORD, finished_at="f", exit_code=0), JobState.SUCCEEDED, True),
        (replace(RECORD, finished_at="f", exit_code=1, reason="BackoffLimitExceeded"), JobState.FAILED, True),
        (replace(RECORD, finished_at="f", exit_code=None, reason="AttemptLost"), JobState.FAILED, False),
        (replace(RECORD, finished_at="f", exit_code=1, reason="ProviderAuthUnavailable"), JobState.FAILED, False),
    ],
)
def test_a_row_is_seen_as_a_job(record: AttemptRecord, state: JobState, retryable: bool) -> None:
    found = observation.observed(record)
    assert (found.state, found.is_retryable) == (state, retryable)


def test_a_strict_run_has_the_job_s_own_words() -> None:
    record = replace(RECORD, finished_at="f", exit_code=1, reason=observation.FAILED, message="exit code 1")
    assert observation.observed(record).message == "exit code 1"
    assert observation.observed(record, strict=True).message == "Job has reached the specified backoff limit"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"status": 1}', "{}"])
def test_a_status_that_says_nothing_is_none(tmp_path: Path, text: str | None) -> None:
    (tmp_path / ".agent").mkdir()
    if text is not None:
        (tmp_path / ".agent" / "status.json").write_text(text)
    assert observation.runner_status(tmp_path) is None


def test_a_status_behind_a_link_is_none(tmp_path: Path) -> None:
    (tmp_path / ".agent").mkdir()
    (tmp_path / "true.json").write_text('{"status": "succeeded"}')
    (tmp_path / ".agent" / "status.json").symlink_to(tmp_path / "true.json")
    assert observation.runner_status(tmp_path) is None


@pytest.mark.parametrize(("code", "told"), [(3, 3), (None, 1), (True, 1), ("0", 1), (0, 0)])
def test_a_status_without_a_code_is_a_failure(code: object, told: int) -> None:
    assert observation.exit_code_in({"status": "succeeded", "exitCode": code}) == told


def test_a_failure_says_why(tmp_path: Path) -> None:
    record = replace(RECORD, folder=str(tmp_path))
    status = {"status": "failed", "error": "it\nbroke", "finishedAt": "2026-11-25T01:02:03Z"}
    over = observation.finished(record, 4, status, "now", provider_failures=True)
    assert (over.exit_code, over.reason, over.message, over.finished_at) == (
        4,
        "BackoffLimitExceeded",
        "it broke",
        "2026-11-25T01:02:03Z",
    )
    forged = observation.finished(record, 4, {**status, "finishedAt": "then"}, "now", provider_failures=True)
    assert forged.finished_at == "now"
    bare = observation.finished(record, 4, None, "now", provider_failures=True)
    assert (bare.message, bare.finished_at) == ("attempt a ended with exit code 4", "now")


@pytest.mark.parametrize("log", ["attempt.log", ".agent/runner.log"])
def test_a_provider_s_failure_is_looked_for_where_that_counts(tmp_path: Path, log: str) -> None:
    (tmp_path / ".agent").mkdir()
    (tmp_path / log).write_text("x" * 300_000 + "\nerror: usage limit reached\n")
    record = replace(RECORD, folder=str(tmp_path))
    found = observation.finished(record, 1, None, "now", provider_failures=True)
    assert (found.reason, json.dumps("usage limit" in found.message)) == ("ProviderCapacityExhausted", "true")
    assert observation.finished(record, 1, None, "now", provider_failures=False).reason == "BackoffLimitExceeded"
    assert observation.finished(record, 0, None, "now", provider_failures=True).reason == ""
