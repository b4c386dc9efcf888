"""What a container would find at its paths, and where that is on this machine.

With bubblewrap the paths are true; without it they are folders elsewhere, and what names them is translated.
"""

import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VARIABLE = "AGENT_RUN_MOUNTS"  #: what an attempt is told its mounts by
WORKSPACE = "/workspace"
AGENT_FOLDER = "/workspace/.agent"

#: Fields of the two payload files that hold a path, as the keys that lead to them.
_PATH_FIELDS = (
    ("payloads", "eventFilePath"),
    ("artifacts", "statusPath"),
    ("artifacts", "logPath"),
    ("adapter", "codex", "cwd"),
    ("adapter", "codex", "systemPromptPath"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """One path of the container."""

    path: str  #: in the container
    folder: str  #: a folder or file of this machine
    read_only: bool = False
    is_secret: bool = False  #: whether its files hold secret values, which no log may show


def inner_first(mounts: Iterable[Mount]) -> list[Mount]:
    """The deepest paths first: the first that contains a path is its mount."""
    return sorted(mounts, key=lambda one: (-_depth(one.path), one.path))


def normal(path: str) -> str:
    """A path without ``.``, ``..`` and double slashes; ``normpath`` leaves two of them where they stand first."""
    found = posixpath.normpath(path)
    return found[1:] if found.startswith("//") else found


def translate(path: str, mounts: Iterable[Mount]) -> str | None:
    """Where a container's path is on this machine; None where no mount has it."""
    found = mount_of(path, mounts)
    if found is None:
        return None
    rest = posixpath.relpath(normal(path), found.path)
    return found.folder if rest == "." else posixpath.join(found.folder, rest)


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount in which a container's path lies."""
    wanted = normal(path)
    return next((one for one in inner_first(mounts) if is_within(wanted, one.path)), None)


def is_within(path: str, folder: str) -> bool:
    """Whether a path is that folder or lies below it; both without ``..``."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def translated_payload(payload: Mapping[str, Any], mounts: Sequence[Mount]) -> dict[str, Any]:
    """A payload whose path fields name this machine's paths; what no mount has stays."""
    copy: dict[str, Any] = json.loads(json.dumps(payload))
    for keys in _PATH_FIELDS:
        holder: Any = copy
        for key in keys[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        value = holder.get(keys[-1]) if isinstance(holder, dict) else None
        if isinstance(value, str):
            holder[keys[-1]] = translate(value, mounts) or value
    return copy


def write_mounts(mounts: Iterable[Mount]) -> str:
    """As the variable :data:`VARIABLE` has them."""
    return json.dumps(
        [
            {"path": one.path, "folder": one.folder, "readOnly": one.read_only, "secret": one.is_secret}
            for one in mounts
        ],
        separators=(",", ":"),
    )


def read_mounts(text: str) -> tuple[Mount, ...]:
    """From that variable.

    Raises:
        ValueError: it holds something else.
    """
    value = json.loads(text or "[]")
    if not isinstance(value, list):
        raise ValueError("no list")  # noqa: TRY004 - what was read is wrong, not what was passed
    return tuple(_mount(one) for one in value)


def _mount(value: Any) -> Mount:
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("path"), str)
        or not isinstance(value.get("folder"), str)
    ):
        raise ValueError(f"{value!r:.80} is no mount")  # noqa: TRY004 - the same
    return Mount(
        path=value["path"],
        folder=value["folder"],
        read_only=value.get("readOnly") is True,
        is_secret=value.get("secret") is True,
    )


def bwrap_mounts(mounts: Iterable[Mount]) -> list[str]:
    """The switches of bubblewrap for these mounts, outer paths first."""
    return [
        part
        for one in reversed(inner_first(mounts))
        for part in ("--ro-bind" if one.read_only else "--bind", one.folder, one.path)
    ]


def bwrap_root(entries: Iterable[tuple[str, str | None]], mounts: Iterable[Mount], *, read_only: bool) -> list[str]:
    """The switches for a root of its own, in which any path can be made, with everything of the machine's in it.

    Args:
        entries: the names in ``/``, each with where it leads if it is a link.
        mounts: a name that is one of their paths is left out.
        read_only: whether what is in it can only be read.
    """
    taken = {one.path for one in mounts} | {"/proc", "/dev"}
    switches: list[str] = []
    for name, link in sorted(entries):
        path = f"/{name}"
        if path in taken:
            continue
        switches += (
            ["--symlink", link, path]
            if link is not None
            else ["--ro-bind-try" if read_only else "--bind-try", path, path]
        )
    return switches


def _depth(path: str) -> int:
    return len([part for part in path.split("/") if part])
