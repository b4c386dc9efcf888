"""``run.json`` and ``agent-runner.json`` of the guides' runs, whole, and what changes in them."""

from dataclasses import replace
from typing import Any

import pytest

from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.payloads import Payloads, payloads
from run_cycle_loop.agentrun.resources import Object
from tests.unit.agentrun.guide_runs import (
    CANARY,
    FILLED,
    FLAGS,
    SYSTEM_HASH,
    TASK,
    agent,
    around,
    loop_body,
    made,
    provider,
    single_body,
    vcs_provider,
)

GUIDE, CURRENT = Profile.GUIDE, Profile.CURRENT
BOTH = list(Profile)


def _paid(*objects: Object, profile: Profile = CURRENT, body: dict[str, Any] | None = None, **changes: Any) -> Payloads:
    run = read_run(body or loop_body(**changes))
    return payloads(run, run.steps[0] if run.runtime == "workflow" else None, around(*objects), profile, FLAGS)


def _loop_run_json(prompt: str) -> dict[str, Any]:
    head = "codex/torghut-v5-uncertainty-gates-loop5-20260301"
    parameters = {
        "repository": "proompteng/lab",
        "base": "main",
        "head": head,
        "artifactPath": "/workspace/.agentrun/torghut-v5-02",
        "stage": "implement",
    }
    return {
        "provider": "codex",
        "agentRun": {"name": "torghut-priority-loop5", "uid": "", "namespace": "agents"},
        "implementation": {"text": TASK},
        "parameters": parameters,
        "memory": None,
        "artifacts": [],
        "vcs": {
            "provider": "github",
            "providerName": "github",
            "repository": "proompteng/lab",
            "baseBranch": "main",
            "headBranch": head,
            "mode": "read-write",
            "writeEnabled": True,
            "pullRequestsEnabled": True,
            "apiBaseUrl": "https://api.github.com",
            "cloneBaseUrl": None,
            "webBaseUrl": None,
            "cloneProtocol": None,
            "sshHost": None,
            "sshUser": None,
            "defaults": {
                "baseBranch": None,
                "branchTemplate": None,
                "branchConflictSuffixTemplate": None,
                "commitAuthorName": None,
                "commitAuthorEmail": None,
                "pullRequest": {"enabled": True, "draft": False, "titleTemplate": None, "bodyTemplate": None},
            },
        },
        "prompt": prompt,
        "repository": "proompteng/lab",
        "issueBody": prompt,
        "base": "main",
        "head": head,
        "stage": "implement",
        "metadata": {"map": parameters | {"issueBody": prompt, "prompt": prompt}},
    }


def _loop_agent_runner(prompt: dict[str, str]) -> dict[str, Any]:
    return {
        "schemaVersion": "agents.proompteng.ai/runner/v1",
        "provider": "codex",
        "inputs": _loop_run_json("")["parameters"],
        "payloads": {"eventFilePath": "/workspace/run.json"},
        "artifacts": {
            "statusPath": "/workspace/.agent/status.json",
            "logPath": "/workspace/.agent/runner.log",
            "logRetentionSeconds": 604800,
        },
        "adapter": {
            "type": "codex-app-server",
            "codex": {
                "model": "gpt-5.6-sol",
                "effort": "high",
                "sandbox": "danger-full-access",
                "approval": "never",
                "threadConfig": {"mcp_servers": {}, "web_search": "live"},
                **prompt,
                "systemPromptPath": "/workspace/.codex/system-prompt.txt",
                "systemPromptExpectedHash": SYSTEM_HASH,
            },
        },
    }


@pytest.mark.parametrize(("profile", "prompt", "in_runner"), [(GUIDE, TASK, {}), (CURRENT, FILLED, {"prompt": FILLED})])
def test_the_launch_guides_loop_whole(profile: Profile, prompt: str, in_runner: dict[str, str]) -> None:
    paid = _paid(profile=profile)
    assert paid.run == _loop_run_json(prompt)
    assert list(paid.run) == list(_loop_run_json(prompt))
    assert paid.agent_runner == _loop_agent_runner(in_runner)


@pytest.mark.parametrize("profile", BOTH)
def test_the_creation_guides_run_whole(profile: Profile) -> None:
    issue = {
        "issueNumber": "0",
        "issueTitle": "Implement leader election (code + chart)",
        "issueBody": "Implement leader election.",
        "issueUrl": "https://example.test/leader-election-design.md",
    }
    head = "codex/agents/leader-election-implementation-20260207"
    named = {"repository": "proompteng/lab", "base": "main", "head": head, "stage": "implement"}
    parameters = single_body()["spec"]["parameters"] | {"stage": "implement"}
    prompt = "Implement leader election."
    paid = _paid(body=single_body(), profile=profile)
    assert paid.run == {
        "provider": "codex",
        "agentRun": {"name": "leader-election-implementation-20260207-run", "uid": "", "namespace": "agents"},
        "implementation": {"text": prompt, "summary": "Election"},
        "parameters": parameters,
        "memory": None,
        "artifacts": [],
        "prompt": prompt,
        **issue,
        **named,
        "metadata": {"map": {**parameters, "url": issue["issueUrl"], "issueBody": prompt, "prompt": prompt}},
    }


@pytest.mark.parametrize("profile", BOTH)
def test_neither_a_secrets_value_nor_the_number_of_an_iteration_is_told(profile: Profile) -> None:
    paid = _paid(profile=profile)
    assert CANARY not in f"{paid.run}{paid.agent_runner}"
    assert not {"step", "iteration", "attempt", "maxIterations"} & (set(paid.run) | set(paid.agent_runner))


def test_an_inline_system_prompt_stands_in_run_json() -> None:
    paid = _paid(agent(defaults={"systemPrompt": "be brief"}))
    assert paid.run["systemPrompt"] == "be brief"
    assert "systemPromptPath" not in paid.agent_runner["adapter"]["codex"]
    assert paid.agent_runner["adapter"]["codex"]["systemPromptExpectedHash"] == paid.system_prompt.hash
    assert "systemPrompt" not in _paid().run


def test_goal_memory_and_artifacts() -> None:
    memory = made("Memory", "notes", {"type": "postgres", "connection": {"secretRef": {"name": "db"}}})
    outputs = [{"name": " patch ", "path": "/out/{{ parameters.stage }}", "url": ""}, {"name": " "}, "odd"]
    paid = _paid(
        memory,
        provider(outputArtifacts=outputs),
        memoryRef={"name": "notes"},
        goal={"objective": " ship ", "tokenBudget": 9},
    )
    assert paid.run["goal"] == paid.agent_runner["goal"] == {"objective": "ship", "tokenBudget": 9}
    assert paid.run["memory"] == {"type": "postgres", "connectionRef": "db"}
    assert paid.run["artifacts"] == [{"name": "patch", "path": "/out/implement"}]
    assert paid.agent_runner["providerSpec"] == {"outputArtifacts": outputs}


@pytest.mark.parametrize(
    ("own", "of_agent", "named"),
    [("mine", "hers", "mine"), ("", "hers", "hers"), ("", "", "usual"), ("gone", "hers", None)],
)
def test_which_memory_counts(own: str, of_agent: str, named: str | None) -> None:
    objects = [made("Memory", one, {"type": one, "default": one == "usual"}) for one in ("hers", "mine", "usual")]
    paid = _paid(*objects, agent(memoryRef={"name": of_agent}), memoryRef={"name": own})
    assert (paid.run["memory"] or {}).get("type") == named


def test_codex_settings_are_filled_in_from_all_of_run_json() -> None:
    codex = {
        "binaryPath": "/opt/codex",
        "model": "m-{{ parameters.stage }}",
        "cwd": "/w/{{ run.agentRun.name }}",
        "cliConfigOverrides": ["a={{ head }}", 3],
        "threadConfig": None,
        "baseInstructions": "base ${stage}",
        "bootstrapTimeoutMs": "5000",
        "persistExtendedHistory": False,
        "experimentalRawEvents": "yes",
        "goal": {"objective": "g"},
        "secretEnv": [{"name": "X"}],
    }
    found = _paid(provider(adapter={"codex": codex})).agent_runner["adapter"]["codex"]
    assert found == {
        "binaryPath": "/opt/codex",
        "cliConfigOverrides": ["a=codex/torghut-v5-uncertainty-gates-loop5-20260301", "3"],
        "cwd": "/w/torghut-priority-loop5",
        "model": "m-implement",
        "effort": "high",
        "sandbox": "danger-full-access",
        "approval": "never",
        "threadConfig": None,
        "persistExtendedHistory": False,
        "bootstrapTimeoutMs": 5000,
        "baseInstructions": "base ${stage}",
        "prompt": FILLED,
        "goal": {"objective": "g"},
        "systemPromptPath": "/workspace/.codex/system-prompt.txt",
        "systemPromptExpectedHash": SYSTEM_HASH,
    }


@pytest.mark.parametrize("profile", BOTH)
@pytest.mark.parametrize(
    ("settings", "adapter"),
    [
        (
            {"binary": "/bin/sh", "argsTemplate": ["-c", "{{ parameters.stage }}"], "secretEnv": [{"name": "X"}]},
            {"type": "exec", "exec": {"binary": "/bin/sh", "argsTemplate": ["-c", "{{ parameters.stage }}"]}},
        ),
        (
            {"adapter": {"type": "exec", "exec": {"binary": "/bin/true"}, "secretEnv": [{"name": "X"}]}},
            {"type": "exec", "exec": {"binary": "/bin/true"}},
        ),
        (
            {"adapter": {"type": "exec", "codex": {"model": "m", "secretEnv": []}}},
            {"type": "exec", "codex": {"model": "m"}},
        ),
    ],
)
def test_an_exec_adapter_keeps_its_templates_and_loses_its_secrets(
    settings: dict[str, Any], adapter: dict[str, Any], profile: Profile
) -> None:
    assert _paid(provider(**settings), profile=profile).agent_runner["adapter"] == adapter


def test_the_providers_branches_count_as_parameters_without_steps_alone() -> None:
    defaults = vcs_provider(defaults={"baseBranch": "trunk", "branchTemplate": "w/{{ agentRun.name }}"})
    parameters = {"repository": "a/b"}
    in_steps = _paid(defaults, parameters=parameters)
    assert "base" not in in_steps.run
    alone = _paid(defaults, parameters=parameters, runtime={"type": "job"})
    assert (alone.run["base"], alone.run["head"]) == ("trunk", "w/torghut-priority-loop5")
    assert alone.agent_runner["inputs"]["head"] == "w/torghut-priority-loop5"
    own = _paid(defaults, parameters=parameters | {"baseRef": "own", "branch": "mine"}, runtime={"type": "job"})
    assert (own.run["base"], "head" in own.run) == ("own", False)


def test_the_whole_run_is_the_prompt_where_nothing_else_is() -> None:
    inline = {"inline": {"text": ""}}
    paid = _paid(implementation=inline, implementationSpecRef=None)
    assert paid.prompt.text is not None
    assert paid.prompt.text.startswith('{\n  "provider": "codex",')
    assert paid.agent_runner["adapter"]["codex"]["prompt"] == paid.prompt.text
    assert "prompt" not in paid.run


def test_a_providers_prompt_sees_all_of_run_json() -> None:
    own = provider(adapter={"codex": {"prompt": "{{ vcs.headBranch }} {{ run.provider }}"}})
    paid = _paid(own)
    assert paid.agent_runner["adapter"]["codex"]["prompt"] == "codex/torghut-v5-uncertainty-gates-loop5-20260301 codex"
    assert paid.run["prompt"] == FILLED


@pytest.mark.parametrize(("own", "seconds"), [(None, 99), (0, 0), (7.9, 7), ("12", 12)])
def test_how_long_a_runners_log_is_kept(own: Any, seconds: int) -> None:
    config = {} if own is None else {"logRetentionSeconds": own}
    run = read_run(loop_body(runtime={"type": "workflow", "config": config}))
    paid = payloads(run, run.steps[0], around(), CURRENT, replace(FLAGS, log_retention=99))
    assert paid.agent_runner["artifacts"]["logRetentionSeconds"] == seconds
