"""A loop's condition, looked at before its first iteration ends: whether it parses, and what it can come to."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from run_cycle_loop.policies.expressions import Expression, ExpressionError, SyntaxFault

_CONTROL = re.compile(r"iteration\.last\.control((?:\s*\.\s*\w+(?!\s*\()|\s*\[\s*(?:\"[^\"]*\"|'[^']*')\s*\])+)")
_PART = re.compile(r"\.\s*(\w+)|\[\s*(?:\"([^\"]*)\"|'([^']*)')\s*\]")
_QUOTED = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_SAMPLES: tuple[Any, ...] = (1, True, "a", [1], False, 0)
_MOST = 400  #: trials of one expression
_LONGEST = 4096  #: characters of an expression that is tried


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What was found out about an expression."""

    syntax: str = ""  #: the parser's words; empty where it parses
    unknown: tuple[str, ...] = ()  #: names that nothing has
    needs_ints: str = ""  #: the fault that only comes where numbers are doubles, as they are in JSON
    unguarded: str = ""  #: a field that must be there
    is_never_boolean: bool = False
    reads_control: bool = False


@cache
def look_at(text: str) -> Looked:
    """Try an expression over made-up control payloads.

    Raises:
        ConfigError: CEL is not installed.
    """
    try:
        doubles, ints = Expression(text, doubles=True), Expression(text, doubles=False)
    except SyntaxFault as fault:
        return Looked(syntax=str(fault))
    if "//" in _QUOTED.sub("", text).strip().rpartition("\n")[2]:
        return Looked(syntax="a comment at its end, which a controller's parser refuses")
    unknown = _unknown_names(text)
    reads = "control" in text and "iteration.last" in text
    if unknown or len(text) > _LONGEST:
        return Looked(unknown=unknown, reads_control=reads)
    faults = [(_fault(doubles, facts), _fault(ints, facts)) for facts in _trials(text)]
    needs_ints = next((one for one, other in faults if "overload" in one and not other), "")
    empty = _fault(doubles, _facts({}, 1))
    field = re.match(r'there is no field "?([^";]+)"?', empty)
    return Looked(
        needs_ints=needs_ints,
        unguarded=field[1] if field else "",
        is_never_boolean=all(one.startswith("it gave") for one, _ in faults),
        reads_control=reads,
    )


def _unknown_names(text: str) -> tuple[str, ...]:
    from cel_expr_python import cel  # noqa: PLC0415 - an extra: only who has conditions needs it

    known = {
        "index": cel.Type.DYN,
        "maxIterations": cel.Type.DYN,
        "last.phase": cel.Type.DYN,
        "last.control": cel.Type.DYN,
    }
    try:
        cel.NewEnv(variables={f"iteration.{name}": one for name, one in known.items()}).compile(text)
    except Exception as error:  # noqa: BLE001 - the library knows but one kind
        named = dict.fromkeys(_UNDECLARED.findall(str(error)))
        return tuple(name for name in named if name not in ("iteration", "iteration.last"))
    return ()


def _trials(text: str) -> Iterator[Mapping[str, Any]]:
    """Facts in which every field that the expression names has a value, of several kinds in turn."""
    paths = sorted({_parts(found) for found in _CONTROL.findall(text)})
    for count, values in enumerate(itertools.product(_SAMPLES, repeat=len(paths))):
        if count >= _MOST:
            return
        control: dict[str, Any] = {}
        for path, value in zip(paths, values, strict=True):
            _set(control, path, value)
        yield _facts(control, 1 + count % 2)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(next(filter(None, found), "") for found in _PART.findall(text))


def _set(control: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        inside = control.setdefault(part, {})
        if not isinstance(inside, dict):
            inside = control[part] = {}
        control = inside
    control.setdefault(path[-1], value)


def _facts(control: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    return {"index": index, "maxIterations": 5, "last": {"phase": "Succeeded", "control": control}}


def _fault(expression: Expression, facts: Mapping[str, Any]) -> str:
    try:
        expression.holds(facts)
    except ExpressionError as error:
        return str(error) or "an error"
    return ""
