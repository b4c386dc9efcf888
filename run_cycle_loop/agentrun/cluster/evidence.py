"""What ``verify`` looks at, fetched: the run, its Agent and provider, and of each attempt the Job, pod and ConfigMap.

Of texts only their hashes are kept. What may not be read leaves a note instead of a value.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.existing import existing_run
from run_cycle_loop.agentrun.lifecycle.status import RunStatus, read_status
from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState, attempts
from run_cycle_loop.agentrun.looking.objects import (
    Object,
    entries,
    environment,
    mapping,
    mounts,
    name_of,
    text,
)
from run_cycle_loop.agentrun.looking.verify import VARIABLES, AttemptEvidence, Evidence, Mount, Source, adapter_of
from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.system_prompts import MOUNT_FOLDER, MOUNT_PATH, SystemPrompt, system_prompt
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Forbidden, KubernetesError

_RUN_JSON, _RUNNER_JSON = "run.json", "agent-runner.json"
_ASKED_FOR = 10.0  #: seconds that a command in a pod may take
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What belongs to a run on the cluster."""

    jobs: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    config_maps: Sequence[Object] = ()


def gather(
    cluster: Cluster,
    name: str,
    namespace: str,
    *,
    profile: Profile,
    now: datetime,
    ask_pods: bool = True,
) -> Evidence:
    """Everything that tells which system prompt a run's attempts had.

    Args:
        cluster: Where it runs.
        name: The run's.
        namespace: Its.
        profile: How the controller resolves the prompt.
        now: The moment.
        ask_pods: Whether running pods may be asked for the file itself, which needs ``pods/exec``.

    Raises:
        NotFound: There is no such run.
        KubernetesError: The cluster does not answer.
    """
    body = existing_run(cluster, name, namespace)
    run, status, notes = read_run(body), read_status(body.get("status")), list[str]()
    prompt, adapter = _prompt(cluster, run, profile, notes)
    seen = _Seen(
        jobs=_listed(cluster, kinds.JOB, run, notes),
        pods=_listed(cluster, kinds.POD, run, notes),
        config_maps=_listed(cluster, kinds.CONFIG_MAP, run, notes),
    )
    rows = attempts(run, status, seen.jobs, seen.pods, now)
    notes += [
        f"Job {row.job} belongs to an earlier run of this name, and does not count" for row in rows if row.is_stale
    ]
    rows = tuple(row for row in rows if not row.is_stale)
    stored = status.rest.get("systemPromptHash")
    return Evidence(
        run=name,
        namespace=namespace,
        status_hash=stored if isinstance(stored, str) else "",
        source=_source(prompt, notes),
        provider_adapter=adapter,
        attempts=tuple(_attempt(cluster, run, row, seen, ask_pods=ask_pods) for row in rows),
        missing=_missing(status, rows),
        notes=tuple(dict.fromkeys(notes)),
    )


def _may(call: Callable[[], _T], otherwise: _T, notes: list[str]) -> _T:
    """What a call gives; where it is not allowed, a note that says so in the server's words."""
    try:
        return call()
    except Forbidden as error:
        notes.append(str(error))
        return otherwise


def _listed(cluster: Cluster, kind: kinds.Kind, run: AgentRun, notes: list[str]) -> Sequence[Object]:
    labels = {names.LABEL_RUN: run.name}
    return _may(lambda: cluster.list(kind, run.namespace, labels).items, (), notes)


def _prompt(cluster: Cluster, run: AgentRun, profile: Profile, notes: list[str]) -> tuple[SystemPrompt, str]:
    """The prompt that the controller would find now, and the provider's adapter."""
    found: list[Object] = []
    agent = _fetched(cluster, kinds.AGENT, run.agent, run, notes, found)
    provider = _fetched(cluster, kinds.AGENT_PROVIDER, text(agent, "spec", "providerRef", "name"), run, notes, found)
    defaults = mapping(agent, "spec", "defaults")
    for ref in (mapping(run.spec, "systemPromptRef"), mapping(defaults, "systemPromptRef")):
        kind = kinds.SECRET if text(ref, "kind").lower() == "secret" else kinds.CONFIG_MAP
        _fetched(cluster, kind, text(ref, "name"), run, notes, found)
    resources = Resources.of(found, complete=not notes)
    return system_prompt(run, resources, profile), adapter_of(provider)


def _fetched(
    cluster: Cluster, kind: kinds.Kind, name: str, run: AgentRun, notes: list[str], found: list[Object]
) -> Object:
    if not name:
        return {}
    one = _may(lambda: cluster.get(kind, name, run.namespace), None, notes)
    if one is not None:
        found.append(one)
    return one or {}


def _source(prompt: SystemPrompt, notes: Sequence[str]) -> Source:
    note = prompt.refusal.message if prompt.refusal else prompt.note
    return Source(
        place=prompt.source,
        kind=prompt.kind,
        name=prompt.name,
        key=prompt.key,
        hash=prompt.hash or "",
        note="" if prompt.hash else "; ".join([*notes, *([note] if note else [])]),
    )


def _missing(status: RunStatus, rows: Sequence[Attempt]) -> tuple[str, ...]:
    """Iterations, and attempts before the last one, of which nothing at all is left."""
    last = {(row.step, row.iteration): row.attempt for row in sorted(rows, key=lambda row: row.place)}
    whole = [
        f"step {step.name} iteration {index}"
        for step in status.steps
        if step.loop is not None
        for index in range(1, step.loop.completed + 1)
        if (step.name, index) not in last
    ]
    known = {(row.step, row.iteration, row.attempt) for row in rows}
    earlier = [
        f"step {step} {f'iteration {iteration} ' if iteration is not None else ''}attempt {attempt}"
        for (step, iteration), newest in last.items()
        for attempt in range(1, newest)
        if (step, iteration, attempt) not in known
    ]
    return (*whole, *earlier)


def _attempt(cluster: Cluster, run: AgentRun, row: Attempt, seen: _Seen, *, ask_pods: bool) -> AttemptEvidence:
    job = next((one for one in seen.jobs if name_of(one) == row.job), None)
    pod = next((one for one in seen.pods if row.pod and name_of(one) == row.pod.name), None)
    config_map = _config_map(run, row, job, seen.config_maps)
    notes: list[str] = []
    mount = None if job is None else _mount(job)
    runner, payload = _payload(config_map, _RUNNER_JSON, notes), _payload(config_map, _RUN_JSON, notes)
    codex = mapping(runner, "adapter", "codex")
    file_hash = ""
    if ask_pods and mount is not None and pod is not None and text(pod, "status", "phase") == "Running":
        file_hash = _file_hash(cluster, run, pod, notes)
    return AttemptEvidence(
        job=row.job,
        step=row.step,
        iteration=row.iteration,
        attempt=row.attempt,
        has_job=job is not None,
        has_succeeded=row.state is AttemptState.SUCCEEDED,
        variables=None if job is None else _variables(job),
        pod="" if pod is None else name_of(pod),
        pod_variables=None if pod is None else _variables(pod),
        image_id=row.pod.image_id if row.pod else "",
        mount=mount,
        file_hash=file_hash,
        config_map="" if config_map is None else name_of(config_map),
        adapter=text(runner, "adapter", "type"),
        runner_path=text(codex, "systemPromptPath"),
        runner_hash=text(codex, "systemPromptExpectedHash"),
        inline_hash=_hash(payload, "systemPrompt"),
        instructions_hash=_hash(codex, "baseInstructions"),
        runner_status=text(row.pod.runner if row.pod else None, "status"),
        notes=tuple(notes),
    )


def _variables(holder: Object) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in environment(holder).items() if name in VARIABLES)


def _mount(job: Object) -> Mount | None:
    for mount, volume in mounts(job):
        if text(mount, "mountPath").rstrip("/") == MOUNT_FOLDER:
            secret = "secret" in volume
            source = mapping(volume, "secret" if secret else "configMap")
            item = next(iter(entries(source, "items")), {})
            return Mount(
                path=MOUNT_FOLDER,
                is_read_only=mount.get("readOnly") is True,
                kind="Secret" if secret else "ConfigMap",
                name=text(source, "secretName" if secret else "name"),
                key=text(item, "key"),
                file=text(item, "path"),
            )
    return None


def _config_map(run: AgentRun, row: Attempt, job: Object | None, config_maps: Iterable[Object]) -> Object | None:
    """The attempt's own: what its Job mounts as run.json, else by its name."""
    wanted = {names.config_map_name(run.name, "spec", row.step_index, row.iteration, row.attempt)}
    if not row.step_index:
        wanted = {names.object_name(f"{run.name}-spec")}
    for mount, volume in mounts(job or {}):
        if text(mount, "subPath") == _RUNNER_JSON or text(mount, "mountPath").endswith(f"/{_RUNNER_JSON}"):
            wanted = {text(volume, "configMap", "name")}
    return next((one for one in config_maps if name_of(one) in wanted), None)


def _payload(config_map: Object | None, key: str, notes: list[str]) -> Mapping[str, Any]:
    written = text(config_map, "data", key)
    if not written:
        return {}
    try:
        found = json.loads(written)
    except (ValueError, RecursionError):
        notes.append(f"{key} in ConfigMap {name_of(config_map or {})} is no JSON")
        return {}
    return found if isinstance(found, dict) else {}


def _hash(holder: Any, *path: str) -> str:
    found = text(holder, *path)
    return hashlib.sha256(found.encode("utf-8", "surrogatepass")).hexdigest() if found else ""


def _file_hash(cluster: Cluster, run: AgentRun, pod: Object, notes: list[str]) -> str:
    """The bytes themselves are fetched and hashed here: an image need not have more than ``cat``."""
    container = text(next(iter(entries(pod, "spec", "containers")), {}), "name")
    try:
        answer = cluster.exec(
            name_of(pod), ["cat", MOUNT_PATH], run.namespace, container=container or None, seconds=_ASKED_FOR
        )
    except KubernetesError as error:
        notes.append(f"the file in pod {name_of(pod)} could not be read: {error}")
        return ""
    if answer.code not in (0, None) or (answer.code is None and not answer.stdout):
        notes.append(f"the file in pod {name_of(pod)} could not be read: cat left {answer.code}")
        return ""
    return hashlib.sha256(answer.stdout).hexdigest()
