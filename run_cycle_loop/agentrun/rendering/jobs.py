"""What a controller creates for one attempt: ConfigMaps with the payloads, and a Job."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.model import AgentRun, Step, Workload, whole
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.launches import effective_image, job_ttl, launch_refusals, service_account
from run_cycle_loop.agentrun.rendering.payloads import (
    AGENT_RUNNER_PATH,
    RUN_PATH,
    STATUS_PATH,
    Payloads,
    payloads,
)
from run_cycle_loop.agentrun.rendering.prompts import provider_of
from run_cycle_loop.agentrun.rendering.system_prompts import MOUNT_FILE, MOUNT_FOLDER, MOUNT_PATH
from run_cycle_loop.agentrun.rendering.templates import fill_braces, json_text
from run_cycle_loop.agentrun.resources import Resources

__all__ = ["AttemptObjects", "attempt_objects", "effective_image", "job_ttl", "launch_refusals", "service_account"]

CONTAINER = "agent-runner"
DEFAULT_BINARY = "/usr/local/bin/agent-runner"
CODEX_HOME = "/root/.codex"

_POD_KEYS = (  # of runtime.config, what they are called in a pod, and the controller's setting that stands in for them
    ("nodeSelector", "nodeSelector", "runner_node_selector"),
    ("tolerations", "tolerations", "runner_tolerations"),
    ("topologySpreadConstraints", "topologySpreadConstraints", "runner_topology_spread_constraints"),
    ("affinity", "affinity", "runner_affinity"),
    ("podSecurityContext", "securityContext", "runner_pod_security_context"),
    ("imagePullSecrets", "imagePullSecrets", "runner_image_pull_secrets"),
    ("priorityClassName", "priorityClassName", "runner_priority_class"),
    ("schedulerName", "schedulerName", "runner_scheduler_name"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptObjects:
    """The objects of one attempt, to be created in this order: the ConfigMaps, then the Job that mounts them."""

    job: dict[str, Any]
    config_maps: tuple[dict[str, Any], ...]


def attempt_objects(
    run: AgentRun,
    step: Step | None,
    *,
    iteration: int | None,
    attempt: int,
    resources: Resources,
    profile: Profile,
    flags: ControllerFlags,
) -> AttemptObjects:
    """The objects of an attempt, as the controller creates them; no value of a Secret is in them.

    Args:
        run: with a uid it becomes their owner.
        step: None for the runtime ``job``, which has one attempt without a number.
        iteration: from 1; None outside of loops.
        attempt: from 1, of this iteration.
        resources: what is not here is left out.
        profile: whose controller.
        flags: its settings.
    """
    return _Attempt(run, step, iteration, attempt, resources, profile, flags).objects()


class _Attempt:
    """One attempt, while its objects are put together."""

    def __init__(
        self,
        run: AgentRun,
        step: Step | None,
        iteration: int | None,
        attempt: int,
        resources: Resources,
        profile: Profile,
        flags: ControllerFlags,
    ) -> None:
        self._run, self._step, self._resources, self._profile, self._flags = run, step, resources, profile, flags
        self._suffix = "" if step is None else names.attempt_suffix(step.index, iteration, attempt)
        self._iteration = iteration
        self._provider_name, self._provider = provider_of(run, resources)
        self._paid: Payloads = payloads(run, step, resources, profile, flags)
        self._workload = run.workload_of(step) if step else run.workload or Workload()

    def objects(self) -> AttemptObjects:
        spec = self._config_map("spec", {"run.json": self._paid.run, "agent-runner.json": self._paid.agent_runner})
        inputs = self._inputs()
        data = {f"input-{number}": one["content"] for number, one in enumerate(inputs)}
        maps = (*((self._config_map("inputs", data),) if inputs else ()), spec)
        return AttemptObjects(job=self._job(inputs), config_maps=maps)

    def _job(self, inputs: list[dict[str, str]]) -> dict[str, Any]:
        labels = self._labels()
        limit = self._run.runtime_config.get("backoffLimit")
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self._metadata(self._name("job")),
            "spec": {
                "backoffLimit": self._flags.runner_backoff_limit if limit is None else whole(limit),
                "template": {"metadata": {"labels": labels}, "spec": self._pod(inputs)},
            },
        }

    def _pod(self, inputs: list[dict[str, str]]) -> dict[str, Any]:
        volumes, mounts = self._mounted(inputs)
        token = self._token()
        account, _ = service_account(self._run, self._resources, self._profile, self._flags)
        image, _ = effective_image(self._run, self._step, self._resources, self._profile, self._flags)
        arguments = [
            fill_braces(str(one), self._paid.context).text for one in _list(self._provider.get("argsTemplate"))
        ]
        container: dict[str, Any] = {
            "name": CONTAINER,
            "image": image,
            "command": [_text(self._provider.get("binary")) or DEFAULT_BINARY],
            "args": arguments,
            "env": list(self._env()),
            **({"envFrom": [{"secretRef": {"name": one}} for one in self._run.secrets]} if self._run.secrets else {}),
            "resources": self._resources_of_pod(),
            "volumeMounts": mounts,
        }
        if self._profile.traits.termination_message:
            container |= {"terminationMessagePath": STATUS_PATH, "terminationMessagePolicy": "File"}
        return {
            "serviceAccountName": account,
            **({"automountServiceAccountToken": False} if token else {}),
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": volumes,
            **self._placed(),
        }

    def _placed(self) -> dict[str, Any]:
        """Where and how the pod runs: by runtime.config, else by the controller's own settings."""
        config = self._run.runtime_config
        found = {name: config.get(key) or getattr(self._flags, setting) for key, name, setting in _POD_KEYS}
        found = {name: list(one) if isinstance(one, tuple) else one for name, one in found.items()}
        secrets = [one if isinstance(one, str) else _map(one).get("name") for one in _list(found["imagePullSecrets"])]
        found["imagePullSecrets"] = [{"name": one.strip()} for one in secrets if isinstance(one, str) and one.strip()]
        return {name: value for name, value in found.items() if value}

    def _env(self) -> Iterator[dict[str, Any]]:
        """The variables in the controller's order: the last of a name wins, so nothing overrides the prompt's three."""
        system, flags = self._paid.system_prompt, self._flags
        plain = {"AGENT_RUN_SPEC": RUN_PATH, "AGENT_RUNNER_SPEC_PATH": AGENT_RUNNER_PATH}
        if flags.auth_secret_name:
            plain |= {"CODEX_HOME": flags.auth_secret_mount_path, "CODEX_AUTH": self._auth_path()}
        elif self._profile is Profile.CURRENT:
            plain["CODEX_HOME"] = CODEX_HOME
        yield from ({"name": name, "value": value} for name, value in plain.items())
        for name, value in _map(self._provider.get("envTemplate")).items():
            yield {"name": str(name), "value": fill_braces(str(value), self._paid.context).text}
        yield from self._secret_env()
        if self._provider_name:
            yield {"name": "AGENT_PROVIDER", "value": self._provider_name}
        yield from self._paid.version_control.access.env
        if token := self._token():
            yield {"name": "AGENTS_MCP_IDENTITY_TOKEN_PATH", "value": f"{token['mountPath'].rstrip('/')}/token"}
        if system.is_mounted and not system.refusal:
            yield {"name": "CODEX_SYSTEM_PROMPT_PATH", "value": MOUNT_PATH}
        if system.hash:
            yield {"name": "CODEX_SYSTEM_PROMPT_EXPECTED_HASH", "value": system.hash}
            yield {"name": "CODEX_SYSTEM_PROMPT_REQUIRED", "value": "true"}

    def _secret_env(self) -> Iterator[dict[str, Any]]:
        adapter = _map(self._provider.get("adapter"))
        holders = (self._provider, adapter, _map(adapter.get("codex")))
        listed: list[Any] = next((one["secretEnv"] for one in holders if isinstance(one.get("secretEnv"), list)), [])
        for one in map(_map, listed):
            name, secret, key = (_text(one.get(part)).strip() for part in ("name", "secretName", "key"))
            if name and secret and key:
                optional = {"optional": True} if one.get("optional") is True else {}
                yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, **optional}}}

    def _resources_of_pod(self) -> dict[str, Any]:
        """Requests and limits, each quantity by itself: the workload's over runtime.config's, the provider's, ours."""
        provider = _map(self._provider.get("workload")) if self._profile.traits.provider_image else {}
        holders = (
            self._flags.runner_resources,
            _map(provider.get("resources")),
            _map(self._run.runtime_config.get("resources")),
            self._workload.resources,
        )
        found: dict[str, Any] = {}
        for part in ("requests", "limits"):
            quantities: dict[str, str] = {}
            for holder in holders:
                quantities |= {
                    key.strip(): value.strip()
                    for key, value in _map(holder.get(part)).items()
                    if isinstance(value, str) and key.strip() and value.strip()  # numbers are not taken over
                }
            if quantities:
                found[part] = quantities
        return found

    def _mounted(self, inputs: list[dict[str, str]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Volumes and mounts: the workload's own first."""
        volumes, mounts = _of_workload(self._workload)
        added = [*self._payload_mounts(inputs), *self._prompt_mounts(), *self._auth_mounts(mounts)]
        access = self._paid.version_control.access
        volumes += [volume for volume, _ in added if volume] + list(access.volumes)
        mounts += [mount for _, mount in added] + list(access.mounts)
        if token := self._token():
            name = names.object_name(f"{self._provider_name or self._run.name}-mcp-identity")
            source = {"audience": token["audience"], "expirationSeconds": token["expirationSeconds"], "path": "token"}
            sources = [{"serviceAccountToken": source}]
            volumes.append({"name": name, "projected": {"defaultMode": 420, "sources": sources}})
            mounts.append({"name": name, "mountPath": token["mountPath"], "readOnly": True})
        return volumes, mounts

    def _payload_mounts(self, inputs: list[dict[str, str]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        if inputs:
            name = self._name("inputs")
            volume: dict[str, Any] = {"name": names.object_name(f"{name}-vol"), "configMap": {"name": name}}
            for number, one in enumerate(inputs):
                mount = {"name": volume["name"], "mountPath": one["path"], "subPath": f"input-{number}"}
                yield ({} if number else volume), mount
        name = self._name("spec")
        volume = {"name": names.object_name(f"{name}-vol"), "configMap": {"name": name}}
        yield volume, {"name": volume["name"], "mountPath": RUN_PATH, "subPath": "run.json"}
        yield {}, {"name": volume["name"], "mountPath": AGENT_RUNNER_PATH, "subPath": "agent-runner.json"}

    def _prompt_mounts(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        system = self._paid.system_prompt
        if not system.is_mounted or system.refusal:
            return
        items = [{"key": system.key, "path": MOUNT_FILE}]
        holder: dict[str, Any] = (
            {"secret": {"secretName": system.name, "items": items}}
            if system.kind == "Secret"
            else {"configMap": {"name": system.name, "items": items}}
        )
        name = self._own_name("system-prompt")
        yield {"name": name, **holder}, {"name": name, "mountPath": MOUNT_FOLDER, "readOnly": True}

    def _auth_mounts(self, mounts: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        secret, key, folder = (
            self._flags.auth_secret_name,
            self._flags.auth_secret_key,
            self._flags.auth_secret_mount_path,
        )
        if not secret:
            return
        if all(one["mountPath"] != folder for one in mounts):
            home = self._own_name("auth-home")
            yield {"name": home, "emptyDir": {}}, {"name": home, "mountPath": folder}
        name, items = self._own_name("auth-secret"), [{"key": key, "path": key}]
        yield (
            {"name": name, "secret": {"secretName": secret, "items": items}},
            {"name": name, "mountPath": self._auth_path(), "subPath": key, "readOnly": True},
        )

    def _auth_path(self) -> str:
        return f"{self._flags.auth_secret_mount_path.rstrip('/')}/{self._flags.auth_secret_key}"

    def _inputs(self) -> list[dict[str, str]]:
        given = [
            {"path": _text(_map(one).get("path")), "content": _text(_map(one).get("content"))}
            for one in _list(self._provider.get("inputFiles"))
        ]
        return [one for one in given if one["path"] and one["content"]]

    def _token(self) -> dict[str, Any] | None:
        """The projected token that a provider asks for; None where it asks for none, or not in full."""
        given = _map(_map(self._provider.get("workload")).get("serviceAccountToken"))
        audience, path = _text(given.get("audience")).strip(), _text(given.get("mountPath")).strip()
        seconds = whole(given.get("expirationSeconds"))
        if not (audience and path.startswith("/") and 600 <= seconds <= 3600 and self._profile is Profile.CURRENT):
            return None
        return {"audience": audience, "expirationSeconds": seconds, "mountPath": path.rstrip("/")}

    def _config_map(self, what: str, data: Mapping[str, Any]) -> dict[str, Any]:
        written = {key: one if isinstance(one, str) else json_text(one, indent=2) for key, one in data.items()}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": self._metadata(self._name(what)), "data": written}

    def _metadata(self, name: str) -> dict[str, Any]:
        run = self._run
        owner = {"apiVersion": names.API_VERSION, "kind": "AgentRun", "name": run.name, "uid": run.uid}
        owners = {"ownerReferences": [owner]} if run.uid else {}
        return {"name": name, "namespace": run.namespace, "labels": self._labels(), **owners}

    def _labels(self) -> dict[str, str]:
        run, step = self._run, self._step
        labels = {names.LABEL_RUN: run.name}
        agent = run.agent if self._resources.get("Agent", run.agent) or not self._resources.complete else ""
        given = {
            names.LABEL_AGENT: agent,
            names.LABEL_PROVIDER: self._provider_name,
            names.LABEL_IMPLEMENTATION: run.implementation_ref,
        }
        labels |= {key: names.label_value(value) for key, value in given.items() if value}
        if step is not None:
            labels |= {names.LABEL_STEP: names.label_value(step.name), names.LABEL_STEP_INDEX: str(step.index)}
        if self._iteration is not None:
            labels[names.LABEL_ITERATION] = str(self._iteration)
        return labels

    def _name(self, what: str) -> str:
        """The Job's name, or that of a ConfigMap."""
        if not self._suffix:
            return names.object_name(f"{self._run.name}-{what}")
        between = "" if what == "job" else f"{what}-"
        return names.object_name(f"{self._run.name}-{between}{self._suffix}")

    def _own_name(self, what: str) -> str:
        """The name of a volume."""
        return names.object_name("-".join(filter(None, (self._run.name, what, self._suffix))))


def _of_workload(workload: Workload) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A volume without its claim or Secret leaves a mount without a volume, as with the controller: it is refused."""
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for one in workload.volumes:
        if not (one.type and one.name and one.mount_path):
            continue
        if one.type == "emptyDir":
            given = {"medium": one.medium, "sizeLimit": one.size_limit}
            volumes.append({"name": one.name, "emptyDir": {key: value for key, value in given.items() if value}})
        elif one.type == "pvc" and one.claim_name:
            claim = {"claimName": one.claim_name, "readOnly": one.read_only}
            volumes.append({"name": one.name, "persistentVolumeClaim": claim})
        elif one.type == "secret" and one.secret_name:
            volumes.append({"name": one.name, "secret": {"secretName": one.secret_name}})
        mounts.append({"name": one.name, "mountPath": one.mount_path, "readOnly": one.read_only})
    return volumes, mounts


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
