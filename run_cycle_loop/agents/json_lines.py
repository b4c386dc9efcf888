"""JSON lines read as they come: from chunks that break anywhere, with a bound on each line, whatever else is printed
between them.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

LONGEST_LINE: Final = 16 << 20  #: bytes; agents print a whole answer, or all messages so far, in one line
_NOISE_TOLD = 64 << 10  #: bytes of a line that is no event
_LONGEST_PREFIX = 4 << 10  #: bytes of anything before an object on its line
_PRICELESS = 1e9  #: US dollars that no session costs

#: Terminal sequences, CSI and OSC-like, then the short ones. In JSON a control character is written as an escape, so
#: that none of this can be part of an event. Each class excludes what ends it: a hostile line is walked once.
_SEQUENCE = re.compile(
    rb"\x1b\[[0-?]*+[ -/]*+[@-~]"
    rb"|\x1b[\]PX^_][^\x07\x1b]*+(?:\x07|\x1b\\)"
    rb"|\x1b[ -/]*+[0-~]"
)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_MAY_BE_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonLines:
    """Takes raw chunks and hands on one event for each line that holds a JSON object.

    Memory is bounded by one line of ``longest`` bytes; what is longer is passed over and counted in ``skipped``.
    """

    def __init__(
        self,
        on_event: Callable[[Mapping[str, Any]], None],
        on_noise: Callable[[bytes], None] | None = None,
        *,
        longest: int = LONGEST_LINE,
    ) -> None:
        self.events = 0
        self.noise = 0  #: lines that were no event; empty ones are not counted
        self.skipped = 0  #: lines that were too long to be read
        self._on_event = on_event
        self._on_noise = on_noise
        self._longest = longest
        self._line = bytearray()
        self._passing_over = False

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes; nothing that is fed raises."""
        data = bytes(chunk)
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if self._line or self._passing_over:
                self._keep(data[start:end])
                self._end_line()
            elif end - start > self._longest:
                self.skipped += 1
            else:
                self._take(data[start:end])
            start = end + 1
        self._keep(data[start:])

    def close(self) -> None:
        """Take what is left as a line: a stream that was cut off may still end with a whole event."""
        self._end_line()

    def _keep(self, part: bytes) -> None:
        if self._passing_over or len(self._line) + len(part) > self._longest:
            self._passing_over = True
            self._line = bytearray()
        else:
            self._line += part

    def _end_line(self) -> None:
        line, self._line = bytes(self._line), bytearray()
        if self._passing_over:
            self._passing_over = False
            self.skipped += 1
        else:
            self._take(line)

    def _take(self, line: bytes) -> None:
        event = parse_line(line)
        if event is not None:
            self.events += 1
            self._on_event(event)
        elif line.strip():
            self.noise += 1
            if self._on_noise is not None:
                self._on_noise(line[:_NOISE_TOLD])


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The object that a line ends with, whatever stands before it; None where there is none."""
    line = line.strip()
    if b"{" not in line:
        return None
    found = _parsed(line) if line.startswith(b"{") else None
    if found is None and b"\x1b" in line:
        line = _SEQUENCE.sub(b"", line).strip()
        found = _parsed(line)
    if found is None and (brace := line.find(b"{", 0, _LONGEST_PREFIX)) > 0:
        found = _parsed(line[brace:])
    return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode("utf-8", "replace"))
        # Half a surrogate pair is a legal escape and no character: nothing could write it down again.
        value = _whole(value) if _MAY_BE_HALF.search(line) else value
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF_PAIR.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def value_at(event: object, *path: str) -> Any:
    """What stands in an event under a path of keys; None where anything on the way is missing or no object."""
    for key in path:
        if not isinstance(event, Mapping):
            return None
        event = event.get(key)
    return event


def text_at(event: object, *path: str) -> str:
    """The string under a path of keys; an empty one where there is none."""
    value = value_at(event, *path)
    return value if isinstance(value, str) else ""


def object_at(event: object, *path: str) -> Mapping[str, Any]:
    """The object under a path of keys; an empty one where there is none."""
    value = value_at(event, *path)
    return value if isinstance(value, Mapping) else {}


def objects_at(event: object, *path: str) -> list[Mapping[str, Any]]:
    """The objects in the list under a path of keys; what else is in that list is left out."""
    value = value_at(event, *path)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def count_at(event: object, *path: str) -> int:
    """The count under a path of keys; 0 where there is none that can be believed."""
    value = value_at(event, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0


def price_at(event: object, *path: str) -> float | None:
    """The US dollars under a path of keys; None for none and for zero, which agents print where they know no price."""
    value = value_at(event, *path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _PRICELESS:
        return None
    return float(value)
