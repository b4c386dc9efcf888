"""What a pod of a Job would find, worked out for this machine."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from run_cycle_loop.agentrun.local.pod import Pod, assemble, secrets_in
from run_cycle_loop.agentrun.rendering.jobs import AttemptObjects
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.model.errors import ConfigError

SPEC_MAP = {
    "metadata": {"name": "demo-spec"},
    "data": {"run.json": '{"a": 1}', "agent-runner.json": '{"artifacts": {"statusPath": "/workspace/.agent/s"}}'},
}


def pod(
    volumes: Sequence[Mapping[str, Any]],
    mounts: Sequence[Mapping[str, Any]],
    *objects: dict[str, Any],
    env: Sequence[Mapping[str, Any]] = (),
    env_from: tuple[str, ...] = (),
    true_paths: bool = True,
) -> Pod:
    container = {
        "command": ["/bin/sh"],
        "args": ["-c", "true"],
        "volumeMounts": list(mounts),
        "env": list(env),
        "envFrom": [{"secretRef": {"name": name}} for name in env_from],
    }
    job = {"spec": {"template": {"spec": {"containers": [container], "volumes": list(volumes)}}}}
    resources = Resources.of(objects)
    return assemble(
        AttemptObjects(job=job, config_maps=(SPEC_MAP,)),
        resources,
        secrets_in(resources),
        folder="/s/a",
        claims={"work": "/s/work"},
        true_paths=true_paths,
    )


def secret(name: str, **values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"kind": "Secret", "metadata": {"name": name}, "data": data}


def places(made: Pod) -> dict[str, str]:
    return {one.path: one.folder for one in made.mounts}


def test_a_pod_without_volumes_has_a_workspace_of_its_own() -> None:
    made = pod([], [])
    assert places(made) == {"/workspace": "/s/a/workspace", "/workspace/.agent": "/s/a/.agent"}
    assert set(made.folders) == {"/s/a/workspace", "/s/a/.agent"}
    assert made.command == ("/bin/sh", "-c", "true")


def test_each_kind_of_volume_has_its_place() -> None:
    volumes: list[dict[str, Any]] = [
        {"name": "w", "persistentVolumeClaim": {"claimName": "work"}},
        {"name": "e", "emptyDir": {}},
        {"name": "s", "secret": {"secretName": "login"}},
        {"name": "p", "configMap": {"name": "prompts", "items": [{"key": "p.md", "path": "system-prompt.txt"}]}},
        {"name": "spec", "configMap": {"name": "demo-spec"}},
        {"name": "t", "projected": {}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "w", "mountPath": "/workspace"},
        {"name": "e", "mountPath": "/scratch/"},
        {"name": "s", "mountPath": "/login"},
        {"name": "s", "mountPath": "/root/.codex/auth.json", "subPath": "auth.json"},
        {"name": "p", "mountPath": "/workspace/.codex", "readOnly": True},
        {"name": "spec", "mountPath": "/workspace/run.json", "subPath": "run.json"},
        {"name": "t", "mountPath": "/var/run/token"},
    ]
    prompts = {"kind": "ConfigMap", "metadata": {"name": "prompts"}, "data": {"p.md": "Be careful.", "other": "x"}}
    made = pod(volumes, mounts, prompts, secret("login", **{"auth.json": "hidden"}))
    assert places(made) == {
        "/workspace": "/s/work",
        "/scratch": "/s/a/empty/e",
        "/login": "/s/a/secrets/s",
        "/root/.codex/auth.json": "/s/a/secrets/s/auth.json",
        "/workspace/.codex": "/s/a/.codex",
        "/workspace/run.json": "/s/a/run.json",
        "/workspace/.agent": "/s/a/.agent",
    }
    assert {one.path for one in made.mounts if one.is_secret} == {"/login", "/root/.codex/auth.json"}
    assert {one.path: one.data for one in made.files} == {
        "/s/a/secrets/s/auth.json": b"hidden",
        "/s/a/.codex/system-prompt.txt": b"Be careful.",
        "/s/a/run.json": b'{"a": 1}',
    }
    assert made.claims == ("work",)
    assert made.warnings == ("volume t is of a kind that only a cluster has, and is left out",)


@pytest.mark.parametrize(
    ("volume", "mount", "told"),
    [
        ({"name": "v", "secret": {"secretName": "no"}}, {}, "Secret no is mounted at /m and is neither"),
        ({"name": "v", "configMap": {"name": "no"}}, {}, "ConfigMap no is mounted at /m and is not"),
        ({"name": "other"}, {}, "volume v is mounted and names neither claim nor Secret"),
        ({"name": "v", "emptyDir": {}}, {"mountPath": "m"}, "is not absolute"),
        (
            {"name": "v", "secret": {"secretName": "login", "items": [{"key": "none", "path": "a"}]}},
            {},
            "has no key none",
        ),
        (
            {"name": "v", "secret": {"secretName": "login", "items": [{"key": "k", "path": "../../x"}]}},
            {},
            "cannot be mounted with the file name",
        ),
    ],
)
def test_what_cannot_be_mounted_is_refused(volume: dict[str, Any], mount: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        pod([volume], [{"name": "v", "mountPath": "/m", **mount}], secret("login", k="v"))


def test_variables_come_from_secrets_then_from_the_container() -> None:
    env: list[dict[str, Any]] = [
        {"name": "PLAIN", "value": "own"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "login", "key": "k"}}},
        {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "login", "key": "none"}}},
        {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "none", "optional": True}}},
        {"name": "CODEX_HOME", "value": "/root/.codex"},
    ]
    made = pod([], [], secret("login", k="v", PLAIN="over", **{"auth.json": "file"}), env=env, env_from=("login", "no"))
    assert made.env == {"k": "v", "PLAIN": "own", "TOKEN": "v"}
    assert set(made.secret_variables) == {"k", "PLAIN", "TOKEN"}
    assert [warning[:20] for warning in made.warnings] == ["Secret no is not amo", "GONE is to come from"]


def test_a_home_that_is_mounted_is_kept() -> None:
    made = pod(
        [{"name": "h", "emptyDir": {}}],
        [{"name": "h", "mountPath": "/root/.codex"}],
        env=[{"name": "CODEX_HOME", "value": "/root/.codex"}],
    )
    assert made.env == {"CODEX_HOME": "/root/.codex"}


def test_without_true_paths_variables_and_payloads_name_this_machine_s() -> None:
    env = [{"name": "AGENT_RUN_SPEC", "value": "/workspace/run.json"}, {"name": "NOTE", "value": "/workspace/x"}]
    volumes = [{"name": "spec", "configMap": {"name": "demo-spec"}}]
    mounts = [{"name": "spec", "mountPath": f"/workspace/{name}", "subPath": name} for name in SPEC_MAP["data"]]
    made = pod(volumes, mounts, env=env, true_paths=False)
    assert made.env == {"AGENT_RUN_SPEC": "/s/a/run.json", "NOTE": "/workspace/x"}
    written = {one.path: one.data.decode() for one in made.files}
    assert '"/s/a/.agent/s"' in written["/s/a/agent-runner.json"]


def test_plain_text_of_a_secret_stands_before_its_encoded_data() -> None:
    both = secret("login", k="encoded") | {"stringData": {"k": "plain", "../k": "out"}}
    assert secrets_in(Resources.of([both])) == {"login": {"k": b"plain"}}
