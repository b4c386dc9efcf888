"""The runs of both guides as plain values, and the objects that they refer to."""

from collections.abc import Mapping
from typing import Any

from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.agentrun.resources import Object, Resources

FLAGS = ControllerFlags(
    known=True, loops_enabled=True, runner_image="registry.test/runner:1", runner_image_variable="THE_VARIABLE"
)
SYSTEM_TEXT = "be good\n"
SYSTEM_HASH = "09a40cfeeb8e11691e0b4ccd9f672cf1cf3fa505b7f1a0397f615a7e7454fcc7"
TASK = "Write notes into ${artifactPath}.\nStage: {{ stage }}, home ${HOME}, none {{ nothing }}."
FILLED = "Write notes into /workspace/.agentrun/torghut-v5-02.\nStage: implement, home ${HOME}, none ."


def body_of(name: str, spec: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "agents.proompteng.ai/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"name": name, "namespace": "agents", **metadata},
        "spec": dict(spec),
    }


def loop_body(**changes: Any) -> dict[str, Any]:
    """The launch guide's loop of five iterations."""
    loop = {"maxIterations": 5, "state": {"required": True, "volumeNames": ["workspace"]}}
    step = {
        "name": "implement",
        "retries": 1,
        "retryBackoffSeconds": 30,
        "timeoutSeconds": 5400,
        "parameters": {"stage": "implement"},
        "loop": loop,
    }
    spec = {
        "agentRef": {"name": "codex-spark-agent"},
        "implementationSpecRef": {"name": "torghut-v5-uncertainty-gates-priority"},
        "runtime": {"type": "workflow"},
        "workflow": {"steps": [step]},
        "vcsRef": {"name": "github"},
        "vcsPolicy": {"required": True, "mode": "read-write"},
        "secrets": ["github-token", "codex-auth"],
        "ttlSecondsAfterFinished": 172800,
        "parameters": {
            "repository": "proompteng/lab",
            "base": "main",
            "head": "codex/torghut-v5-uncertainty-gates-loop5-20260301",
            "artifactPath": "/workspace/.agentrun/torghut-v5-02",
        },
        "workload": {
            "resources": {"requests": {"cpu": "500m", "memory": "1024Mi"}},
            "volumes": [
                {
                    "name": "workspace",
                    "type": "pvc",
                    "claimName": "torghut-loop-workspace",
                    "mountPath": "/workspace",
                }
            ],
        },
    }
    return body_of("torghut-priority-loop5", spec | changes)


def single_body(**changes: Any) -> dict[str, Any]:
    """The creation guide's run of one step."""
    spec = {
        "agentRef": {"name": "codex-agent"},
        "implementationSpecRef": {"name": "leader-election-design-20260207"},
        "ttlSecondsAfterFinished": 7200,
        "parameters": {
            "repository": "proompteng/lab",
            "base": "main",
            "head": "codex/agents/leader-election-implementation-20260207",
            "issueNumber": "0",
            "issueTitle": "Implement leader election (code + chart)",
            "issueUrl": "https://example.test/leader-election-design.md",
            "stage": "implementation",
        },
        "runtime": {"type": "workflow"},
        "secrets": ["codex-github-token", "codex-openai-key"],
        "workflow": {
            "steps": [{"name": "implement", "parameters": {"stage": "implement"}, "timeoutSeconds": 7200}],
        },
        "workload": {"resources": {"requests": {"cpu": "500m", "memory": "1024Mi"}}},
    }
    return body_of("leader-election-implementation-20260207-run", spec | changes)


def loop_run(**changes: Any) -> AgentRun:
    return read_run(loop_body(**changes))


def made(kind: str, name: str, spec: Mapping[str, Any] | None = None, **rest: Any) -> Object:
    return {"kind": kind, "metadata": {"name": name}, **({} if spec is None else {"spec": spec}), **rest}


def agent(name: str = "codex-spark-agent", **spec: Any) -> Object:
    reference = {"kind": "ConfigMap", "name": "codex-agent-system-prompt", "key": "system-prompt.md"}
    return made("Agent", name, {"providerRef": {"name": "codex"}, "defaults": {"systemPromptRef": reference}, **spec})


def provider(**spec: Any) -> Object:
    return made("AgentProvider", "codex", {"binary": "/usr/local/bin/agent-runner", **spec})


def implementation(name: str = "torghut-v5-uncertainty-gates-priority", **spec: Any) -> Object:
    return made("ImplementationSpec", name, {"text": TASK, **spec})


def vcs_provider(**spec: Any) -> Object:
    auth = {"method": "token", "token": {"secretRef": {"name": "github-token", "key": "token"}}}
    return made("VersionControlProvider", "github", {"provider": "github", "auth": auth, **spec})


SYSTEM_PROMPT = made("ConfigMap", "codex-agent-system-prompt", data={"system-prompt.md": SYSTEM_TEXT})
SECRET = made("Secret", "github-token", data={"token": "c2VjcmV0LWNhbmFyeQ=="})
CANARY = "secret-canary"  #: what the Secret's token is


def around(*objects: Object, complete: bool = True) -> Resources:
    """Everything that the guides' runs refer to; what is given stands instead of what has the same name."""
    usual = (
        agent(),
        agent("codex-agent"),
        provider(),
        implementation(),
        implementation("leader-election-design-20260207", text="Implement leader election.", summary="Election"),
        vcs_provider(),
        SYSTEM_PROMPT,
        SECRET,
    )
    return Resources.of((*usual, *objects), complete=complete)
