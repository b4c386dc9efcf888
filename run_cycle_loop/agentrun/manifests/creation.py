"""A manifest from values: a fixed loop, a conditional loop or a single run, with its claim, valid as it is written."""

import re
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.manifests.wishes import (
    GUIDE_CONDITION,
    QUANTITY,
    VolumeWish,
    Wish,
    check,
    control_path_of,
    is_repeated,
    parameters_of,
    state_volume_of,
)
from run_cycle_loop.agentrun.manifests.yaml_blocks import to_yaml

__all__ = ["GUIDE_CONDITION", "VolumeWish", "Wish", "create_claim", "create_run", "manifest", "unique_name"]
from run_cycle_loop.model.errors import ConfigError


def unique_name(prefix: str, suffix: str) -> str:
    """A name for a run that nobody else has, of 63 characters at most: the prefix, cut where needed, and the suffix.

    Args:
        prefix: any text.
        suffix: what makes it unique, of lower-case letters and digits, for instance eight random ones.

    Raises:
        ConfigError: the suffix cannot stand in a name.
    """
    if not re.fullmatch(r"[a-z0-9]{1,32}", suffix):
        raise ConfigError(f"{suffix!r} cannot end a name: give 1 to 32 lower-case letters and digits")
    cleaned = re.sub(r"[^a-z0-9-]+", "-", prefix.lower()).strip("-") or "run"
    return f"{cleaned[: names.NAME_LIMIT - len(suffix) - 1].rstrip('-')}-{suffix}"


def create_run(wish: Wish) -> dict[str, Any]:
    """The AgentRun.

    Raises:
        ConfigError: the wish contradicts itself, or would be refused.
    """
    check(wish)
    run: dict[str, Any] = {
        "agentRef": {"name": wish.agent},
        **(
            {"implementationSpecRef": {"name": wish.implementation}}
            if wish.implementation
            else {"implementation": {"inline": {"text": wish.text}}}
        ),
        "runtime": {"type": wish.runtime},
        **({"workflow": {"steps": [_step(wish, name) for name in wish.steps]}} if wish.runtime == "workflow" else {}),
        **(
            {"vcsRef": {"name": wish.vcs}, "vcsPolicy": {"required": wish.vcs_required, "mode": wish.vcs_mode}}
            if wish.vcs
            else {}
        ),
        **({"secrets": list(wish.secrets)} if wish.secrets else {}),
        **({} if wish.ttl is None else {"ttlSecondsAfterFinished": wish.ttl}),
        **({"idempotencyKey": wish.idempotency_key} if wish.idempotency_key else {}),
        **({"parameters": parameters} if (parameters := parameters_of(wish)) else {}),
        **({"workload": workload} if (workload := _workload(wish)) else {}),
    }
    metadata = {"name": wish.name, "namespace": wish.namespace}
    return {"apiVersion": names.API_VERSION, "kind": "AgentRun", "metadata": metadata, "spec": run}


def create_claim(wish: Wish) -> dict[str, Any] | None:
    """The PersistentVolumeClaim that goes before it; None where no size is wished for.

    Raises:
        ConfigError: the size is none, or there is no claim.
    """
    if not wish.claim_size:
        return None
    if not wish.claim:
        raise ConfigError(f"a claim of {wish.claim_size} has no name: give --claim as well")
    if not QUANTITY.fullmatch(wish.claim_size):
        raise ConfigError(f"{wish.claim_size!r} is no size: write 20Gi, for instance")
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": wish.claim_size}}}
    metadata = {"name": wish.claim, "namespace": wish.namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def manifest(wish: Wish) -> str:
    """The whole as YAML, in the order of the guides, with comments on what is easily got wrong.

    Raises:
        ConfigError: the wish contradicts itself, or would be refused.
    """
    run, claim = create_run(wish), create_claim(wish)
    text = to_yaml(run, _comments(wish))
    return text if claim is None else f"{to_yaml(claim)}---\n{text}"


def _step(wish: Wish, name: str) -> dict[str, Any]:
    numbers = {
        "retries": wish.retries,
        "retryBackoffSeconds": wish.retry_backoff if wish.retries else 0,
        "timeoutSeconds": wish.timeout,
    }
    return {
        "name": name,
        **{key: value for key, value in numbers.items() if value},
        "parameters": {"stage": name},
        **({"loop": _loop(wish)} if is_repeated(wish, name) else {}),
    }


def _loop(wish: Wish) -> dict[str, Any]:
    condition: dict[str, Any] = {}
    if wish.condition:
        source = {
            "type": "file",
            "path": control_path_of(wish),
            "onMissing": wish.on_missing,
            "onInvalid": wish.on_invalid,
        }
        condition = {"condition": {"type": "cel", "expression": wish.condition, "source": source}}
    state = {"state": {"required": True, "volumeNames": [state_volume_of(wish)]}} if wish.claim else {}
    return {"maxIterations": wish.maximum, **condition, **state}


def _workload(wish: Wish) -> dict[str, Any]:
    requests = {key: value for key, value in (("cpu", wish.cpu), ("memory", wish.memory)) if value}
    state = VolumeWish(name=state_volume_of(wish), type="pvc", mount_path=wish.mount_path, source=wish.claim)
    volumes = [_volume(one) for one in ((state,) if wish.claim else ()) + wish.volumes]
    return {
        **({"image": wish.image} if wish.image else {}),
        **({"resources": {"requests": requests}} if requests else {}),
        **({"volumes": volumes} if volumes else {}),
    }


def _volume(one: VolumeWish) -> dict[str, Any]:
    source = {"pvc": {"claimName": one.source}, "secret": {"secretName": one.source}}.get(one.type, {})
    read_only = {"readOnly": True} if one.read_only else {}
    return {"name": one.name, "type": one.type, **source, "mountPath": one.mount_path, **read_only}


def _comments(wish: Wish) -> dict[str, str]:
    """What stands above the lines that are not obvious, by path."""
    loop = next(
        (f"spec.workflow.steps[{at}].loop" for at, name in enumerate(wish.steps) if is_repeated(wish, name)), ""
    )
    found = {
        "spec.idempotencyKey": "A second run of this agent with the same key is refused as a duplicate.",
        "spec.ttlSecondsAfterFinished": "How long the finished run is kept; its Jobs go sooner.",
        "spec.vcsPolicy": "With required, a repository that cannot be written to fails the run.",
        "spec.parameters": "Recorded in run.json; not exported as variables into the pod.",
        "spec.workload.image": "Pinned: without it the controller's own runner image is taken.",
    }
    found["spec.implementation.inline.text"] = "What the agent is told to do." + (
        "\nLet it say where notes are kept, and to read them first: no iteration is told its number." if loop else ""
    )
    if wish.repository:
        found["spec.parameters.head"] = "A branch that no other run works on at the same time."
    if wish.runtime == "workflow" and (wish.timeout or wish.retries):
        found["spec.workflow.steps[0].timeoutSeconds"] = "Of each attempt, counted from the making of its Job."
        found["spec.workflow.steps[0].retries"] = "Further attempts, anew for each iteration."
    if loop:
        found[f"{loop}.maxIterations"] = "No more than the controller's limit, 20 by default; one Job each."
        found[f"{loop}.condition"] = (
            "Asked after each iteration but the last one. Numbers are doubles: write + 1.0, not + 1.\n"
            "On a cluster the payload is read from the Job's annotation agents.proompteng.ai/loop-control,\n"
            "which the agent's pod has to set before it ends; on this machine, from the file."
        )
        found[f"{loop}.state"] = (
            "What an iteration leaves on this volume the next one finds; the rest of the pod is new."
        )
    if wish.claim:
        found["spec.workload.volumes"] = "A step with a workload of its own would get none of these."
    longest = names.attempt_suffix(len(wish.steps), wish.maximum or None, wish.retries + 1)
    if wish.runtime == "workflow" and len(f"{wish.name}-{longest}") > names.NAME_LIMIT:
        found["metadata.name"] = "Rather long: the names of its Jobs end in digits of a hash."
    return found
