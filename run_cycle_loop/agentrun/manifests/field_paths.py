"""Paths inside an object, as messages and editors name them: ``spec.workflow.steps[0].loop``."""

import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


def child(path: str, step: str | int) -> str:
    """The path of a field, or of an item counted from 0; a key that is no plain word stands in brackets."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    if _PLAIN.fullmatch(step):
        return f"{path}.{step}" if path else step
    shown = step.replace("\\", "\\\\").replace('"', '\\"')
    return f'{path}["{shown}"]'


def path_of(steps: Iterable[str | int]) -> str:
    """The path that leads over these fields and items."""
    path = ""
    for step in steps:
        path = child(path, step)
    return path


def parent(path: str) -> str:
    """The path of what holds it; empty for the object itself."""
    if path.endswith('"]'):
        return path[: path.rfind('["')]
    if path.endswith("]"):
        return path[: path.rfind("[")]
    return path.rpartition(".")[0]
