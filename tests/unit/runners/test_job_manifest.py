from collections.abc import Mapping
from typing import Any

import pytest

from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.runners.job_manifest import Wanted, job_manifest
from run_cycle_loop.runners.marks import Marks

MARKS = Marks(loop="a" * 16, cycle="b" * 32)
POD: Mapping[str, Any] = {"containers": [{"name": "main", "image": "own:1", "command": ["own"], "args": ["--arg"]}]}


def made(told: Mapping[str, str] | None = None, **wanted: Any) -> dict[str, Any]:
    return job_manifest(
        Wanted(**{"image": "runner:1", **wanted}), marks=MARKS, told=told or {}, default_namespace="of-context"
    )


def job(pod: Mapping[str, Any] = POD, **spec: Any) -> dict[str, Any]:
    return {"kind": "Job", "metadata": {"name": "mine"}, "spec": {"template": {"spec": pod}, **spec}}


def container(manifest: Mapping[str, Any]) -> Any:
    return manifest["spec"]["template"]["spec"]["containers"][0]


def test_an_image_and_a_command_make_a_job_that_is_tried_once() -> None:
    manifest = made({"RUN_CYCLE_GOAL": "g"}, command=("sh", "-c", "true"), timeout=300.0)
    spec = manifest["spec"]
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("Job", "cycle-bbbbbbbbbbbb")
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"], spec["suspend"]) == (0, 1, 1, False)
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (360, 3600)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert manifest["metadata"]["labels"] == spec["template"]["metadata"]["labels"] == MARKS.labels
    assert container(manifest) == {
        "name": "cycle",
        "image": "runner:1",
        "command": ["sh", "-c", "true"],
        "env": [
            {"name": "RUN_CYCLE_GOAL", "value": "g"},
            {"name": "RUN_CYCLE_CONTROL_FILE", "value": "/dev/termination-log"},
        ],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }


def test_without_a_timeout_the_job_has_no_deadline() -> None:
    assert "activeDeadlineSeconds" not in made(timeout=None)["spec"]


def test_nothing_is_expanded_on_the_way_to_the_pod() -> None:
    manifest = made({"RUN_CYCLE_GOAL": "$(HOME) $$ $x"}, command=("echo", "$(date)", "$$"))
    assert container(manifest)["command"] == ["echo", "$$(date)", "$$$$"]
    assert container(manifest)["env"][0]["value"] == "$$(HOME) $$$$ $$x"


@pytest.mark.parametrize(("grace", "seconds"), [(0.0, 1), (1.0, 1), (10.0, 7), (60.0, 30)])
def test_the_pod_gets_less_time_to_end_than_the_loop_waits(grace: float, seconds: int) -> None:
    assert made(grace=grace)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize("template", [job(), {"kind": "Pod", "metadata": {"name": "mine"}, "spec": POD}])
def test_a_template_keeps_what_is_not_replaced(template: dict[str, Any]) -> None:
    kept = container(made(image=None, template=template))
    assert (kept["name"], kept["image"], kept["command"], kept["args"]) == ("main", "own:1", ["own"], ["--arg"])
    replaced = made(command=("new",), template=template)
    assert replaced["metadata"]["name"] == "mine-bbbbbbbbbbbb"
    assert container(replaced)["command"] == ["new"]
    assert "args" not in container(replaced)
    assert container(replaced)["image"] == "runner:1"


def test_a_template_s_own_limits_labels_and_variables_stay_beside_ours() -> None:
    pod = {
        "containers": [
            {"env": [{"name": "A", "value": "$(B)"}, {"name": "RUN_CYCLE_GOAL", "value": "theirs"}]},
            {"name": "side"},
        ],
        "terminationGracePeriodSeconds": 3,
        "serviceAccountName": "worker",
    }
    template = job(pod, activeDeadlineSeconds=9, ttlSecondsAfterFinished=60)
    template["metadata"]["labels"] = {"team": "night"}
    manifest = made({"RUN_CYCLE_GOAL": "ours"}, template=template, timeout=5.0)
    assert (manifest["spec"]["activeDeadlineSeconds"], manifest["spec"]["ttlSecondsAfterFinished"]) == (9, 60)
    assert manifest["metadata"]["labels"] == {"team": "night", **MARKS.labels}
    own = manifest["spec"]["template"]["spec"]
    assert (own["serviceAccountName"], own["terminationGracePeriodSeconds"]) == ("worker", 3)
    assert [one["name"] for one in own["containers"]] == ["cycle", "side"]
    assert [(one["name"], one["value"]) for one in container(manifest)["env"][:2]] == [
        ("A", "$(B)"),
        ("RUN_CYCLE_GOAL", "ours"),
    ]


@pytest.mark.parametrize(
    ("given", "written", "expected"),
    [(None, None, "of-context"), (None, "theirs", "theirs"), ("ours", "theirs", "ours")],
)
def test_the_namespace_is_the_operator_s_then_the_template_s_then_the_context_s(
    given: str | None, written: str | None, expected: str
) -> None:
    template = job()
    template["metadata"]["namespace"] = written
    assert made(template=template, namespace=given)["metadata"]["namespace"] == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"kind": "CronJob", "spec": {"a": 1}}, "'CronJob'; give a Job or a Pod"),
        ({"kind": "Job"}, "has no spec"),
        (job(backoffLimit=3), "spec.backoffLimit is 3"),
        (job(completions=2), "spec.completions is 2"),
        (job(parallelism=0), "spec.parallelism is 0"),
        (job(suspend=True), "spec.suspend is True"),
        (job(completionMode="Indexed"), "completionMode is 'Indexed'"),
        (job(podFailurePolicy={"rules": []}), "spec.podFailurePolicy; leave it out"),
        (job(selector={"matchLabels": {}}), "spec.selector; leave it out"),
        (job(ttlSecondsAfterFinished=0), "ttlSecondsAfterFinished is 0"),
        (job({**POD, "restartPolicy": "OnFailure"}), "restartPolicy is 'OnFailure'"),
        (job({"containers": "none"}), "no list of objects"),
        (job({"containers": []}), "names an image"),
    ],
)
def test_a_template_that_would_break_a_cycle_s_promises_is_refused(template: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        made(image=None, template=template)
    assert said in str(refusal.value)
