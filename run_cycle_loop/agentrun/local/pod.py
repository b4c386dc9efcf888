"""What a Job's pod would find: its files, mounts and variables, worked out from the objects that a controller makes.

Pure: nothing is written here. A Secret's values come from the bundle, or from a folder that the operator names.
"""

import base64
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from run_cycle_loop.agentrun.local import mounts as places
from run_cycle_loop.agentrun.local.mounts import Mount
from run_cycle_loop.agentrun.rendering.jobs import AttemptObjects
from run_cycle_loop.agentrun.rendering.system_prompts import MOUNT_FOLDER
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.model.errors import ConfigError

_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
#: Variables that hold a path of the container, for which it is translated where paths are not true.
_PATH_VARIABLES = ("AGENT_RUN_SPEC", "AGENT_RUNNER_SPEC_PATH", "CODEX_SYSTEM_PROMPT_PATH", "CODEX_AUTH")
_HOME_OF_IMAGE = (
    "CODEX_HOME"  #: a folder of the image; here the agent's own is meant, unless something is mounted there
)

SECRET_FOLDER = "secrets"  # noqa: S105 - a folder of an attempt; it is removed when the attempt is over

Secrets = Mapping[str, Mapping[str, bytes]]  #: values by the Secret's name and key


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A file to be made."""

    path: str
    data: bytes
    is_secret: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """What an attempt gets."""

    command: tuple[str, ...]  #: what the container starts, its arguments filled in by the controller
    env: Mapping[str, str]
    secret_variables: tuple[str, ...]  #: names of variables whose values no log may show
    mounts: tuple[Mount, ...]
    files: tuple[Written, ...]
    folders: tuple[str, ...]  #: to be made where missing
    claims: tuple[str, ...] = ()  #: names of the claims among them
    warnings: tuple[str, ...] = field(default=())


def secrets_in(resources: Resources) -> Secrets:
    """The values of the bundle's Secrets; ``stringData`` stands before ``data``."""
    found: dict[str, dict[str, bytes]] = {}
    for one in resources.all("Secret"):
        name = str(_map(one.get("metadata")).get("name") or "")
        values = {key: _decoded(text) for key, text in _map(one.get("data")).items() if isinstance(text, str)}
        values |= {key: text.encode() for key, text in _map(one.get("stringData")).items() if isinstance(text, str)}
        found[name] = {key: value for key, value in values.items() if _KEY.fullmatch(key)}
    return found


def assemble(
    objects: AttemptObjects,
    resources: Resources,
    secrets: Secrets,
    *,
    folder: str,
    claims: Mapping[str, str],
    true_paths: bool,
) -> Pod:
    """What the pod of these objects would find.

    Args:
        objects: the Job and its ConfigMaps.
        resources: the other objects.
        secrets: the values of Secrets.
        folder: the attempt's own.
        claims: folders by the names of claims.
        true_paths: whether the container's paths are there under their own names.

    Raises:
        ConfigError: something that is mounted is not there.
    """
    made = _Making(objects, resources, secrets, folder, claims)
    made.mount_all()
    mounts = made.with_own_mounts()
    env, secret_variables, warnings = made.variables(mounts, true_paths=true_paths)
    files = made.files if true_paths else [_translated(one, mounts) for one in made.files]
    return Pod(
        command=made.command,
        env=env,
        secret_variables=secret_variables,
        mounts=mounts,
        files=tuple(files),
        folders=tuple(made.folders),
        claims=tuple(made.claims_used),
        warnings=(*made.warnings, *warnings),
    )


class _Making:
    """One pod on its way."""

    def __init__(
        self,
        objects: AttemptObjects,
        resources: Resources,
        secrets: Secrets,
        folder: str,
        claims: Mapping[str, str],
    ) -> None:
        self.files: list[Written] = []
        self.folders: list[str] = []
        self.claims_used: list[str] = []
        self.warnings: list[str] = []
        self._mounts: list[Mount] = []
        self._resources = resources
        self._secrets = secrets
        self._folder = folder
        self._claims = claims
        self._maps = {str(_map(one.get("metadata")).get("name")): _map(one.get("data")) for one in objects.config_maps}
        spec = _map(_map(_map(objects.job.get("spec")).get("template")).get("spec"))
        self._container = _map(_list(spec.get("containers"))[0])
        self._volumes = {str(_map(one).get("name")): _map(one) for one in _list(spec.get("volumes"))}
        self._spec_map = next((name for name, data in self._maps.items() if "agent-runner.json" in data), "")

    @property
    def command(self) -> tuple[str, ...]:
        return tuple(map(str, (*_list(self._container.get("command")), *_list(self._container.get("args")))))

    def mount_all(self) -> None:
        for mount in map(_map, _list(self._container.get("volumeMounts"))):
            name, path = str(mount.get("name")), places.normal(str(mount.get("mountPath")))
            if not path.startswith("/"):
                raise ConfigError(
                    f"mountPath {path[:80]!r} of volume {name} is not absolute; write it with a leading /"
                )
            volume = self._volumes.get(name)
            if volume is None:
                raise ConfigError(f"volume {name} is mounted and names neither claim nor Secret; give it one")
            read_only = mount.get("readOnly") is True
            self._add(volume, name, path, str(mount.get("subPath") or ""), read_only=read_only)

    def _add(self, volume: Mapping[str, Any], name: str, path: str, sub_path: str, *, read_only: bool) -> None:
        if "persistentVolumeClaim" in volume:
            claim = str(_map(volume["persistentVolumeClaim"]).get("claimName"))
            self.claims_used.append(claim)
            self._put(Mount(path=path, folder=self._claims[claim], read_only=read_only))
        elif "emptyDir" in volume:
            place = posixpath.join(self._folder, "empty", name)
            self.folders.append(place)
            self._put(Mount(path=path, folder=place, read_only=read_only))
        elif "configMap" in volume:
            self._add_config_map(_map(volume["configMap"]), name, path, sub_path)
        elif "secret" in volume:
            self._add_secret(_map(volume["secret"]), name, path, sub_path)
        else:
            self.warnings.append(f"volume {name} is of a kind that only a cluster has, and is left out")

    def _add_config_map(self, source: Mapping[str, Any], volume: str, path: str, sub_path: str) -> None:
        name = str(source.get("name"))
        data = self._maps.get(name)
        if data is None:
            held = self._resources.get("ConfigMap", name)
            if held is None:
                raise ConfigError(f"ConfigMap {name} is mounted at {path} and is not among the objects given; add it")
            data = _map(held.get("data"))
        if name == self._spec_map:
            place = self._folder
        elif name in self._maps:
            place = posixpath.join(self._folder, "inputs")
        else:
            own = posixpath.basename(path) if path == MOUNT_FOLDER else f"config-{volume}"
            place = posixpath.join(self._folder, own)
        values = {key: text.encode("utf-8", "surrogateescape") for key, text in data.items() if isinstance(text, str)}
        self._add_files(source, values, place, path, sub_path, what=f"ConfigMap {name}", is_secret=False)

    def _add_secret(self, source: Mapping[str, Any], volume: str, path: str, sub_path: str) -> None:
        name = str(source.get("secretName"))
        values = self._secrets.get(name)
        if values is None:
            raise ConfigError(
                f"Secret {name} is mounted at {path} and is neither among the objects given nor in a folder; "
                "add it, or name its folder"
            )
        place = posixpath.join(self._folder, SECRET_FOLDER, volume)
        self._add_files(source, values, place, path, sub_path, what=f"Secret {name}", is_secret=True)

    def _add_files(
        self,
        source: Mapping[str, Any],
        values: Mapping[str, bytes],
        place: str,
        path: str,
        sub_path: str,
        *,
        what: str,
        is_secret: bool,
    ) -> None:
        items = [(str(_map(one).get("key")), str(_map(one).get("path"))) for one in _list(source.get("items"))]
        for key, file in items or [(key, key) for key in values]:
            if key not in values:
                raise ConfigError(f"{what} has no key {key}, which is mounted at {path}; add it")
            if not _KEY.fullmatch(file) or file in (".", ".."):
                raise ConfigError(f"{what} cannot be mounted with the file name {file[:80]!r}; name a plain one")
            if not sub_path or file == sub_path:
                self.files.append(Written(path=posixpath.join(place, file), data=values[key], is_secret=is_secret))
        self.folders.append(place)
        target = posixpath.join(place, sub_path) if sub_path else place
        self._put(Mount(path=path, folder=target, read_only=True, is_secret=is_secret))

    def _put(self, mount: Mount) -> None:
        """The last of two mounts at the same path stands."""
        self._mounts = [*(one for one in self._mounts if one.path != mount.path), mount]

    def with_own_mounts(self) -> tuple[Mount, ...]:
        """The workspace, where no volume is, and the folder of status and log, which is the attempt's alone."""
        if all(one.path != places.WORKSPACE for one in self._mounts):
            place = posixpath.join(self._folder, "workspace")
            self.folders.append(place)
            self._put(Mount(path=places.WORKSPACE, folder=place))
        agent = posixpath.join(self._folder, ".agent")
        self.folders.append(agent)
        self._put(Mount(path=places.AGENT_FOLDER, folder=agent))
        return tuple(self._mounts)

    def variables(
        self, mounts: Sequence[Mount], *, true_paths: bool
    ) -> tuple[dict[str, str], tuple[str, ...], list[str]]:
        """The container's variables, the names of the secret ones, and what cannot be had."""
        env: dict[str, str] = {}
        secret: list[str] = []
        warnings: list[str] = []
        for name in self._secrets_of_environment():
            held = self._secrets.get(name)
            if held is None:
                warnings.append(
                    f"Secret {name} is not among the objects given: its variables are those of this machine, if any"
                )
                continue
            given = {key: value.decode("utf-8", "surrogateescape") for key, value in held.items() if _is_variable(key)}
            env |= given
            secret += given
        for one in map(_map, _list(self._container.get("env"))):
            name, reference = str(one.get("name")), _map(_map(one.get("valueFrom")).get("secretKeyRef"))
            if not reference:
                env[name] = str(one.get("value") or "")
                continue
            value = self._secrets.get(str(reference.get("name")), {}).get(str(reference.get("key")))
            if value is not None:
                env[name] = value.decode("utf-8", "surrogateescape")
                secret.append(name)
            elif reference.get("optional") is not True:
                warnings.append(
                    f"{name} is to come from key {reference.get('key')} of Secret {reference.get('name')}, which is "
                    "not among the objects given: it is that of this machine, if any"
                )
        if places.mount_of(env.get(_HOME_OF_IMAGE, "/"), mounts) is None:
            env.pop(_HOME_OF_IMAGE, None)
        if not true_paths:
            env |= {name: places.translate(env[name], mounts) or env[name] for name in _PATH_VARIABLES if name in env}
        return {name: value for name, value in env.items() if "\0" not in value}, tuple(secret), warnings

    def _secrets_of_environment(self) -> Iterator[str]:
        for one in map(_map, _list(self._container.get("envFrom"))):
            if name := _map(one.get("secretRef")).get("name"):
                yield str(name)


def _translated(written: Written, mounts: Sequence[Mount]) -> Written:
    """A payload file with this machine's paths; other files as they are."""
    if not written.path.endswith(("/agent-runner.json", "/run.json")) or written.is_secret:
        return written
    payload = places.translated_payload(json.loads(written.data), mounts)
    text = json.dumps(payload, ensure_ascii=False, indent=2)
    return Written(path=written.path, data=text.encode("utf-8", "surrogateescape"))


def _is_variable(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
