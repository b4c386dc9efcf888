"""Durations and sizes as people write them: ``300``, ``5m``, ``1h30m``, ``64MiB``."""

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE = re.compile(r"([0-9]+)\s*(|k|m|g|ki|mi|gi)b?", re.IGNORECASE)

#: Ten years: beyond it a duration is a slip of the pen, and timers overflow.
LONGEST = 3650 * 86400.0


def parse_number(text: str) -> float:
    """The number that a text says; Python's own reader also takes ``1_000`` and the digits of other scripts.

    Raises:
        ValueError: no number.
    """
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r} is no number: write one such as 3 or 0.5")
    return float(text)


def parse_duration(text: str) -> float:
    """Seconds for ``300``, ``1.5``, ``500ms``, ``5m`` or ``1h30m``.

    Raises:
        ValueError: not a duration, negative, not finite, or above ten years.
    """
    word = text.strip().lower()
    try:
        seconds = parse_number(word)
    except ValueError:
        parts = _PART.findall(word)
        if not parts or "".join(number + unit for number, unit in parts) != word:
            raise ValueError(f"{text!r} is no duration: write seconds, or 90s, 5m, 1h30m, 2d") from None
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST:
        raise ValueError(f"{text!r} is no usable duration: it must be between 0 and ten years")
    return seconds


def format_duration(seconds: float) -> str:
    """A short form for people: ``3ms``, ``0.2s``, ``12s``, ``5m``, ``1h30m``, ``2d4h``."""
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def parse_size(text: str) -> int:
    """Bytes for ``1048576``, ``64MiB``, ``64Mi``, ``1G``.

    Raises:
        ValueError: not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write bytes, or 512KiB, 64MiB, 1GiB")
    return int(match[1]) * _SIZES[match[2].lower()]
