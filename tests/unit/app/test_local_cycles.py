import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from run_cycle_loop.app.attempt_logs import AttemptLogs
from run_cycle_loop.app.cycles import fitting
from run_cycle_loop.app.local_cycles import with_agents
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.ports import RunStore
from run_cycle_loop.model.runs import AttemptRecord, RunRecord
from run_cycle_loop.runners.agentrun import RunEnd, RunResult

RESULT = RunResult(end=RunEnd.FINAL, name="demo", namespace="agents")
RECORD = RunRecord(namespace="agents", name="demo", uid="u", manifest={})


class Attempts:
    """A run store that knows attempts alone."""

    def __init__(self, folder: Path, statuses: Sequence[Any]) -> None:
        self._records = []
        for number, status in enumerate(statuses, 1):
            place = folder / str(number)
            (place / ".agent").mkdir(parents=True)
            (place / ".agent" / "status.json").write_text(status if isinstance(status, str) else json.dumps(status))
            self._records.append(
                AttemptRecord(name=str(number), step=1, iteration=None, attempt=number, folder=str(place))
            )

    def attempts(self, _run: RunRecord) -> tuple[AttemptRecord, ...]:
        return tuple(self._records)


def told(folder: Path, *statuses: Any) -> RunResult:
    return with_agents(RESULT, RECORD, cast("RunStore", Attempts(folder, statuses)))


def test_what_all_attempts_consumed_is_added_up_and_the_last_one_s_end_is_told(tmp_path: Path) -> None:
    first = {"status": "failed", "usage": {"input_tokens": 3, "cost_usd": 0.5, "calls": 1}, "turnStatus": "tool_error"}
    last = {
        "status": "failed",
        "usage": {"output_tokens": 4, "cost_usd": 0.25, "calls": 2, "complete": False},
        "turnStatus": "rate_limited",
        "summary": "s",
    }
    result = told(tmp_path, first, last)
    assert result.usage is not None
    assert (result.usage.tokens, result.usage.cost_usd, result.usage.calls, result.usage.complete) == (
        7,
        0.75,
        3,
        False,
    )
    assert (result.agent_class, result.summary) == (AgentClass.RATE_LIMITED, "s")


def test_a_cost_that_one_attempt_does_not_know_is_not_known(tmp_path: Path) -> None:
    usage = told(
        tmp_path,
        {"status": "succeeded", "usage": {"input_tokens": 3, "cost_usd": 0.5}},
        {"status": "succeeded", "usage": {"input_tokens": 3}},
    ).usage
    assert usage is not None
    assert (usage.input_tokens, usage.cost_usd) == (6, None)


@pytest.mark.parametrize(
    "status", ["{", '{"status": "failed", "usage": {"input_tokens": "many"}, "turnStatus": "odd", "summary": 3}']
)
def test_what_an_attempt_left_in_no_form_that_counts_is_nothing(tmp_path: Path, status: str) -> None:
    assert told(tmp_path, status) == RESULT


def test_logs_are_handed_on_as_they_grow_and_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    taken: list[bytes] = []
    logs = AttemptLogs(taken.append)
    logs.follow(tmp_path)
    logs.pump()
    log = tmp_path / "attempt.log"
    log.write_bytes(b"one\n")
    (tmp_path / ".agent").mkdir()
    (tmp_path / ".agent" / "runner.log").symlink_to("/etc/hostname")
    logs.pump()
    with log.open("ab") as file:
        file.write(b"two\n")
    logs.follow(tmp_path)
    logs.pump()
    assert taken == [b"one\n", b"two\n"]


@pytest.mark.parametrize(
    "outputs", ["x" * (1 << 20), float("nan"), {"a": {1, 2}}], ids=["large", "no number", "no JSON"]
)
def test_a_payload_that_the_loop_would_not_take_keeps_its_verdict(outputs: Any) -> None:
    control = fitting({"class": "rate_limited", "reason": "r", "outputs": outputs, "usage": {"calls": 1}})
    assert (control["class"], control["reason"], control["usage"]) == ("rate_limited", "r", {"calls": 1})
    assert "outputs" not in control
    assert control["warnings"]


def test_where_all_of_it_is_unfit_the_verdict_alone_is_left() -> None:
    assert fitting({"class": "ok", "usage": float("nan")}).keys() == {"class", "warnings"}


def test_a_payload_that_fits_is_left_as_it_is() -> None:
    assert fitting({"class": "ok", "outputs": [1]}) == {"class": "ok", "outputs": [1]}
