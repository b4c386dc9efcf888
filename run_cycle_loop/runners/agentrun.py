"""One cycle as an AgentRun, wherever that runs: the run of this cycle, and what its end is for the loop."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage
from run_cycle_loop.runners.cycle_end import CycleEnd, failed, left_behind
from run_cycle_loop.runners.marks import Marks

_CAPACITY, _AUTH = "ProviderCapacityExhausted", "ProviderAuthUnavailable"
#: How an agent's session may end that decides over the run's own reason, which knows only that it failed.
_SAID = frozenset({AgentClass.RATE_LIMITED, AgentClass.AUTH, AgentClass.BUDGET, AgentClass.PERMISSION_DENIED})
#: Conditions of a run that was turned away before anything of it started.
_REFUSED = ("InvalidSpec", "Duplicate")
#: What a run of an earlier cycle carries in its metadata, and this one must not.
_OF_ANOTHER = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "generateName")

Body = Mapping[str, Any]


class RunEnd(StrEnum):
    """How carrying a run out ended."""

    FINAL = "final"  #: its status says how
    CANCELLED = "cancelled"  #: by us, and nothing of it runs
    LEFT = "left"  #: we were to end it, and cannot say that nothing of it runs
    DELETED = "deleted"  #: by somebody else, in mid run
    STUCK = "stuck"  #: it could not start or was not let in, and was cancelled
    REFUSED = "refused"  #: it could not be submitted
    UNSEEN = "unseen"  #: nobody says any longer how it is


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What became of a run."""

    end: RunEnd
    name: str
    namespace: str
    status: RunStatus = field(default_factory=RunStatus)
    agent: str = ""
    reason: str = ""  #: of an end that the status does not tell; or the runtime's own fault behind a failure
    message: str = ""
    advice: str = ""
    who: str = ""  #: has cancelled it, where that was somebody else and is known
    is_permanent: bool = False
    removal: str = ""  #: how a person removes what is left
    usage: Usage | None = None
    summary: str = ""  #: the last agent's own
    agent_class: AgentClass | None = None  #: how the last agent's session ended, where it says so
    retry_at: str = ""  #: when its far end can be asked again, by its own word
    warnings: tuple[str, ...] = ()


def run_agentrun(
    manifest: Body, marks: Marks, *, clear: Callable[[], object], carry_out: Callable[[Body], RunResult]
) -> CycleEnd:
    """Run one cycle.

    Args:
        manifest: the AgentRun that every cycle is made of.
        marks: whose the run is.
        clear: ends what earlier cycles of this loop left, before anything is started.
        carry_out: runs a run to its end, or takes up the one of this key that is there.

    Raises:
        ConfigError: the manifest is none of a run that could start.
    """
    run = run_of_cycle(manifest, marks)
    clear()
    return cycle_end(carry_out(run))


def run_of_cycle(manifest: Body, marks: Marks) -> dict[str, Any]:
    """The run of one cycle: named after the manifest's and the cycle, and keyed by the cycle.

    Raises:
        ConfigError: it has no name, or is a template.
    """
    run = copy.deepcopy({key: value for key, value in manifest.items() if key != "status"})
    metadata = run["metadata"] = {
        key: value for key, value in _mapping(run.get("metadata")).items() if key not in _OF_ANOTHER
    }
    name = metadata.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(
            "the manifest's AgentRun has no metadata.name; give it one, which its cycles' runs begin with"
        )
    annotations = _mapping(metadata.get("annotations"))
    if str(annotations.get("agents.proompteng.ai/template", "")).strip().lower() == "true":
        raise ConfigError(f"AgentRun/{name} is annotated as a template, which never starts; take the annotation away")
    metadata["name"] = marks.name(name)
    metadata["labels"] = {**_mapping(metadata.get("labels")), **marks.labels}
    run["spec"] = {**_mapping(run.get("spec")), "idempotencyKey": marks.cycle}
    return run


def cycle_end(result: RunResult) -> CycleEnd:
    """The end of the cycle whose run ended so."""
    more = _payload(result)
    why = ": ".join(filter(None, (result.reason, result.message)))
    match result.end:
        case RunEnd.FINAL:
            return _by_phase(result, more)
        case RunEnd.CANCELLED:
            return failed(why or "cancelled", ended=AgentClass.INTERRUPTED, more=more)
        case RunEnd.LEFT | RunEnd.UNSEEN:
            ended = AgentClass.INTERRUPTED if result.end is RunEnd.LEFT else AgentClass.TOOL_ERROR
            return left_behind(f"AgentRun {result.name}: {why}", result.removal, ended=ended, more=more)
        case _:
            return failed(why or str(result.end), permanent=result.is_permanent, advice=result.advice, more=more)


def _by_phase(result: RunResult, more: Mapping[str, Any]) -> CycleEnd:
    reason, message = result.status.cause
    why = ": ".join(filter(None, (reason, message)))
    match result.status.phase:
        case Phase.SUCCEEDED:
            control = {**more, "class": str(AgentClass.OK)}
            return CycleEnd(exit_code=0, control=control, sentence=f"AgentRun {result.name} succeeded{_stops(result)}")
        case Phase.CANCELLED:
            by = f" by {result.who}" if result.who else ""
            return failed(f"cancelled{by}: {why or 'nobody says why'}", ended=AgentClass.INTERRUPTED, more=more)
        case Phase.TEMPLATE:
            return failed("it is a template, which never starts", permanent=True, more=more)
    said = result.agent_class if result.agent_class in _SAID else None
    ended = {_CAPACITY: AgentClass.RATE_LIMITED, _AUTH: AgentClass.AUTH}.get(reason, said or AgentClass.TOOL_ERROR)
    behind = ": ".join(filter(None, (result.reason, result.message)))
    if behind and behind not in why:
        why = "; ".join(filter(None, (why, behind)))
    permanent = ended is AgentClass.AUTH or result.is_permanent or any(map(_holds(result.status), _REFUSED))
    return failed(why or "Failed", ended=ended, permanent=permanent, advice=result.advice, more=more)


def _holds(status: RunStatus) -> Callable[[str], bool]:
    return lambda kind: (status.condition(kind) or {}).get("status") == "True"


def _stops(result: RunResult) -> str:
    """Why its loops ended, for people."""
    told = [
        f"{step.name}: {step.loop.completed} of {step.loop.maximum} iterations, {step.loop.stop}"
        for step in result.status.steps
        if step.loop is not None and step.loop.stop
    ]
    return f" ({'; '.join(told)})" if told else ""


def _payload(result: RunResult) -> dict[str, Any]:
    """What the loop is told beside the end: what the run's own loop was told last comes first."""
    told: dict[str, Any] = {}
    last = last_control(result.status)
    if last is not None:
        told |= {"outputs": last.get("outputs", {})}
        told |= {key: last[key] for key in ("continue", "done") if isinstance(last.get(key), bool)}
    reason, _ = result.status.cause
    facts = {
        "name": result.name,
        "namespace": result.namespace,
        "end": str(result.end),
        "phase": result.status.phase,
        "reason": reason,
        "lastControl": last,
        "loops": [
            {"step": step.name, "completed": step.loop.completed, "maximum": step.loop.maximum, "stop": step.loop.stop}
            for step in result.status.steps
            if step.loop is not None
        ],
    }
    told["run"] = {key: value for key, value in facts.items() if value not in ("", None, [])}
    told |= {"agent": result.agent} if result.agent else {}
    told |= {"usage": result.usage.as_dict()} if result.usage else {}
    told |= {"summary": result.summary} if result.summary else {}
    told |= {"retry_at": result.retry_at} if result.retry_at else {}
    told |= {"warnings": list(result.warnings)} if result.warnings else {}
    return told


def last_control(status: RunStatus) -> Mapping[str, Any] | None:
    """What the last of a run's loops was told last; None where none was told anything."""
    told = [step.loop.last_control for step in status.steps if step.loop is not None]
    return next((one for one in reversed(told) if one is not None), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
