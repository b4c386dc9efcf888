"""What the controller refuses: one change of a good bundle, and everything that is found then."""

from typing import Any

import pytest

from run_cycle_loop.agentrun.checks.rules import controller_findings, first_refusal, object_findings
from run_cycle_loop.agentrun.flags import LOCAL, UNKNOWN
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Resources
from tests.unit.agentrun.bundles import ALL, CONDITION, FLAGS, GONE, LOOP, STEP, Case, briefly, put
from tests.unit.agentrun.guide_runs import around, loop_body

CURRENT, GUIDE = (Profile.CURRENT,), (Profile.GUIDE,)
SECURITY = "Agent spec.security"
MANY = {f"key{number}": "x" for number in range(101)}

CASES = [
    # Parameters and labels.
    Case(
        changes={f"{STEP}.parameters": {"Prompt": "x"}},
        found=(f"error ForbiddenParameterKey {STEP}.parameters.Prompt",),
        profiles=CURRENT,
    ),
    Case(
        changes={f"{STEP}.parameters": {" PROMPT ": "x"}},
        found=(f'error ForbiddenParameterKey {STEP}.parameters[" PROMPT "]',),
        profiles=CURRENT,
    ),
    Case(
        changes={"spec.parameters.long": "é" * 1025},
        found=("error ParameterValueTooLarge spec.parameters.long",),
    ),
    Case(
        changes={f"{STEP}.parameters": {"long": "x" * 2049}},
        found=(f"error ParameterValueTooLarge {STEP}.parameters.long",),
    ),
    Case(changes={"spec.parameters.long": "x" * 2048}, found=()),
    Case(
        changes={},
        flags={"labels_required": ("team",)},
        found=("error MissingRequiredLabels metadata.labels",),
    ),
    Case(changes={"metadata.labels": {"team": "a"}}, flags={"labels_required": ("team",)}, found=()),
    Case(
        changes={"metadata.labels": {"team": "a", "test-x": "b"}},
        flags={"labels_denied": ("test-*",)},
        found=("error LabelBlocked metadata.labels.test-x",),
    ),
    Case(
        changes={"metadata.labels": {"team": "a", "other": "b"}},
        flags={"labels_allowed": ("te*m",)},
        found=("error LabelNotAllowed metadata.labels.other",),
    ),
    # Steps and loops.
    Case(changes={"spec.workflow.steps": []}, found=("error MissingWorkflowSteps spec.workflow.steps",)),
    Case(changes={f"{STEP}.name": " "}, found=(f"error WorkflowStepMissingName {STEP}.name",)),
    Case(
        changes={"spec.workflow.steps[1].name": "implement"},
        found=("error WorkflowStepDuplicate spec.workflow.steps[1].name",),
    ),
    Case(
        changes={"spec.workflow.steps[1].name": "Implement"},
        found=("note StepLabelShared spec.workflow.steps[1].name",),
    ),
    Case(changes={}, flags={"loops_enabled": False}, found=(f"error WorkflowLoopsDisabled {LOOP}",)),
    Case(
        changes={f"{LOOP}.maxIterations": 21},
        found=(f"error WorkflowLoopMaxIterationsExceeded {LOOP}.maxIterations",),
    ),
    Case(changes={f"{LOOP}.maxIterations": 21}, flags={"max_iterations": 30}, found=()),
    Case(
        changes={f"{CONDITION}.expression": "  "},
        found=(f"error WorkflowLoopConditionExpressionMissing {CONDITION}.expression",),
    ),
    Case(
        changes={f"{CONDITION}.expression": GONE},
        found=(f"error WorkflowLoopConditionExpressionMissing {CONDITION}.expression",),
    ),
    Case(
        changes={f"{CONDITION}.source.path": "loop-control.json"},
        found=(f"error WorkflowLoopConditionPathInvalid {CONDITION}.source.path",),
    ),
    Case(
        changes={f"{LOOP}.state.volumeNames": ["workspace", "workspace"]},
        found=(f"error WorkflowLoopStateVolumeDuplicate {LOOP}.state.volumeNames[1]",),
    ),
    Case(
        changes={f"{LOOP}.state.volumeNames": ["workspace", "cache"]},
        found=(f"error WorkflowLoopStateVolumeMissing {LOOP}.state.volumeNames[1]",),
    ),
    Case(
        changes={f"{LOOP}.state.volumeNames": []},
        found=(f"error WorkflowLoopStateVolumeRequired {LOOP}.state.volumeNames",),
    ),
    Case(
        changes={"spec.workload.volumes[0].type": "emptyDir"},
        found=(
            f"note LoopKeepsNothing {LOOP}",
            f"error WorkflowLoopStateVolumeNotPersistent {LOOP}.state.volumeNames",
            f"warning ControlPathNotPersistent {CONDITION}.source.path",
        ),
    ),
    # What the run refers to.
    Case(changes={}, without=("Agent",), found=("note AgentNotInBundle spec.agentRef.name",)),
    Case(changes={}, without=("Agent",), complete=True, found=("error MissingAgent spec.agentRef.name",)),
    Case(changes={"spec.agentRef.name": " "}, found=("error MissingAgent spec.agentRef.name",)),
    Case(changes={}, without=("AgentProvider",), found=("note ProviderNotInBundle spec.agentRef.name",)),
    Case(
        changes={},
        without=("AgentProvider",),
        complete=True,
        found=("error MissingProvider Agent/demo spec.providerRef.name",),
    ),
    Case(
        changes={},
        without=("ImplementationSpec",),
        found=("note ImplementationNotInBundle spec.implementationSpecRef.name",),
    ),
    Case(
        changes={},
        without=("ImplementationSpec",),
        complete=True,
        found=("error MissingImplementation spec.implementationSpecRef.name",),
    ),
    Case(
        changes={"spec.implementationSpecRef": {}, f"{STEP}.implementationSpecRef": {"name": "task"}},
        found=("error MissingImplementation spec.implementationSpecRef",),
    ),
    Case(
        changes={f"{STEP}.implementationSpecRef": {"name": "other"}},
        found=(f"note ImplementationNotInBundle {STEP}.implementationSpecRef.name",),
    ),
    Case(
        changes={f"{STEP}.implementationSpecRef": {"name": "other"}},
        complete=True,
        found=(f"error MissingImplementation {STEP}.implementationSpecRef.name",),
    ),
    Case(changes={"spec.memoryRef": {"name": "long"}}, found=("note MemoryNotInBundle spec.memoryRef.name",)),
    Case(
        changes={"spec.memoryRef": {"name": "long"}},
        complete=True,
        found=("error MissingMemory spec.memoryRef.name",),
    ),
    Case(
        changes={"Agent spec.memoryRef": {"name": "long"}},
        complete=True,
        found=("error MissingMemory Agent/demo spec.memoryRef.name",),
    ),
    Case(
        changes={f"{SECURITY}.allowedSecrets": ["github-token"], "spec.secrets": ["github-token", "codex-auth"]},
        found=("error SecretNotAllowed spec.secrets[1]", "note SecretNotInBundle spec.secrets"),
    ),
    Case(
        changes={f"{SECURITY}.allowedSecrets": ["github-token"]},
        flags={"auth_secret_name": "codex-auth"},
        found=("error SecretNotAllowed spec.agentRef.name",),
    ),
    Case(
        changes={"spec.vcsRef": GONE, "spec.vcsPolicy": GONE},
        flags={"blocked_secrets": ("github-token",)},
        found=("error SecretBlocked spec.secrets[0]",),
    ),
    Case(
        changes={f"{SECURITY}.allowedServiceAccounts": ["runner"]},
        found=("error ServiceAccountNotAllowed spec.runtime",),
    ),
    Case(
        changes={f"{SECURITY}.allowedServiceAccounts": ["runner"], "spec.runtime.config": {"serviceAccount": "root"}},
        found=("error ServiceAccountNotAllowed spec.runtime.config.serviceAccount",),
    ),
    Case(
        changes={f"{SECURITY}.allowedServiceAccounts": ["runner"]},
        flags={"runner_service_account": "runner"},
        found=(),
    ),
    Case(
        changes={f"{SECURITY}.allowedImplementationSourceProviders": ["GitHub"]},
        found=("error ImplementationSourceProviderNotAllowed spec.implementationSpecRef.name",),
    ),
    Case(
        changes={
            f"{SECURITY}.allowedImplementationSourceProviders": ["GitHub"],
            "ImplementationSpec spec.source": {"provider": "github"},
        },
        found=(),
    ),
    Case(
        changes={},
        flags={"images_denied": ("registry.test/*",)},
        found=("error ImageBlocked spec.agentRef.name",),
    ),
    Case(
        changes={"spec.workload.image": "other.test/x:1"},
        flags={"images_allowed": ("registry.test/*",)},
        found=("error ImageNotAllowed spec.workload.image",),
    ),
    Case(
        changes={"AgentProvider spec.workload.image": "other.test/x:1"},
        flags={"images_allowed": ("registry.test/*",)},
        profiles=CURRENT,
        found=("error ImageNotAllowed spec.agentRef.name",),
    ),
    Case(changes={}, flags={"runner_image": ""}, found=("error MissingWorkloadImage spec.workload.image",)),
    Case(
        changes={}, flags={"runner_image": "", "known": False}, found=("note LoopsMayBeDisabled spec.workflow.steps",)
    ),
    # The system prompt.
    Case(
        changes={"spec.systemPrompt": "x"},
        profiles=CURRENT,
        found=("error FieldValueInvalid spec.systemPrompt",),
    ),
    Case(changes={"spec.systemPrompt": "x"}, profiles=GUIDE, found=()),
    Case(
        changes={"Agent spec.defaults": GONE},
        profiles=CURRENT,
        found=("error MissingSystemPromptConfiguration spec.agentRef.name",),
    ),
    Case(changes={"Agent spec.defaults": GONE}, profiles=GUIDE, found=()),
    Case(
        changes={"Agent spec.defaults.systemPromptRef.kind": "Pod"},
        found=("error InvalidSystemPromptRef spec.agentRef.name",),
    ),
    Case(
        changes={"Agent spec.defaults": {"systemPrompt": "😀" * 8193}},
        found=("error SystemPromptTooLong spec.agentRef.name",),
    ),
    Case(
        changes={"Agent spec.defaults.systemPromptRef.key": "other"},
        found=("error MissingSystemPromptRef spec.agentRef.name",),
    ),
    Case(
        changes={"Agent spec.defaults.systemPromptRef.kind": "Secret"},
        found=("error SecretNotAllowed spec.agentRef.name",),
    ),
    Case(changes={}, without=("ConfigMap",), found=("note SystemPromptNotInBundle spec.agentRef.name",)),
    # At the launch of a step.
    Case(
        changes={"ImplementationSpec spec.contract": {"requiredKeys": ["issueNumber", "head"]}},
        found=("error MissingRequiredMetadata spec.parameters",),
    ),
    Case(
        changes={"ImplementationSpec spec.contract": {"requiredKeys": [" "]}},
        found=("error InvalidContract ImplementationSpec/task spec.contract.requiredKeys[0]",),
    ),
    Case(
        changes={"ImplementationSpec spec.contract": {"mappings": [{"from": "a", "to": " "}]}},
        found=("error InvalidContract ImplementationSpec/task spec.contract.mappings[0].to",),
    ),
    Case(changes={"spec.vcsRef": GONE}, found=("error MissingVcsProvider spec.vcsRef.name",)),
    Case(changes={"spec.vcsRef": GONE}, without=("Agent",), found=("note AgentNotInBundle spec.agentRef.name",)),
    Case(
        changes={},
        without=("VersionControlProvider",),
        found=("note VcsProviderNotInBundle spec.vcsRef.name",),
    ),
    Case(
        changes={},
        without=("VersionControlProvider",),
        complete=True,
        found=("error MissingVcsProvider spec.vcsRef.name",),
    ),
    Case(
        changes={"spec.parameters.repository": GONE},
        found=("error MissingRepository spec.parameters.repository",),
    ),
    Case(
        changes={"VersionControlProvider spec.repositoryPolicy": {"allow": ["other/*"]}},
        found=("error VcsPolicyDenied spec.parameters.repository",),
    ),
    Case(
        changes={
            "VersionControlProvider spec.repositoryPolicy": {"deny": ["acme/*"]},
            "spec.vcsPolicy.required": False,
        },
        found=("error VcsPolicyDenied spec.parameters.repository",),
    ),
    Case(
        changes={"VersionControlProvider spec.capabilities": {"write": False, "read": False}},
        found=("error VcsCapabilityDenied spec.vcsPolicy.mode",),
    ),
    Case(
        changes={"VersionControlProvider spec.auth.token": {}},
        found=("error MissingVcsAuth spec.vcsRef.name",),
    ),
    Case(
        changes={"VersionControlProvider spec.provider": "gitlab", "VersionControlProvider spec.auth.method": "app"},
        found=("error UnsupportedVcsAuth spec.vcsRef.name",),
    ),
    Case(
        changes={"VersionControlProvider spec.auth": {"method": "none"}},
        found=("error VcsAuthUnavailable spec.vcsRef.name",),
    ),
    Case(changes={"spec.vcsRef.name": "other"}, flags={"vcs_enabled": False}, found=()),
    Case(
        changes={"VersionControlProvider spec.auth.token": {}, "spec.vcsPolicy.required": False},
        found=("warning MissingVcsAuth spec.vcsRef.name",),
    ),
    Case(changes={"spec.vcsPolicy": {"required": False, "mode": "none"}}, found=()),
    Case(
        changes={"VersionControlProvider spec.auth.token.type": "pat"},
        found=("warning DeprecatedAuth spec.vcsRef.name",),
    ),
    # Objects of their own.
    Case(changes={"ImplementationSpec spec.text": " "}, found=("error MissingText ImplementationSpec/task spec.text",)),
    Case(
        changes={"Agent spec.providerRef.name": ""},
        found=("error MissingProviderRef Agent/demo spec.providerRef.name",),
    ),
    Case(changes={"AgentProvider spec.binary": " "}, found=("error MissingBinary AgentProvider/codex spec.binary",)),
]


@pytest.mark.parametrize(("case", "profile"), [(case, profile) for case in CASES for profile in case.profiles], ids=str)
def test_a_change_and_all_that_is_found(case: Case, profile: Profile) -> None:
    findings = case.validated(profile)

    assert sorted(briefly(findings)) == sorted(case.found)
    assert all(one.message and one.cure and not one.message.endswith(".") for one in findings)


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"spec.runtime.type": ""}, "MissingRuntime"),
    ({"spec.parameters": MANY}, "ParametersTooLarge"),
    ({f"{STEP}.parameters": MANY}, "ParametersTooLarge"),
    ({"spec.parameters.n": 5}, "ParameterNotString"),
    ({f"{LOOP}.maxIterations": 0}, "WorkflowLoopMaxIterationsInvalid"),
    ({f"{LOOP}.maxIterations": 50}, "WorkflowLoopMaxIterationsExceeded"),
    ({f"{CONDITION}": {"expression": "true", "source": {"onMissing": "go"}}}, "WorkflowLoopConditionOnMissingInvalid"),
    ({f"{CONDITION}": {"expression": "true", "source": {"onInvalid": 5.5, "onMissing": " Stop "}}}, ""),
    ({f"{CONDITION}": {"expression": "true", "source": {"onInvalid": "x"}}}, "WorkflowLoopConditionOnInvalidInvalid"),
    ({"spec.runtime.type": "", f"{LOOP}.maxIterations": 0}, "MissingRuntime"),
    ({f"{LOOP}.maxIterations": 0, "spec.agentRef.name": ""}, "WorkflowLoopMaxIterationsInvalid"),
    ({f"{STEP}.parameters": {"n": 5}}, ""),
    ({"metadata.annotations": {"agents.proompteng.ai/template": "true"}, "spec.runtime.type": ""}, ""),
    ({"spec.systemPrompt": 5}, "InvalidSystemPrompt"),
    ({}, ""),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSALS, ids=str)
def test_the_first_reason_is_the_one_that_the_controller_would_give(changes: dict[str, Any], reason: str) -> None:
    body = loop_body()
    for path, value in changes.items():
        put(body, path, value)

    refusal = first_refusal(read_run(body), around(), Profile.GUIDE, FLAGS)

    assert (refusal.reason if refusal else "") == reason
    assert refusal is None or refusal.condition == "InvalidSpec"


def test_the_words_are_those_of_the_step() -> None:
    body = loop_body()
    put(body, f"{LOOP}.maxIterations", 21)

    refusal = first_refusal(read_run(body), around(), Profile.GUIDE, LOCAL)

    assert refusal == Refusal(
        reason="WorkflowLoopMaxIterationsExceeded",
        message="workflow step implement: loop.maxIterations is 21, more than the limit 20",
        condition="InvalidSpec",
    )


def test_nothing_is_refused_for_a_limit_that_nobody_looked_at() -> None:
    body = loop_body()
    put(body, f"{LOOP}.maxIterations", 21)
    run = read_run(body)

    assert first_refusal(run, around(), Profile.GUIDE, UNKNOWN) is None
    found = [one for one in controller_findings(run, around(), Profile.GUIDE, UNKNOWN) if "limit" in one.message]
    assert [str(one.severity) for one in found] == ["warning"]


def test_a_memory_marked_default_counts_for_runs_that_never_name_it() -> None:
    memory = {
        "kind": "Memory",
        "metadata": {"name": "long"},
        "spec": {"default": True, "connection": {"secretRef": {"name": "database"}}},
    }

    refusal = first_refusal(read_run(loop_body()), around(memory), Profile.GUIDE, FLAGS)

    assert refusal is not None
    assert (refusal.reason, "database" in refusal.message) == ("SecretNotAllowed", True)
    assert first_refusal(read_run(loop_body(secrets=[])), around(memory), Profile.GUIDE, FLAGS) is None


@pytest.mark.parametrize("profile", ALL)
def test_a_run_without_anything_is_refused_and_raises_nothing(profile: Profile) -> None:
    assert first_refusal(read_run({}), Resources(), profile, UNKNOWN) is not None


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("text", "x" * 131073, "TextTooLarge"),
        ("summary", "x" * 257, "SummaryTooLong"),
        ("description", "x" * 131073, "DescriptionTooLarge"),
        ("acceptanceCriteria", ["x"] * 51, "AcceptanceCriteriaTooLong"),
        ("text", None, "MissingText"),
        ("text", "x" * 131072, ""),
        ("summary", "x" * 256, ""),
    ],
)
def test_an_implementation_that_got_past_the_server_has_the_controllers_own_word(
    field: str, value: Any, reason: str
) -> None:
    body = {"kind": "ImplementationSpec", "metadata": {"name": "task"}, "spec": {"text": "Do it.", field: value}}

    found = [(one.reason, one.where, one.path) for one in object_findings(body, Resources())]

    assert found == ([(reason, "ImplementationSpec/task", f"spec.{field}")] if reason else [])


def test_newer_controllers_take_no_system_prompt_from_a_run() -> None:
    refusal = first_refusal(read_run(loop_body(systemPrompt="be bad")), around(), Profile.CURRENT, FLAGS)

    assert refusal is not None
    assert refusal.reason == "SystemPromptOverrideNotAllowed"
    assert first_refusal(read_run(loop_body(systemPrompt="be bad")), around(), Profile.GUIDE, FLAGS) is None
