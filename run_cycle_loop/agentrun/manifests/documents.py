"""Manifests from files, folders and standard input: each document with the file and the lines it came from."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.manifests.field_paths import child, parent
from run_cycle_loop.agentrun.manifests.yaml_text import Text, YamlFault, read_text
from run_cycle_loop.agentrun.model import DEFAULT_NAMESPACE
from run_cycle_loop.agentrun.names import GROUP
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.kit.files import read_bounded
from run_cycle_loop.model.errors import ConfigError

STDIN = "-"
LARGEST = 4 << 20  #: bytes of one file
MOST = 2_000  #: documents of one bundle
MOST_FILES = 500  #: of one folder
_ENDINGS = (".yaml", ".yml", ".json")
_ITEMS = "items"


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One object as somebody wrote it."""

    body: Mapping[str, Any]
    kind: str = ""  #: empty where it has none
    name: str = ""
    namespace: str = DEFAULT_NAMESPACE  #: the one it says, else that of runs
    file: str = ""  #: as given, ``-`` for standard input
    line: int = 1  #: where it begins, from 1
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)  #: of its paths

    @property
    def where(self) -> str:
        """How messages call it: ``AgentRun/demo``."""
        return f"{self.kind or 'object'}/{self.name}" if self.name else self.kind or "object"

    @property
    def group(self) -> str:
        """Of its ``apiVersion``; empty for core objects."""
        version = self.body.get("apiVersion")
        return version.rpartition("/")[0] if isinstance(version, str) else ""

    def is_ours(self, kind: str) -> bool:
        """Whether it is an object of that kind, and of the group of AgentRuns."""
        return self.kind == kind and self.group == GROUP

    def line_of(self, path: str) -> int:
        """The line of a field; of the nearest thing around it where there is no such field."""
        while path and path not in self.lines:
            path = parent(path)
        return self.lines.get(path, self.line)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """Everything that was given, in order."""

    documents: tuple[Document, ...] = ()

    @property
    def runs(self) -> tuple[Document, ...]:
        """The AgentRuns."""
        return tuple(one for one in self.documents if one.is_ours("AgentRun"))

    def resources(self, namespace: str) -> Resources:
        """The objects of a namespace; what is not among them may be elsewhere."""
        return Resources.of(
            one.body for one in self.documents if one.namespace == namespace and _is_known_group(one.group)
        )

    def find(self, kind: str, name: str, namespace: str) -> Document | None:
        """The last document of that kind and name, which is the one that stands."""
        same = (one for one in reversed(self.documents) if (one.kind, one.name) == (kind, name))
        return next((one for one in same if one.namespace == namespace), None)


def _is_known_group(group: str) -> bool:
    """Ours, or that of core objects: another group's ``Agent`` is something else."""
    return group in ("", GROUP)


def read_bundle(sources: Sequence[str], *, stdin: Callable[[], bytes]) -> Bundle:
    """Read manifests.

    Args:
        sources: files, folders (their ``*.yaml *.yml *.json`` by name, not what is deeper), or ``-``.
        stdin: reads standard input, a little more than ``LARGEST`` bytes at most.

    Raises:
        ConfigError: something cannot be read, or is no manifest; the sentence begins with file, line and column.
    """
    found: list[Document] = []
    for name, read in _files(sources, stdin):
        try:
            texts = read_text(read())
        except YamlFault as fault:
            raise ConfigError(f"{name}:{fault.line}:{fault.column} {fault.words}") from None
        for text in texts:
            found += _unpacked(text, name)
        if len(found) > MOST:
            raise ConfigError(f"{name} brings the manifests to more than {MOST} objects; give fewer at once")
    if not found:
        raise ConfigError(f"{', '.join(sources) or 'no file'} holds no object; give a file with an AgentRun")
    return Bundle(documents=tuple(found))


def _files(sources: Sequence[str], stdin: Callable[[], bytes]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    has_read = False
    for source in sources:
        if source == STDIN:
            if has_read:
                raise ConfigError("standard input was given twice; give - once")
            has_read = True
            yield STDIN, lambda: _bounded(stdin)
        elif os.path.isdir(source):  # noqa: PTH112 - a name as given, which messages repeat
            for path in _in_folder(source):
                yield path, lambda path=path: _read(path)  # type: ignore[misc]
        else:
            yield source, lambda source=source: _read(source)  # type: ignore[misc]


def _in_folder(folder: str) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(_ENDINGS) and not name.startswith("."))  # noqa: PTH208
    except OSError as error:
        raise ConfigError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from error
    if not names:
        raise ConfigError(f"{folder} holds no *.yaml, *.yml or *.json; give the folder that does, or a file")
    if len(names) > MOST_FILES:
        raise ConfigError(f"{folder} holds {len(names)} manifests, more than {MOST_FILES}; give fewer at once")
    return [os.path.join(folder, name) for name in names]  # noqa: PTH118 - the same


def _read(name: str) -> bytes:
    if "\0" in name or not name:
        raise ConfigError(f"{name!r} is no name of a file; give a file, a folder, or -")
    try:
        # The operator names it, so a link is followed; what it leads to must be an ordinary file.
        return read_bounded(Path(name).resolve(), LARGEST)
    except FileNotFoundError:
        raise ConfigError(f"{name} does not exist; check the name") from None
    except ValueError:
        raise ConfigError(f"{name} is larger than {LARGEST >> 20} MiB; split it") from None
    except (OSError, RuntimeError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{name} cannot be read ({words}); give an ordinary file, or pipe it in with -f -") from None


def _bounded(stdin: Callable[[], bytes]) -> bytes:
    data = stdin()
    if len(data) > LARGEST:
        raise ConfigError(f"standard input is larger than {LARGEST >> 20} MiB; split it")
    return data


def _unpacked(text: Text, file: str) -> Iterator[Document]:
    if not isinstance(text.value, dict):
        kind = "a list" if isinstance(text.value, list) else f"the value {text.value!r:.40}"
        raise ConfigError(f"{file}:{text.line}:1 is {kind}, no object; begin it with apiVersion and kind")
    items = text.value.get(_ITEMS)
    if not str(text.value.get("kind") or "").endswith("List") or not isinstance(items, list):
        yield _document(text.value, file, text.line, text.lines)
        return
    insides = _by_item(text.lines, len(items))
    for number, item in enumerate(items):
        line = text.lines.get(child(_ITEMS, number), text.line)
        if not isinstance(item, dict):
            raise ConfigError(
                f"{file}:{line}:1 has no object as item {number + 1} of its list; give it apiVersion and kind"
            )
        yield _document(item, file, line, insides[number])


def _by_item(lines: Mapping[str, int], count: int) -> list[dict[str, int]]:
    """The lines of a list's items, each by the paths in the item itself."""
    found: list[dict[str, int]] = [{} for _ in range(count)]
    start = f"{_ITEMS}["
    for path, line in lines.items():
        if path.startswith(start):
            number, _, inside = path[len(start) :].partition("]")
            if inside:
                found[int(number)][inside.removeprefix(".")] = line
    return found


def _document(body: Mapping[str, Any], file: str, line: int, lines: Mapping[str, int]) -> Document:
    metadata = body.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    return Document(
        body=body,
        kind=_text(body.get("kind")),
        name=_text(metadata.get("name")),
        namespace=_text(metadata.get("namespace")).strip() or DEFAULT_NAMESPACE,
        file=file,
        line=line,
        lines=lines,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
