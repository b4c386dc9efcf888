"""What an API server refuses: one change of a good bundle, and everything that is found then."""

from typing import Any

import pytest

from run_cycle_loop.agentrun.checks.schema import schema_findings
from run_cycle_loop.agentrun.profiles import Profile
from tests.unit.agentrun.bundles import ALL, CONDITION, GONE, LOOP, STEP, Case, briefly, put
from tests.unit.agentrun.guide_runs import loop_body, single_body

CURRENT, GUIDE = (Profile.CURRENT,), (Profile.GUIDE,)
MANY = {f"key{number}": "x" for number in range(101)}
CLAIM = "PersistentVolumeClaim"

CASES = [
    # Missing, unknown, of the wrong form.
    Case(changes={"spec.agentRef": {}}, found=("error FieldValueRequired spec.agentRef.name",)),
    Case(changes={"spec.runtime": GONE}, found=("error FieldValueRequired spec.runtime",)),
    Case(changes={f"{LOOP}.maxIterations": GONE}, found=(f"error FieldValueRequired {LOOP}.maxIterations",)),
    Case(changes={"spec.timeoutSeconds": 5}, found=("error UnknownField spec.timeoutSeconds",)),
    Case(
        changes={f"{LOOP}.maxIteration": 5},
        found=(f"error UnknownField {LOOP}.maxIteration",),
    ),
    Case(
        changes={"spec.workload.volumes[0].subPath": "a"},
        found=("error UnknownField spec.workload.volumes[0].subPath",),
    ),
    Case(changes={"spec.runtime.config": {"any": {"thing": 1}}}, found=()),
    Case(changes={"metadata.lables": {}}, found=("error UnknownField metadata.lables",)),
    Case(changes={"AgentProvider spec.adapter": {"any": 1}}, found=()),
    Case(
        changes={"spec.runtime.type": "workfow"},
        found=("error FieldValueNotSupported spec.runtime.type",),
    ),
    Case(
        changes={f"{CONDITION}.source.onMissing": "Stop"},
        found=(f"error FieldValueNotSupported {CONDITION}.source.onMissing",),
    ),
    Case(
        changes={f"{CONDITION}.source.onInvalid": "ignore"},
        found=(f"error FieldValueNotSupported {CONDITION}.source.onInvalid",),
    ),
    Case(changes={"spec.parameters.n": 5}, found=("error FieldValueTypeInvalid spec.parameters.n",)),
    Case(changes={"spec.parameters.n": True}, found=("error FieldValueTypeInvalid spec.parameters.n",)),
    Case(changes={"spec.parameters.n": None}, found=("error FieldValueTypeInvalid spec.parameters.n",)),
    Case(
        changes={f"{STEP}.retries": "1"},
        found=(f"error FieldValueTypeInvalid {STEP}.retries", f"note TimedOutJobRunsOn {STEP}.timeoutSeconds"),
    ),
    Case(changes={f"{STEP}.timeoutSeconds": 1.5}, found=(f"error FieldValueTypeInvalid {STEP}.timeoutSeconds",)),
    Case(changes={"spec.secrets": "github-token"}, found=("error FieldValueTypeInvalid spec.secrets",)),
    Case(
        changes={"spec.workload.resources": {"requests": {"cpu": [1]}}},
        found=("error FieldValueTypeInvalid spec.workload.resources.requests.cpu",),
    ),
    Case(changes={f"{LOOP}.maxIterations": 0}, found=(f"error FieldValueInvalid {LOOP}.maxIterations",)),
    Case(changes={f"{STEP}.timeoutSeconds": -1}, found=(f"error FieldValueInvalid {STEP}.timeoutSeconds",)),
    Case(changes={f"{STEP}.timeoutSeconds": 1 << 31}, found=(f"error FieldValueInvalid {STEP}.timeoutSeconds",)),
    Case(changes={"spec.goal": {"objective": ""}}, found=("error FieldValueInvalid spec.goal.objective",)),
    Case(
        changes={"spec.goal": {"objective": "x", "tokenBudget": 0}},
        found=("error FieldValueInvalid spec.goal.tokenBudget",),
    ),
    Case(
        changes={"ImplementationSpec spec.text": "loop-control.json" + "x" * 131073},
        found=("error FieldValueTooLong ImplementationSpec/task spec.text",),
    ),
    Case(
        changes={"ImplementationSpec spec.summary": "x" * 257},
        found=("error FieldValueTooLong ImplementationSpec/task spec.summary",),
    ),
    Case(
        changes={"ImplementationSpec spec.description": "x" * 131073},
        found=("error FieldValueTooLong ImplementationSpec/task spec.description",),
    ),
    Case(
        changes={"ImplementationSpec spec.acceptanceCriteria": ["x"] * 51},
        found=("error FieldValueTooMany ImplementationSpec/task spec.acceptanceCriteria",),
    ),
    Case(
        changes={"spec.parameters": MANY},
        found=(
            "error FieldValueTooMany spec.parameters",
            "error MissingRepository spec.parameters.repository",
        ),
    ),
    Case(changes={f"{STEP}.parameters": MANY}, found=(f"error FieldValueTooMany {STEP}.parameters",)),
    Case(
        changes={
            "AgentProvider spec.workload": {
                "serviceAccountToken": {"audience": "a", "expirationSeconds": 5000, "mountPath": "x"}
            }
        },
        found=(
            "error FieldValueInvalid AgentProvider/codex spec.workload.serviceAccountToken.expirationSeconds",
            "error FieldValueInvalid AgentProvider/codex spec.workload.serviceAccountToken.mountPath",
        ),
    ),
    # The definition's own rules.
    Case(changes={"spec.implementationSpecRef": GONE}, found=("error FieldValueInvalid spec.implementationSpecRef",)),
    Case(
        changes={
            "spec.systemPrompt": "x",
            "spec.systemPromptRef": {"kind": "ConfigMap", "name": "prompts", "key": "system-prompt.md"},
        },
        profiles=GUIDE,
        found=("error FieldValueInvalid spec.systemPromptRef",),
    ),
    Case(
        changes={"spec.systemPromptRef": {"kind": "ConfigMap", "name": "prompts", "key": "system-prompt.md"}},
        profiles=CURRENT,
        found=("error FieldValueInvalid spec.systemPromptRef",),
    ),
    Case(
        changes={"Agent spec.defaults.systemPrompt": "x"},
        found=("error FieldValueInvalid Agent/demo spec.defaults.systemPromptRef",),
    ),
    # Kinds, names, labels.
    Case(
        changes={"VersionControlProvider kind": "VersionControlProvide"},
        found=(
            "error NoKindMatch VersionControlProvide/github kind",
            "note VcsProviderNotInBundle spec.vcsRef.name",
        ),
    ),
    Case(
        changes={"VersionControlProvider apiVersion": "agents.proompteng.ai/v1"},
        found=("error NoKindMatch VersionControlProvider/github apiVersion",),
    ),
    Case(
        changes={"VersionControlProvider kind": GONE},
        found=("error FieldValueRequired object/github kind", "note VcsProviderNotInBundle spec.vcsRef.name"),
    ),
    Case(changes={"metadata.name": GONE}, found=("error FieldValueRequired metadata.name",)),
    Case(changes={"metadata.name": "Run_1"}, found=("error FieldValueInvalid metadata.name",)),
    Case(changes={"metadata.name": 5}, found=("error FieldValueTypeInvalid metadata.name",)),
    Case(changes={"metadata.name": GONE, "metadata.generateName": "run-"}, found=()),
    Case(changes={"metadata.namespace": "a.b"}, found=("error FieldValueInvalid metadata.namespace",)),
    Case(changes={"metadata.labels": {"team": "-"}}, found=("error FieldValueInvalid metadata.labels.team",)),
    Case(changes={"metadata.labels": {"a/b/c": "x"}}, found=('error FieldValueInvalid metadata.labels["a/b/c"]',)),
    Case(changes={"metadata.labels": {"team": 5}}, found=("error FieldValueTypeInvalid metadata.labels.team",)),
    Case(changes={"metadata.labels": []}, found=("error FieldValueTypeInvalid metadata.labels",)),
    Case(
        changes={"metadata.annotations.big": "x" * (256 << 10)}, found=("error FieldValueTooLong metadata.annotations",)
    ),
    # Core kinds.
    Case(
        changes={f"{CLAIM} spec.accessModes": GONE}, found=(f"error FieldValueRequired {CLAIM}/claim spec.accessModes",)
    ),
    Case(
        changes={f"{CLAIM} spec.accessModes": ["RWO"]},
        found=(f"error FieldValueNotSupported {CLAIM}/claim spec.accessModes[0]",),
    ),
    Case(
        changes={f"{CLAIM} spec.resources": GONE},
        found=(f"error FieldValueRequired {CLAIM}/claim spec.resources.requests.storage",),
    ),
    Case(
        changes={f"{CLAIM} spec.resources.requests.storage": "1GB"},
        found=(f"error FieldValueInvalid {CLAIM}/claim spec.resources.requests.storage",),
    ),
    Case(changes={"ConfigMap data.count": 5}, found=("error FieldValueTypeInvalid ConfigMap/prompts data.count",)),
    Case(changes={"ConfigMap stringData": {"a": "b"}}, found=("error UnknownField ConfigMap/prompts stringData",)),
    Case(
        changes={"Secret data": {"token": "not base64!"}},
        found=("error FieldValueInvalid Secret/github-token data.token",),
    ),
    Case(changes={"Secret data": {"token": "c2VjcmV0"}}, found=()),
    Case(changes={"Secret data": []}, found=("error FieldValueTypeInvalid Secret/github-token data",)),
    Case(
        changes={"ConfigMap kind": "Deployment", "ConfigMap apiVersion": "apps/v1"},
        found=(
            "note SystemPromptNotInBundle spec.agentRef.name",
            "note UnknownKind Deployment/prompts kind",
        ),
    ),
]


@pytest.mark.parametrize(("case", "profile"), [(case, profile) for case in CASES for profile in case.profiles], ids=str)
def test_a_change_and_all_that_is_found(case: Case, profile: Profile) -> None:
    findings = case.validated(profile)

    assert sorted(briefly(findings)) == sorted(case.found)
    assert all(one.message and one.cure and not one.message.endswith(".") for one in findings)


@pytest.mark.parametrize(
    ("path", "value", "cure"),
    [
        ("spec.implementationSpecref", {"name": "a"}, "remove it; did you mean implementationSpecRef?"),
        ("spec.timeoutSeconds", 5, "remove it; timeoutSeconds belongs into spec.workflow.steps[]"),
        (f"{LOOP}.maxiterations", 5, "remove it; did you mean maxIterations?"),
        ("spec.nothing", 5, "remove it"),
        ("spec.runtime.type", "jobs", "write one of workflow, job, temporal, custom; did you mean job?"),
        ("spec.parameters.n", 5, 'put what you wrote into quotes: "5"'),
    ],
)
def test_the_cure_names_what_may_have_been_meant(path: str, value: Any, cure: str) -> None:
    body = loop_body()
    put(body, path, value)

    assert cure in [one.cure for one in schema_findings(body, Profile.GUIDE) if one.path == path]


@pytest.mark.parametrize("profile", ALL)
@pytest.mark.parametrize("body", [loop_body(), single_body()])
def test_the_guides_runs_are_admitted(body: dict[str, Any], profile: Profile) -> None:
    assert schema_findings(body, profile) == ()


def test_a_status_is_not_looked_at_for_no_server_takes_it() -> None:
    assert schema_findings({**loop_body(), "status": {"phase": 5, "unknown": []}}, Profile.CURRENT) == ()


@pytest.mark.parametrize("spec", [None, 5, [], "x"])
def test_a_spec_of_another_form_is_one_finding(spec: Any) -> None:
    body = {**loop_body(), "spec": spec}

    assert [(one.reason, one.path) for one in schema_findings(body, Profile.CURRENT)] == [
        ("FieldValueTypeInvalid", "spec")
    ]


def test_a_thousand_faults_are_not_all_told() -> None:
    body = loop_body(parameters={f"key{number}": number for number in range(1000)})

    assert len(schema_findings(body, Profile.CURRENT)) == 50
