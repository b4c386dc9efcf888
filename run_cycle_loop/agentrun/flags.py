"""The controller's flags and limits: every variable that decides about a run, its default, how it is read."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from run_cycle_loop.agentrun.profiles import Profile

DEFAULT_MAX_ITERATIONS = 20
DEFAULT_HISTORY_LIMIT = 50
_DAY = 86_400
_JOB_TTL = (30, 7 * _DAY)  #: seconds: the shortest and the longest that a Job is kept
_TRUE = ("1", "true", "yes", "y")  #: what the loop flag takes; ``on`` is not among it
_FALSE = ("0", "false", "no", "n", "off")


def _controller(suffix: str) -> dict[str, str]:
    return {"variable": f"AGENTS_CONTROLLER_{suffix}"}


def _other(suffix: str) -> dict[str, str]:
    return {"variable": suffix}


@dataclass(frozen=True, kw_only=True, slots=True)
class ControllerFlags:
    """What a controller allows and how it makes Jobs; the defaults are the controller's own."""

    known: bool = False  #: whether somebody looked; then what is not set has its default, else it may be anything
    loops_enabled: bool = field(default=False, metadata=_controller("WORKFLOW_LOOPS_ENABLED"))
    max_iterations: int = field(
        default=DEFAULT_MAX_ITERATIONS, metadata=_controller("WORKFLOW_LOOP_MAX_ITERATIONS")
    )  #: of any loop
    history_limit: int = field(
        default=DEFAULT_HISTORY_LIMIT, metadata=_controller("WORKFLOW_LOOP_STATUS_HISTORY_LIMIT")
    )  #: iterations that a status keeps
    namespaces: tuple[str, ...] = field(default=("agents",), metadata=_controller("NAMESPACES"))  #: ``*`` for all
    concurrency_agent: int = field(default=5, metadata=_controller("CONCURRENCY_AGENT"))
    concurrency_namespace: int = field(default=10, metadata=_controller("CONCURRENCY_NAMESPACE"))
    concurrency_cluster: int = field(default=100, metadata=_controller("CONCURRENCY_CLUSTER"))
    repository_concurrency_enabled: bool = field(default=False, metadata=_controller("REPO_CONCURRENCY_ENABLED"))
    repository_concurrency: int = field(default=0, metadata=_controller("REPO_CONCURRENCY_DEFAULT"))  #: 0 for no limit
    repository_concurrency_overrides: Mapping[str, Any] = field(
        default_factory=dict, metadata=_controller("REPO_CONCURRENCY_OVERRIDES")
    )
    queue_namespace: int = field(default=200, metadata=_controller("QUEUE_NAMESPACE"))
    queue_repository: int = field(default=50, metadata=_controller("QUEUE_REPO"))
    queue_cluster: int = field(default=1000, metadata=_controller("QUEUE_CLUSTER"))
    rate_window: int = field(default=60, metadata=_controller("RATE_WINDOW_SECONDS"))  #: seconds
    rate_namespace: int = field(default=120, metadata=_controller("RATE_NAMESPACE"))
    rate_repository: int = field(default=30, metadata=_controller("RATE_REPO"))
    rate_cluster: int = field(default=600, metadata=_controller("RATE_CLUSTER"))
    resync_interval: int = field(default=60, metadata=_controller("RESYNC_INTERVAL_SECONDS"))  #: seconds
    untouched_after: int = field(default=120, metadata=_controller("UNTOUCHED_WARN_AFTER_SECONDS"))  #: seconds
    retention: int = field(default=30 * _DAY, metadata=_controller("AGENTRUN_RETENTION_SECONDS"))
    zero_ttl_maximum: int = field(
        default=0, metadata=_controller("AGENTRUN_RETENTION_ZERO_TTL_MAX_SECONDS")
    )  #: seconds that a run with ``ttlSecondsAfterFinished: 0`` is kept; 0 for ever
    labels_required: tuple[str, ...] = field(default=(), metadata=_controller("LABELS_REQUIRED"))
    labels_allowed: tuple[str, ...] = field(default=(), metadata=_controller("LABELS_ALLOWED"))
    labels_denied: tuple[str, ...] = field(default=(), metadata=_controller("LABELS_DENIED"))
    images_allowed: tuple[str, ...] = field(default=(), metadata=_controller("IMAGES_ALLOWED"))
    images_denied: tuple[str, ...] = field(default=(), metadata=_controller("IMAGES_DENIED"))
    blocked_secrets: tuple[str, ...] = field(default=(), metadata=_controller("BLOCKED_SECRETS"))
    auth_secret_name: str = field(default="", metadata=_controller("AUTH_SECRET_NAME"))
    auth_secret_key: str = field(default="auth.json", metadata=_controller("AUTH_SECRET_KEY"))
    auth_secret_mount_path: str = field(default="/root/.codex", metadata=_controller("AUTH_SECRET_MOUNT_PATH"))
    vcs_enabled: bool = field(default=True, metadata=_controller("VCS_PROVIDERS_ENABLED"))
    vcs_deprecated_tokens: Mapping[str, Any] = field(
        default_factory=dict, metadata=_controller("VCS_DEPRECATED_TOKEN_TYPES")
    )
    vcs_pr_rate_limits: Mapping[str, Any] = field(default_factory=dict, metadata=_controller("VCS_PR_RATE_LIMITS"))
    idempotency_enabled: bool = field(default=True, metadata=_other("AGENTRUN_IDEMPOTENCY_ENABLED"))
    immutability_enforced: bool = field(default=True, metadata=_other("AGENTRUN_IMMUTABILITY_ENFORCED"))
    artifacts_maximum: int = field(default=50, metadata=_other("AGENTRUN_ARTIFACTS_MAX"))
    artifacts_strict: bool = field(default=False, metadata=_other("AGENTRUN_ARTIFACTS_STRICT"))
    runner_image: str = ""  #: of pods whose run, step and provider name none; the first that is set of the profile's
    runner_image_variable: str = ""  #: the one it came from
    runner_service_account: str = field(default="", metadata=_other("AGENT_RUNNER_SERVICE_ACCOUNT"))
    runner_backoff_limit: int = field(default=0, metadata=_other("AGENT_RUNNER_BACKOFF_LIMIT"))
    runner_resources: Mapping[str, Any] = field(default_factory=dict, metadata=_other("AGENT_RUNNER_RESOURCES"))
    runner_node_selector: Mapping[str, Any] = field(default_factory=dict, metadata=_other("AGENT_RUNNER_NODE_SELECTOR"))
    runner_tolerations: tuple[Any, ...] = field(default=(), metadata=_other("AGENT_RUNNER_TOLERATIONS"))
    runner_topology_spread_constraints: tuple[Any, ...] = field(
        default=(), metadata=_other("AGENT_RUNNER_TOPOLOGY_SPREAD_CONSTRAINTS")
    )
    runner_affinity: Mapping[str, Any] = field(default_factory=dict, metadata=_other("AGENT_RUNNER_AFFINITY"))
    runner_pod_security_context: Mapping[str, Any] = field(
        default_factory=dict, metadata=_other("AGENT_RUNNER_POD_SECURITY_CONTEXT")
    )
    runner_image_pull_secrets: tuple[Any, ...] = field(default=(), metadata=_other("AGENT_RUNNER_IMAGE_PULL_SECRETS"))
    runner_priority_class: str = field(default="", metadata=_other("AGENT_RUNNER_PRIORITY_CLASS"))
    runner_scheduler_name: str = field(default="", metadata=_other("AGENT_RUNNER_SCHEDULER_NAME"))
    job_ttl: int = field(default=600, metadata=_other("AGENT_RUNNER_JOB_TTL_SECONDS"))  #: of a finished run's Jobs
    log_retention: int = field(default=7 * _DAY, metadata=_other("AGENT_RUNNER_LOG_RETENTION_SECONDS"))

    @staticmethod
    def variables(profile: Profile) -> Mapping[str, str]:
        """The variable of each field as this generation of the controller calls it."""
        named = {one.name: str(one.metadata["variable"]) for one in fields(ControllerFlags) if one.metadata}
        images = {"runner_image": profile.traits.image_variables[0].removeprefix(profile.traits.env_prefix)}
        return {name: _full_name(suffix, profile) for name, suffix in (named | images).items()}


UNKNOWN = ControllerFlags()

#: This machine: loops are on, within the controller's limit, and an image has no meaning.
LOCAL = ControllerFlags(
    known=True, loops_enabled=True, runner_image="this-machine", runner_image_variable="this machine"
)


def read_flags(env: Mapping[str, str], profile: Profile) -> ControllerFlags:
    """The flags of a controller whose container has these variables; what cannot be read has its default."""
    names = ControllerFlags.variables(profile)
    given: dict[str, Any] = {}
    for one in fields(ControllerFlags):
        text = env.get(names.get(one.name, ""))
        if text is None or not one.metadata:
            continue
        value = _read(one.name, text.strip(), getattr(UNKNOWN, one.name))
        if value is not None:
            given[one.name] = value
    image = next((name for name in profile.traits.image_variables if env.get(name, "").strip()), "")
    return ControllerFlags(known=True, runner_image=env.get(image, "").strip(), runner_image_variable=image, **given)


def _full_name(suffix: str, profile: Profile) -> str:
    if suffix.startswith("AGENTS_CONTROLLER_"):
        return profile.traits.controller_prefix + suffix.removeprefix("AGENTS_CONTROLLER_")
    return profile.traits.env_prefix + suffix


_LEAST_ONE = ("max_iterations", "history_limit")


def _read(name: str, text: str, default: Any) -> Any:
    """The value, or None where the default stands."""
    if name == "loops_enabled":
        return text.lower() in _TRUE
    if isinstance(default, bool):
        lowered = text.lower()
        return True if lowered in (*_TRUE, "on") else False if lowered in _FALSE else None
    if isinstance(default, int):
        return _number(name, text)
    if isinstance(default, tuple):
        return (
            _words(text) if all(isinstance(one, str) for one in default) and not _is_structured(name) else _list(text)
        )
    if isinstance(default, Mapping):
        value = _json(text)
        return value if isinstance(value, dict) else None
    return text or None


def _is_structured(name: str) -> bool:
    return name in ("runner_tolerations", "runner_topology_spread_constraints", "runner_image_pull_secrets")


def _number(name: str, text: str) -> int | None:
    """The whole number that a text begins with: ``10x`` is 10 and ``5.9`` is 5."""
    found = re.match(r"[+-]?\d{1,15}", text)
    if not found:
        return None
    number = int(found[0])
    if name in _LEAST_ONE:
        return number if number >= 1 else None
    if name == "job_ttl":
        return min(max(number, _JOB_TTL[0]), _JOB_TTL[1])
    return number if number >= 0 else None


def _words(text: str) -> tuple[str, ...]:
    """A JSON array, or words with commas between them."""
    value = _json(text) if text.startswith("[") else None
    words = value if isinstance(value, list) else text.split(",")
    return tuple(word.strip() for word in words if isinstance(word, str) and word.strip())


def _list(text: str) -> tuple[Any, ...] | None:
    value = _json(text)
    return tuple(value) if isinstance(value, list) else None


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: math.nan)
    except (ValueError, RecursionError):
        return None
