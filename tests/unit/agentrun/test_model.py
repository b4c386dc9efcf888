"""A manifest as the controller reads it: numbers cut, defaults filled in, nothing raised."""

from typing import Any

import pytest

from run_cycle_loop.agentrun.model import DEFAULT_CONTROL_PATH, Workload, read_run, whole


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4, 4),
        (4.9, 4),
        (-2.7, 0),
        ("11", 11),
        (" 3.9 ", 3),
        ("1e2", 100),
        ("x", 0),
        ("", 0),
        (None, 0),
        (True, 0),
        (float("nan"), 0),
        (float("inf"), 0),
        ([], 0),
        ({}, 0),
    ],
)
def test_counts_are_read_leniently(value: Any, expected: int) -> None:
    assert whole(value) == expected


def test_what_is_missing_gets_its_default() -> None:
    run = read_run(
        {
            "metadata": {"name": "demo"},
            "spec": {
                "workflow": {
                    "steps": [{"name": "a", "loop": {"maxIterations": 2, "condition": {"expression": "true"}}}]
                }
            },
        }
    )
    (step,) = run.steps
    assert (run.namespace, run.vcs_mode, run.ttl, step.attempts, step.timeout) == ("agents", "read-write", None, 1, 0)
    assert step.loop is not None
    assert step.loop.condition is not None
    condition = step.loop.condition
    assert (condition.path, condition.on_missing, condition.on_invalid) == (DEFAULT_CONTROL_PATH, "stop", "fail")


def test_a_step_parameter_that_is_no_text_is_dropped() -> None:
    run = read_run(
        {"spec": {"parameters": {"a": "1", "b": "2"}, "workflow": {"steps": [{"parameters": {"a": "x", "c": 3}}]}}}
    )
    assert run.parameters_of(run.steps[0]) == {"a": "x", "b": "2"}


def test_a_step_workload_replaces_the_runs_as_a_whole() -> None:
    volume = {"name": "w", "type": "pvc", "claimName": "c", "mountPath": "/workspace"}
    steps = [{"name": "a"}, {"name": "b", "workload": {"resources": {"requests": {"cpu": "1"}}}}]
    run = read_run({"spec": {"workload": {"image": "i", "volumes": [volume]}, "workflow": {"steps": steps}}})
    first, second = (run.workload_of(step) for step in run.steps)
    assert (first.image, first.volumes[0].is_persistent) == ("i", True)
    assert second == Workload(resources={"requests": {"cpu": "1"}})


@pytest.mark.parametrize(
    "body", [{}, {"spec": None}, {"metadata": 1, "spec": []}, {"spec": {"workflow": {"steps": [None, 3, {}]}}}]
)
def test_nonsense_is_read_without_complaint(body: dict[str, Any]) -> None:
    assert read_run(body).name == ""


@pytest.mark.parametrize(("value", "expected"), [("true", True), (" TRUE ", True), ("yes", False), ("", False)])
def test_a_template_says_so(value: str, expected: bool) -> None:
    run = read_run({"metadata": {"annotations": {"agents.proompteng.ai/template": value}}})
    assert run.is_template is expected
