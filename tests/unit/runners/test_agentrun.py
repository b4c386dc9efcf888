from collections.abc import Mapping
from typing import Any

import pytest

from run_cycle_loop.agentrun.lifecycle.status import read_status
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import AgentReport, Usage
from run_cycle_loop.runners.agentrun import RunEnd, RunResult, cycle_end, run_agentrun, run_of_cycle
from run_cycle_loop.runners.marks import Marks

MARKS = Marks(loop="a" * 16, cycle="b" * 32)


def ended(phase: str = "", reason: str = "", message: str = "", **known: Any) -> RunResult:
    """A run whose status says so, or which came to another end and says it beside its status."""
    why = {"reason": reason, "message": message}
    given = {"end": RunEnd.FINAL, "name": "demo-1", "namespace": "agents", **(why if "end" in known else {})}
    status = read_status({"phase": phase, **why, **known.pop("status", {})})
    return RunResult(**{**given, "status": status, **known})


def refused(kind: str, reason: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "m"}]}


@pytest.mark.parametrize(
    ("result", "code", "word", "permanent", "says"),
    [
        (ended("Succeeded"), 0, "ok", False, "succeeded"),
        (ended("Failed", "BackoffLimitExceeded", "limit"), 1, "tool_error", False, "BackoffLimitExceeded: limit"),
        (ended("Failed", "ProviderCapacityExhausted", "q"), 75, "rate_limited", False, "ProviderCapacityExhausted: q"),
        (ended("Failed", "ProviderAuthUnavailable", "t"), 77, "auth", True, "ProviderAuthUnavailable: t"),
        (ended("Failed", status=refused("InvalidSpec", "MissingAgent")), 1, "tool_error", True, "MissingAgent: m"),
        (ended("Failed", status=refused("Duplicate", "IdempotencyKeyInUse")), 1, "tool_error", True, "KeyInUse"),
        (ended("Failed", status=refused("Failed", "SpecImmutableViolation")), 1, "tool_error", False, "Violation: m"),
        (ended("Failed"), 1, "tool_error", False, "Failed"),
        (ended("Failed", "X", agent_class=AgentClass.RATE_LIMITED), 75, "rate_limited", False, "X"),
        (ended("Failed", "X", agent_class=AgentClass.OK), 1, "tool_error", False, "X"),
        (ended("Cancelled", "C", "not today", who="kubectl"), 130, "interrupted", False, "by kubectl: C: not today"),
        (ended("Cancelled"), 130, "interrupted", False, "nobody says why"),
        (ended("Template"), 1, "tool_error", True, "template"),
        (ended(end=RunEnd.CANCELLED, message="gone"), 130, "interrupted", False, "gone"),
        (ended(end=RunEnd.LEFT, message="there", removal="kubectl x"), 130, "interrupted", False, "it: kubectl x"),
        (ended(end=RunEnd.UNSEEN, reason="Unseen", removal="kubectl x"), 1, "tool_error", False, "it: kubectl x"),
        (ended(end=RunEnd.DELETED, reason="AgentRunDeleted"), 1, "tool_error", False, "AgentRunDeleted"),
        (ended(end=RunEnd.STUCK, reason="ErrImagePull", message="m"), 1, "tool_error", False, "ErrImagePull: m"),
        (ended(end=RunEnd.REFUSED, message="taken"), 1, "tool_error", False, "taken"),
    ],
)
def test_every_end_of_a_run_is_one_of_a_cycle(
    result: RunResult, code: int, word: str, permanent: bool, says: str
) -> None:
    end = cycle_end(result)
    report = AgentReport.from_control(end.control)
    assert report is not None
    assert (end.exit_code, str(report.ended), report.permanent) == (code, word, permanent)
    assert says in end.sentence


def test_the_runtime_s_fault_stands_behind_the_run_s_reason() -> None:
    result = ended("Failed", "BackoffLimitExceeded", "limit")
    end = cycle_end(
        RunResult(end=result.end, name="n", namespace="s", status=result.status, reason="OOMKilled", advice="more")
    )
    assert end.control["reason"] == "BackoffLimitExceeded: limit; OOMKilled"
    assert end.control["advice"] == "more"


def looped(control: Mapping[str, Any] | None, **step: Any) -> dict[str, Any]:
    loop = {"completedIterations": 2, "maxIterations": 5, "stopReason": "LoopConditionFalse"}
    return {
        "name": "s",
        "phase": "Succeeded",
        "loop": {**loop, **({"lastControl": control} if control else {})},
        **step,
    }


@pytest.mark.parametrize(
    ("steps", "outputs", "goes_on"),
    [
        ([looped({"continue": False, "outputs": {"n": 1}, "reason": "done"})], {"n": 1}, False),
        ([looped({"continue": True})], {}, True),
        ([looped({"continue": "yes", "outputs": 3})], 3, None),
        ([looped({"outputs": 1}), looped({"outputs": 2, "continue": True})], 2, True),
        ([looped({"outputs": 1}), looped(None)], 1, None),
        ([looped(None)], None, None),
        ([{"name": "s", "phase": "Succeeded"}], None, None),
    ],
)
def test_what_the_last_loop_was_told_last_is_handed_through(steps: list[Any], outputs: Any, goes_on: Any) -> None:
    control = cycle_end(ended("Succeeded", status={"workflow": {"steps": steps}})).control
    assert (control.get("outputs"), control.get("continue")) == (outputs, goes_on)


def test_the_payload_tells_the_run_and_what_it_consumed() -> None:
    usage = Usage(input_tokens=5, cost_usd=0.5)
    result = ended("Succeeded", status={"workflow": {"steps": [looped(None)]}}, usage=usage, agent="codex", summary="s")
    control = cycle_end(result).control
    assert (control["usage"], control["agent"], control["summary"]) == (usage.as_dict(), "codex", "s")
    assert control["run"] == {
        "name": "demo-1",
        "namespace": "agents",
        "end": "final",
        "phase": "Succeeded",
        "loops": [{"step": "s", "completed": 2, "maximum": 5, "stop": "LoopConditionFalse"}],
    }


MANIFEST: Mapping[str, Any] = {
    "kind": "AgentRun",
    "metadata": {"name": "demo", "labels": {"team": "night"}, "uid": "u", "resourceVersion": "7"},
    "spec": {"agentRef": {"name": "a"}, "idempotencyKey": "theirs"},
    "status": {"phase": "Succeeded"},
}


def test_the_run_of_a_cycle_is_a_new_one_with_the_cycle_as_its_key() -> None:
    run = run_of_cycle(MANIFEST, MARKS)
    assert run == {
        "kind": "AgentRun",
        "metadata": {"name": "demo-bbbbbbbbbbbb", "labels": {"team": "night", **MARKS.labels}},
        "spec": {"agentRef": {"name": "a"}, "idempotencyKey": MARKS.cycle},
    }
    assert MANIFEST["metadata"]["name"] == "demo"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"generateName": "demo-"}, "no metadata.name"),
        ({"name": " "}, "no metadata.name"),
        ({"name": "t", "annotations": {"agents.proompteng.ai/template": "True"}}, "a template"),
    ],
)
def test_a_manifest_that_no_cycle_can_be_made_of_is_refused(metadata: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_of_cycle({**MANIFEST, "metadata": metadata}, MARKS)


def test_what_was_left_is_ended_before_anything_is_started() -> None:
    order: list[str] = []

    def carry_out(run: Mapping[str, Any]) -> RunResult:
        order.append(run["metadata"]["name"])
        return ended("Succeeded")

    assert run_agentrun(MANIFEST, MARKS, clear=lambda: order.append("clear"), carry_out=carry_out).exit_code == 0
    assert order == ["clear", "demo-bbbbbbbbbbbb"]
