"""The verdict on a run's system prompt, fact by fact, and how the facts are fetched."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from run_cycle_loop.agentrun.cluster.evidence import gather
from run_cycle_loop.agentrun.looking.verify import (
    EXIT_CODES,
    EXPECTED_HASH,
    PATH,
    REQUIRED,
    AttemptEvidence,
    Evidence,
    Mount,
    Source,
    Verdict,
    Verification,
    judge,
)
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.system_prompts import MOUNT_FOLDER, MOUNT_PATH
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import ExecResult
from run_cycle_loop.clients.kubernetes.errors import Forbidden, NotFound, Unreachable
from tests.unit.agentrun import guide_runs
from tests.unit.agentrun.cluster.stage import NAMESPACE, RUN, Ending, Stage

H0, H1 = "a" * 64, "b" * 64
FIRST = "demo-step-1-iter-1-attempt-1"


def variables(expected: str = H0, path: str = MOUNT_PATH, required: str = "true") -> tuple[tuple[str, str], ...]:
    given = {PATH: path, EXPECTED_HASH: expected, REQUIRED: required}
    return tuple((name, value) for name, value in given.items() if value)


MOUNTED = Mount(path=MOUNT_FOLDER, is_read_only=True, kind="ConfigMap", name="p", key="k", file="system-prompt.txt")
REF = AttemptEvidence(
    job="j-1",
    iteration=1,
    has_succeeded=False,
    variables=variables(),
    pod="j-1-pod",
    pod_variables=variables(),
    mount=MOUNTED,
    file_hash=H0,
    adapter="codex-app-server",
    runner_path=MOUNT_PATH,
    runner_hash=H0,
)
INLINE = AttemptEvidence(
    job="j-1",
    variables=variables(path=""),
    pod_variables=variables(path=""),
    adapter="codex-app-server",
    runner_hash=H0,
    inline_hash=H0,
)
SOURCE = Source(place="Agent/a spec.defaults.systemPromptRef", kind="ConfigMap", name="p", key="k", hash=H0)
WRITTEN = Source(place="Agent/a spec.defaults.systemPrompt", kind="inline", hash=H0)


def verdict(*attempts: AttemptEvidence, **changes: Any) -> Verification:
    usual = Evidence(
        run=RUN,
        namespace="agents",
        status_hash=H0,
        source=SOURCE,
        provider_adapter="codex-app-server",
        attempts=attempts,
    )
    return judge(replace(usual, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Verdict.PASS),
        # Nothing checks.
        ({"adapter": "exec"}, Verdict.NOT_ENFORCED),
        ({"variables": variables(required="")}, Verdict.NOT_ENFORCED),
        ({"variables": variables(required="false")}, Verdict.NOT_ENFORCED),
        ({"pod_variables": variables(required="")}, Verdict.NOT_ENFORCED),
        ({"pod_variables": ()}, Verdict.NOT_ENFORCED),
        ({"variables": variables(path="/workspace/other.txt")}, Verdict.NOT_ENFORCED),
        ({"variables": variables(path="")}, Verdict.NOT_ENFORCED),
        ({"mount": None}, Verdict.NOT_ENFORCED),
        ({"mount": replace(MOUNTED, file="other.txt")}, Verdict.NOT_ENFORCED),
        ({"variables": variables(expected=""), "pod_variables": variables(expected="")}, Verdict.NOT_ENFORCED),
        # Hashes differ within the run.
        (
            {"variables": variables(H1), "pod_variables": variables(H1), "runner_hash": H1, "file_hash": H1},
            Verdict.DRIFT,
        ),
        ({"pod_variables": variables(H1)}, Verdict.DRIFT),
        ({"file_hash": H1}, Verdict.DRIFT),
        ({"runner_hash": H1}, Verdict.DRIFT),
        ({"runner_path": "/elsewhere"}, Verdict.DRIFT),
        ({"instructions_hash": H1}, Verdict.DRIFT),
        ({"instructions_hash": H0}, Verdict.PASS),
        # Nobody has seen the text.
        ({"file_hash": ""}, Verdict.UNKNOWN),
        ({"file_hash": "", "runner_status": "failed"}, Verdict.UNKNOWN),
        ({"file_hash": "", "runner_status": "succeeded"}, Verdict.PASS),
        ({"file_hash": "", "has_succeeded": True}, Verdict.PASS),
        ({"file_hash": "", "has_succeeded": True, "runner_status": "failed"}, Verdict.UNKNOWN),
        # Something is gone, or may not be read.
        ({"has_job": False, "variables": None, "pod_variables": None}, Verdict.UNKNOWN),
        ({"has_job": False, "variables": None, "pod_variables": None, "runner_hash": H1}, Verdict.DRIFT),
        ({"variables": None, "pod_variables": None}, Verdict.UNKNOWN),
        ({"runner_hash": "", "runner_path": ""}, Verdict.UNKNOWN),
        ({"adapter": ""}, Verdict.PASS),  # the provider says which
        ({"mount": replace(MOUNTED, is_read_only=False)}, Verdict.PASS),  # a fact to be seen, and a ConfigMap anyway
    ],
)
def test_a_mounted_prompt_is_judged(changes: dict[str, Any], expected: Verdict) -> None:
    found = verdict(replace(REF, **changes))
    assert (found.attempts[0].verdict, found.verdict) == (expected, expected), found.why


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Verdict.PASS),
        ({"inline_hash": H1}, Verdict.DRIFT),
        ({"inline_hash": ""}, Verdict.UNKNOWN),
        ({"variables": variables(path="", required="")}, Verdict.NOT_ENFORCED),
        ({"adapter": "exec"}, Verdict.NOT_ENFORCED),
    ],
)
def test_an_inline_prompt_is_judged_without_a_path(changes: dict[str, Any], expected: Verdict) -> None:
    assert verdict(replace(INLINE, **changes), source=WRITTEN).verdict is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"source": replace(SOURCE, hash=H1)}, Verdict.STALE_SOURCE),
        ({"source": replace(SOURCE, hash="", note="forbidden")}, Verdict.UNKNOWN),
        ({"status_hash": H1}, Verdict.DRIFT),
        ({"status_hash": ""}, Verdict.UNKNOWN),
        ({"attempts": ()}, Verdict.UNKNOWN),
        ({"missing": ("step implement iteration 1",)}, Verdict.UNKNOWN),
    ],
)
def test_the_run_as_a_whole_is_judged(changes: dict[str, Any], expected: Verdict) -> None:
    assert verdict(REF, **changes).verdict is expected


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((), Verdict.PASS),
        ((replace(REF, file_hash=""),), Verdict.UNKNOWN),
        ((replace(REF, file_hash=""), replace(REF, file_hash=H1)), Verdict.DRIFT),
        ((replace(REF, file_hash=H1), replace(REF, adapter="exec")), Verdict.NOT_ENFORCED),
    ],
)
def test_the_worst_attempt_is_the_runs_verdict(others: tuple[AttemptEvidence, ...], expected: Verdict) -> None:
    found = verdict(REF, *others)
    assert found.verdict is expected
    assert found.attempts[0].verdict is Verdict.PASS


def test_a_later_iteration_with_another_prompt_is_drift_and_not_a_stale_source() -> None:
    later = replace(REF, variables=variables(H1), pod_variables=variables(H1), runner_hash=H1, file_hash=H1)
    found = verdict(REF, later, source=replace(SOURCE, hash=H1))
    assert [one.verdict for one in found.attempts] == [Verdict.STALE_SOURCE, Verdict.DRIFT]
    assert found.verdict is Verdict.DRIFT


def test_every_verdict_has_a_code_of_its_own_and_pass_is_0() -> None:
    assert EXIT_CODES[Verdict.PASS] == 0
    assert len(set(EXIT_CODES.values())) == len(Verdict)
    assert set(EXIT_CODES.values()).isdisjoint({1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 70, 74, 75, 130})


def test_every_fact_is_kept_with_what_was_wanted() -> None:
    facts = {one.name: one for one in verdict(REF).attempts[0].facts}
    assert (facts["file hash"].value, facts["file hash"].wanted, facts["file hash"].holds) == (H0, H0, True)
    assert facts[f"Job {PATH}"].wanted == MOUNT_PATH
    json.dumps(verdict(REF).as_json())


# Fetched from a cluster.

SYSTEM = guide_runs.SYSTEM_TEXT.encode()


@pytest.fixture
def stage() -> Stage:
    found = Stage().with_world()
    found.cluster.command = lambda _pod, argv: ExecResult(SYSTEM if argv == ("cat", MOUNT_PATH) else b"", 0)
    return found


def verified(stage: Stage, **options: Any) -> Verification:
    evidence = gather(stage.cluster, RUN, NAMESPACE, profile=stage.controller.profile, now=stage.clock.now(), **options)
    return judge(evidence)


def test_the_guides_loop_passes_by_the_file_of_the_running_pod(stage: Stage) -> None:
    stage.submitted(3)
    stage.finish(9)
    found = verified(stage)
    assert found.verdict is Verdict.PASS, found.why
    assert found.status_hash == hashlib.sha256(SYSTEM).hexdigest() == guide_runs.SYSTEM_HASH
    file = [next(fact for fact in one.facts if fact.name == "file hash") for one in found.attempts]
    assert [bool(fact.value) for fact in file] == [False, True]
    assert "attested" in found.attempts[0].why


@pytest.mark.parametrize("text", [b"be good", b"be good\n\n", b"be good\r\n", b""])
def test_the_exact_bytes_of_the_file_count(stage: Stage, text: bytes) -> None:
    stage.submitted(1)
    stage.finish(3)
    stage.cluster.command = lambda _pod, _argv: ExecResult(text, 0)
    assert verified(stage).verdict is Verdict.DRIFT


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (ExecResult(b"", 1, b"no such file"), "cat left 1"),
        (ExecResult(b"", None), "cat left None"),
        (Forbidden("no exec"), "no exec"),
        (Unreachable("no answer"), "no answer"),
    ],
)
def test_a_file_that_cannot_be_read_is_unknown_and_said(stage: Stage, answer: Any, note: str) -> None:
    stage.submitted(1)
    stage.finish(3)
    if isinstance(answer, ExecResult):
        stage.cluster.command = lambda _pod, _argv: answer
    else:
        stage.cluster.fail("exec", answer)
    found = verified(stage)
    assert found.verdict is Verdict.UNKNOWN
    assert note in " ".join(found.attempts[0].notes)


def test_pods_are_only_asked_when_that_is_wanted(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(3)
    assert verified(stage, ask_pods=False).verdict is Verdict.UNKNOWN
    assert "exec" not in {method for method, _ in stage.cluster.asked}


def change(stage: Stage, text: str) -> None:
    stage.cluster.patch(kinds.CONFIG_MAP, "codex-agent-system-prompt", {"data": {"system-prompt.md": text}})


def test_a_prompt_that_was_changed_between_iterations_is_drift(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(3)
    change(stage, "be bad\n")
    stage.finish(20)
    found = verified(stage)
    assert [one.verdict for one in found.attempts] == [Verdict.STALE_SOURCE, Verdict.DRIFT]
    assert found.verdict is Verdict.DRIFT


def test_a_prompt_that_was_changed_after_the_run_is_a_stale_source(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(30)
    change(stage, "be good")  # without the newline at its end
    assert verified(stage).verdict is Verdict.STALE_SOURCE


def test_jobs_that_are_gone_are_unknown_with_what_their_config_map_says(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(30)
    stage.cluster.delete(kinds.JOB, FIRST)
    found = verified(stage)
    assert found.verdict is Verdict.UNKNOWN
    assert found.attempts[0].why == "its Job is gone; its ConfigMap demo-spec-step-1-iter-1-attempt-1 agrees"
    assert found.attempts[1].verdict is Verdict.PASS


def test_an_exec_provider_is_not_enforced(stage: Stage) -> None:
    stage.cluster.patch(kinds.AGENT_PROVIDER, "codex", {"spec": {"adapter": {"type": "exec"}}})
    stage.submitted(1)
    stage.finish(3)
    assert verified(stage).verdict is Verdict.NOT_ENFORCED


def test_an_agent_without_a_prompt_is_not_enforced(stage: Stage) -> None:
    stage.cluster.patch(kinds.AGENT, "codex-spark-agent", {"spec": {"defaults": {"systemPromptRef": None}}})
    stage.submitted(1)
    stage.finish(3)
    assert verified(stage).verdict is Verdict.NOT_ENFORCED


def test_an_inline_prompt_passes_by_run_json(stage: Stage) -> None:
    defaults = {"systemPromptRef": None, "systemPrompt": "be quiet\n"}
    stage.cluster.patch(kinds.AGENT, "codex-spark-agent", {"spec": {"defaults": defaults}})
    stage.submitted(1)
    stage.finish(3)
    found = verified(stage)
    assert found.verdict is Verdict.PASS, found.why
    assert found.source.kind == "inline"


def test_the_runners_own_status_attests_in_the_newer_profile() -> None:
    stage = Stage(profile=Profile.CURRENT).with_world(Profile.CURRENT)
    stage.endings[FIRST] = Ending(message=json.dumps({"status": "succeeded", "exitCode": 0}))
    stage.submitted(1)
    stage.finish(20)
    found = verified(stage)
    assert (found.verdict, found.attempts[0].why.split(":")[0]) == (Verdict.PASS, "attested (runner")


@pytest.mark.parametrize(
    "denied",
    [
        ("get", "configmaps"),
        ("list", "configmaps"),
        ("get", "agents.agents.proompteng.ai"),
        ("list", "jobs.batch"),
    ],
)
def test_what_may_not_be_read_is_unknown_and_said(stage: Stage, denied: tuple[str, str]) -> None:
    stage.submitted(2)
    stage.finish(30)
    stage.cluster.denied.add(denied)
    found = verified(stage)
    assert found.verdict is Verdict.UNKNOWN
    assert denied[0] in " ".join(found.notes)


def test_pods_that_may_not_be_listed_are_said(stage: Stage) -> None:
    stage.submitted(2)
    stage.finish(30)
    stage.cluster.denied.add(("list", "pods"))
    assert "list" in " ".join(verified(stage).notes)


def test_a_run_that_is_not_there_is_said(stage: Stage) -> None:
    with pytest.raises(NotFound, match="no AgentRun demo"):
        verified(stage)


def test_no_secrets_text_is_kept(stage: Stage) -> None:
    reference = {"kind": "Secret", "name": "github-token", "key": "token"}
    stage.cluster.patch(kinds.AGENT, "codex-spark-agent", {"spec": {"defaults": {"systemPromptRef": reference}}})
    stage.cluster.command = lambda _pod, _argv: ExecResult(guide_runs.CANARY.encode(), 0)
    stage.submitted(1)
    stage.finish(3)
    found = verified(stage)
    assert found.verdict is Verdict.PASS, found.why
    assert guide_runs.CANARY not in json.dumps(found.as_json())


def test_an_attempt_that_was_cleaned_away_before_the_last_one_is_unknown(stage: Stage) -> None:
    stage.endings[FIRST] = Ending(code=1)
    stage.submitted(1)
    stage.finish(60)
    stage.cluster.delete(kinds.JOB, FIRST)
    found = verified(stage)
    assert found.verdict is Verdict.UNKNOWN
    assert "iteration 1 attempt 1" in found.why


def test_jobs_of_an_earlier_run_of_the_name_prove_nothing(stage: Stage) -> None:
    stage.submitted(1)
    stage.finish(9)
    run = stage.cluster.get(kinds.AGENT_RUN, RUN, NAMESPACE)
    assert run is not None
    assert verified(stage).verdict is Verdict.PASS
    jobs = stage.cluster.list(kinds.JOB, NAMESPACE).items
    pods = stage.cluster.list(kinds.POD, NAMESPACE).items
    stage.cluster.patch(kinds.AGENT_RUN, RUN, {"metadata": {"finalizers": None}}, NAMESPACE)
    stage.cluster.delete(kinds.AGENT_RUN, RUN, NAMESPACE)
    for kind, items in ((kinds.JOB, jobs), (kinds.POD, pods)):
        for one in items:  # as an orphaning deletion leaves them
            if stage.cluster.get(kind, one["metadata"]["name"], NAMESPACE) is None:
                stage.add(kind, {**one, "metadata": {**one["metadata"], "resourceVersion": None}})
    body = {**run, "metadata": {"name": RUN, "labels": run["metadata"].get("labels", {})}}
    stage.add(kinds.AGENT_RUN, {**body, "status": {**run["status"], "workflow": {"steps": []}}})
    found = verified(stage)
    assert found.verdict is Verdict.UNKNOWN, found.why
    assert "earlier run" in " ".join(found.notes)
