"""What a manifest shall say, before it is one, and what of it contradicts itself or would be refused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.model import DEFAULT_NAMESPACE
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.policies.expressions import Expression, SyntaxFault

#: What the launch guide's conditional loop asks of its control file.
GUIDE_CONDITION = "iteration.index < iteration.maxIterations && iteration.last.control.continue == true"
CONTROL_FILE = ".agentrun/loop-control.json"  #: below the claim's mount

_PARAMETERS = 100
_PARAMETER_BYTES = 2048
_TEXT = 131_072  #: characters of an inline implementation
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?)?")
_TAKEN = ("/workspace/.codex", "/root/.codex")  #: where controllers mount things of their own
_MODES = ("read-write", "read-only", "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeWish:
    """A volume beside the one of the loop's state."""

    name: str
    type: str  #: ``emptyDir``, ``pvc`` or ``secret``
    mount_path: str
    source: str = ""  #: the claim's or the Secret's name
    read_only: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a manifest shall say."""

    agent: str
    name: str
    namespace: str = DEFAULT_NAMESPACE
    implementation: str = ""  #: an ImplementationSpec's name; it or a text
    text: str = ""  #: of an inline implementation
    runtime: str = "workflow"  #: or ``job``
    steps: tuple[str, ...] = ("implement",)
    loop_step: str = ""  #: the step that is repeated; empty for the last
    maximum: int = 0  #: iterations at most; 0 for no loop
    condition: str = ""  #: CEL; empty for a fixed number
    control_path: str = ""  #: of the control file; empty for ``.agentrun/loop-control.json`` below the mount
    on_missing: str = "stop"
    on_invalid: str = "fail"
    claim: str = ""  #: a PersistentVolumeClaim that keeps what iterations leave for each other
    claim_size: str = ""  #: ``20Gi``: the claim is made as well; empty: it is there
    mount_path: str = "/workspace"  #: of the claim
    volumes: tuple[VolumeWish, ...] = ()
    secrets: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    repository: str = ""  #: ``owner/name``
    base: str = "main"
    head: str = ""  #: empty for ``codex/<name>``; both count with a repository alone
    vcs: str = ""  #: a VersionControlProvider's name
    vcs_required: bool = True
    vcs_mode: str = "read-write"
    ttl: int | None = None  #: seconds that the finished run is kept
    timeout: int = 0  #: seconds of each attempt; 0 for none
    retries: int = 0
    retry_backoff: int = 0  #: seconds
    idempotency_key: str = ""
    image: str = ""
    cpu: str = "500m"
    memory: str = "1024Mi"


def state_volume_of(wish: Wish) -> str:
    """What the volume of the claim is called."""
    taken = {one.name for one in wish.volumes}
    return next((name for name in ("workspace", "state") if name not in taken), "state-of-the-loop")


def control_path_of(wish: Wish) -> str:
    """Where the control file lies."""
    return wish.control_path or f"{wish.mount_path.rstrip('/')}/{CONTROL_FILE}"


def parameters_of(wish: Wish) -> dict[str, str]:
    """All parameters; those that were given stand over the repository and its branches."""
    branches = {"repository": wish.repository, "base": wish.base, "head": wish.head or f"codex/{wish.name}"}
    return {**(branches if wish.repository else {}), **wish.parameters}


def is_repeated(wish: Wish, name: str) -> bool:
    """Whether the step of that name is the one with the loop."""
    return bool(wish.maximum) and wish.runtime == "workflow" and name == (wish.loop_step or wish.steps[-1])


def check(wish: Wish) -> None:
    """Raises:
    ConfigError: the wish contradicts itself, or a manifest of it would be refused.
    """
    for what, name in (("--name", wish.name), ("--agent", wish.agent), ("--namespace", wish.namespace)):
        _named(what, name)
    if len(wish.name) > names.NAME_LIMIT:
        raise ConfigError(
            f"the name {wish.name!r} has {len(wish.name)} characters, and a label takes {names.NAME_LIMIT}: shorten it"
        )
    _check_task(wish)
    _check_numbers(wish)
    _check_steps(wish)
    _check_parameters(wish)
    _check_volumes(wish)
    _check_repository(wish)
    for name in wish.secrets:
        _named("--secret", name)
    for what, quantity in (("--cpu", wish.cpu), ("--memory", wish.memory)):
        if quantity and not QUANTITY.fullmatch(quantity):
            raise ConfigError(f"{what} {quantity!r} is no quantity: write 500m or 1024Mi, for instance")


def _check_task(wish: Wish) -> None:
    if bool(wish.implementation) == bool(wish.text.strip()):
        raise ConfigError("a run needs one thing to do: give either --implementation NAME or --text")
    if wish.implementation:
        _named("--implementation", wish.implementation)
    if len(wish.text) > _TEXT:
        raise ConfigError(
            f"the text has {len(wish.text)} characters, more than {_TEXT}: put it into files and name them"
        )


def _check_repository(wish: Wish) -> None:
    parameters = parameters_of(wish)
    repository = parameters.get("repository", "")
    if repository and not re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", repository):
        raise ConfigError(f"the repository {repository!r} is none that a runner takes: write OWNER/NAME")
    for key in ("base", "head"):
        branch = parameters.get(key, "")
        if branch and not _is_branch(branch):
            raise ConfigError(
                f"the {key} branch {branch!r} is none that a runner takes: use letters, digits and . _ / -"
            )
    if wish.vcs_mode not in _MODES:
        raise ConfigError(f"--vcs-mode {wish.vcs_mode!r} is unknown: choose one of {', '.join(_MODES)}")
    if not wish.vcs:
        return
    _named("--vcs", wish.vcs)
    if wish.vcs_required and wish.vcs_mode != "none" and not repository:
        raise ConfigError(
            f"--vcs {wish.vcs} is required and nothing names the repository: give --repository OWNER/NAME"
        )


def _is_branch(name: str) -> bool:
    parts = name.split("/")
    return (
        re.fullmatch(r"[A-Za-z0-9._/-]+", name) is not None
        and ".." not in name
        and all(parts)
        and not any(part.endswith(".lock") for part in parts)
        and not name.startswith("-")
    )


def _check_numbers(wish: Wish) -> None:
    numbers = {
        "--max-iterations": wish.maximum,
        "--timeout": wish.timeout,
        "--retries": wish.retries,
        "--retry-backoff": wish.retry_backoff,
        "--ttl": wish.ttl or 0,
    }
    for what, number in numbers.items():
        if not 0 <= number < 1 << 31:
            raise ConfigError(f"{what} {number} is out of range: give a whole number from 0 to {(1 << 31) - 1}")


def _check_steps(wish: Wish) -> None:
    if wish.runtime not in ("workflow", "job"):
        raise ConfigError(f"--runtime {wish.runtime!r} is not made here: choose workflow or job")
    if wish.runtime == "job" and (wish.maximum or wish.condition):
        raise ConfigError("the runtime job ignores loops: choose --runtime workflow")
    if wish.runtime == "job" and (wish.timeout or wish.retries):
        raise ConfigError("the runtime job has neither retries nor a timeout: choose --runtime workflow")
    if wish.runtime == "workflow" and (not wish.steps or not all(one.strip() for one in wish.steps)):
        raise ConfigError("a workflow needs at least one step, and each a name: give --step NAME")
    if len(set(wish.steps)) != len(wish.steps):
        raise ConfigError(f"the steps {', '.join(wish.steps)} have a name twice: give each its own")
    for name in wish.steps:
        if not names.is_label_value(names.label_value(name)):
            raise ConfigError(f"the step name {name!r} makes no label: shorten it to 63 characters")
    if wish.loop_step and wish.loop_step not in wish.steps:
        raise ConfigError(
            f"the step to repeat, {wish.loop_step!r}, is none of {', '.join(wish.steps)}: name one of them"
        )
    if wish.condition:
        _check_condition(wish)


def _check_condition(wish: Wish) -> None:
    if not wish.maximum:
        raise ConfigError("a condition needs an end that it cannot talk away: give --max-iterations as well")
    try:
        Expression(wish.condition, doubles=True)
    except SyntaxFault as fault:
        raise ConfigError(f"the condition {wish.condition!r} does not parse, correct it: {fault}") from fault
    path = control_path_of(wish)
    if not path.startswith("/") or ".." in path.split("/"):
        raise ConfigError(f"the control file {path!r} is no absolute path: write it from / on, without ..")
    if wish.claim and not path.startswith(f"{wish.mount_path.rstrip('/')}/"):
        raise ConfigError(f"the control file {path} is not on the claim's volume: put it below {wish.mount_path}")
    for what, answer in (("--on-missing", wish.on_missing), ("--on-invalid", wish.on_invalid)):
        if answer not in ("stop", "fail"):
            raise ConfigError(f"{what} {answer!r} is unknown: choose stop or fail")


def _check_parameters(wish: Wish) -> None:
    parameters = parameters_of(wish)
    if len(parameters) > _PARAMETERS:
        raise ConfigError(f"there are {len(parameters)} parameters, more than {_PARAMETERS}: leave some out")
    for key, value in parameters.items():
        if key.strip().lower() == "prompt":
            raise ConfigError("a parameter called prompt overrides the implementation, or is refused: use --text")
        if len(value.encode("utf-8", "replace")) > _PARAMETER_BYTES:
            raise ConfigError(f"the parameter {key} has more than {_PARAMETER_BYTES} bytes: put it into a file")


def _check_volumes(wish: Wish) -> None:
    if wish.claim:
        _named("--claim", wish.claim)
    mounts = [wish.mount_path] if wish.claim else []
    for one in wish.volumes:
        if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", one.name):
            raise ConfigError(f"the volume {one.name!r} is no volume's name: use lower-case letters, digits and dashes")
        if one.type not in ("emptyDir", "pvc", "secret"):
            raise ConfigError(f"the volume {one.name} has the unknown type {one.type!r}: emptyDir, pvc or secret")
        if one.type != "emptyDir":
            _named(f"the volume {one.name}'s {'claim' if one.type == 'pvc' else 'secret'}", one.source)
        mounts.append(one.mount_path)
    if len({one.name for one in wish.volumes}) != len(wish.volumes):
        raise ConfigError("two volumes have the same name: give each its own")
    for mount in mounts:
        if not mount.startswith("/") or mount.rstrip("/") in ("", *_TAKEN) or ":" in mount or ".." in mount.split("/"):
            raise ConfigError(f"nothing can be mounted at {mount!r}: choose an absolute path such as /workspace")
    if len({mount.rstrip("/") for mount in mounts}) != len(mounts):
        raise ConfigError(f"two volumes have the same mount among {', '.join(mounts)}: give each its own")


def _named(what: str, name: str) -> None:
    if not names.is_object_name(name):
        raise ConfigError(f"{what} {name!r} is no object's name: use lower-case letters, digits, dashes and dots")
