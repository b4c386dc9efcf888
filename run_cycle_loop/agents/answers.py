"""The object that an agent's final answer holds, wherever in the answer it put it, and what an answer without trouble
comes to.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from run_cycle_loop.agents.adapter import Request
from run_cycle_loop.model.enums import AgentClass, Role

_READ = 4 << 20  #: characters of an answer that are searched, from its end: what counts is said last
_TRIES = 1000  #: opening braces that are tried
_FENCED = re.compile(r"^[ \t]*```[\w-]*[ \t]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)


def read_answer(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The object in an answer: the whole of it, else the last fenced block, else the last object in the prose.

    Only the keys that the schema requires are checked, and nothing of their values.

    Raises:
        ValueError: there is no object, or none with the required keys; the sentence says which.
    """
    required = _required(schema)
    lacking: list[str] | None = None
    for found in _objects(text[-_READ:]):
        missing = [key for key in required if key not in found]
        if not missing:
            return found
        lacking = missing if lacking is None else lacking
    if lacking is None:
        raise ValueError("the answer holds no JSON object, which it was asked for")
    raise ValueError(f"the answer's JSON object lacks {', '.join(map(repr, lacking[:10]))}")


def _required(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required")
    return [key for key in required if isinstance(key, str)] if isinstance(required, list | tuple) else []


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Candidates, the likeliest first."""
    whole = _parsed(text)
    if whole is not None:
        yield whole
        return
    for block in reversed(_FENCED.findall(text)):
        if (found := _parsed(block)) is not None:
            yield found
    yield from reversed(list(_in_prose(text)))


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _in_prose(text: str) -> Iterator[dict[str, Any]]:
    """The outermost objects between other text, in their order."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    for _ in range(_TRIES):
        if at < 0:
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield value
        at = text.find("{", end)


def asking_for(prompt: str, schema: Mapping[str, Any]) -> str:
    """The prompt with a schema at its end, for an agent whose command line takes none."""
    asked = json.dumps(schema, indent=2, ensure_ascii=False)
    return (
        f"{prompt.rstrip()}\n\nYour final answer must be one JSON object and nothing else, without a fence around it, "
        f"that satisfies this JSON Schema:\n\n{asked}\n"
    )


def conclude(request: Request, text: str, *, acted: bool) -> tuple[AgentClass, str, Mapping[str, Any] | None]:
    """What a session that ended well comes to: class, reason, and the answer as an object where one was asked for.

    Args:
        request: what was asked.
        text: the final answer.
        acted: whether a tool was used or a file was changed.
    """
    payload: Mapping[str, Any] | None = None
    if request.output_schema is not None:
        try:
            payload = read_answer(text, request.output_schema)
        except ValueError as error:
            return AgentClass.TOOL_ERROR, str(error), None
    if request.role is Role.WRITE and not acted:
        return AgentClass.NO_CHANGE, "it answered, and neither used a tool nor changed a file", payload
    return AgentClass.OK, "it finished", payload
