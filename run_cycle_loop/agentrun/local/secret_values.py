"""Values of Secrets: never in the run store, and on disk no longer than the run that needs them."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.local.places import SECRETS
from run_cycle_loop.agentrun.local.pod import Secrets
from run_cycle_loop.agentrun.resources import Object
from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import ConfigError, StateError

_SECRETS_LARGEST = 64 << 20  #: bytes of the file with the values of a run's Secrets
_NAMING = ("name", "namespace", "labels", "uid")  #: what is kept of a Secret's metadata
_SECRET_LARGEST = 1 << 20  #: bytes of one file in a Secret's folder; a cluster takes no more


def without_values(one: Object) -> Object:
    """The object as it may be stored: a Secret loses its values."""
    if one.get("kind") != "Secret":
        return one
    # What is not known to be harmless may hold a value: kubectl repeats the whole object in an annotation.
    metadata = {key: value for key, value in _map(one.get("metadata")).items() if key in _NAMING}
    return {key: one[key] for key in ("apiVersion", "kind", "type") if key in one} | {"metadata": metadata}


def keep(folder: Path, secrets: Secrets) -> None:
    """Keep the values for a resumption, for this user alone.

    Raises:
        StateError: that cannot be done.
    """
    if not secrets:
        return
    value = {name: {key: base64.b64encode(one).decode() for key, one in held.items()} for name, held in secrets.items()}
    try:
        files.replace_file(folder / SECRETS, json.dumps(value).encode(), durable=True)
    except OSError as error:
        raise StateError(
            f"{folder / SECRETS} cannot be written: {error.strerror or error}; free space there"
        ) from error


def kept(folder: Path) -> dict[str, dict[str, bytes]]:
    """What was kept.

    Raises:
        StateError: it cannot be read.
    """
    try:
        value = json.loads(files.read_bounded(folder / SECRETS, _SECRETS_LARGEST))
        return {name: {key: base64.b64decode(one) for key, one in held.items()} for name, held in value.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise StateError(f"{folder / SECRETS} cannot be read: {error}; mend it, or cancel the run") from error


def refuse_gone(documents: tuple[Object, ...], secrets: Secrets) -> None:
    """Nothing where every Secret that came with the run still has its values.

    Raises:
        ConfigError: one has not.
    """
    for one in documents:
        name = str(_map(one.get("metadata")).get("name"))
        if one.get("kind") == "Secret" and name not in secrets:
            raise ConfigError(
                f"the values of Secret {name} are not kept any more; name a folder of its keys, or cancel"
            )


def from_folders(folders: Mapping[str, Path]) -> dict[str, dict[str, bytes]]:
    """Secrets that the operator keeps in folders: a file for each key.

    Raises:
        ConfigError: a folder cannot be read.
    """
    found: dict[str, dict[str, bytes]] = {}
    for name, folder in folders.items():
        try:
            paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
            found[name] = {path.name: files.read_bounded(path.resolve(), _SECRET_LARGEST) for path in paths}
        except (OSError, ValueError) as error:
            raise ConfigError(f"the folder {folder} of Secret {name} cannot be read: {error}; name another") from error
    return found


def as_objects(secrets: Secrets, documents: tuple[Object, ...]) -> Iterator[Object]:
    """The Secrets of the bundle with their values again."""
    for one in documents:
        name = str(_map(one.get("metadata")).get("name"))
        if one.get("kind") == "Secret" and name in secrets:
            yield {**one, "data": {key: base64.b64encode(value).decode() for key, value in secrets[name].items()}}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
