"""Plain values as YAML in block style, with comments above the lines that need one."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from run_cycle_loop.agentrun.manifests.field_paths import child

#: Words, paths, and quantities such as ``500m`` and ``20Gi``, which no reader takes for a number.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*|[0-9]+(?:m|[KMGTP]i)")
#: Words that some reader of YAML takes for something other than text.
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_UNWRITABLE = re.compile("[^\x09\x0a\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BREAKS = re.compile("[\r\x85\u2028\u2029]")


def to_yaml(value: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """One document.

    Args:
        value: objects, lists, texts, numbers and truth values.
        comments: by path, ``spec.workflow.steps[0].loop``; each stands above the line of its field.
    """
    return "".join(f"{line}\n" for line in _object(value, "", 0, comments or {}))


def _object(value: Mapping[str, Any], path: str, depth: int, comments: Mapping[str, str]) -> Iterator[str]:
    for key, item in value.items():
        where = child(path, key)
        for line in comments.get(where, "").splitlines():
            yield f"{'  ' * depth}# {line}"
        yield from _field(f"{'  ' * depth}{_scalar(key)}:", item, where, depth, comments)


def _field(head: str, item: Any, path: str, depth: int, comments: Mapping[str, str]) -> Iterator[str]:
    if isinstance(item, Mapping) and item:
        yield head
        yield from _object(item, path, depth + 1, comments)
    elif isinstance(item, list | tuple) and item:
        yield head
        for number, one in enumerate(item):
            yield from _item(one, child(path, number), depth + 1, comments)
    elif isinstance(item, str) and _is_block(item):
        mark = "" if item.endswith("\n") and not item.endswith("\n\n") else "+" if item.endswith("\n") else "-"
        yield f"{head} |{mark}"
        lines = item.split("\n")[: -1 if item.endswith("\n") else None]
        yield from (f"{'  ' * (depth + 1)}{line}" if line else "" for line in lines)
    else:
        yield f"{head} {_scalar(item)}"


def _item(one: Any, path: str, depth: int, comments: Mapping[str, str]) -> Iterator[str]:
    """An item of a list; of an object the first field stands behind the dash."""
    indent = "  " * depth
    if not isinstance(one, Mapping) or not one:
        yield f"{indent}- {_scalar(one)}"
        return
    lines = list(_object(one, path, depth + 1, comments))
    first = next(number for number, line in enumerate(lines) if not line.lstrip().startswith("#"))
    yield from (f"{indent}{line.strip()}" for line in lines[:first])
    yield f"{indent}- {lines[first].lstrip()}"
    yield from lines[first + 1 :]


def _is_block(text: str) -> bool:
    """Whether it reads best on lines of its own, and comes back the same from there."""
    lines = text.split("\n")
    if len(lines) < 2 or text[0] in " \n\t" or not text.strip():
        return False
    odd = _UNWRITABLE.search(text) or _BREAKS.search(text) or "\t" in text
    return not odd and not any(line != line.rstrip() for line in lines)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _UNWRITABLE.sub(_escaped, _BREAKS.sub(_escaped, json.dumps(value, ensure_ascii=False)))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
