"""Foreign JSON values read as what they should be; everything else is a ValueError, whatever is wrong with it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

_LARGEST = 1 << 53  #: beyond it JSON's numbers are no whole numbers any more


def text(value: object) -> str:
    """A string; nothing reads as an empty one."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r:.80} is no text")


def text_or_none(value: object) -> str | None:
    """A string, or nothing."""
    return None if value is None else text(value)


def whole(value: object) -> int:
    """A whole number that can count or name something; nothing reads as 0."""
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST:
        return value
    raise ValueError(f"{value!r:.80} is no whole number")


def count(value: object) -> int:
    """A whole number that is not negative."""
    number = whole(value)
    if number < 0:
        raise ValueError(f"{number} is no count")
    return number


def whole_or_none(value: object) -> int | None:
    """A whole number, or nothing."""
    return None if value is None else whole(value)


def seconds(value: object) -> float:
    """A duration: finite and not negative; nothing reads as 0."""
    if value is None:
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < _LARGEST else math.inf
        if math.isfinite(number) and number >= 0:
            return number
    raise ValueError(f"{value!r:.80} is no duration")


def seconds_or_none(value: object) -> float | None:
    """A duration, or nothing."""
    return None if value is None else seconds(value)


def truth(value: object, default: bool | None) -> bool | None:
    """True or false; nothing reads as the default."""
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    raise ValueError(f"{value!r:.80} is neither true nor false")


def texts(value: object) -> tuple[str, ...]:
    """A list of strings; nothing reads as an empty one."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(text(item) for item in value)
    raise ValueError(f"{value!r:.80} is no list")


def counts(value: object) -> tuple[int, ...]:
    """A list of counts; nothing reads as an empty one."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(count(item) for item in value)
    raise ValueError(f"{value!r:.80} is no list")


def mapping_or_none(value: object) -> Mapping[str, Any] | None:
    """An object, or nothing."""
    if value is None or isinstance(value, dict):
        return value
    raise ValueError(f"{value!r:.80} is no object")


def mappings(value: object) -> tuple[Mapping[str, Any], ...]:
    """A list of objects; nothing reads as an empty one."""
    if value is None:
        return ()
    if isinstance(value, list | tuple) and all(isinstance(item, dict) for item in value):
        return tuple(value)
    raise ValueError(f"{value!r:.80} is no list of objects")


def is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects stand in each other more than so many levels deep; found without recursion."""
    layer: list[object] = [value]
    for _ in range(levels):
        layer = [inner for outer in layer for inner in _inside(outer)]
        if not layer:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
