"""What became of a Job, and what that is for the loop."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.runners.cycle_end import FAILED, CycleEnd, failed, left_behind

_LARGEST = 4096  #: bytes that a node keeps of a termination message


class JobEnd(StrEnum):
    """How following a Job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"  #: by us: it and its pod are gone
    LEFT = "left"  #: we were to end it, and cannot say that it is gone
    DELETED = "deleted"  #: by somebody else, in mid run
    STUCK = "stuck"  #: it could not start, and was deleted
    UNSEEN = "unseen"  #: the cluster does not answer any longer; the Job goes on


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What became of a Job."""

    end: JobEnd
    name: str
    namespace: str
    pod: str = ""
    image: str = ""  #: with the digest of what ran, where it is known
    exit_code: int | None = None  #: of the first container; None where nobody saw it
    reason: str = ""  #: Kubernetes' word for what went wrong beside the exit code
    message: str = ""
    advice: str = ""
    said: str = ""  #: what the cycle left as its termination message
    notes: tuple[str, ...] = ()  #: what is worth a warning

    @property
    def removal(self) -> str:
        """How a person removes what is left of it."""
        return f"kubectl delete job {self.name} -n {self.namespace}"


def cycle_end(result: JobResult) -> CycleEnd:
    """The end of the cycle whose Job ended so."""
    said, trouble = _control(result.said)
    warnings = [*_list(said.get("warnings")), *result.notes, *filter(None, (trouble,))]
    more = {**said, **({"warnings": warnings} if warnings else {}), "job": _facts(result)}
    why = ": ".join(filter(None, (result.reason, result.message)))
    match result.end:
        case JobEnd.SUCCEEDED | JobEnd.FAILED if not why:
            return _by_exit_code(result, more)
        case JobEnd.SUCCEEDED:
            return CycleEnd(exit_code=0, control=more, sentence=f"the Job is complete; {why}")
        case JobEnd.CANCELLED:
            return failed(why or "cancelled", ended=AgentClass.INTERRUPTED, more=more)
        case JobEnd.LEFT | JobEnd.UNSEEN:
            ended = AgentClass.INTERRUPTED if result.end is JobEnd.LEFT else AgentClass.TOOL_ERROR
            return left_behind(f"Job {result.name}: {why}", result.removal, ended=ended, more=more)
        case JobEnd.FAILED if result.reason == "DeadlineExceeded":
            return failed(why, ended=AgentClass.TIMEOUT, more=more)
        case _:
            return failed(why or str(result.end), advice=result.advice, more=more)


def _by_exit_code(result: JobResult, more: Mapping[str, Any]) -> CycleEnd:
    """The command's own end: the loop judges the exit code, and what the cycle said itself."""
    code = result.exit_code
    if code is None:
        code = 0 if result.end is JobEnd.SUCCEEDED else FAILED
        return CycleEnd(exit_code=code, control=more, sentence=f"the Job {result.end}; nobody saw its exit code")
    if code == 0 and result.end is JobEnd.FAILED:
        return failed("the container ended well, and the Job failed all the same", more=more)
    return CycleEnd(exit_code=code, control=more, sentence=f"the Job {result.end}: exit code {code}")


def _facts(result: JobResult) -> dict[str, Any]:
    facts = {
        "name": result.name,
        "namespace": result.namespace,
        "end": str(result.end),
        "pod": result.pod,
        "image": result.image,
        "exit_code": result.exit_code,
        "reason": result.reason,
    }
    return {key: value for key, value in facts.items() if value not in ("", None)}


def _control(said: str) -> tuple[Mapping[str, Any], str]:
    """The object that a termination message is, and what is wrong with one that was meant to be an object."""
    if not said.lstrip().startswith("{"):
        return {}, ""
    try:
        found = json.loads(said)
    except (ValueError, RecursionError) as error:
        cut = len(said.encode()) >= _LARGEST
        why = f"it was cut at {_LARGEST} bytes" if cut else f"it is no JSON: {error}"
        return {}, f"the control payload in the termination message cannot be read: {why}"
    return (found, "") if isinstance(found, dict) else ({}, "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
