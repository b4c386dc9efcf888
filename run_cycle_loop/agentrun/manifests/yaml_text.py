"""YAML and JSON as plain values that remember their lines; no bomb, no depth and no size gets through.

Scalars come out as ``kubectl`` reads them: ``yes``, ``on`` and ``y`` are true, ``012`` is octal, and a date is text.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.model.errors import ConfigError

DEPTH = 100  #: of values in values
VALUES = 200_000  #: in one file, those that aliases repeat counted each time, and long texts as several
PATHS = 32 << 20  #: characters that the paths of a file's values may come to
_CHARACTERS = 100  #: of a text that count as one more value
_MERGE = "<<"
_NO_YAML = "is no YAML"
_LONGEST_NUMBER = 400  #: characters
_TAG = "tag:yaml.org,2002:"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_WHOLE = re.compile(r"[-+]?(0b[01][01_]*|0o?[0-7][0-7_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0|[1-9][0-9_]*)")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class YamlFault(Exception):  # noqa: N818 - what is wrong with a text, which becomes an error where its file is known
    """A text cannot be read: what is wrong, with the next step, and where."""

    def __init__(self, words: str, line: int, column: int) -> None:
        super().__init__(words)
        self.words, self.line, self.column = words, line, column


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """One document of a text: its value, and the line of every path in it."""

    value: Any
    line: int
    lines: dict[str, int] = field(default_factory=dict)


def read_text(data: bytes) -> list[Text]:
    """The documents of a file, empty ones left out.

    Raises:
        YamlFault: it cannot be read.
        ConfigError: YAML is not installed.
    """
    text = _decoded(data)
    try:
        return [one for one in _documents(text) if one.value is not None]
    except YamlFault as fault:
        # JSON has escapes that this YAML has not: halves of surrogate pairs.
        may_be_json = fault.words.startswith(_NO_YAML) and text.lstrip().startswith("{")
        as_json = _as_json(text) if may_be_json else None
        if as_json is None or not _is_bounded(as_json):
            raise
        return [Text(value=as_json, line=1)]


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _place(data[: error.start].decode("utf-8", "replace"))
        words = f"holds the byte 0x{data[error.start]:02x}, which is no UTF-8; save it as UTF-8"
        raise YamlFault(words, line, column) from None
    if (found := _FORBIDDEN.search(text)) is not None:
        line, column = _place(text[: found.start()])
        raise YamlFault(f"holds the control character {found[0]!r}; remove it", line, column)
    return text


def _place(before: str) -> tuple[int, int]:
    """Line and column, both from 1, of what follows a text."""
    lines = re.split(r"\r\n|\r|\n", before)
    return len(lines), len(lines[-1]) + 1


def _documents(text: str) -> Iterator[Text]:
    try:
        import yaml  # noqa: PLC0415 - an extra, and 20 ms that only those pay who look at manifests
    except ImportError:
        raise ConfigError(
            "AgentRun manifests need the extra 'agentrun', which is not installed; in the checkout, "
            "pip install '.[agentrun]'"
        ) from None
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        yield from _Composer(yaml.parse(text, Loader=loader)).documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join((error.problem or error.context or "it does not parse").split())
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlFault(f"{_NO_YAML}: {words:.200}{_advice(words)}", line, column) from None
    except (yaml.YAMLError, RecursionError) as error:
        words = " ".join(str(error).split()) or "it does not parse"
        raise YamlFault(f"{_NO_YAML}: {words:.200}; mend it", 1, 1) from None


def _advice(words: str) -> str:
    if "cannot start any token" in words or "tab character" in words:
        return "; indent with blanks, not with tabs, and quote what begins with @ or `"
    return "; mend it"


@dataclass(slots=True)
class _Node:
    """A value, finished or under construction."""

    value: Any
    mark: Any
    path: str = ""
    anchor: str | None = None
    size: int = 1
    height: int = 0  #: of values in values below it
    key: str | None = None  #: of a mapping, the one that waits for its value
    key_mark: Any = None
    merged: list[dict[str, Any]] = field(default_factory=list)


class _Composer:
    """Values out of a parser's events, without recursion."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, _Node] = {}
        self._stack: list[_Node] = []
        self._lines: dict[str, int] = {}
        self._size = 0
        self._characters = 0
        self._root: _Node | None = None

    def documents(self) -> Iterator[Text]:
        for event in self._events:
            match type(event).__name__:
                case "DocumentStartEvent":
                    self._anchors, self._lines, self._root = {}, {}, None
                case "DocumentEndEvent":
                    if self._root is not None:
                        yield Text(value=self._root.value, line=self._root.mark.line + 1, lines=self._lines)
                case "MappingStartEvent":
                    self._open({}, event, "map")
                case "SequenceStartEvent":
                    self._open([], event, "seq")
                case "MappingEndEvent" | "SequenceEndEvent":
                    self._close()
                case "ScalarEvent":
                    size = 1 + len(event.value) // _CHARACTERS
                    self._grow(size, event.start_mark)
                    node = _Node(value=_scalar(event), mark=event.start_mark, anchor=event.anchor, size=size)
                    self._place(node)
                case "AliasEvent":
                    self._place(self._alias(event))
                case _:
                    pass

    def _open(self, value: Any, event: Any, tag: str) -> None:
        if event.tag and event.tag != _TAG + tag:
            _unknown_tag(event)
        if len(self._stack) >= DEPTH:
            _too_deep(event.start_mark)
        self._grow(1, event.start_mark)
        node = _Node(value=value, mark=event.start_mark, path=self._next_path(), anchor=event.anchor)
        self._stack.append(node)

    def _close(self) -> None:
        node = self._stack.pop()
        for other in node.merged:  # what the mapping says itself stands above what it merges
            for key, item in other.items():
                node.value.setdefault(key, item)
        self._place(node)

    def _alias(self, event: Any) -> _Node:
        known = self._anchors.get(event.anchor)
        if known is None:
            _fail(event.start_mark, f"has the alias *{event.anchor:.40} before its anchor; define that first")
        if len(self._stack) + known.height >= DEPTH:
            _too_deep(event.start_mark)
        self._grow(known.size, event.start_mark)
        return _Node(value=known.value, mark=event.start_mark, size=known.size, height=known.height)

    def _grow(self, size: int, mark: Any) -> None:
        self._size += size
        if self._size > VALUES:
            _fail(mark, f"holds more than {VALUES} values, each use of an alias counted; split it")

    def _next_path(self) -> str:
        """Of the value that comes next."""
        if not self._stack:
            return ""
        top = self._stack[-1]
        if isinstance(top.value, list):
            return child(top.path, len(top.value))
        return child(top.path, top.key) if top.key is not None else top.path

    def _note_line(self, mark: Any) -> None:
        """Keep the line of the value that comes next; long keys around many values are a bomb as well."""
        path = self._next_path()
        self._characters += len(path)
        if self._characters > PATHS:
            _fail(mark, "has too many values below keys that are too long; shorten the keys, or split it")
        self._lines[path] = mark.line + 1

    def _place(self, node: _Node) -> None:
        """Put a finished value where it belongs, and keep it where it has an anchor."""
        if node.anchor:
            self._anchors[node.anchor] = node
        if not self._stack:
            self._root = node
            self._lines[""] = node.mark.line + 1
            return
        top = self._stack[-1]
        if isinstance(top.value, dict) and top.key is None:
            top.key, top.key_mark = _key(node, top), node.mark
            return
        top.size, top.height = top.size + node.size, max(top.height, node.height + 1)
        if isinstance(top.value, list):
            self._note_line(node.mark)
            top.value.append(node.value)
            return
        if top.key == _MERGE:
            top.merged += _mergeable(node)
        elif top.key is not None:
            self._note_line(top.key_mark)
            top.value[top.key] = node.value
        top.key = None


def _key(node: _Node, holder: _Node) -> str:
    """A key as JSON has it: text."""
    value = node.value
    if isinstance(value, dict | list):
        _fail(node.mark, "has a key that is no plain word; write `key: value`, and quote what holds `{{`")
    key = value if isinstance(value, str) else json.dumps(value)
    if key in holder.value:
        _fail(node.mark, f"has the key {key:.80} twice; keep one")
    return key


def _mergeable(node: _Node) -> list[dict[str, Any]]:
    several = node.value if isinstance(node.value, list) else [node.value]
    if not all(isinstance(one, dict) for one in several):
        _fail(node.mark, "merges with << what is no mapping; name the anchor of a mapping")
    return several


def _scalar(event: Any) -> Any:
    text, tag = event.value, event.tag
    plain = event.implicit[0]
    if tag and tag not in (_TAG + "str", _TAG + "timestamp", "!"):
        kind = tag.removeprefix(_TAG)
        value = _plain(text, event.start_mark)
        fits = {"int": int, "float": int | float, "bool": bool, "null": type(None)}.get(kind)
        if fits is None or not isinstance(value, fits):
            _unknown_tag(event)
        return value
    return _plain(text, event.start_mark) if plain and not tag else text


def _plain(text: str, mark: Any) -> Any:
    """What a word without quotes means."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if not text or text[0] not in "+-.0123456789":
        return text
    if _NO_NUMBER.fullmatch(text):
        _fail(mark, f"has {text}, a number that JSON has not; quote it")
    if len(text) <= _LONGEST_NUMBER and _WHOLE.fullmatch(text):
        number = _whole(text.replace("_", ""))
        return number if -(1 << 63) <= number < 1 << 64 else _fraction(str(number), mark)
    return _fraction(text, mark) if _FRACTION.fullmatch(text) else text


def _whole(text: str) -> int:
    sign, digits = (-1 if text[0] == "-" else 1), text.lstrip("+-").lower()
    if digits[0] == "0" and digits[1:].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def _fraction(text: str, mark: Any) -> float:
    number = float(text)
    if not math.isfinite(number):
        _fail(mark, f"has the number {text:.40}, which is too large; quote it")
    return number


def _as_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None


def _is_bounded(value: Any) -> bool:
    """Whether JSON keeps within the bounds of YAML."""
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if count > VALUES or depth > DEPTH:
            return False
        if isinstance(item, dict | list):
            waiting += [(one, depth + 1) for one in (item.values() if isinstance(item, dict) else item)]
    return True


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _unknown_tag(event: Any) -> NoReturn:
    _fail(
        event.start_mark, f"has the tag {event.tag:.60} that does not fit; write a plain value, quoted where it is text"
    )


def _too_deep(mark: Any) -> NoReturn:
    _fail(mark, f"nests deeper than {DEPTH} levels; flatten it")


def _fail(mark: Any, words: str) -> NoReturn:
    raise YamlFault(words, mark.line + 1, mark.column + 1)
