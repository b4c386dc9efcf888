"""What a session of an agent is told as: to the loop, to later cycles, to people, and by an exit code."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from run_cycle_loop.agents.experiments import one_line
from run_cycle_loop.agents.planner import AGENT_KIND
from run_cycle_loop.agents.session import Session
from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.reading import is_deeper
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.model.sessions import Usage

#: What the last line of an answer says where a goal is reached.
DONE = "DONE"
EXIT_CODES: Mapping[AgentClass, int] = {
    AgentClass.OK: 0,
    AgentClass.NO_CHANGE: 0,
    AgentClass.TOOL_ERROR: 1,
    AgentClass.PERMISSION_DENIED: 1,
    AgentClass.BUDGET: 12,
    AgentClass.RATE_LIMITED: 75,
    AgentClass.AUTH: 77,
    AgentClass.TIMEOUT: 124,
    AgentClass.INTERRUPTED: 130,
}

_SUMMARY = 2000  #: characters
_GOAL = 300
_REASON = 1000
_LARGEST = 512 << 10  #: bytes of an answer's object; the control file takes twice that
_DEEPEST = 48  #: levels of it; the control file takes a few more


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the cycle asked for."""

    agent: str
    mode: str
    goal: str
    cycle_id: str = ""
    number: int | None = None  #: None outside the loop
    until_done: bool = False  #: whether the agent is to say that the goal is reached


def prompt(asked: Asked, *, cap_writes: int, reads_only: bool) -> str:
    """What the agent is told: the goal, and the terms it works under."""
    writes = "change no file" if reads_only or not cap_writes else f"change at most {cap_writes} files"
    terms = [
        f"Mode: {asked.mode}. You work unattended: nobody reads along and nobody will answer a question.",
        f"Stay in the current directory and {writes}; more than that is undone.",
        "End with a short summary of what you did and what should come next.",
    ]
    if asked.until_done:
        terms.append(f"Only when the goal is reached in full, write {DONE} as the last line of that summary.")
    return f"{asked.goal}\n\n" + "\n".join(terms) + "\n"


def digest(asked: Asked, session: Session, now: datetime) -> dict[str, Any]:
    """What later cycles are told of it: one line of the planner's digests."""
    result = session.result
    return {
        "schema_version": 1,
        "kind": AGENT_KIND,
        "timestamp": timestamp(now),
        "cycle_id": asked.cycle_id,
        "number": asked.number,
        "mode": one_line(asked.mode, 40),
        "goal": one_line(asked.goal, _GOAL),
        "agent": asked.agent,
        "class": result.ended,
        "reason": one_line(result.reason, _REASON),
        "summary": summary(result.text),
        "usage": _usage(result.usage),
        "tool_calls": result.tool_calls,
        "duration_seconds": round(session.duration, 3),
    }


def control(
    asked: Asked, session: Session, *, isolation: str, outputs: Mapping[str, Any], warnings: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What the loop is told: the control payload."""
    result = session.result
    payload, trouble = _payload(result.payload)
    told = {
        "class": result.ended,
        "agent": asked.agent,
        "model": result.model,
        "reason": one_line(result.reason, _REASON),
        "advice": one_line(result.advice, _REASON),
        "retry_at": timestamp(result.retry_at) if result.retry_at else None,
        "permanent": result.permanent,
        "summary": summary(result.text),
        "usage": _usage(result.usage),
        "session_id": result.session_id,
        "tool_calls": result.tool_calls,
        "tool_failures": result.tool_failures,
        "duration_seconds": round(session.duration, 3),
        "isolation": isolation,
        "warnings": [*warnings, *session.warnings, *filter(None, (trouble,))],
        "outputs": {**outputs, "answer": payload},
        "continue": True,
    }
    return told | ({"done": _is_done(session)} if asked.until_done else {})


def lines(asked: Asked, session: Session, warnings: tuple[str, ...]) -> Iterator[str]:
    """The summary for people."""
    result = session.result
    told = [f"{asked.agent}: {result.ended}, {one_line(result.reason, _REASON)}", format_duration(session.duration)]
    if result.usage is not None:
        told.append(f"{result.usage.tokens} tokens")
        told += [] if result.usage.cost_usd is None else [f"{result.usage.cost_usd:.4g} USD"]
    yield f"Agent {'; '.join(told)}"
    if result.advice:
        yield f"To do: {one_line(result.advice, _REASON)}"
    for warning in (*warnings, *session.warnings):
        yield f"Warning: {warning}"
    if result.text.strip():
        yield f"Summary: {summary(result.text)}"


def summary(text: str) -> str:
    """An answer as it is kept: printable, and of an over-long one the end, which says what it came to."""
    told = printable(text.strip(), keep="\n\t")
    return told if len(told) <= _SUMMARY else "..." + told[3 - _SUMMARY :]


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    return None if usage is None else usage.as_dict()


def _is_done(session: Session) -> bool:
    result = session.result
    if result.ended not in {AgentClass.OK, AgentClass.NO_CHANGE}:
        return False
    said = result.text.strip().rpartition("\n")[2].strip(" .*`_")
    return said == DONE or (result.payload or {}).get("done") is True


def _payload(payload: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, str]:
    """The answer's object where the control file can hold it, else why it is left out."""
    if payload is None:
        return None, ""
    try:
        size = len(json.dumps(payload, allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        return None, "the agent's answer is no JSON object that can be kept, and was left out"
    if size > _LARGEST or is_deeper(payload, _DEEPEST):
        return None, f"the agent's answer is larger than {_LARGEST} bytes or deeply nested, and was left out"
    return payload, ""
