"""What opencode's log on standard error tells that its events do not: requests that failed and are tried again, and
permissions that nobody was there to give.

A line is ``timestamp=... level=ERROR ... message="stream error" ... small=false ... error.error="..."``; ``small`` is
the request for a title, whose failure harms nothing.
"""

import json
import re

_FIELD = re.compile(r'(?:^| )(?P<name>[a-z.]+)=(?P<value>"(?:[^"\\]|\\.)*+"|[^ "]*+)', re.IGNORECASE)
_DENIED = re.compile(r"permission requested: (.{1,200}?); auto-rejecting")
_LONGEST = 8 << 10  #: bytes of a line that are looked at


def stream_error(line: bytes) -> str:
    """Why a request of the work failed; empty where a line tells something else."""
    if b"stream error" not in line:
        return ""
    fields = {found["name"]: _plain(found["value"]) for found in _FIELD.finditer(_text(line))}
    if fields.get("message") != "stream error" or fields.get("small") == "true":
        return ""
    told = [value for name, value in fields.items() if name.startswith("error") and value]
    return ", ".join(told) or "stream error"


def denied_permission(line: bytes) -> str:
    """What it was refused; empty where a line tells something else."""
    found = _DENIED.search(_text(line)) if b"auto-rejecting" in line else None
    return "" if found is None else found[1]


def _text(line: bytes) -> str:
    return line[:_LONGEST].decode("utf-8", "replace")


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value[1:-1]
