"""An AgentRun as the controller reads it: leniently, with its defaults filled in, never failing.

Whether what was written makes sense is for ``rules`` and ``lints``; they look at the same values and at the manifest.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from run_cycle_loop.agentrun import names

DEFAULT_CONTROL_PATH = "/workspace/.agentrun/loop-control.json"
DEFAULT_NAMESPACE = "agents"


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """One volume of a workload and where it is mounted."""

    name: str
    type: str  #: ``emptyDir``, ``pvc`` or ``secret``
    mount_path: str
    read_only: bool = False
    claim_name: str = ""
    secret_name: str = ""
    size_limit: str = ""
    medium: str = ""

    @property
    def is_persistent(self) -> bool:
        """Whether what is written there outlives the attempt."""
        return self.type == "pvc" and bool(self.claim_name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Image, resources and volumes of a pod."""

    image: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopCondition:
    """When another iteration is wanted. Type and source type are always ``cel`` and ``file``."""

    expression: str
    path: str = DEFAULT_CONTROL_PATH  #: of the control file
    on_missing: str = "stop"  #: or ``fail``
    on_invalid: str = "fail"  #: or ``stop``


@dataclass(frozen=True, kw_only=True, slots=True)
class Loop:
    """How often a step is repeated, and what it keeps between iterations."""

    max_iterations: int
    condition: LoopCondition | None = None
    state_required: bool = False
    state_volumes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a workflow."""

    index: int  #: 1-based
    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)  #: its own alone
    workload: Workload | None = None
    retries: int = 0
    retry_backoff: int = 0  #: seconds
    timeout: int = 0  #: seconds; 0 for none
    loop: Loop | None = None
    implementation: Mapping[str, Any] | None = None  #: inline
    implementation_ref: str = ""

    @property
    def attempts(self) -> int:
        """How often one iteration may be tried."""
        return self.retries + 1

    def iteration(self, number: int) -> int | None:
        """The number as Job names know it: None outside of loops."""
        return number if self.loop else None


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentRun:
    """A run."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    agent: str = ""
    runtime: str = ""
    runtime_config: Mapping[str, Any] = field(default_factory=dict)
    implementation: Mapping[str, Any] | None = None  #: inline
    implementation_ref: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    workload: Workload | None = None
    steps: tuple[Step, ...] = ()
    goal: Mapping[str, Any] | None = None
    vcs_ref: str = ""
    vcs_required: bool = False
    vcs_mode: str = "read-write"
    memory_ref: str = ""
    idempotency_key: str = ""
    ttl: int | None = None  #: seconds after its end
    body: Mapping[str, Any] = field(default_factory=dict)  #: the manifest as written

    @property
    def spec(self) -> Mapping[str, Any]:
        """``spec`` as written."""
        return _map(self.body.get("spec"))

    @property
    def is_template(self) -> bool:
        """Whether it is kept to be copied, and never started."""
        return self.annotations.get(names.ANNOTATION_TEMPLATE, "").strip().lower() == "true"

    def workload_of(self, step: Step) -> Workload:
        """What the pod of a step gets: a step's own workload replaces the run's as a whole."""
        return step.workload or self.workload or Workload()

    def parameters_of(self, step: Step) -> Mapping[str, str]:
        """The run's parameters with the step's laid over them."""
        return {**self.parameters, **step.parameters}


def read_run(body: Mapping[str, Any]) -> AgentRun:
    """The run that a manifest describes; what is missing or of the wrong type gets its default."""
    metadata, spec = _map(body.get("metadata")), _map(body.get("spec"))
    runtime, policy = _map(spec.get("runtime")), _map(spec.get("vcsPolicy"))
    mode = _text(policy.get("mode"))
    return AgentRun(
        name=_text(metadata.get("name")),
        namespace=_text(metadata.get("namespace")) or DEFAULT_NAMESPACE,
        uid=_text(metadata.get("uid")),
        generation=whole(metadata.get("generation")) or 1,
        labels=_strings(metadata.get("labels")),
        annotations=_strings(metadata.get("annotations")),
        agent=_name_in(spec.get("agentRef")),
        runtime=_text(runtime.get("type")),
        runtime_config=_map(runtime.get("config")),
        implementation=_inline(spec),
        implementation_ref=_name_in(spec.get("implementationSpecRef")),
        parameters=_strings(spec.get("parameters")),
        secrets=tuple(_text(one) for one in _list(spec.get("secrets")) if _text(one)),
        workload=_workload(spec.get("workload")),
        steps=tuple(_step(number, one) for number, one in enumerate(_list(_map(spec.get("workflow")).get("steps")), 1)),
        goal=_map(spec.get("goal")) or None,
        vcs_ref=_name_in(spec.get("vcsRef")),
        vcs_required=policy.get("required") is True,
        vcs_mode=mode if mode in ("read-write", "read-only", "none") else "read-write",
        memory_ref=_name_in(spec.get("memoryRef")),
        idempotency_key=_text(spec.get("idempotencyKey")),
        ttl=whole(spec["ttlSecondsAfterFinished"]) if spec.get("ttlSecondsAfterFinished") is not None else None,
        body=body,
    )


def whole(value: Any) -> int:
    """A count as the controller reads it: cut to a whole number, none below 0, numbers in text accepted, else 0."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", value):
            return 0
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return 0
    return max(0, math.trunc(value)) if isinstance(value, int | float) else 0


def _step(number: int, value: Any) -> Step:
    one = _map(value)
    return Step(
        index=number,
        name=_text(one.get("name")),
        parameters=_strings(one.get("parameters")),
        workload=_workload(one.get("workload")),
        retries=whole(one.get("retries")),
        retry_backoff=whole(one.get("retryBackoffSeconds")),
        timeout=whole(one.get("timeoutSeconds")),
        loop=_loop(one.get("loop")),
        implementation=_inline(one),
        implementation_ref=_name_in(one.get("implementationSpecRef")),
    )


def _loop(value: Any) -> Loop | None:
    if not isinstance(value, Mapping):
        return None
    state = _map(value.get("state"))
    return Loop(
        max_iterations=whole(value.get("maxIterations")),
        condition=_condition(value.get("condition")),
        state_required=state.get("required") is True,
        state_volumes=tuple(_text(one) for one in _list(state.get("volumeNames"))),
    )


def _condition(value: Any) -> LoopCondition | None:
    if not isinstance(value, Mapping):
        return None
    source = _map(value.get("source"))
    return LoopCondition(
        expression=_text(value.get("expression")),
        path=_text(source.get("path")) or DEFAULT_CONTROL_PATH,
        on_missing=_text(source.get("onMissing")).lower() or "stop",
        on_invalid=_text(source.get("onInvalid")).lower() or "fail",
    )


def _workload(value: Any) -> Workload | None:
    if not isinstance(value, Mapping):
        return None
    return Workload(
        image=_text(value.get("image")),
        resources=_map(value.get("resources")),
        volumes=tuple(_volume(one) for one in _list(value.get("volumes"))),
    )


def _volume(value: Any) -> Volume:
    one = _map(value)
    return Volume(
        name=_text(one.get("name")),
        type=_text(one.get("type")),
        mount_path=_text(one.get("mountPath")),
        read_only=one.get("readOnly") is True,
        claim_name=_text(one.get("claimName")),
        secret_name=_text(one.get("secretName")),
        size_limit=_text(one.get("sizeLimit")),
        medium=_text(one.get("medium")),
    )


def _inline(holder: Mapping[str, Any]) -> Mapping[str, Any] | None:
    inline = _map(holder.get("implementation")).get("inline")
    return inline if isinstance(inline, Mapping) else None


def _name_in(value: Any) -> str:
    return _text(_map(value).get("name"))


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: Any) -> Mapping[str, str]:
    return {key: item for key, item in _map(value).items() if isinstance(item, str)}
