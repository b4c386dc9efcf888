import json
from typing import Any

import pytest

from run_cycle_loop.runners.job_result import JobEnd, JobResult, cycle_end


def ended(end: JobEnd, **known: Any) -> JobResult:
    return JobResult(**{"end": end, "name": "cycle-1", "namespace": "here", **known})


@pytest.mark.parametrize(
    ("result", "code", "word", "says"),
    [
        (ended(JobEnd.SUCCEEDED, exit_code=0), 0, None, "exit code 0"),
        (ended(JobEnd.FAILED, exit_code=3), 3, None, "exit code 3"),
        (ended(JobEnd.FAILED), 1, None, "nobody saw its exit code"),
        (ended(JobEnd.FAILED, exit_code=0), 1, "tool_error", "failed all the same"),
        (
            ended(JobEnd.FAILED, exit_code=137, reason="OOMKilled", message="too big"),
            1,
            "tool_error",
            "OOMKilled: too big",
        ),
        (ended(JobEnd.FAILED, reason="Evicted"), 1, "tool_error", "Evicted"),
        (ended(JobEnd.FAILED, reason="DeadlineExceeded"), 124, "timeout", "DeadlineExceeded"),
        (ended(JobEnd.STUCK, reason="ImagePullBackOff", message="m"), 1, "tool_error", "ImagePullBackOff: m"),
        (ended(JobEnd.DELETED, reason="JobDeleted"), 1, "tool_error", "JobDeleted"),
        (ended(JobEnd.CANCELLED, message="gone"), 130, "interrupted", "gone"),
        (ended(JobEnd.LEFT, message="is there"), 130, "interrupted", "kubectl delete job cycle-1 -n here"),
        (ended(JobEnd.UNSEEN, reason="Unseen"), 1, "tool_error", "kubectl delete job cycle-1 -n here"),
    ],
)
def test_every_end_of_a_job_is_one_of_a_cycle(result: JobResult, code: int, word: str | None, says: str) -> None:
    end = cycle_end(result)
    assert (end.exit_code, end.control.get("class")) == (code, word)
    assert says in end.sentence
    assert end.control["job"]["name"] == "cycle-1"
    assert not end.control.get("permanent")


def test_the_termination_message_is_the_control_payload() -> None:
    said = json.dumps({"class": "no_change", "continue": False, "warnings": ["w"], "usage": {"input_tokens": 3}})
    end = cycle_end(ended(JobEnd.SUCCEEDED, exit_code=0, said=said, notes=("n",)))
    assert (end.control["class"], end.control["continue"], end.control["usage"]) == (
        "no_change",
        False,
        {"input_tokens": 3},
    )
    assert end.control["warnings"] == ["w", "n"]


def test_what_the_cluster_did_to_it_weighs_more_than_what_the_cycle_said() -> None:
    end = cycle_end(ended(JobEnd.FAILED, exit_code=137, reason="OOMKilled", said='{"class": "ok", "continue": true}'))
    assert (end.control["class"], end.control["continue"]) == ("tool_error", True)


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ("just words", False),
        ("[1]", False),
        ('{"broken": ', True),
        ('{"cut": "' + "x" * 4096, True),
    ],
)
def test_a_message_that_is_no_object_is_left_out_and_a_broken_one_is_said(said: str, warned: bool) -> None:
    end = cycle_end(ended(JobEnd.SUCCEEDED, exit_code=0, said=said))
    assert end.exit_code == 0
    assert ("warnings" in end.control) is warned
