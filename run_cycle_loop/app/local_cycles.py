"""A cycle as an AgentRun of this machine, put together."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.flags import LOCAL
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus
from run_cycle_loop.agentrun.local import observation
from run_cycle_loop.agentrun.local.engine import STOPPED
from run_cycle_loop.agentrun.local.machine import Machine, Transition
from run_cycle_loop.agentrun.local.runs import known_run, request_cancel, resume, run_locally
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.app.attempt_logs import AttemptLogs
from run_cycle_loop.app.cycle import Cycle, CycleStops
from run_cycle_loop.app.launching import launch
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.decisions import StopRequest
from run_cycle_loop.model.enums import AgentClass, StopReason, Urgency
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.ports import RunStore, Waited
from run_cycle_loop.model.runs import RunKind, RunRecord
from run_cycle_loop.model.sessions import Usage
from run_cycle_loop.runners.agentrun import Body, RunEnd, RunResult, run_agentrun
from run_cycle_loop.runners.cycle_end import CycleEnd
from run_cycle_loop.runners.marks import LABEL_CYCLE, LABEL_LOOP, Marks
from run_cycle_loop.stores.runs import FILE_NAME, SqliteRunStore

#: What this process alone is told: a loop that an attempt starts by itself is no loop of these runs.
_OURS = frozenset(
    f"RUN_CYCLE_{name}"
    for name in ("RUNNER", "MANIFEST", "WHERE", "PROFILE", "STRICT_CLUSTER", "IMAGE", "JOB_TEMPLATE", "CONFIG")
)
_AGENT = "RUN_CYCLE_AGENT"
_GOING = 30.0  #: seconds that a run which somebody else drives is given to end
_PAUSE = 0.5  #: seconds between two looks at that
_OF_ATTEMPTS = 0.8  #: the part of our time to end that attempts get between TERM and KILL


def on_this_machine(cycle: Cycle, bundle: Bundle, document: Document) -> CycleEnd:
    """Run one cycle here.

    Raises:
        ConfigError: the run cannot be carried out here.
        AlreadyRunning: another engine drives it, or another run has one of its claims.
        RunnerError: a run of an earlier cycle does not end.
        StateError: what happens cannot be stored.
    """
    settings = cycle.settings
    state = settings.state_dir.absolute()
    logs = AttemptLogs(cycle.output)
    with SqliteRunStore(state / FILE_NAME, cycle.say) as store:
        machine = Machine(
            store=store,
            state=state,
            launch=launch,
            clock=SystemClock(),
            stop=_Stop(cycle.stops, logs),
            environ=_of_attempts(cycle.environ),
            report=_Told(cycle, logs).take,
            grace=cycle.ending * _OF_ATTEMPTS,
            isolate=settings.isolate,
        )

        def carried_out(run: Body) -> RunResult:
            status = _status_of(run, bundle, Profile(settings.profile), machine, strict=settings.strict_cluster)
            logs.pump()
            return _result(run, status, machine, cycle.stops)

        metadata = document.body.get("metadata")
        given = metadata if isinstance(metadata, Mapping) else {}
        return run_agentrun(
            {**document.body, "metadata": {**given, "namespace": document.namespace}},
            cycle.marks,
            clear=lambda: clear_local(machine, cycle.marks, cycle),
            carry_out=carried_out,
        )


def _of_attempts(environ: Mapping[str, str]) -> dict[str, str]:
    """What attempts are told of it; an agent that nobody has chosen is theirs to choose."""
    ours = _OURS | ({_AGENT} if environ.get(_AGENT) == "auto" else set())
    return {name: value for name, value in environ.items() if name not in ours}


def clear_local(machine: Machine, marks: Marks, cycle: Cycle) -> None:
    """Cancel the runs of earlier cycles of this loop that are not over, and see them end.

    Raises:
        RunnerError: one does not.
        StateError: the store cannot be read or written.
    """
    left = [
        (record, str(_labels(record).get(LABEL_CYCLE)))
        for record in machine.store.runs(RunKind.AGENTRUN, unfinished=True)
        if _labels(record).get(LABEL_LOOP) == marks.loop and _labels(record).get(LABEL_CYCLE) != marks.cycle
    ]
    for record, of_cycle in left:
        cycle.say(f"AgentRun {record.namespace}/{record.name} of cycle {of_cycle}, which nobody ended, is cancelled")
        why = "its loop is gone; the next cycle has cancelled it"
        request_cancel(record.namespace, record.name, why, flags=LOCAL, machine=machine)
        _await_end(machine, record, cycle.stops)


def _await_end(machine: Machine, record: RunRecord, stops: CycleStops) -> None:
    until = time.monotonic() + _GOING
    while not known_run(machine, record.namespace, record.name).is_final:
        if time.monotonic() >= until or stops.wait(_PAUSE):
            raise RunnerError(
                f"run {record.namespace}/{record.name} of an earlier cycle does not end; see `run-cycle-loop agentrun "
                f"status {record.name} --namespace {record.namespace}`"
            )


def _status_of(run: Body, bundle: Bundle, profile: Profile, machine: Machine, *, strict: bool) -> RunStatus:
    """The final status; a run of this cycle that is known already is taken up, and never begun a second time."""
    wanted = read_run(run)
    known = machine.store.find(RunKind.AGENTRUN, wanted.namespace, key=wanted.idempotency_key)
    if known is not None:
        return resume(known.namespace, known.name, flags=LOCAL, machine=machine)
    return run_locally(
        wanted,
        bundle.resources(wanted.namespace),
        profile=profile,
        flags=LOCAL,
        strict_cluster=strict,
        machine=machine,
    )


def _result(run: Body, status: RunStatus, machine: Machine, stops: CycleStops) -> RunResult:
    wanted = read_run(run)
    was_ours = status.phase == Phase.CANCELLED and status.reason == STOPPED and stops.wait(0)
    result = RunResult(
        end=RunEnd.CANCELLED if was_ours else RunEnd.FINAL,
        name=wanted.name,
        namespace=wanted.namespace,
        status=status,
        agent=wanted.agent,
        message="cancelled: nothing of it runs" if was_ours else "",
    )
    record = machine.store.find(RunKind.AGENTRUN, wanted.namespace, name=wanted.name)
    return result if record is None else with_agents(result, record, machine.store)


def with_agents(result: RunResult, record: RunRecord, store: RunStore) -> RunResult:
    """The result with what the attempts' agents said of themselves: what they consumed, and how the last one ended."""
    said = [observation.runner_status(Path(one.folder)) or {} for one in store.attempts(record)]
    usages = [found for one in said if (found := _usage(one.get("usage"))) is not None]
    last = said[-1] if said else {}
    summary, advice, retry_at = last.get("summary"), last.get("advice"), last.get("retryAt")
    return replace(
        result,
        advice=advice if isinstance(advice, str) else result.advice,
        retry_at=retry_at if isinstance(retry_at, str) else "",
        usage=_sum(usages),
        agent_class=_class(last.get("turnStatus")),
        summary=summary if isinstance(summary, str) else "",
    )


def _class(word: Any) -> AgentClass | None:
    try:
        return AgentClass(word)
    except ValueError:
        return None


def _usage(value: Any) -> Usage | None:
    try:
        return Usage.from_dict(value) if isinstance(value, Mapping) else None
    except ValueError:
        return None


def _sum(usages: list[Usage]) -> Usage | None:
    """What all attempts consumed together; None where none said anything."""
    if not usages:
        return None
    costs = [one.cost_usd for one in usages]
    calls = [one.calls for one in usages]
    return Usage(
        input_tokens=sum(one.input_tokens for one in usages),
        cached_input_tokens=sum(one.cached_input_tokens for one in usages),
        output_tokens=sum(one.output_tokens for one in usages),
        reasoning_tokens=sum(one.reasoning_tokens for one in usages),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        calls=None if None in calls else sum(call for call in calls if call is not None),
        complete=all(one.complete for one in usages),
        source=f"{len(usages)} attempts: {usages[-1].source}"[:200],
    )


def _labels(record: RunRecord) -> Mapping[str, Any]:
    metadata = record.manifest.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return labels if isinstance(labels, Mapping) else {}


class _Stop:
    """Implements the port ``StopToken`` for the engine, which asks so often that the output is handed on by the way."""

    def __init__(self, stops: CycleStops, logs: AttemptLogs) -> None:
        self._stops = stops
        self._logs = logs

    def fileno(self) -> int:
        """Readable when a signal has arrived."""
        return self._stops.fileno()

    def requested(self) -> StopRequest | None:
        """What the signals so far come to."""
        self._logs.pump()
        if not self._stops.wait(0):
            return None
        urgency = Urgency.KILL if self._stops.hurry(0) else Urgency.NOW
        return StopRequest(reason=StopReason.SIGNAL, urgency=urgency, detail="its loop was told to end it")

    def wait(self, seconds: float) -> Waited:
        """Wait so long; a signal cuts it short."""
        return Waited.STOP if self._stops.wait(seconds) else Waited.ELAPSED

    def reload_requested(self) -> bool:
        """Nothing here is read again."""
        return False


class _Told:
    """What the engine tells, in the cycle's log."""

    def __init__(self, cycle: Cycle, logs: AttemptLogs) -> None:
        self._cycle = cycle
        self._logs = logs

    def take(self, transition: Transition) -> None:
        """One line for what a person follows."""
        facts = transition.facts
        self._logs.pump()
        match transition.kind:
            case "attempt.started":
                self._cycle.say(f"attempt {facts.get('attempt')} begins")
                self._logs.follow(Path(str(facts.get("folder"))))
            case "attempt.adopted":
                self._cycle.say(f"attempt {facts.get('attempt')} is still running, and is waited for")
            case "attempt.finished":
                why = ": ".join(str(facts[key]) for key in ("reason", "message") if facts.get(key))
                self._cycle.say(
                    f"attempt {facts.get('attempt')} ends with {facts.get('exit_code')}{why and f': {why}'}"
                )
            case "run.changed" | "run.finished":
                parts = [str(facts.get("phase") or "")]
                parts += [f"step {facts['step']} {facts.get('step_phase')}"] if facts.get("step") else []
                if facts.get("maximum"):
                    parts += [f"iteration {facts.get('iteration')}/{facts['maximum']}"]
                parts += [str(facts["stop_reason"])] if facts.get("stop_reason") else []
                self._cycle.say(f"run: {', '.join(filter(None, parts))}")
            case "warning" | "attempt.lost" | "run.cancel_asked":
                self._cycle.say(f"{transition.kind}: {facts.get('message') or facts.get('attempt') or ''}")
