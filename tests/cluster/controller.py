"""The controller of AgentRuns for tests: the same decisions as the product's engine, over the API of a cluster.

It takes runs up, admits or refuses them, starts their attempts as Jobs and writes their status. A pass over everything
is one ``tick``; a thread makes them one after the other. Unlike the real one it looks at its timers at every tick.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.checks.rules import first_refusal
from run_cycle_loop.agentrun.cluster.gathering import gather
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.lifecycle.actions import StartAttempt
from run_cycle_loop.agentrun.lifecycle.control import MISSING, Control, from_annotation
from run_cycle_loop.agentrun.lifecycle.observed import JobState, Observed, ObservedJob, Refusal
from run_cycle_loop.agentrun.lifecycle.reconcile import reconcile, refuse
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus, read_status, stamp, write_status
from run_cycle_loop.agentrun.looking.attempts import job_state
from run_cycle_loop.agentrun.looking.objects import (
    annotations_of,
    condition,
    created_at,
    entries,
    is_being_deleted,
    labels_of,
    name_of,
    part,
    pod_spec,
    text,
    uid_of,
)
from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.jobs import attempt_objects, launch_refusals
from run_cycle_loop.agentrun.rendering.system_prompts import system_prompt
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import AlreadyExists, Conflict, KubernetesError, NotFound
from run_cycle_loop.model.ports import Clock

FLAGS = ControllerFlags(known=True, loops_enabled=True, runner_image="runner:1", runner_image_variable="test")
_PASSES = 20  #: over one run within a tick, as each write of its status wakes the real one again


class Controller:
    """Plays the controller for the runs of some namespaces."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: Sequence[str],
        *,
        profile: Profile = Profile.GUIDE,
        flags: ControllerFlags = FLAGS,
    ) -> None:
        self.cluster, self.namespaces = cluster, tuple(namespaces)
        self.profile, self.flags = profile, flags

    def tick(self, now: datetime) -> None:
        """Look at every run, until nothing about it changes at this moment."""
        for namespace in self.namespaces:
            for body in self.cluster.list(kinds.AGENT_RUN, namespace).items:
                self._settle(body, now)

    def _settle(self, body: Mapping[str, Any], now: datetime) -> None:
        for _ in range(_PASSES):
            try:
                if not self._pass(body, now):
                    return
            except (NotFound, Conflict):
                return  # it moved, or went away: the next tick sees it
            fresh = self.cluster.get(kinds.AGENT_RUN, name_of(body), text(body, "metadata", "namespace"))
            if fresh is None or uid_of(fresh) != uid_of(body):
                return
            body = fresh

    def _pass(self, body: Mapping[str, Any], now: datetime) -> bool:
        """One pass over one run; whether it changed anything."""
        run, status = read_run(body), read_status(body.get("status"))
        if is_being_deleted(body):
            return self._let_go(body, run)
        if run.is_template:
            return self._write(body, status, replace(status, phase=str(Phase.TEMPLATE)))
        if names.FINALIZER not in _finalizers(body):
            metadata = {"finalizers": [*_finalizers(body), names.FINALIZER]}
            self.cluster.patch(kinds.AGENT_RUN, run.name, {"metadata": metadata}, run.namespace)
            return True
        if status.is_final:
            return False
        resources = gather(self.cluster, run, Resources(), self.flags).resources
        refused = self._admission(body, run, status, resources, now)
        if refused is not None:
            return self._write(body, status, refused)
        return self._reconciled(body, run, status, resources, now)

    # Admission.

    def _admission(
        self, body: Mapping[str, Any], run: AgentRun, status: RunStatus, resources: Resources, now: datetime
    ) -> RunStatus | None:
        """The status of a run that is not let in; None where it is."""
        if status.runtime_ref or status.phase == Phase.RUNNING:
            return None
        others = [one for one in self.cluster.list(kinds.AGENT_RUN, run.namespace).items if uid_of(one) != run.uid]
        if (duplicate := _duplicate(body, run, others)) is not None:
            return refuse(run, status, duplicate, now)
        if (limit := self._limit(run, others)) is not None:
            waiting = replace(status, phase=str(Phase.PENDING), observed_generation=run.generation)
            return waiting.with_condition("Blocked", holds=True, reason=limit[0], message=limit[1], at=stamp(now))
        refusal = first_refusal(run, resources, self.profile, self.flags)
        return None if refusal is None else refuse(run, status, refusal, now)

    def _limit(self, run: AgentRun, others: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
        going = [read_run(one) for one in others if part(one, "status", "phase") == "Running"]
        same = sum(one.agent == run.agent for one in going)
        if same >= self.flags.concurrency_agent:
            return "ConcurrencyLimit", f"agent {run.agent} has {same} running"
        if len(going) >= self.flags.concurrency_namespace:
            return "ConcurrencyLimit", f"namespace {run.namespace} has {len(going)} running"
        queued = sum(part(one, "status", "phase") == "Pending" for one in others)
        return ("QueueLimit", f"{queued} are waiting") if queued >= self.flags.queue_namespace else None

    # The workflow.

    def _reconciled(
        self, body: Mapping[str, Any], run: AgentRun, status: RunStatus, resources: Resources, now: datetime
    ) -> bool:
        prompt = system_prompt(run, resources, self.profile)
        if prompt.hash and not status.rest.get("systemPromptHash"):
            status = replace(status, rest={**status.rest, "systemPromptHash": prompt.hash})
        observed = Observed(
            now=now,
            jobs={name_of(job): self._observed(run, job) for job in self._jobs(run)},
            refusals=launch_refusals(run, resources, self.profile, self.flags),
        )
        done = reconcile(run, status, observed, history_limit=self.flags.history_limit)
        for action in done.actions:
            if isinstance(action, StartAttempt):  # others' Jobs are left running, as the real one does
                self._start(run, action, resources)
        return self._write(body, read_status(body.get("status")), done.status)

    def _start(self, run: AgentRun, action: StartAttempt, resources: Resources) -> None:
        made = attempt_objects(
            run,
            action.step,
            iteration=action.iteration,
            attempt=action.attempt,
            resources=resources,
            profile=self.profile,
            flags=self.flags,
        )
        for kind, one in (*((kinds.CONFIG_MAP, one) for one in made.config_maps), (kinds.JOB, made.job)):
            placed = {**one, "metadata": {**one["metadata"], "namespace": run.namespace}}
            try:
                self.cluster.create(kind, placed)
            except AlreadyExists:
                continue  # adopted: names are deterministic

    def _jobs(self, run: AgentRun) -> tuple[Mapping[str, Any], ...]:
        return tuple(self.cluster.list(kinds.JOB, run.namespace, {names.LABEL_RUN: run.name}).items)

    def _observed(self, run: AgentRun, job: Mapping[str, Any]) -> ObservedJob:
        state, failed = job_state(job), condition(job, "Failed")
        started = text(job, "status", "startTime")
        return ObservedJob(
            state=state,
            uid=uid_of(job),
            started_at=started,
            finished_at=text(job, "status", "completionTime") or text(failed, "lastTransitionTime"),
            reason=text(failed, "reason"),
            message=text(failed, "message"),
            control=self._control(run, job) if state is JobState.SUCCEEDED else MISSING,
            missing_config_maps=self._missing(run, job) if state is JobState.ACTIVE else (),
        )

    def _control(self, run: AgentRun, job: Mapping[str, Any]) -> Control:
        """What the Job's annotation says for the step that it belongs to."""
        index = int(labels_of(job).get(names.LABEL_STEP_INDEX) or 0)
        loop = run.steps[index - 1].loop if 0 < index <= len(run.steps) else None
        written = annotations_of(job).get(names.ANNOTATION_CONTROL)
        if loop is None or loop.condition is None:
            return MISSING
        return from_annotation(written if isinstance(written, str) else None, loop.condition.path)

    def _missing(self, run: AgentRun, job: Mapping[str, Any]) -> tuple[str, ...]:
        wanted = [text(one, "configMap", "name") for one in entries(pod_spec(job), "volumes") if "configMap" in one]
        return tuple(one for one in wanted if one and self.cluster.get(kinds.CONFIG_MAP, one, run.namespace) is None)

    # Endings.

    def _let_go(self, body: Mapping[str, Any], run: AgentRun) -> bool:
        for job in self._jobs(run):
            self.cluster.delete(kinds.JOB, name_of(job), run.namespace, uid=uid_of(job))
        if names.FINALIZER not in _finalizers(body):
            return False
        rest = [one for one in _finalizers(body) if one != names.FINALIZER]
        self.cluster.patch(kinds.AGENT_RUN, run.name, {"metadata": {"finalizers": rest}}, run.namespace)
        return False

    def _write(self, body: Mapping[str, Any], before: RunStatus, after: RunStatus) -> bool:
        if write_status(after) == write_status(before):
            return False
        version = {"resourceVersion": text(body, "metadata", "resourceVersion")}
        patch = {"metadata": version, "status": write_status(after)}
        namespace = text(body, "metadata", "namespace")
        self.cluster.patch(kinds.AGENT_RUN, name_of(body), patch, namespace, subresource="status")
        return True


class Running:
    """A controller in a thread, with a connection of its own, while the ``with`` block lasts."""

    def __init__(
        self,
        connect: Callable[[], Cluster],
        namespaces: Sequence[str],
        *,
        clock: Clock,
        profile: Profile = Profile.GUIDE,
        flags: ControllerFlags = FLAGS,
        every: float = 0.1,
    ) -> None:
        self._connect, self._namespaces, self._clock = connect, namespaces, clock
        self._profile, self._flags, self._every = profile, flags, every
        self._stop = threading.Event()
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)
        if error is None and self.fault is not None:
            raise self.fault

    def _run(self) -> None:
        with self._connect() as cluster:
            controller = Controller(cluster, self._namespaces, profile=self._profile, flags=self._flags)
            while not self._stop.wait(self._every):
                try:
                    controller.tick(self._clock.now())
                except KubernetesError as error:
                    if not error.may_have_happened:
                        self.fault = error
                        return
                except BaseException as error:
                    self.fault = error
                    raise


def _finalizers(body: Mapping[str, Any]) -> list[str]:
    held = part(body, "metadata", "finalizers")
    return list(held) if isinstance(held, list) else []


def _duplicate(body: Mapping[str, Any], run: AgentRun, others: Sequence[Mapping[str, Any]]) -> Refusal | None:
    if not run.idempotency_key:
        return None
    for one in others:
        other, theirs = read_run(one), read_status(one.get("status"))
        if (other.agent, other.idempotency_key) != (run.agent, run.idempotency_key):
            continue
        if theirs.condition("Duplicate") is None and (created_at(one), name_of(one)) < (created_at(body), run.name):
            over = theirs.is_final
            reason = "IdempotencyKeyCompleted" if over else "IdempotencyKeyInUse"
            return Refusal(reason=reason, message=f"the key is that of {other.name}", condition="Duplicate")
    return None
