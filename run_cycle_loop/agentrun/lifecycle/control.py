"""What an iteration leaves for the loop's condition: one JSON object, from a Job's annotation or from a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEPTH = 100  #: of values in values, as in manifests; what nests deeper could be stored and not be read again
_LONGEST_DETAIL = 200  #: characters of a parser's words


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """What was found: a payload, a fault, or neither where there is nothing."""

    payload: Mapping[str, Any] | None = None
    fault: str = ""  #: why what is there is no payload

    @property
    def is_missing(self) -> bool:
        """Whether nothing was left."""
        return self.payload is None and not self.fault


MISSING = Control()


def from_annotation(text: str | None, path: str) -> Control:
    """What a Job's annotation says for the control file at ``path``: the object under that key, else the whole."""
    if text is None or not text.strip():
        return MISSING
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Control(fault=f"invalid loop control annotation JSON: {_words(error)}")
    if not isinstance(value, dict):
        return Control(fault="loop control annotation must be a JSON object")
    if path not in value:
        return _bounded(value, path)
    if not isinstance(value[path], dict):
        return Control(fault=f"loop control payload at {path} must be a JSON object")
    return _bounded(value[path], path)


def from_file(text: str | None, path: str) -> Control:
    """What the control file itself says; None where there is no file, or only one from before the attempt."""
    if text is None or not text.strip():
        return MISSING
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Control(fault=f"invalid loop control JSON in {path}: {_words(error)}")
    if not isinstance(value, dict):
        return Control(fault=f"loop control payload at {path} must be a JSON object")
    return _bounded(value, path)


def _bounded(payload: Mapping[str, Any], path: str) -> Control:
    waiting: list[tuple[Any, int]] = [(payload, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH:
            return Control(fault=f"loop control payload at {path} nests deeper than {DEPTH} levels")
        inner = value.values() if isinstance(value, dict) else value
        waiting += [(one, depth + 1) for one in inner if isinstance(one, dict | list)]
    return Control(payload=payload)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_DETAIL]
