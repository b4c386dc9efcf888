"""What nobody refuses and still bites: one change of a good bundle, and everything that is found then."""

from typing import Any

import pytest

from run_cycle_loop.agentrun.checks.validation import validate
from run_cycle_loop.agentrun.profiles import Profile
from tests.unit.agentrun.bundles import CONDITION, FLAGS, GONE, GOOD, LOOP, STEP, Case, briefly, bundle

CURRENT, GUIDE = (Profile.CURRENT,), (Profile.GUIDE,)
EXPRESSION = f"{CONDITION}.expression"
VOLUME = "spec.workload.volumes[0]"
TEXT = "ImplementationSpec spec.text"
CODEX = "AgentProvider spec.adapter"
PLAIN: dict[str, Any] = {LOOP: GONE}  #: without a loop


def second(**changes: Any) -> dict[str, Any]:
    return {"spec.workload.volumes[1]": {"name": "other", "type": "emptyDir", "mountPath": "/other", **changes}}


NAMES = [
    Case(changes={"metadata.name": "r" * 64}, found=("error NameTooLong metadata.name",)),
    Case(changes={"metadata.name": "r" * 63}, found=("note JobNamesHashed metadata.name",)),
    Case(changes={"metadata.name": "r" * 40}, found=("note JobNamesHashed metadata.name",)),
    Case(changes={"metadata.name": "r" * 39}, found=()),
    Case(changes={"metadata.name": "r" * 46} | PLAIN, found=()),
    Case(changes={"metadata.name": "r" * 47} | PLAIN, found=("note JobNamesHashed metadata.name",)),
    Case(changes={f"{STEP}.name": "s" * 62 + "-x"}, found=(f"error LabelInvalid {STEP}.name",)),
    Case(changes={f"{STEP}.name": "s" * 64}, found=()),
    Case(changes={f"{STEP}.name": "—"}, found=(f"warning StepLabelUnknown {STEP}.name",)),
    Case(
        changes={"spec.implementationSpecRef.name": "s" * 62 + ".x"},
        found=(
            "error LabelInvalid spec.implementationSpecRef.name",
            "note ImplementationNotInBundle spec.implementationSpecRef.name",
        ),
    ),
]

TIMES = [
    Case(changes={"spec.runtime.type": "job"}, found=("error LoopIgnored spec.runtime.type",)),
    Case(changes={"spec.runtime.type": "job"} | PLAIN, found=("error StepsIgnored spec.runtime.type",)),
    Case(changes={"spec.runtime.type": "job", "spec.workflow": GONE}, found=()),
    Case(
        changes={f"{STEP}.retries": 1, f"{STEP}.timeoutSeconds": GONE},
        found=(f"warning RetriesWithoutTimeout {STEP}.retries",),
    ),
    Case(changes={f"{STEP}.retries": 1}, found=(f"note TimedOutJobRunsOn {STEP}.timeoutSeconds",)),
    Case(changes={f"{STEP}.retries": -1}, found=(f"warning NegativeIsZero {STEP}.retries",)),
    Case(changes={f"{STEP}.retryBackoffSeconds": -1}, found=(f"warning NegativeIsZero {STEP}.retryBackoffSeconds",)),
    Case(
        changes={"spec.runtime.config": {"ttlSecondsAfterFinished": 600}},
        found=("warning TtlInRuntimeConfig spec.runtime.config.ttlSecondsAfterFinished",),
    ),
    Case(
        changes={"spec.runtime.config": {"ttlSecondsAfterFinished": 30}, "spec.ttlSecondsAfterFinished": 600},
        found=("warning JobTtlShort spec.runtime.config.ttlSecondsAfterFinished",),
    ),
    Case(
        changes={"spec.ttlSecondsAfterFinished": 0},
        found=("warning TtlZeroKeeps spec.ttlSecondsAfterFinished",),
    ),
]

WORKLOADS = [
    Case(
        changes={f"{STEP}.workload": {"resources": {"requests": {"cpu": "1"}}}},
        found=(
            f"error StepWorkloadDropsClaim {STEP}.workload",
            f"warning ControlPathNotPersistent {CONDITION}.source.path",
        ),
    ),
    Case(
        changes={f"{STEP}.workload": {}, f"{VOLUME}.type": "emptyDir"} | PLAIN,
        found=(f"warning StepWorkloadReplacesRun {STEP}.workload",),
    ),
    Case(
        changes={
            "spec.workload.image": "a.test/b:1",
            f"{STEP}.workload": {
                "volumes": [{"name": "workspace", "type": "pvc", "claimName": "claim", "mountPath": "/workspace"}]
            },
        },
        found=(f"warning StepWorkloadReplacesRun {STEP}.workload", "note ImagePinned spec.workload.image"),
    ),
    Case(
        changes={f"{VOLUME}.claimName": GONE} | PLAIN,
        found=(f"error VolumeWithoutClaim {VOLUME}.claimName",),
    ),
    Case(
        changes=second(type="secret"),
        found=("error VolumeWithoutSecret spec.workload.volumes[1].secretName",),
    ),
    Case(
        changes=second(name="workspace") | PLAIN,
        found=("error VolumeDuplicate spec.workload.volumes[1].name",),
    ),
    Case(changes=second(name="Other"), found=("error VolumeNameInvalid spec.workload.volumes[1].name",)),
    Case(changes=second(mountPath="data"), found=("error MountPathInvalid spec.workload.volumes[1].mountPath",)),
    Case(changes=second(mountPath="/a:b"), found=("error MountPathInvalid spec.workload.volumes[1].mountPath",)),
    Case(
        changes=second(mountPath="/workspace/"),
        found=("error MountPathDuplicate spec.workload.volumes[1].mountPath",),
    ),
    *(
        Case(changes=second(mountPath=path), found=("error MountPathClash spec.workload.volumes[1].mountPath",))
        for path in ("/workspace/run.json", "/workspace/.codex", "/workspace/.codex/skills", "/root/.codex")
    ),
    Case(
        changes=second(mountPath="/etc/tool.json")
        | {"AgentProvider spec.inputFiles": [{"path": "/etc/tool.json", "content": "{}"}]},
        found=("error MountPathClash spec.workload.volumes[1].mountPath",),
    ),
    Case(changes=second(sizeLimit="1 Gi"), found=("error InvalidQuantity spec.workload.volumes[1].sizeLimit",)),
    Case(
        changes={"spec.workload.resources": {"limits": {"memory": "1024MB", "cpu": 2}}},
        found=("error InvalidQuantity spec.workload.resources.limits.memory",),
    ),
    Case(changes={"spec.workload.image": "a.test/b:1"}, found=("note ImagePinned spec.workload.image",)),
    Case(changes={"spec.secrets": ["github-token", "none"]}, found=("note SecretNotInBundle spec.secrets",)),
    Case(
        changes={"spec.secrets": ["github-token", "none"]},
        complete=True,
        found=("error MissingSecret spec.secrets[1]",),
    ),
    Case(changes={f"{VOLUME}.claimName": "none"}, found=(f"note ClaimNotInBundle {VOLUME}.claimName",)),
    Case(
        changes={f"{VOLUME}.claimName": "none"},
        complete=True,
        found=(f"error MissingPersistentVolumeClaim {VOLUME}.claimName",),
    ),
]

LOOPS = [
    Case(changes={TEXT: "Do it."}, found=(f"note ControlPathNotInPrompt {CONDITION}.source.path",)),
    Case(
        changes={TEXT: "Do it.", CODEX: {"type": "exec"}},
        found=("note SystemPromptNotEnforced spec.agentRef.name",),
    ),
    Case(changes={TEXT: "Do it.", "spec.parameters.file": "/workspace/.agentrun/loop-control.json"}, found=()),
    Case(changes={}, flags={"known": False}, found=("note LoopsMayBeDisabled spec.workflow.steps",)),
    Case(
        changes={f"{VOLUME}.readOnly": True},
        found=(f"error StateVolumeReadOnly {LOOP}.state.volumeNames[0]",),
    ),
    Case(
        changes={"metadata.annotations": GONE},
        found=(f"warning LoopControlHasNoWriter {CONDITION}.source",),
    ),
    Case(changes={f"{LOOP}.maxIterations": 1}, found=(f"warning ConditionNeverEvaluated {CONDITION}",)),
    Case(
        changes={f"{CONDITION}.source.path": "/tmp/loop-control.json"},
        found=(f"warning ControlPathNotPersistent {CONDITION}.source.path",),
    ),
    Case(
        changes={f"{LOOP}.condition": GONE, f"{LOOP}.state": GONE, f"{VOLUME}.type": "emptyDir"},
        found=(f"note LoopKeepsNothing {LOOP}",),
    ),
]

CONTROL = "iteration.last.control"
CONDITIONS: list[tuple[str, str]] = [
    (f"{CONTROL}.more ==", "error ConditionSyntax"),
    ("true // the end", "error ConditionSyntax"),
    ("true && ", "error ConditionSyntax"),
    ("control.continue == true", "error ConditionUnknownName"),
    (f"step.name == 'x' && {CONTROL}.a", "error ConditionUnknownName"),
    (f"run.parameters.x == 'x' || {CONTROL}.a", "error ConditionUnknownName"),
    (f"iteration.number < 3 || has({CONTROL}.a)", "error ConditionUnknownName"),
    (f"has({CONTROL}.a) && now() > 1", "error ConditionUnknownName"),
    (f"has({CONTROL}.a) && {CONTROL}.a.lowerAscii() == 'a'", "error ConditionUnknownName"),
    (f"has({CONTROL}.a) ? 1 : 2", "error ConditionNotBoolean"),
    (f"has({CONTROL}.a) && iteration.index + 1 < 5", "error ConditionNeedsDoubles"),
    (f"has({CONTROL}.a) && iteration.index % 2 == 0", "error ConditionNeedsDoubles"),
    (f"has({CONTROL}.left) && {CONTROL}.left - 1 > 0", "error ConditionNeedsDoubles"),
    (f"has({CONTROL}.more) && {CONTROL}.more == true && {CONTROL}.left * 2 > 3", "error ConditionNeedsDoubles"),
    (f"has({CONTROL}.a) && iteration.index + 1.0 < 5", ""),
    (f"has({CONTROL}.a) && int(iteration.index) % 2 == 0", ""),
    (f"has({CONTROL}.a) && iteration.index in [1, 2]", ""),
    (f"{CONTROL}.continue == true", "note ConditionUnguarded"),
    (f"iteration.index < iteration.maxIterations && {CONTROL}.continue == true", "note ConditionUnguarded"),
    (f"{CONTROL}['continue'] == true", "note ConditionUnguarded"),
    (f'{CONTROL}.outputs["left"] > 0', "note ConditionUnguarded"),
    (f"'more' in {CONTROL} && {CONTROL}['more'] == true", ""),
    (f"has({CONTROL}.items) && {CONTROL}.items.exists(one, one == 'a')", ""),
    (f"size({CONTROL}) > 0", ""),
    (f"has(iteration.last.control.reason) && {CONTROL}.reason.startsWith('more')", ""),
    ("iteration.index < 3", "warning ConditionIgnoresControl"),
    ("true", "warning ConditionIgnoresControl"),
]

TEXTS = [
    Case(
        changes={"spec.parameters.note": "token {{ env.GH_TOKEN }}"},
        found=("error EnvironmentInParameter spec.parameters.note",),
    ),
    Case(
        changes={f"{STEP}.parameters": {"note": "{{env}}"}},
        found=(f"error EnvironmentInParameter {STEP}.parameters.note",),
    ),
    Case(
        changes={"spec.parameters.note": "see {{ inputs.head }}"},
        found=("warning TemplateInParameter spec.parameters.note",),
    ),
    Case(
        changes={TEXT: "Do {{ what }} for ${{ github.sha }}, {{ head }} and ${HOME}."} | PLAIN,
        profiles=CURRENT,
        found=("error TemplateUnresolved ImplementationSpec/task spec.text",),
    ),
    Case(
        changes={TEXT: "Do {{ }}."} | PLAIN,
        profiles=CURRENT,
        found=("warning TemplateInsertsAll ImplementationSpec/task spec.text",),
    ),
    Case(changes={TEXT: "Do {{ head }} and ${repository} in ${HOME}."} | PLAIN, profiles=CURRENT, found=()),
    Case(
        changes={TEXT: "Do {{ what }}."} | PLAIN,
        profiles=GUIDE,
        found=("warning TemplateLiteral ImplementationSpec/task spec.text",),
    ),
    Case(
        changes={TEXT: "Work on ${head}, keep ${HOME}."} | PLAIN,
        profiles=GUIDE,
        found=("warning TemplateLiteral ImplementationSpec/task spec.text",),
    ),
    Case(changes={TEXT: "Keep ${HOME} and $head."} | PLAIN, profiles=GUIDE, found=()),
    Case(
        changes={"spec.parameters.stage": "", "spec.parameters.codexStage": "plan"},
        profiles=CURRENT,
        found=("warning BlankParameter spec.parameters.stage",),
    ),
    Case(
        changes={"spec.parameters.prompt": "Implement the documents."},
        profiles=GUIDE,
        found=("error PromptOverridesImplementation spec.parameters.prompt",),
    ),
    Case(
        changes={f"{STEP}.parameters": {"prompt": "Implement the documents."}},
        profiles=GUIDE,
        found=(f"error PromptOverridesImplementation {STEP}.parameters.prompt",),
    ),
    Case(
        changes={
            "spec.parameters.prompt": "Implement the documents.",
            "metadata.annotations.run-cycle-loop/prompt-override": "intended",
        },
        profiles=GUIDE,
        found=(),
    ),
    Case(
        changes={
            "spec.parameters.prompt": "Sum up the logs.",
            "spec.implementationSpecRef": GONE,
            "spec.implementation": {"inline": {"text": "Do it."}},
        }
        | PLAIN,
        profiles=GUIDE,
        found=("warning PromptOverridesImplementation spec.parameters.prompt",),
    ),
    Case(
        changes={"spec.parameters.prompt": "x"},
        profiles=CURRENT,
        found=("error FieldValueInvalid spec.parameters.prompt",),
    ),
    Case(
        changes={f"{STEP}.parameters": {"prompt": "x"}},
        profiles=CURRENT,
        found=(f"error FieldValueInvalid {STEP}.parameters.prompt",),
    ),
    Case(
        changes={"spec.implementation": {"inline": {"text": "Do it."}}} | PLAIN,
        found=("warning ImplementationAmbiguous spec.implementation",),
    ),
    Case(
        changes={"spec.implementationSpecRef": GONE, "spec.implementation": {"inline": {"text": " "}}} | PLAIN,
        found=("error PromptEmpty spec.implementation.inline.text",),
    ),
]

BRANCHES = [
    Case(changes={"spec.parameters.head": "main"}, found=("warning HeadIsBase spec.parameters.head",)),
    Case(
        changes={"spec.parameters.head": GONE, "spec.parameters.head_ref": "main"},
        found=("warning HeadIsBase spec.parameters.head_ref",),
    ),
    Case(changes={"spec.parameters.head": "main", "spec.vcsPolicy.mode": "read-only"}, found=()),
    Case(changes={"spec.parameters.head": GONE}, found=("note HeadBranchDefault spec.parameters",)),
    Case(changes={"spec.parameters.head": GONE, f"{STEP}.parameters": {"head": "codex/x"}}, found=()),
    *(
        Case(changes={"spec.parameters.head": name}, found=("error BranchUnsafe spec.parameters.head",))
        for name in ("a..b", "a b", "/a", "a/", "a.lock", "-a", "a@{1}")
    ),
    *(
        Case(
            changes={"spec.parameters.repository": name}, found=("warning RepositoryUnsafe spec.parameters.repository",)
        )
        for name in ("app", "https://github.com/acme/app", "a/b/c")
    ),
]

PROVIDERS = [
    Case(
        changes={CODEX: {"type": "codex-app-server", "codex": {"prompt": "Do this instead."}}},
        profiles=CURRENT,
        found=("warning ProviderPromptOverrides AgentProvider/codex spec.adapter.codex.prompt",),
    ),
    Case(
        changes={CODEX: {"type": "codex-app-server", "codex": {"approval": "on-request"}}},
        found=("error ApprovalRefused AgentProvider/codex spec.adapter.codex.approval",),
    ),
    Case(
        changes={CODEX: {"type": "codex-app-server", "codex": {"baseInstructions": "Be bad."}}},
        found=("error BaseInstructionsConflict spec.agentRef.name",),
    ),
    Case(changes={CODEX: {"type": "exec"}}, found=("note SystemPromptNotEnforced spec.agentRef.name",)),
    Case(
        changes={"Agent spec.defaults.timeoutSeconds": 60, "Agent spec.defaults.retryLimit": 2},
        found=(
            "warning AgentDefaultsIgnored Agent/demo spec.defaults.timeoutSeconds",
            "warning AgentDefaultsIgnored Agent/demo spec.defaults.retryLimit",
        ),
    ),
    Case(
        changes={"Agent spec.env": [{"name": "A", "value": "b"}]},
        found=("note AgentEnvOnlyForTemplates Agent/demo spec.env",),
    ),
]

CASES = [*NAMES, *TIMES, *WORKLOADS, *LOOPS, *TEXTS, *BRANCHES, *PROVIDERS]


@pytest.mark.parametrize(("case", "profile"), [(case, profile) for case in CASES for profile in case.profiles], ids=str)
def test_a_change_and_all_that_is_found(case: Case, profile: Profile) -> None:
    findings = case.validated(profile)

    assert sorted(briefly(findings)) == sorted(case.found)
    assert all(one.message and one.cure and not one.message.endswith(".") for one in findings)


@pytest.mark.parametrize(("expression", "found"), CONDITIONS)
def test_a_condition_is_tried_before_its_loop_begins(expression: str, found: str) -> None:
    case = Case(changes={EXPRESSION: expression}, found=())

    assert briefly(case.validated(Profile.GUIDE)) == ([f"{found} {EXPRESSION}"] if found else [])


def test_the_cure_for_a_dropped_claim_is_the_merged_workload() -> None:
    case = Case(changes={f"{STEP}.workload": {"resources": {"requests": {"cpu": "1"}}}}, found=())

    finding = next(one for one in case.validated(Profile.GUIDE) if one.reason == "StepWorkloadDropsClaim")
    merged = bundle(f"kind: x\n{finding.cure.removeprefix('write it whole: ')}").documents[0].body["workload"]

    assert "\n" not in finding.cure
    assert merged == {
        "volumes": [{"name": "workspace", "type": "pvc", "claimName": "claim", "mountPath": "/workspace"}],
        "resources": {"requests": {"cpu": "1"}},
    }


AGENT, _, REST = GOOD.partition("---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\n")
RUN = f"---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\n{REST}"
OTHER_BRANCH = {"head: codex/run": "head: codex/other"}
OTHER_CLAIM = {"claimName: claim": "claimName: other"}


def another(name: str, changes: dict[str, str]) -> str:
    text = RUN.replace("  name: run\n", f"  name: {name}\n")
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            GOOD + another("second", OTHER_BRANCH | OTHER_CLAIM),
            ["note ClaimNotInBundle spec.workload.volumes[0].claimName"],
        ),
        (GOOD + another("second", OTHER_BRANCH), ["warning ClaimShared spec.workload.volumes"]),
        (
            (GOOD + another("second", {})).replace("[ReadWriteOnce]", "[ReadWriteMany]"),
            ["warning HeadShared spec.parameters.head"],
        ),
        (GOOD + another("run", {}), ["warning ObjectTwice metadata.name"]),
        (
            (GOOD + another("r.n", OTHER_BRANCH) + another("r-n", OTHER_BRANCH)).replace(
                "[ReadWriteOnce]", "[ReadWriteMany]"
            ),
            ["error JobNamesCollide metadata.name", "warning HeadShared spec.parameters.head"],
        ),
        (
            RUN + "---\n" + AGENT,
            [
                "warning RunBeforeItsObjects spec.agentRef.name",
                "warning RunBeforeItsObjects spec.implementationSpecRef.name",
            ],
        ),
        (
            GOOD.replace("{name: demo, namespace: agents}", "{name: demo, namespace: other}"),
            ["error OtherNamespace spec.agentRef.name", "note AgentNotInBundle spec.agentRef.name"],
        ),
    ],
)
def test_what_shows_only_when_objects_are_looked_at_together(text: str, found: list[str]) -> None:
    assert sorted(briefly(validate(bundle(text), profile=Profile.GUIDE, flags=FLAGS))) == found
