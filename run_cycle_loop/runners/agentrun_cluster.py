"""One cycle's AgentRun on a cluster: submitted once, watched with all that its attempts print, cancelled where it must
be; and what earlier cycles left is cancelled first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.cancel import SETTLING, Cancellation, CancelResult, cancel_run
from run_cycle_loop.agentrun.cluster.logs import headline
from run_cycle_loop.agentrun.cluster.submit import Submission, SubmitResult, plan, submit
from run_cycle_loop.agentrun.cluster.watching import watch
from run_cycle_loop.agentrun.lifecycle.observed import JobState
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus, read_status
from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState, job_state
from run_cycle_loop.agentrun.looking.marks import MARKS
from run_cycle_loop.agentrun.looking.objects import entries, labels_of, name_of, text, uid_of
from run_cycle_loop.agentrun.looking.outcomes import Result
from run_cycle_loop.agentrun.looking.progress import Progress, Waiting
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.agentrun.rendering.jobs import CONTAINER
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster, Object
from run_cycle_loop.clients.kubernetes.errors import Conflict, KubernetesError, NotFound, Stopped
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.ports import Clock
from run_cycle_loop.runners.agentrun import Body, RunEnd, RunResult
from run_cycle_loop.runners.job import await_pods
from run_cycle_loop.runners.job_following import Following, Wait
from run_cycle_loop.runners.marks import LABEL_CYCLE, LABEL_LOOP, Marks
from run_cycle_loop.runners.pod_log import PodLog
from run_cycle_loop.runners.rights import FOR_RUNS, require

_BEAT = 0.2  #: seconds that one watch is listened to, where nothing happens
_TICK = 1.0  #: seconds between two looks at the logs
_LAST_WORDS = 10.0  #: seconds for the output of a run that is over
_CANCELLED_BY = "CancelledByLoop"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A cluster, and how it is waited for."""

    cluster: Cluster  #: a plain one
    clock: Clock
    wait: Wait  #: says whether the run is to be ended
    hurry: Wait  #: says whether even the wait for its end is over
    patience: float = 60.0  #: seconds for one question to a cluster that does not answer

    def patient(self, *, wait: Wait | None = None, budget: float | None = None) -> PatientCluster:
        """The same cluster, asked again where that helps."""
        return PatientCluster(
            self.cluster,
            wait=wait or self.wait,
            budget=self.patience if budget is None else budget,
            marks=MARKS,
            monotonic=self.clock.monotonic,
        )


def of_cycle(bundle: Bundle, document: Document, run: Body) -> tuple[Bundle, Document]:
    """The manifests with the cycle's run in the place of the one that it is made of."""
    mine = replace(document, body=run, name=name_of(run))
    return Bundle(documents=tuple(mine if one is document else one for one in bundle.documents)), mine


def carry_out(place: Place, bundle: Bundle, document: Document, how: Following) -> RunResult:
    """Submit the run of a cycle with all that it comes with, and follow it to its end.

    Args:
        place: where.
        bundle: what the run comes with, itself included.
        document: the cycle's run.
        how: where output goes, and how long is waited for what.

    Raises:
        Stopped: a stop came before anything was made.
        ConfigError: it may not be followed, or not be cancelled.
        KubernetesError: the cluster does not take it.
    """
    patient = place.patient()
    require(patient, document.namespace, FOR_RUNS)
    planned = plan(patient, bundle, document, key=text(document.body, "spec", "idempotencyKey"))
    submission = submit(patient, planned, wait=place.wait)
    how.say(submission.message)
    if submission.result in (SubmitResult.CREATED, SubmitResult.ADOPTED):
        return _Followed(place, submission, how).to_the_end()
    if submission.result is SubmitResult.UNCERTAIN and place.wait(0):
        return _Followed(place, submission, how).withdrawn() or _not_submitted(submission)
    return _not_submitted(submission)


def _not_submitted(submission: Submission) -> RunResult:
    if submission.result is SubmitResult.STOPPED:
        raise Stopped(submission.message)
    end = RunEnd.UNSEEN if submission.result is SubmitResult.UNCERTAIN else RunEnd.REFUSED
    name, namespace = submission.name, submission.namespace
    return RunResult(
        end=end, name=name, namespace=namespace, message=submission.message, removal=_removal(name, namespace)
    )


def clear_runs(
    place: Place, marks: Marks, namespace: str, *, say: Callable[[str], object], settling: float = SETTLING
) -> None:
    """Cancel what earlier cycles of this loop left on their way, and see it gone: there are never two at once.

    Raises:
        RunnerError: it does not end.
        KubernetesError: the cluster refuses, or does not answer.
    """
    cluster = place.patient()
    runs = cluster.list(kinds.AGENT_RUN, namespace, {LABEL_LOOP: marks.loop}).items
    for run in _on_their_way(cluster, namespace, [one for one in runs if _cycle(one) != marks.cycle]):
        name = name_of(run)
        say(f"AgentRun {namespace}/{name} of cycle {_cycle(run)}, which nobody ended, is cancelled")
        try:
            done = cancel_run(
                cluster,
                name,
                namespace,
                clock=place.clock,
                wait=place.wait,
                reason=_CANCELLED_BY,
                message="its loop is gone; the next cycle has cancelled it",
                settling=settling,
            )
        except NotFound:
            continue  # gone by itself
        if done.result is CancelResult.CONTESTED:
            raise RunnerError(f"AgentRun {namespace}/{name} of an earlier cycle cannot be cancelled: {done.message}")
        if done.result is CancelResult.ALREADY_FINAL:
            _end_jobs(cluster, name, namespace)
        _await_pods(place, cluster, name, namespace)


def _on_their_way(cluster: Cluster, namespace: str, runs: Sequence[Object]) -> Iterator[Object]:
    """Those that are not over, and those whose Jobs still run: cancelled by half, or failed by a timeout."""
    phases = {name_of(run): read_status(run.get("status")).phase for run in runs}
    over = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)
    running: set[str] = set()
    if any(phase in over for phase in phases.values()):
        jobs = cluster.list(kinds.JOB, namespace).items
        running = {str(labels_of(job).get(names.LABEL_RUN)) for job in jobs if job_state(job) is JobState.ACTIVE}
    for run in runs:
        phase = phases[name_of(run)]
        if phase == Phase.TEMPLATE:
            continue
        if phase not in over or name_of(run) in running:
            yield run


def _end_jobs(cluster: Cluster, name: str, namespace: str) -> list[str]:
    """Delete what still runs of a run that is over: no controller ends an attempt that is out of time."""
    ended = []
    for job in cluster.list(kinds.JOB, namespace, {names.LABEL_RUN: name}).items:
        if job_state(job) is not JobState.ACTIVE:
            continue
        with suppress(Conflict):  # another one of that name by now
            cluster.delete(kinds.JOB, name_of(job), namespace, uid=uid_of(job))
            ended.append(name_of(job))
    return ended


def _await_pods(place: Place, cluster: Cluster, name: str, namespace: str) -> None:
    await_pods(cluster, namespace, {names.LABEL_RUN: name}, spared="-", clock=place.clock, wait=place.wait)


class _Followed:
    """One run, from the moment it was submitted."""

    def __init__(self, place: Place, submission: Submission, how: Following) -> None:
        self._place, self._how = place, how
        self._name, self._namespace = submission.name, submission.namespace
        self._logs: dict[str, PodLog] = {}
        self._out: set[str] = set()  #: pods whose output is complete
        self._told: dict[str, str] = {}  #: by what it is about
        self._hindered_since: float | None = None
        self._agent = ""

    def to_the_end(self) -> RunResult:
        """Watch it; a stop cancels it."""
        try:
            return self._watched()
        except KubernetesError as error:
            return self._result(RunEnd.UNSEEN, reason="Unseen", message=f"{error}; the next cycle cancels what is left")
        finally:
            for log in self._logs.values():
                log.close()

    def withdrawn(self) -> RunResult | None:
        """Cancel it after a stop, if it was made at all; None where it is not there, or not yet."""
        done = self._cancelled(RunEnd.CANCELLED, None, why="its loop was told to end it")
        return None if done.end is RunEnd.DELETED else done

    def _watched(self) -> RunResult:
        place = self._place
        seen: Progress | None = None
        progress = watch(
            place.cluster,
            self._name,
            self._namespace,
            clock=place.clock,
            wait=place.wait,
            nudging=True,
            tick=_TICK,
            beat=_BEAT,
            noticed=lambda error: self._say("cluster", f"the cluster is asked again: {error}"),
        )
        try:
            for seen in progress:
                self._agent = seen.agent
                self._tell(seen)
                self._pump(seen.attempts)
                if seen.result is not None:
                    break
                if (late := self._too_late(seen)) is not None:
                    return self._given_up(late)
        finally:
            progress.close()
        if seen is None or seen.result is Result.STOPPED:
            return self._cancelled(RunEnd.CANCELLED, seen, why="its loop was told to end it")
        if seen.result is not Result.DELETED:
            self._end_what_still_runs()
        self._last_words(seen)
        return self._ended(seen)

    def _ended(self, seen: Progress) -> RunResult:
        if seen.result is Result.DELETED:
            return self._result(RunEnd.DELETED, reason="AgentRunDeleted", message="somebody deleted it in mid run")
        found = self._place.patient(wait=self._place.hurry, budget=self._how.ending).get(
            kinds.AGENT_RUN, self._name, self._namespace
        )
        status = read_status((found or {}).get("status"))
        if found is None or not status.phase:
            return self._result(RunEnd.DELETED, reason="AgentRunDeleted", message=f"it was deleted, {seen.phase}")
        ended = self._result(RunEnd.FINAL, status=status)
        if seen.result is Result.CANCELLED:
            return replace(ended, who=_writer_of_status(found))
        fault = next((one.fault for one in reversed(seen.attempts) if one.fault), None)
        if fault is None or seen.result is not Result.FAILED:
            return ended
        return replace(ended, reason=fault.reason, message=fault.message, advice=fault.cure)

    def _end_what_still_runs(self) -> None:
        """An attempt that is out of time goes on beside the run that failed of it, and beside the next cycle."""
        patient = self._place.patient(wait=self._place.hurry, budget=self._how.ending)
        try:
            if ended := _end_jobs(patient, self._name, self._namespace):
                self._how.say(
                    f"of AgentRun {self._name}, which is over, there still ran, and is ended: {', '.join(ended)}"
                )
        except (KubernetesError, Stopped) as error:
            self._how.say(f"what may still run of AgentRun {self._name} could not be ended: {error}")

    # --- telling -----------------------------------------------------------------------------------------------

    def _tell(self, seen: Progress) -> None:
        parts = [seen.phase or "not taken up yet"]
        parts += [f"step {seen.step}"] if seen.step else []
        parts += [f"iteration {seen.iteration}"] if seen.iteration else []
        self._say("phase", f"AgentRun {self._name}: {', '.join(parts)}")
        for one in seen.attempts:
            if one.fault is not None:
                self._say(one.job, f"{one.job}: {one.fault.reason}: {one.fault.message}; {one.fault.cure}")
        for late in seen.overdue:
            self._say(f"{late.what} {late.step}", late.message)
        for hint in seen.hints:
            self._say(hint.reason, hint.message)

    def _say(self, about: str, sentence: str) -> None:
        if self._told.get(about) != sentence:
            self._told[about] = sentence
            self._how.say(sentence)

    def _pump(self, attempts: Sequence[Attempt]) -> bool:
        """Hand on what the attempts have printed since the last look; whether all of it is out."""
        for one in attempts:
            pod = one.pod
            if pod is None or not pod.started_at or pod.name in self._out:
                continue
            if pod.name not in self._logs:
                self._how.say(headline(one))
                self._logs[pod.name] = PodLog(
                    self._place.cluster, pod.name, self._namespace, container=CONTAINER, clock=self._place.clock
                )
            log = self._logs[pod.name]
            has_ended = bool(pod.finished_at) or one.state is not AttemptState.ACTIVE
            if log.pump(self._how.output, has_ended=has_ended):
                self._out.add(pod.name)
                if log.trouble:
                    self._how.say(log.trouble)
        return self._logs.keys() <= self._out

    def _last_words(self, seen: Progress) -> None:
        clock = self._place.clock
        until = clock.monotonic() + _LAST_WORDS
        ended = [replace(one, state=AttemptState.GONE) for one in seen.attempts]
        while not self._pump(ended) and clock.monotonic() < until and not self._place.hurry(_BEAT):
            pass

    # --- ending ------------------------------------------------------------------------------------------------

    def _too_late(self, seen: Progress) -> tuple[str, str, str] | None:
        """Why it is not waited for any longer: it cannot start, or nobody lets it in."""
        hindrance = _hindrance(seen)
        now = self._place.clock.monotonic()
        if hindrance is None:
            self._hindered_since = None
            return None
        self._hindered_since = now if self._hindered_since is None else self._hindered_since
        return hindrance if now - self._hindered_since >= self._how.starting else None

    def _given_up(self, why: tuple[str, str, str]) -> RunResult:
        reason, message, advice = why
        done = self._cancelled(RunEnd.STUCK, None, why=f"it could not start: {reason}")
        if done.end is RunEnd.LEFT:
            return done
        return replace(done, reason=reason, message=message, advice=advice)

    def _cancelled(self, end: RunEnd, seen: Progress | None, *, why: str) -> RunResult:
        """Cancel it, and see that nothing of it runs any more; what it prints meanwhile is still handed on."""
        place, clock = self._place, self._place.clock
        until = clock.monotonic() + self._how.ending
        self._how.say(f"AgentRun {self._namespace}/{self._name} is cancelled: {why}")
        patient = place.patient(wait=place.hurry, budget=self._how.ending)
        try:
            done = cancel_run(
                patient,
                self._name,
                self._namespace,
                clock=clock,
                wait=place.hurry,
                reason=_CANCELLED_BY,
                message=why,
                settling=min(SETTLING, self._how.ending / 3),
            )
            left = self._pods_left(patient, seen, until)
        except NotFound:
            return self._result(RunEnd.DELETED, reason="AgentRunDeleted", message="somebody deleted it meanwhile")
        except (KubernetesError, Stopped) as error:
            return self._result(RunEnd.LEFT, reason="NotCancelled", message=str(error))
        return self._told_of(end, done, left)

    def _pods_left(self, patient: Cluster, seen: Progress | None, until: float) -> list[str]:
        while True:
            pods = patient.list(kinds.POD, self._namespace, {names.LABEL_RUN: self._name}).items
            left = [name_of(pod) for pod in pods if text(pod, "status", "phase") not in ("Succeeded", "Failed")]
            is_out = seen is None or self._pump(seen.attempts)
            if (not left and is_out) or self._place.clock.monotonic() >= until or self._place.hurry(_BEAT):
                return left

    def _told_of(self, end: RunEnd, done: Cancellation, left: list[str]) -> RunResult:
        if done.result is CancelResult.ALREADY_FINAL:
            found = self._place.cluster.get(kinds.AGENT_RUN, self._name, self._namespace)
            return self._result(RunEnd.FINAL, status=read_status((found or {}).get("status")))
        if done.result is CancelResult.CONTESTED or left:
            what = f"pods still end: {', '.join(left)}" if left else done.message
            return self._result(RunEnd.LEFT, reason="NotCancelled", message=what)
        return self._result(end, message=f"AgentRun {self._name}: {done.message}")

    def _result(self, end: RunEnd, reason: str = "", message: str = "", status: RunStatus | None = None) -> RunResult:
        return RunResult(
            end=end,
            name=self._name,
            namespace=self._namespace,
            status=status or RunStatus(),
            agent=self._agent,
            reason=reason,
            message=message,
            removal=_removal(self._name, self._namespace),
        )


def _hindrance(seen: Progress) -> tuple[str, str, str] | None:
    """What keeps it from starting, or from going on with its attempt: reason, message, cure."""
    for one in seen.active:
        if one.fault is not None and one.pod is not None and not one.pod.started_at:
            return one.fault.reason, one.fault.message, one.fault.cure
    if seen.blocked:
        return seen.blocked, seen.message, "wait for other runs to end, or raise the controller's limit"
    for late in seen.overdue:
        if late.what is Waiting.UNTOUCHED:
            return "Untouched", late.message, "see that the controller runs, and watches this namespace"
    return None


def _writer_of_status(run: Mapping[str, Any]) -> str:
    """Who has written its status last."""
    writers = [one for one in entries(run, "metadata", "managedFields") if one.get("subresource") == "status"]
    newest = max(writers, key=lambda one: text(one, "time"), default={})
    return text(newest, "manager")


def _removal(name: str, namespace: str) -> str:
    return f"run-cycle-loop agentrun cancel {name} --where cluster --namespace {namespace}"


def _cycle(run: Mapping[str, Any]) -> str:
    return str(labels_of(run).get(LABEL_CYCLE, ""))
