"""What one pod is made of: its command, its environment and its mounts, taken from the API and from scratch folders."""

import re
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.client import ApiError, Client
from tests.cluster.sandbox import Mount

_MESSAGE_LIMIT = 4096  #: bytes of a termination message that are kept
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


class Waiting(Exception):  # noqa: N818 - a state of a container, not an error
    """The container cannot start yet; looked at again when a Secret, a ConfigMap or a claim changes."""

    def __init__(self, reason: str, message: str, *, scheduled: bool = True) -> None:
        super().__init__(message)
        self.reason, self.message, self.scheduled = reason, message, scheduled


class Materials:
    """Those of one pod; its claims outlive it, the rest is its own."""

    def __init__(self, client: Client, seen: Mapping[str, Any], scratch: Path, environment: Mapping[str, str]) -> None:
        self._client, self._seen, self._scratch, self._environment = client, seen, scratch, environment
        self._name, self._namespace = seen["metadata"]["name"], seen["metadata"]["namespace"]
        self._container = seen["spec"]["containers"][0]
        self._folder: Path = scratch / "pods" / seen["metadata"]["uid"]

    def command(self) -> tuple[list[str], dict[str, str]]:
        """What is started, and with which environment.

        Raises:
            Waiting: something that it needs is missing.
        """
        image = self._container["image"]
        if image.endswith(":missing"):
            raise Waiting("ImagePullBackOff", f'Back-off pulling image "{image}"')
        env = dict(self._environment) | {"HOSTNAME": self._name}
        env |= self._taken_from_api()
        words = [*self._container.get("command", ()), *self._container.get("args", ())]
        if not words:
            raise Waiting("CreateContainerError", "no command specified, and an image has none here")
        return [_expand(word, env) for word in words], env

    def _taken_from_api(self) -> dict[str, str]:
        env: dict[str, str] = {}
        for source in self._container.get("envFrom", ()):
            kind, reference = (
                ("secret", source["secretRef"]) if "secretRef" in source else ("configmap", source["configMapRef"])
            )
            data = self._data(kind, reference)
            env |= {source.get("prefix", "") + key: value.decode() for key, value in data.items()}
        for entry in self._container.get("env", ()):
            value = self._value(entry)
            if value is not None:
                env[entry["name"]] = _expand(value, env)
        return env

    def _value(self, entry: Mapping[str, Any]) -> str | None:
        source = entry.get("valueFrom")
        if source is None:
            return str(entry.get("value", ""))
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        kind, reference = (
            ("secret", source["secretKeyRef"]) if "secretKeyRef" in source else ("configmap", source["configMapKeyRef"])
        )
        data = self._data(kind, reference)
        if reference["key"] in data:
            return data[reference["key"]].decode()
        if reference.get("optional"):
            return None
        raise Waiting(
            "CreateContainerConfigError", f"couldn't find key {reference['key']} in {kind} {reference['name']}"
        )

    def _field(self, path: str) -> str:
        if keyed := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return str(self._seen["metadata"].get(keyed[1], {}).get(keyed[2], ""))
        fixed = {"status.podIP": "127.0.0.1", "status.hostIP": "127.0.0.1"}
        if path in fixed:
            return fixed[path]
        found: Any = self._seen
        for key in path.split("."):
            found = found.get(key, "")
        return str(found)

    def _data(self, kind: str, reference: Mapping[str, Any]) -> dict[str, bytes]:
        """The content of a Secret or a ConfigMap.

        Raises:
            Waiting: it does not exist, and is not optional.
        """
        try:
            found = self._client.get(f"/api/v1/namespaces/{self._namespace}/{kind}s/{reference['name']}")
        except ApiError as error:
            if error.code != 404:
                raise
            if reference.get("optional"):
                return {}
            raise Waiting("CreateContainerConfigError", f'{kind} "{reference["name"]}" not found') from error
        if kind == "secret":
            return {key: b64decode(value) for key, value in found.get("data", {}).items()}
        plain = {key: value.encode() for key, value in found.get("data", {}).items()}
        return plain | {key: b64decode(value) for key, value in found.get("binaryData", {}).items()}

    def mounts(self) -> list[Mount]:
        """Its volumes where it wants them, and the file of its last words.

        Raises:
            Waiting: something that they are filled from is missing.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        sources = {volume["name"]: self._realise(volume) for volume in self._seen["spec"].get("volumes", ())}
        mounts = [self._mount(wanted, sources[wanted["name"]]) for wanted in self._container.get("volumeMounts", ())]
        message = self._folder / "termination-message"
        message.touch()
        path = self._container.get("terminationMessagePath", "/dev/termination-log")
        return [*mounts, Mount(source=message, target=path)]

    def _mount(self, wanted: Mapping[str, Any], source: Path) -> Mount:
        if below := wanted.get("subPath"):
            source /= below
            if not source.exists():
                source.mkdir(parents=True)
        return Mount(source=source, target=wanted["mountPath"], read_only=wanted.get("readOnly", False))

    def _realise(self, volume: Mapping[str, Any]) -> Path:
        if claim := volume.get("persistentVolumeClaim"):
            return self._claim(claim["claimName"])
        folder: Path = self._folder / "volumes" / volume["name"]
        folder.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            return folder
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        for source in sources:
            for path, content in self._files(source).items():
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        return folder

    def _claim(self, name: str) -> Path:
        path = f"/api/v1/namespaces/{self._namespace}/persistentvolumeclaims/{name}"
        try:
            claim = self._client.get(path)
        except ApiError as error:
            if error.code != 404:
                raise
            raise Waiting("ContainerCreating", f'persistentvolumeclaim "{name}" not found', scheduled=False) from error
        if claim.get("status", {}).get("phase") != "Bound":
            self._client.patch(f"{path}/status", {"status": {"phase": "Bound"}})
        folder = self._scratch / "claims" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _files(self, source: Mapping[str, Any]) -> dict[str, bytes]:
        """By path: what one source of a volume holds."""
        if token := source.get("serviceAccountToken"):
            return {token["path"]: self._token(token).encode()}
        if downward := source.get("downwardAPI"):
            return {item["path"]: self._field(item["fieldRef"]["fieldPath"]).encode() for item in downward["items"]}
        kind = "configmap" if "configMap" in source else "secret"
        given = source.get("configMap") or source.get("secret")
        if given is None:
            raise Waiting("ContainerCreating", f"a volume of this kind has no stand-in: {', '.join(source)}")
        try:
            data = self._data(kind, given | {"name": given.get("name") or given.get("secretName")})
        except Waiting as waiting:
            raise Waiting("ContainerCreating", f"MountVolume.SetUp failed: {waiting.message}") from waiting
        items = given.get("items")
        if items is None:
            return data
        if absent := [item["key"] for item in items if item["key"] not in data and not given.get("optional")]:
            raise Waiting("ContainerCreating", f"MountVolume.SetUp failed: references non-existent key: {absent[0]}")
        return {item["path"]: data[item["key"]] for item in items if item["key"] in data}

    def _token(self, wanted: Mapping[str, Any]) -> str:
        account = self._seen["spec"].get("serviceAccountName", "default")
        bound = {"apiVersion": "v1", "kind": "Pod", "name": self._name, "uid": self._seen["metadata"]["uid"]}
        spec = {"boundObjectRef": bound, "expirationSeconds": wanted.get("expirationSeconds", 3600)}
        if audience := wanted.get("audience"):
            spec["audiences"] = [audience]
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
        return str(self._client.create(path, {"spec": spec})["status"]["token"])

    def termination_message(self) -> str:
        with (self._folder / "termination-message").open("rb") as file:
            return file.read(_MESSAGE_LIMIT).decode(errors="replace")


def _expand(text: str, env: Mapping[str, str]) -> str:
    """``$(NAME)`` as a node expands it: unknown names stay as written, ``$$`` is one dollar."""
    return _REFERENCE.sub(lambda found: "$" if found[0] == "$$" else env.get(found[1], found[0]), text)
