"""The engine: it carries out what the state machine decides, and stores each step before and after it is taken."""

import contextlib
import json
import select
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.lifecycle import reconcile as machine_of_states
from run_cycle_loop.agentrun.lifecycle.actions import Action, LookAgain, Reconciled, StartAttempt, StopAttempt
from run_cycle_loop.agentrun.lifecycle.control import MISSING, Control
from run_cycle_loop.agentrun.lifecycle.observed import Observed, ObservedJob, Refusal
from run_cycle_loop.agentrun.lifecycle.reconcile import reconcile
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus, moment, read_status, stamp, write_status
from run_cycle_loop.agentrun.local import control_file, job, observation, secret_values
from run_cycle_loop.agentrun.local.attempts import Attempts, Subject
from run_cycle_loop.agentrun.local.machine import Machine, Transition
from run_cycle_loop.agentrun.local.places import SECRETS, STATUS, Places
from run_cycle_loop.agentrun.local.processes import me
from run_cycle_loop.agentrun.model import Step
from run_cycle_loop.agentrun.rendering.jobs import launch_refusals
from run_cycle_loop.kit import files, process_tree
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.runs import AttemptRecord, RunEvent, RunRecord

TIMED_OUT = "WorkflowStepTimedOut"
CANCELLED, STOPPED = "RunCancelled", "RunnerStopped"  #: why a run ended as Cancelled: asked for, or a signal

_LOOK_EVERY = 0.25  #: seconds between two looks at the stop token while attempts run
_ASK_EVERY = 1.0  #: seconds between two looks for a request to cancel
_STEP = timedelta(seconds=1)  #: by which the wall clock must have been set for the times of a run to go with it


class Engine:
    """One run, driven to its end or to an exception.

    Args:
        record: what is stored of it.
        subject: the run and what belongs to it.
        machine: where it runs.
        refusal: why it is not begun at all, where that is so.
        notes: what a person should know of it, one sentence each.
    """

    def __init__(
        self,
        record: RunRecord,
        subject: Subject,
        machine: Machine,
        *,
        refusal: Refusal | None,
        notes: tuple[str, ...],
    ) -> None:
        self._record = record
        self._subject = subject
        self._run = subject.run
        self._machine = machine
        self._refusal = refusal
        self._status = read_status(record.status)
        self._events: list[RunEvent] = []
        self._told: set[str] = set()
        self._asked_at = -_ASK_EVERY
        self._clocks = machine.clock.now(), machine.clock.monotonic()
        self._folder = Places(state=machine.state).run(self._run.namespace, self._run.name)
        process_tree.adopt_orphans()
        self._attempts = Attempts(subject, machine, machine.store.attempts(record), self._warn)
        for sentence in notes:
            self._warn(sentence)

    def drive(self) -> RunStatus:
        """Go on until the run is over.

        Raises:
            StateError: what happens cannot be stored; attempts that ran were ended, and are made again by a resumption.
            AlreadyRunning: another engine has changed the run.
        """
        if self._status.is_final:
            return self._status
        try:
            self._begin()
            while not self._status.is_final:
                if (wanted := self._end_wanted()) is not None:
                    self._cancel(*wanted)
                    break
                wake = self._pass()
                if not self._status.is_final:
                    self._wait(wake)
        except BaseException:
            self._attempts.abandon()
            raise
        return self._status

    # Beginning.

    def _begin(self) -> None:
        now = self._machine.clock.now()
        resumed = bool(self._status.phase)
        self._say("run.resumed" if resumed else "run.started", now, attempts=len(self._attempts.records))
        if self._refusal is not None and not resumed:
            self._store(machine_of_states.refuse(self._run, self._status, self._refusal, now), now)
            return
        stored = moment(self._status.updated_at)
        if stored is not None and stored - now > _STEP:  # the clock was set back while no engine looked
            self._move_times(now - stored)
        over = self._attempts.take_stock(self._awaited())
        for one in over:
            self._say_finished(one, now)
        for process in self._attempts.running:
            self._say("attempt.adopted", now, attempt=process)
        self._store(self._status, now)

    def _awaited(self) -> frozenset[str]:
        """The names of the attempts that the status says are running."""
        if self._run.runtime != "workflow":
            return frozenset({job.job_of(self._run)})
        running = (one for one in self._status.steps if one.phase is Phase.RUNNING and one.job is not None)
        return frozenset(one.job.name for one in running if one.job is not None)

    # One pass.

    def _pass(self) -> datetime | None:
        """Look, decide, store, act; returns when to look again, None where something must happen first."""
        if self._has_stepped():
            self._move_times(self._clock_step())
            self._clocks = self._machine.clock.now(), self._machine.clock.monotonic()
        now = self._machine.clock.now()
        for ended in self._attempts.collect():
            self._say_finished(ended, now)
        relaunched = self._attempts.take_lost()
        status = self._status
        for record in relaunched:
            self._say("attempt.lost", now, attempt=record.name, launches=record.launches)
            status = _begun_anew(status, record.name, stamp(now))
        result = self._reconciled(status, now)
        starts = [action for action in result.actions if isinstance(action, StartAttempt)]
        begun = [action for action in starts if action.name not in self._attempts.records]
        for action in begun:
            self._attempts.add(action.step, action.iteration, action.attempt, action.name)
        if result.status.is_final:  # once that is stored, nobody looks after them any more
            self._stop_overdue(result.actions, now)
            self._attempts.stop_all("Superseded", "the run is over")
        self._store(result.status, now)
        if not result.status.is_final:
            self._stop_overdue(result.actions, now)
        for record in relaunched:
            self._start(record.name, self._step_of(record))
        for action in begun:
            self._start(action.name, action.step)
        looks = [action.at for action in result.actions if isinstance(action, LookAgain)]
        return now if self._attempts.has_changed else min(looks, default=None)

    def _reconciled(self, status: RunStatus, now: datetime) -> Reconciled:
        observed = Observed(now=now, jobs=self._jobs(status), refusals=self._refusals())
        if self._run.runtime == "workflow":
            return reconcile(self._run, status, observed, history_limit=self._subject.flags.history_limit)
        record = self._attempts.records.get(job.job_of(self._run))
        says = self._attempts.runner_says(record.name) if record and record.finished_at else {}
        return job.reconcile_job(self._run, status, observed, cancelled=says.get("status") == observation.CANCELLED)

    def _jobs(self, status: RunStatus) -> dict[str, ObservedJob]:
        """The attempts as Jobs; of what they left for a loop's condition, only what is asked for now is read."""
        awaited = {one.job.name for one in status.steps if one.phase is Phase.RUNNING and one.job is not None}
        return {
            name: observation.observed(
                record, self._control(record) if name in awaited else MISSING, strict=self._subject.strict
            )
            for name, record in self._attempts.records.items()
        }

    def _control(self, record: AttemptRecord) -> Control:
        step = self._step_of(record)
        condition = step.loop.condition if step.loop else None
        if condition is None or record.exit_code != 0 or not record.finished_at:
            return MISSING
        if self._subject.strict:
            return control_file.read_annotation(Path(record.folder), condition.path)
        started = moment(record.started_at) or self._machine.clock.now()
        return control_file.read(condition.path, self._attempts.mounts_of(record.name, step), started)

    def _refusals(self) -> dict[int, Refusal]:
        subject = self._subject
        if self._run.runtime != "workflow":
            return {}
        return dict(launch_refusals(self._run, subject.resources, subject.profile, subject.flags))

    def _step_of(self, record: AttemptRecord) -> Step:
        return next((step for step in self._run.steps if step.index == record.step), job.STEP)

    def _start(self, name: str, step: Step) -> None:
        now = self._machine.clock.now()
        if self._attempts.begin(name, step):
            record = self._attempts.records[name]
            pid = record.process.pid if record.process else None
            self._say("attempt.started", now, **_facts(record), pid=pid, folder=record.folder)
            self._store(self._status, now)
        else:
            self._say_finished(self._attempts.records[name], now)

    def _stop_overdue(self, actions: tuple[Action, ...], now: datetime) -> None:
        for action in actions:
            if not isinstance(action, StopAttempt):
                continue
            if self._subject.strict:
                self._warn(
                    f"attempt {action.name} {action.why} and runs on beside its successor, as on a cluster, until the "
                    "run is over"
                )
                continue
            self._attempts.stop(action.name, TIMED_OUT, f"attempt {action.name} {action.why}")
            self._say_finished(self._attempts.records[action.name], now)

    # Waiting.

    def _wait(self, wake: datetime | None) -> None:
        """Wait until the moment comes, an attempt ends, or somebody wants the run ended."""
        while True:
            now = self._machine.clock.now()
            left = (wake - now).total_seconds() if wake is not None else _ASK_EVERY
            if left <= 0 or self._end_wanted() is not None or self._has_stepped():
                return
            if self._attempts.running:
                if self._poll(min(left, _LOOK_EVERY)):
                    return
            else:
                self._machine.stop.wait(min(left, _ASK_EVERY))
            if wake is None and not self._attempts.running:
                return

    def _poll(self, seconds: float) -> bool:
        """Whether an attempt has ended by then; a stop token with a descriptor cuts the wait short."""
        poll = select.poll()
        for process in self._attempts.running.values():
            poll.register(process.fileno(), select.POLLIN)
        fileno: Callable[[], int] | None = getattr(self._machine.stop, "fileno", None)
        own = None if fileno is None else fileno()
        if own is not None:
            poll.register(own, select.POLLIN)
        ready = poll.poll(max(1, int(seconds * 1000)))
        return any(descriptor != own for descriptor, _ in ready)

    # The wall clock, which may be set.

    def _clock_step(self) -> timedelta:
        """By how much the wall clock was set since the last step, or the machine slept."""
        wall, even = self._clocks
        clock = self._machine.clock
        return clock.now() - wall - timedelta(seconds=clock.monotonic() - even)

    def _has_stepped(self) -> bool:
        return abs(self._clock_step()) >= _STEP

    def _move_times(self, by: timedelta) -> None:
        """Let the times from which limits and pauses count go with the clock: what is left of them stays the same."""
        self._status = _moved(self._status, by)
        if by < timedelta():  # what attempts have written meanwhile must not look older than they are
            self._attempts.move_starts(by)

    # Ending.

    def _end_wanted(self) -> tuple[str, str] | None:
        """The reason and the sentence for which the run is to be ended; a stop is looked for each time."""
        request = self._machine.stop.requested()
        if request is not None and request.urgency >= self._machine.heeds:
            return STOPPED, f"the run was ended with its engine: {request.detail}"
        if not self._record.cancel_reason and self._machine.clock.monotonic() - self._asked_at >= _ASK_EVERY:
            self._asked_at = self._machine.clock.monotonic()
            found = self._machine.store.find(self._record.kind, self._record.namespace, name=self._record.name)
            if found is not None:
                self._record = replace(self._record, cancel_reason=found.cancel_reason)
        return (CANCELLED, self._record.cancel_reason) if self._record.cancel_reason else None

    def _cancel(self, reason: str, message: str) -> None:
        """End everything, and the run with it. What is wanted is stored first: a crash in between does not undo it."""
        now = self._machine.clock.now()
        event = RunEvent(at=stamp(now), kind="run.cancel_asked", facts={"reason": reason, "message": message})
        self._record = self._machine.store.ask_cancel(self._record, message, event)
        self._attempts.stop_all(reason, message)
        now = self._machine.clock.now()
        self._store(machine_of_states.cancel(self._status, now, reason=reason, message=message), now)

    # Storing and telling.

    def _say(self, kind: str, now: datetime, **facts: Any) -> None:
        """Let something be stored and told with the next change."""
        given = {name: value for name, value in facts.items() if value is not None}
        self._events.append(RunEvent(at=stamp(now), kind=kind, facts=given))

    def _say_finished(self, record: AttemptRecord, now: datetime) -> None:
        self._say(
            "attempt.finished",
            now,
            **_facts(record),
            exit_code=record.exit_code,
            reason=record.reason or None,
            message=record.message or None,
        )

    def _warn(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._say("warning", self._machine.clock.now(), message=sentence)

    def _store(self, status: RunStatus, now: datetime) -> None:
        """Store status, attempts and events in one transaction, then tell of them."""
        if status != self._status:
            status = replace(status, updated_at=stamp(now))
            self._say("run.finished" if status.is_final else "run.changed", now, **_told_of(status))
        attempts, events = self._attempts.take_changed(), tuple(self._events)
        if status == self._status and not attempts and not events:
            return
        wanted = replace(
            self._record,
            status=write_status(status),
            phase=status.phase,
            is_final=status.is_final,
            owner=me(),
            updated_at=stamp(now),
        )
        if status.is_final:  # before it is stored: afterwards nobody looks for them any more
            files.unlink_quietly(self._folder / SECRETS)
        try:
            self._record = self._machine.store.change(wanted, attempts=attempts, events=events)
        except StateError:
            if status.is_final:  # it is not over after all: whoever resumes it must find them
                with contextlib.suppress(StateError):
                    secret_values.keep(self._folder, self._subject.secrets)
            raise
        self._status = status
        self._events.clear()
        self._write_status()
        for event in events:
            with contextlib.suppress(Exception):  # who only watches may fail without harm
                told = Transition(at=moment(event.at) or now, kind=event.kind, facts=event.facts, status=status)
                self._machine.report(told)

    def _write_status(self) -> None:
        """Rewrite ``status.json``: derived, for people and tools; the store has the truth."""
        text = json.dumps(self._record.status, indent=2, ensure_ascii=False)
        try:
            files.replace_file(self._folder / STATUS, text.encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            self._warn(
                f"{self._folder / STATUS} cannot be rewritten: {error.strerror or error}; the run store is right"
            )


def _begun_anew(status: RunStatus, name: str, at: str) -> RunStatus:
    """The status with the clock of an attempt that was lost set anew: its time limit counts from its new start."""
    steps = list(status.steps)
    for place, step in enumerate(steps):
        if step.job is None or step.job.name != name or step.phase is not Phase.RUNNING:
            continue
        loop = step.loop
        if loop is not None:
            iterations = tuple(
                replace(one, started_at=at) if one.job and one.job.name == name else one for one in loop.iterations
            )
            loop = replace(loop, iterations=iterations)
        steps[place] = replace(step, started_at=at, loop=loop)
    return replace(status, steps=tuple(steps))


def _moved(status: RunStatus, by: timedelta) -> RunStatus:
    """The status with the times that a step still counts from or waits for moved."""

    def later(text: str) -> str:
        found = moment(text)
        return text if found is None else stamp(found + by)

    steps = tuple(
        replace(step, started_at=later(step.started_at), next_retry_at=later(step.next_retry_at))
        if step.phase in (Phase.RUNNING, Phase.RETRYING)
        else step
        for step in status.steps
    )
    return replace(status, steps=steps)


def _facts(record: AttemptRecord) -> dict[str, Any]:
    return {"attempt": record.name, "step": record.step, "iteration": record.iteration, "number": record.attempt}


def _told_of(status: RunStatus) -> dict[str, Any]:
    """Where a run is, in a few facts: the step that is on its way, else the last one."""
    facts: dict[str, Any] = {
        "phase": status.phase,
        "reason": status.cause[0] or None,
        "message": status.cause[1] or None,
    }
    going = [step for step in status.steps if step.phase is not Phase.PENDING or (step.loop and step.loop.iterations)]
    if going:
        step = next((one for one in going if one.phase is not Phase.SUCCEEDED), going[-1])
        facts |= {"step": step.name, "step_phase": str(step.phase), "attempt_number": step.attempt}
        if step.loop is not None:
            loop = step.loop
            facts |= {"iteration": loop.current, "completed": loop.completed, "maximum": loop.maximum}
            facts |= {"stop_reason": loop.stop or None}
    return facts
