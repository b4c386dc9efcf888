"""The Job and the ConfigMaps of an attempt: the guides' whole, and each setting that changes them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from run_cycle_loop.agentrun.flags import UNKNOWN
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.jobs import (
    AttemptObjects,
    attempt_objects,
    effective_image,
    job_ttl,
    launch_refusals,
    service_account,
)
from run_cycle_loop.agentrun.rendering.payloads import payloads
from run_cycle_loop.agentrun.resources import Object
from tests.unit.agentrun.guide_runs import (
    CANARY,
    FLAGS,
    SYSTEM_HASH,
    agent,
    around,
    body_of,
    implementation,
    loop_body,
    loop_run,
    made,
    provider,
    vcs_provider,
)

GUIDE, CURRENT = Profile.GUIDE, Profile.CURRENT
BOTH = list(Profile)
RUN = "torghut-priority-loop5"


def _made(
    *objects: Object,
    profile: Profile = CURRENT,
    attempt: int = 1,
    flags: Mapping[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    **changes: Any,
) -> AttemptObjects:
    run = read_run(body or loop_body(**changes))
    step = run.steps[0] if run.runtime == "workflow" else None
    return attempt_objects(
        run,
        step,
        iteration=step.iteration(2) if step else None,
        attempt=attempt,
        resources=around(*objects),
        profile=profile,
        flags=replace(FLAGS, **(flags or {})),
    )


def _pod(*objects: Object, **options: Any) -> dict[str, Any]:
    pod: dict[str, Any] = _made(*objects, **options).job["spec"]["template"]["spec"]
    return pod


def _container(*objects: Object, **options: Any) -> dict[str, Any]:
    container: dict[str, Any] = _pod(*objects, **options)["containers"][0]
    return container


def _env(*objects: Object, **options: Any) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in _container(*objects, **options)["env"]}


def _with_workload(**workload: Any) -> dict[str, Any]:
    steps = [{**loop_body()["spec"]["workflow"]["steps"][0], "workload": workload}]
    return {"workflow": {"steps": steps}}


LABELS = {
    "agents.proompteng.ai/agent-run": RUN,
    "agents.proompteng.ai/agent": "codex-spark-agent",
    "agents.proompteng.ai/provider": "codex",
    "agents.proompteng.ai/implementation": "torghut-v5-uncertainty-gates-priority",
    "agents.proompteng.ai/step": "implement",
    "agents.proompteng.ai/step-index": "1",
    "agents.proompteng.ai/step-iteration": "2",
}


@pytest.mark.parametrize("profile", BOTH)
def test_the_launch_guides_second_iteration_whole(profile: Profile) -> None:
    suffix = "step-1-iter-2-attempt-1"
    spec = f"{RUN}-spec-{suffix}"
    token = {"secretKeyRef": {"name": "github-token", "key": "token"}}
    home = [{"name": "CODEX_HOME", "value": "/root/.codex"}] if profile is CURRENT else []
    message = {"terminationMessagePath": "/workspace/.agent/status.json", "terminationMessagePolicy": "File"}
    expected = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{RUN}-{suffix}", "namespace": "agents", "labels": LABELS},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {
                    "serviceAccountName": "default",
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "agent-runner",
                            "image": "registry.test/runner:1",
                            "command": ["/usr/local/bin/agent-runner"],
                            "args": [],
                            "env": [
                                {"name": "AGENT_RUN_SPEC", "value": "/workspace/run.json"},
                                {"name": "AGENT_RUNNER_SPEC_PATH", "value": "/workspace/agent-runner.json"},
                                *home,
                                {"name": "AGENT_PROVIDER", "value": "codex"},
                                {"name": "VCS_TOKEN", "valueFrom": token},
                                {"name": "GITHUB_TOKEN", "valueFrom": token},
                                {"name": "GH_TOKEN", "valueFrom": token},
                                {"name": "VCS_PROVIDER", "value": "github"},
                                {"name": "VCS_PROVIDER_NAME", "value": "github"},
                                {"name": "VCS_API_BASE_URL", "value": "https://api.github.com"},
                                {"name": "VCS_REPOSITORY", "value": "proompteng/lab"},
                                {"name": "VCS_BASE_BRANCH", "value": "main"},
                                {
                                    "name": "VCS_HEAD_BRANCH",
                                    "value": "codex/torghut-v5-uncertainty-gates-loop5-20260301",
                                },
                                {"name": "VCS_USERNAME", "value": "x-access-token"},
                                {"name": "GIT_ASKPASS_USERNAME", "value": "x-access-token"},
                                {"name": "VCS_PR_DRAFT", "value": "false"},
                                {"name": "VCS_WRITE_ENABLED", "value": "true"},
                                {"name": "VCS_PULL_REQUESTS_ENABLED", "value": "true"},
                                {"name": "VCS_MODE", "value": "read-write"},
                                {"name": "CODEX_SYSTEM_PROMPT_PATH", "value": "/workspace/.codex/system-prompt.txt"},
                                {"name": "CODEX_SYSTEM_PROMPT_EXPECTED_HASH", "value": SYSTEM_HASH},
                                {"name": "CODEX_SYSTEM_PROMPT_REQUIRED", "value": "true"},
                            ],
                            "envFrom": [{"secretRef": {"name": "github-token"}}, {"secretRef": {"name": "codex-auth"}}],
                            "resources": {"requests": {"cpu": "500m", "memory": "1024Mi"}},
                            "volumeMounts": [
                                {"name": "workspace", "mountPath": "/workspace", "readOnly": False},
                                {"name": f"{spec}-vol", "mountPath": "/workspace/run.json", "subPath": "run.json"},
                                {
                                    "name": f"{spec}-vol",
                                    "mountPath": "/workspace/agent-runner.json",
                                    "subPath": "agent-runner.json",
                                },
                                {
                                    "name": f"{RUN}-system-prompt-{suffix}",
                                    "mountPath": "/workspace/.codex",
                                    "readOnly": True,
                                },
                            ],
                            **(message if profile is CURRENT else {}),
                        }
                    ],
                    "volumes": [
                        {
                            "name": "workspace",
                            "persistentVolumeClaim": {"claimName": "torghut-loop-workspace", "readOnly": False},
                        },
                        {"name": f"{spec}-vol", "configMap": {"name": spec}},
                        {
                            "name": f"{RUN}-system-prompt-{suffix}",
                            "configMap": {
                                "name": "codex-agent-system-prompt",
                                "items": [{"key": "system-prompt.md", "path": "system-prompt.txt"}],
                            },
                        },
                    ],
                },
            },
        },
    }
    found = _made(profile=profile)
    assert found.job == expected
    assert [one["metadata"] for one in found.config_maps] == [{"name": spec, "namespace": "agents", "labels": LABELS}]
    run = loop_run()
    paid = payloads(run, run.steps[0], around(), profile, FLAGS)
    assert {key: json.loads(text) for key, text in found.config_maps[0]["data"].items()} == {
        "run.json": paid.run,
        "agent-runner.json": paid.agent_runner,
    }
    assert CANARY not in str(found)


def test_the_same_attempt_is_the_same_to_the_letter() -> None:
    assert json.dumps(_made().job) == json.dumps(_made().job)


def test_a_run_with_a_uid_owns_what_is_made_for_it() -> None:
    body = loop_body()
    body["metadata"]["uid"] = "u-1"
    owner = {"apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun", "name": RUN, "uid": "u-1"}
    found = _made(provider(inputFiles=[{"path": "/in/a", "content": "A"}]), body=body)
    assert len(found.config_maps) == 2
    for one in (found.job, *found.config_maps):
        assert one["metadata"]["ownerReferences"] == [owner]


@pytest.mark.parametrize("profile", BOTH)
def test_the_runtime_job_has_names_without_numbers_and_no_labels_of_steps(profile: Profile) -> None:
    found = _made(provider(inputFiles=[{"path": "/in/a", "content": "A"}]), runtime={"type": "job"}, profile=profile)
    assert found.job["metadata"]["name"] == f"{RUN}-job"
    assert [one["metadata"]["name"] for one in found.config_maps] == [f"{RUN}-inputs", f"{RUN}-spec"]
    assert found.job["metadata"]["labels"] == {key: LABELS[key] for key in list(LABELS)[:4]}
    mounts = {one["mountPath"]: one["name"] for one in _container(runtime={"type": "job"})["volumeMounts"]}
    assert mounts["/workspace/.codex"] == f"{RUN}-system-prompt"


def test_a_plain_step_has_no_iteration_in_names_and_labels() -> None:
    found = _made(workflow={"steps": [{"name": "Plan it!"}]}, attempt=3)
    assert found.job["metadata"]["name"] == f"{RUN}-step-1-attempt-3"
    labels = found.job["metadata"]["labels"]
    assert labels["agents.proompteng.ai/step"] == "plan-it"
    assert "agents.proompteng.ai/step-iteration" not in labels


def test_long_names_are_hashed_each_by_itself() -> None:
    body = loop_body()
    body["metadata"]["name"] = "a" * 60
    found = _made(body=body)
    made_names = [found.job["metadata"]["name"], *(one["metadata"]["name"] for one in found.config_maps)]
    pod = found.job["spec"]["template"]["spec"]
    made_names += [one["name"] for one in pod["volumes"]]
    assert all(len(name) <= 63 for name in made_names)
    assert len(set(made_names)) == len(made_names)
    assert found.job["metadata"]["labels"]["agents.proompteng.ai/agent-run"] == "a" * 60


def test_labels_say_what_is_known_and_the_runs_name_as_it_is() -> None:
    labels = _made(implementation={"inline": {"text": "x"}}, implementationSpecRef=None).job["metadata"]["labels"]
    assert "agents.proompteng.ai/implementation" not in labels


def test_the_order_of_the_variables() -> None:
    provided = provider(
        envTemplate={"OWN": "{{ parameters.stage }}/{{ vcs.mode }}", "CODEX_SYSTEM_PROMPT_REQUIRED": "false"},
        secretEnv=[{"name": "KEY", "secretName": "s", "key": "k", "optional": True}, {"name": "half"}],
    )
    found = _container(provided, flags={"auth_secret_name": "login", "auth_secret_mount_path": "/root/.codex/"})["env"]
    names = [one["name"] for one in found]
    assert names[:8] == [
        "AGENT_RUN_SPEC",
        "AGENT_RUNNER_SPEC_PATH",
        "CODEX_HOME",
        "CODEX_AUTH",
        "OWN",
        "CODEX_SYSTEM_PROMPT_REQUIRED",
        "KEY",
        "AGENT_PROVIDER",
    ]
    assert names[-3:] == [
        "CODEX_SYSTEM_PROMPT_PATH",
        "CODEX_SYSTEM_PROMPT_EXPECTED_HASH",
        "CODEX_SYSTEM_PROMPT_REQUIRED",
    ]
    assert found[3]["value"] == "/root/.codex/auth.json"
    assert found[4]["value"] == "implement/read-write"
    assert found[6]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}
    assert found[-1]["value"] == "true"


def test_parameters_are_no_variables() -> None:
    assert not {"artifactPath", "repository", "stage"} & set(_env())


@pytest.mark.parametrize(
    ("defaults", "names"),
    [
        ({"systemPrompt": "inline"}, ["CODEX_SYSTEM_PROMPT_EXPECTED_HASH", "CODEX_SYSTEM_PROMPT_REQUIRED"]),
        ({}, []),
        ({"systemPromptRef": {"kind": "ConfigMap", "name": "gone", "key": "k"}}, []),
    ],
)
def test_what_a_pod_is_told_of_other_system_prompts(defaults: dict[str, Any], names: list[str]) -> None:
    pod = _pod(agent(defaults=defaults))
    env = [one["name"] for one in pod["containers"][0]["env"]]
    assert [name for name in env if name.startswith("CODEX_SYSTEM")] == names
    assert all(one["mountPath"] != "/workspace/.codex" for one in pod["containers"][0]["volumeMounts"])


def test_a_system_prompt_in_a_secret_is_mounted_from_there() -> None:
    reference = {"kind": "Secret", "name": "hidden", "key": "k"}
    hidden = made("Secret", "hidden", stringData={"k": "secret words"})
    found = _made(agent(defaults={"systemPromptRef": reference}), hidden, secrets=["hidden"])
    volumes = found.job["spec"]["template"]["spec"]["volumes"]
    assert volumes[-1]["secret"] == {"secretName": "hidden", "items": [{"key": "k", "path": "system-prompt.txt"}]}
    assert "secret words" not in str(found)


def test_command_and_arguments_come_from_the_provider() -> None:
    found = _container(provider(binary="/bin/sh", argsTemplate=["-c", "echo {{ agentRun.name }} ${HOME}", 7]))
    assert found["command"] == ["/bin/sh"]
    assert found["args"] == ["-c", f"echo {RUN} ${{HOME}}", "7"]
    assert _container(made("AgentProvider", "codex", {}))["command"] == ["/usr/local/bin/agent-runner"]


def test_input_files_are_mounted_one_by_one() -> None:
    files = [{"path": "/in/a", "content": "{{ x }}"}, {"path": "", "content": "B"}, {"path": "/in/c", "content": "C"}]
    found = _made(provider(inputFiles=files))
    assert found.config_maps[0]["data"] == {"input-0": "{{ x }}", "input-1": "C"}
    mounts = found.job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert [(one["mountPath"], one["subPath"]) for one in mounts if "subPath" in one][:2] == [
        ("/in/a", "input-0"),
        ("/in/c", "input-1"),
    ]
    volumes = [one["name"] for one in found.job["spec"]["template"]["spec"]["volumes"]]
    assert len(volumes) == len(set(volumes))


@pytest.mark.parametrize(
    ("volume", "spec"),
    [
        (
            {"type": "emptyDir", "medium": "Memory", "sizeLimit": "1Gi"},
            {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ),
        ({"type": "emptyDir"}, {"emptyDir": {}}),
        (
            {"type": "pvc", "claimName": "c", "readOnly": True},
            {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
        ),
        ({"type": "secret", "secretName": "s"}, {"secret": {"secretName": "s"}}),
        ({"type": "pvc"}, None),
        ({"type": "secret"}, None),
    ],
)
def test_volumes_of_the_workload(volume: dict[str, Any], spec: dict[str, Any] | None) -> None:
    """One without its claim or Secret is mounted and not declared, as the controller does it: the Job is refused."""
    pod = _pod(workload={"volumes": [{"name": "v", "mountPath": "/v", **volume}]})
    assert pod["containers"][0]["volumeMounts"][0] == {
        "name": "v",
        "mountPath": "/v",
        "readOnly": volume.get("readOnly", False),
    }
    declared = {one["name"]: one for one in pod["volumes"]}
    assert declared.get("v") == (None if spec is None else {"name": "v", **spec})


def test_a_steps_own_workload_drops_the_runs_volumes_image_and_resources() -> None:
    run_workload = {"image": "run:1", "volumes": loop_body()["spec"]["workload"]["volumes"]}
    pod = _pod(workload=run_workload, **_with_workload(resources={"limits": {"cpu": "2"}}))
    assert all("persistentVolumeClaim" not in one for one in pod["volumes"])
    assert pod["containers"][0]["image"] == "registry.test/runner:1"
    assert pod["containers"][0]["resources"] == {"limits": {"cpu": "2"}}


def test_the_login_of_the_controller_is_mounted_over_a_home_of_its_own() -> None:
    pod = _pod(flags={"auth_secret_name": "login", "auth_secret_key": "a.json"})
    mounts = {one["mountPath"]: one for one in pod["containers"][0]["volumeMounts"]}
    assert mounts["/root/.codex/a.json"] == {
        "name": f"{RUN}-auth-secret-step-1-iter-2-attempt-1",
        "mountPath": "/root/.codex/a.json",
        "subPath": "a.json",
        "readOnly": True,
    }
    assert mounts["/root/.codex"] == {"name": f"{RUN}-auth-home-step-1-iter-2-attempt-1", "mountPath": "/root/.codex"}
    home = {"volumes": [{"name": "home", "type": "emptyDir", "mountPath": "/root/.codex"}]}
    pod = _pod(flags={"auth_secret_name": "login"}, workload=home)
    assert [one["name"] for one in pod["containers"][0]["volumeMounts"] if one["mountPath"] == "/root/.codex"] == [
        "home"
    ]


@pytest.mark.parametrize(("profile", "given"), [(CURRENT, True), (GUIDE, False)])
def test_a_providers_token_is_projected_by_current_controllers(profile: Profile, given: bool) -> None:
    token = {"audience": "mcp", "expirationSeconds": 900, "mountPath": "/var/run/identity/"}
    pod = _pod(provider(workload={"serviceAccountToken": token}), profile=profile)
    env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert env.get("AGENTS_MCP_IDENTITY_TOKEN_PATH") == ("/var/run/identity/token" if given else None)
    assert pod.get("automountServiceAccountToken") == (False if given else None)
    projected = [one["projected"] for one in pod["volumes"] if "projected" in one]
    source = {"audience": "mcp", "expirationSeconds": 900, "path": "token"}
    assert projected == ([{"defaultMode": 420, "sources": [{"serviceAccountToken": source}]}] if given else [])


@pytest.mark.parametrize("seconds", [0, 599, 3601])
def test_a_token_that_lives_too_short_or_too_long_is_none(seconds: int) -> None:
    token = {"audience": "mcp", "expirationSeconds": seconds, "mountPath": "/t"}
    assert "automountServiceAccountToken" not in _pod(provider(workload={"serviceAccountToken": token}))


def test_resources_are_laid_over_each_other_quantity_by_quantity() -> None:
    def requests(**quantities: Any) -> dict[str, Any]:
        return {"requests": quantities}

    found = _container(
        provider(workload={"resources": requests(b="provider", c="provider", d="provider")}),
        flags={"runner_resources": requests(a="env", b="env", c="env", d="env")},
        runtime={"type": "workflow", "config": {"resources": requests(c="config", d="config")}},
        workload={"resources": requests(d="workload", e=1, f=" ")},
    )
    assert found["resources"] == requests(a="env", b="provider", c="config", d="workload")


@pytest.mark.parametrize(
    ("config", "flags", "expected"),
    [
        ({"nodeSelector": {"a": "b"}}, {"runner_node_selector": {"x": "y"}}, {"nodeSelector": {"a": "b"}}),
        ({}, {"runner_node_selector": {"x": "y"}}, {"nodeSelector": {"x": "y"}}),
        ({"tolerations": [{"key": "a"}]}, {}, {"tolerations": [{"key": "a"}]}),
        ({}, {"runner_tolerations": ({"key": "b"},)}, {"tolerations": [{"key": "b"}]}),
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, {}, {"topologySpreadConstraints": [{"maxSkew": 1}]}),
        ({"affinity": {"nodeAffinity": {}}}, {}, {"affinity": {"nodeAffinity": {}}}),
        ({"podSecurityContext": {"runAsUser": 7}}, {}, {"securityContext": {"runAsUser": 7}}),
        ({"priorityClassName": "p", "schedulerName": "s"}, {}, {"priorityClassName": "p", "schedulerName": "s"}),
        ({"imagePullSecrets": ["a", {"name": "b"}, " ", {}]}, {}, {"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}),
        ({"imagePullSecrets": [" "]}, {}, {}),
    ],
)
def test_what_runtime_config_says_of_the_pod(
    config: dict[str, Any], flags: dict[str, Any], expected: dict[str, Any]
) -> None:
    pod = _pod(runtime={"type": "workflow", "config": config}, flags=flags)
    usual = {"serviceAccountName", "restartPolicy", "containers", "volumes"}
    assert {key: value for key, value in pod.items() if key not in usual} == expected


@pytest.mark.parametrize(("own", "flag", "limit"), [(None, 0, 0), (None, 3, 3), (2.7, 3, 2), ("4", 0, 4), (-1, 3, 0)])
def test_the_backoff_limit(own: Any, flag: int, limit: int) -> None:
    config = {} if own is None else {"backoffLimit": own}
    found = _made(runtime={"type": "workflow", "config": config}, flags={"runner_backoff_limit": flag})
    assert found.job["spec"]["backoffLimit"] == limit
    assert "activeDeadlineSeconds" not in found.job["spec"]
    assert "ttlSecondsAfterFinished" not in found.job["spec"]


@pytest.mark.parametrize(
    ("own", "flag", "seconds"), [(None, 600, 600), (0, 600, None), (10, 600, 30), (10**9, 600, 604800), ("90", 600, 90)]
)
def test_how_long_a_job_is_kept(own: Any, flag: int, seconds: int | None) -> None:
    config = {} if own is None else {"ttlSecondsAfterFinished": own}
    run = loop_run(runtime={"type": "workflow", "config": config})
    assert job_ttl(run, replace(FLAGS, job_ttl=flag)) == seconds


@pytest.mark.parametrize(
    ("config", "of_provider", "flag", "guide", "current"),
    [
        ({"serviceAccount": "a", "serviceAccountName": "b"}, "p", "e", "a", "a"),
        ({"serviceAccountName": "b"}, "p", "e", "b", "b"),
        ({}, "p", "e", "e", "p"),
        ({}, "", "e", "e", "e"),
        ({}, "", "", "default", "default"),
    ],
)
def test_the_service_account(config: dict[str, str], of_provider: str, flag: str, guide: str, current: str) -> None:
    resources = around(provider(workload={"serviceAccountName": of_provider}))
    flags = replace(FLAGS, runner_service_account=flag)
    run = loop_run(runtime={"type": "workflow", "config": config})
    assert service_account(run, resources, GUIDE, flags)[0] == guide
    assert service_account(run, resources, CURRENT, flags)[0] == current
    assert (
        _pod(
            provider(workload={"serviceAccountName": of_provider}),
            flags={"runner_service_account": flag},
            runtime={"type": "workflow", "config": config},
        )["serviceAccountName"]
        == current
    )


@pytest.mark.parametrize(
    ("step", "run", "of_provider", "guide", "current"),
    [
        ({"image": "s"}, {"image": "r"}, "p", ("s", "steps[0].workload.image"), ("s", "steps[0].workload.image")),
        (None, {"image": "r"}, "p", ("r", "spec.workload.image"), ("r", "spec.workload.image")),
        (
            {},
            {"image": "r"},
            "",
            ("registry.test/runner:1", "THE_VARIABLE"),
            ("registry.test/runner:1", "THE_VARIABLE"),
        ),
        (None, {}, "p", ("registry.test/runner:1", "THE_VARIABLE"), ("p", "AgentProvider/codex spec.workload.image")),
    ],
)
def test_the_image_and_what_names_it(
    step: dict[str, str] | None,
    run: dict[str, str],
    of_provider: str,
    guide: tuple[str, str],
    current: tuple[str, str],
) -> None:
    own = {} if step is None else _with_workload(**step)
    found = loop_run(workload=run, **own)
    resources = around(provider(workload={"image": of_provider}))
    for profile, (image, source) in ((GUIDE, guide), (CURRENT, current)):
        named = effective_image(found, found.steps[0], resources, profile, FLAGS)
        assert named[0] == image
        assert named[1].endswith(source)
    assert effective_image(loop_run(), loop_run().steps[0], around(), CURRENT, UNKNOWN) == ("", "")


# What cannot be launched.


def _refused(*objects: Object, complete: bool = True, flags: Mapping[str, Any] | None = None, **changes: Any) -> Any:
    run = loop_run(**changes)
    resources = around(*objects, complete=complete)
    return launch_refusals(run, resources, CURRENT, replace(FLAGS, **(flags or {})))


@pytest.mark.parametrize("profile", BOTH)
def test_the_guides_loop_can_be_launched(profile: Profile) -> None:
    assert launch_refusals(loop_run(), around(), profile, FLAGS) == {}


@pytest.mark.parametrize(
    ("changes", "objects", "reason", "condition"),
    [
        ({"implementationSpecRef": {"name": "gone"}}, (), "MissingImplementation", "Failed"),
        ({"implementationSpecRef": {}}, (), "MissingImplementation", "Failed"),
        (
            {},
            (agent(security={"allowedImplementationSourceProviders": ["Linear"]}),),
            "ImplementationSourceProviderNotAllowed",
            "Failed",
        ),
        ({"flags": {"runner_image": ""}}, (), "MissingWorkloadImage", "Failed"),
        ({}, (implementation(contract={"requiredKeys": ["owner"]}),), "MissingRequiredMetadata", "InvalidSpec"),
        ({}, (implementation(contract={"requiredKeys": [""]}),), "InvalidContract", "InvalidSpec"),
        ({}, (vcs_provider(repositoryPolicy={"deny": ["*"]}),), "VcsPolicyDenied", "Failed"),
    ],
)
def test_what_cannot_be_launched(
    changes: dict[str, Any], objects: tuple[Object, ...], reason: str, condition: str
) -> None:
    refusal = _refused(*objects, **changes)[1]
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.condition) == (reason, condition)
    assert refusal.message.startswith("workflow step implement: ")


@pytest.mark.parametrize("source", ["linear", "LINEAR"])
def test_an_allowed_source_is_compared_without_regard_to_case(source: str) -> None:
    allowed = agent(security={"allowedImplementationSourceProviders": ["Linear"]})
    assert _refused(allowed, implementation(source={"provider": source})) == {}


def test_what_is_not_known_is_not_refused() -> None:
    gone = {"implementationSpecRef": {"name": "gone"}, "vcsRef": {"name": "gone"}}
    assert _refused(complete=False, **gone) == {}
    assert _refused(flags={"runner_image": "", "known": False}) == {}


def test_each_step_is_asked_by_itself_and_a_run_without_steps_counts_as_0() -> None:
    steps = [{"name": "a"}, {"name": "b", "implementationSpecRef": {"name": "gone"}}]
    assert list(_refused(workflow={"steps": steps})) == [2]
    refusal = _refused(implementationSpecRef={"name": "gone"}, runtime={"type": "job"})[0]
    assert refusal.message == "ImplementationSpec gone not found"


def test_a_manifest_of_nothing_makes_objects_all_the_same() -> None:
    run = read_run(body_of("x", {"runtime": {"type": "workflow"}, "workflow": {"steps": [{}]}}))
    found = attempt_objects(
        run, run.steps[0], iteration=None, attempt=1, resources=around(), profile=GUIDE, flags=UNKNOWN
    )
    assert found.job["metadata"]["labels"]["agents.proompteng.ai/step"] == "unknown"
    assert found.job["spec"]["template"]["spec"]["containers"][0]["image"] == ""
