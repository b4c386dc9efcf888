"""What is said of a run before anything starts: the guides' loop whole, and each thing that can be otherwise."""

import hashlib
import json
from typing import Any

import pytest

from run_cycle_loop.agentrun.explaining.explanation import Explanation, explain
from run_cycle_loop.agentrun.explaining.plans import plan_of
from run_cycle_loop.agentrun.flags import LOCAL, UNKNOWN
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Object, Resources
from run_cycle_loop.report.explanation import lines as lines_of
from tests.unit.agentrun.guide_runs import (
    CANARY,
    FILLED,
    FLAGS,
    SYSTEM_HASH,
    TASK,
    agent,
    around,
    body_of,
    loop_body,
    provider,
    single_body,
)

GUIDE, CURRENT = Profile.GUIDE, Profile.CURRENT
BOTH = list(Profile)

WHOLE = """\
AgentRun/torghut-priority-loop5 in agents, profile guide
  agent         codex-spark-agent; provider codex (codex-app-server)
  runtime       workflow
  account       default: nothing names one
  secrets       github-token, codex-auth
  run kept      2d after the end
  Jobs kept     10m after the end

System prompt
  source        Agent/codex-spark-agent spec.defaults.systemPromptRef
  object        ConfigMap/codex-agent-system-prompt, key system-prompt.md
  sha256        09a40cfeeb8e11691e0b4ccd9f672cf1cf3fa505b7f1a0397f615a7e7454fcc7
  reaches       mounted at /workspace/.codex/system-prompt.txt

Step 1: implement
  prompt        ImplementationSpec/torghut-v5-uncertainty-gates-priority
                spec.text
                the first that says something
                'Write notes into ${artifactPath}. Stage: {{ stage }}, hom...'
  sha256        PROMPT
  placeholder   ${artifactPath} stays as written: this profile fills nothing in
  placeholder   {{ stage }} stays as written: this profile fills nothing in
  placeholder   ${HOME} stays as written: this profile fills nothing in
  placeholder   {{ nothing }} stays as written: this profile fills nothing in
  image         registry.test/runner:1, by THE_VARIABLE
  volume        workspace at /workspace: claim torghut-loop-workspace, persists
  vcs           proompteng/lab by github, read-write
  branch        codex/torghut-v5-uncertainty-gates-loop5-20260301 from main, by
                parameters
  loop          5 iterations, no condition
  state         workspace, required
  attempts      2 for each iteration, 30s apart at least; 1h30m each
  worst case    10 Jobs, 15h2m
  Jobs          torghut-priority-loop5-step-1-iter-1-attempt-1
                torghut-priority-loop5-step-1-iter-2-attempt-1
                torghut-priority-loop5-step-1-iter-3-attempt-1
                and so on:
                torghut-priority-loop5-step-1-iter-<iteration>-attempt-<attempt>
  labels        agents.proompteng.ai/agent-run=torghut-priority-loop5
                agents.proompteng.ai/agent=codex-spark-agent
                agents.proompteng.ai/provider=codex
                agents.proompteng.ai/implementation=torghut-v5-uncertainty-gates
                -priority
                agents.proompteng.ai/step=implement
                agents.proompteng.ai/step-index=1
                agents.proompteng.ai/step-iteration=1

What profile current would do otherwise
                prompt, step implement
  here          ImplementationSpec/torghut-v5-uncertainty-gates-priority
                spec.text, as written, sha256 SHORT_HERE
  there         ImplementationSpec/torghut-v5-uncertainty-gates-priority
                spec.text, 3 of 4 placeholders replaced, sha256 SHORT_THERE
"""


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _explained(
    *objects: Object, profile: Profile = GUIDE, body: dict[str, Any] | None = None, **changes: Any
) -> Explanation:
    return explain(read_run(body or loop_body(**changes)), around(*objects), profile, FLAGS)


def _text(found: Explanation, width: int = 200) -> str:
    return "\n".join(lines_of(found, width))


def test_the_launch_guides_loop_whole() -> None:
    whole = WHOLE.replace("PROMPT", _sha(TASK)).replace("SHORT_HERE", _sha(TASK)[:12])
    whole = whole.replace("SHORT_THERE", _sha(FILLED)[:12])
    assert lines_of(_explained(), 80) == whole.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("profile", BOTH)
def test_no_line_is_wider_than_the_terminal(width: int, profile: Profile) -> None:
    lines = lines_of(_explained(profile=profile), width)
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("profile", BOTH)
@pytest.mark.parametrize("body", [loop_body(), single_body()])
def test_as_json_it_can_be_written_and_holds_no_secret(body: dict[str, Any], profile: Profile) -> None:
    written = json.dumps(_explained(body=body, profile=profile).as_json())
    assert CANARY not in written
    assert json.loads(written)["profile"] == str(profile)


def test_as_json_the_prompt_is_whole_and_each_candidate_has_its_hash() -> None:
    found = _explained(
        profile=GUIDE, parameters={"prompt": "narrow", "artifactPath": "/a"}, vcsPolicy={}, vcsRef={}
    ).as_json()
    prompt = found["steps"][0]["prompt"]
    assert (prompt["text"], prompt["sha256"], prompt["source"]) == ("narrow", _sha("narrow"), "parameters.prompt")
    assert [(one["wins"], one["sha256"]) for one in prompt["candidates"]] == [
        (True, _sha("narrow")),
        (False, _sha(TASK)),
    ]
    assert found["systemPrompt"]["sha256"] == SYSTEM_HASH
    assert found["steps"][0]["plan"]["worstCase"] == {"jobs": 10, "seconds": 54150}
    assert found["otherProfile"] == [
        {
            "what": "prompt, step implement",
            "here": f"AgentRun/torghut-priority-loop5 spec.parameters.prompt, as written, sha256 {_sha('narrow')[:12]}",
            "there": "refused, ForbiddenParameterKey",
        }
    ]


def test_what_shadows_a_text_is_said_beside_it() -> None:
    text = _text(_explained(parameters={"prompt": "narrow"}, vcsPolicy={}))
    assert "  prompt        AgentRun/torghut-priority-loop5 spec.parameters.prompt\n" in text
    assert (
        "  not           ImplementationSpec/torghut-v5-uncertainty-gates-priority spec.text: "
        "shadowed by AgentRun/torghut-priority-loop5 spec.parameters.prompt\n"
    ) in text


def test_current_controllers_placeholders_are_told_one_by_one() -> None:
    text = _text(_explained(profile=CURRENT))
    for line in (
        "  placeholder   {{ stage }} becomes 'implement'",
        "  placeholder   {{ nothing }} is removed: nothing has that name",
        "  placeholder   ${artifactPath} becomes '/workspace/.agentrun/torghut-v5-02'",
        "  placeholder   ${HOME} stays: nothing has that name",
    ):
        assert line in text


def test_a_conditional_loop() -> None:
    source = {"path": "/workspace/.agentrun/loop-control.json", "onMissing": "stop", "onInvalid": "fail"}
    expression = "iteration.last.control.continue == true"
    loop = {"maxIterations": 8, "condition": {"type": "cel", "expression": expression, "source": source}}
    text = _text(_explained(workflow={"steps": [{"name": "implement", "retries": 2, "loop": loop}]}))
    assert "  loop          at most 8 iterations, another one while\n" in text
    assert f"                {expression}\n" in text
    assert "  control file  /workspace/.agentrun/loop-control.json, on volume workspace\n" in text
    assert "                missing: stop; invalid: fail\n" in text
    assert "  attempts      3 for each iteration; no timeout\n" in text
    assert "  worst case    24 Jobs, no limit, for want of a timeout\n" in text


@pytest.mark.parametrize(
    "volume",
    [
        {"type": "emptyDir", "mountPath": "/workspace"},
        {"type": "pvc", "claimName": "c", "mountPath": "/work"},
    ],
)
def test_a_control_file_that_no_claim_keeps(volume: dict[str, str]) -> None:
    loop = {"maxIterations": 2, "condition": {"expression": "true"}}
    text = _text(
        _explained(
            workflow={"steps": [{"name": "implement", "loop": loop}]}, workload={"volumes": [{"name": "v", **volume}]}
        )
    )
    assert "loop-control.json, on no persistent volume\n" in text


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        ({"type": "emptyDir", "mountPath": "/v"}, "v at /v: emptyDir, gone after each attempt"),
        ({"type": "secret", "secretName": "s", "mountPath": "/v", "readOnly": True}, "v at /v: secret s, read-only"),
        ({"type": "pvc", "mountPath": "/v"}, "v at /v: claim (none), persists"),
    ],
)
def test_volumes(volume: dict[str, Any], said: str) -> None:
    assert f"  volume        {said}\n" in _text(_explained(workload={"volumes": [{"name": "v", **volume}]}))


def test_an_exec_provider_checks_no_hash() -> None:
    text = _text(_explained(provider(binary="/bin/sh")))
    assert "provider codex (exec)" in text
    assert "  beware        an exec provider's runner is told the hash, and nothing checks it\n" in text


@pytest.mark.parametrize(("own", "said"), [({"baseInstructions": "mine"}, True), ({}, False)])
def test_a_providers_own_instructions_never_have_the_hash(own: dict[str, str], said: bool) -> None:
    assert ("baseInstructions take its place" in _text(_explained(provider(adapter={"codex": own})))) is said


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (CURRENT, "  refused       SystemPromptOverrideNotAllowed: "),
        (GUIDE, "  reaches       inside of run.json\n"),
    ],
)
def test_a_system_prompt_of_the_runs_own(profile: Profile, said: str) -> None:
    text = _text(_explained(profile=profile, systemPrompt="mine"))
    assert said in text
    other = "refused, SystemPromptOverrideNotAllowed" if profile is GUIDE else "spec.systemPrompt, sha256"
    assert other in text[text.index("What profile") :]


def test_what_cannot_be_launched_is_said_first() -> None:
    text = _text(_explained(agent(), vcsRef={"name": "gone"}))
    assert "Step 1: implement\n  refused       MissingVcsProvider: workflow step implement: " in text


def test_a_run_without_steps_has_one_job() -> None:
    text = _text(_explained(runtime={"type": "job"}))
    assert "  runtime       job; its workflow steps are ignored\n" in text
    assert "The one attempt\n" in text
    assert "  worst case    1 Job, no limit, for want of a timeout\n" in text
    assert "  Jobs          torghut-priority-loop5-job\n" in text


def test_other_runtimes_make_no_job() -> None:
    assert "  Jobs          none: this runtime makes no Job of its own\n" in _text(
        _explained(runtime={"type": "temporal"})
    )


def test_what_is_not_among_the_objects_is_said_to_be_unknown() -> None:
    text = _text(explain(read_run(loop_body()), Resources(), GUIDE, UNKNOWN))
    for part in (
        "provider not known here",
        "Agent/codex-spark-agent is not among the objects given",
        "ImplementationSpec/torghut-v5-uncertainty-gates-priority is not among the objects given",
        "VersionControlProvider/github is not among the objects given",
        "nothing names one here",
    ):
        assert part in text
    assert "refused" not in text


def test_this_machine_needs_no_image() -> None:
    assert "this machine" in _text(explain(read_run(loop_body()), around(), GUIDE, LOCAL))


@pytest.mark.parametrize("profile", BOTH)
def test_a_manifest_of_nothing_is_explained_all_the_same(profile: Profile) -> None:
    for spec in ({}, {"runtime": {"type": "workflow"}}, {"runtime": {"type": "workflow"}, "workflow": {"steps": [{}]}}):
        assert lines_of(explain(read_run(body_of("x", spec)), Resources(), profile, UNKNOWN), 80)


def test_foreign_text_moves_no_cursor() -> None:
    text = _text(_explained(implementation={"inline": {"text": "a\x1b[2Jb\rc"}}, implementationSpecRef=None))
    assert "\x1b" not in text
    assert "\r" not in text


@pytest.mark.parametrize(
    ("name", "step", "hashed", "jobs", "longest"),
    [
        ("r", {"retries": 2, "retryBackoffSeconds": 5, "timeoutSeconds": 10}, False, 3, 40),
        ("r", {}, False, 1, None),
        ("r" * 39, {"loop": {"maxIterations": 9}}, False, 9, None),
        ("r" * 39, {"loop": {"maxIterations": 10}}, True, 10, None),
        ("r" * 38, {"loop": {"maxIterations": 10}}, False, 10, None),
        ("r" * 46, {}, False, 1, None),
        ("r" * 47, {}, True, 1, None),
        ("r", {"timeoutSeconds": 60, "loop": {"maxIterations": 4}}, False, 4, 240),
    ],
)
def test_plans(name: str, step: dict[str, Any], hashed: bool, jobs: int, longest: int | None) -> None:
    run = read_run(body_of(name, {"runtime": {"type": "workflow"}, "workflow": {"steps": [{"name": "s", **step}]}}))
    plan = plan_of(run, run.steps[0])
    assert (plan.hashed, plan.jobs, plan.longest) == (hashed, jobs, longest)
    assert all(len(one) <= 63 for one in plan.first_jobs)
