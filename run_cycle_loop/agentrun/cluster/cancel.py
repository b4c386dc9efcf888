"""A run is cancelled so that it stays so: first its status says it, then its Jobs go, then both are looked after.

Deleting Jobs alone starts new attempts; and whoever is in the middle of a pass may write ``Running`` once more.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.existing import existing_run
from run_cycle_loop.agentrun.cluster.waits import Wait
from run_cycle_loop.agentrun.lifecycle.observed import JobState
from run_cycle_loop.agentrun.lifecycle.reconcile import cancel
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus, read_status, write_status
from run_cycle_loop.agentrun.looking.attempts import job_state
from run_cycle_loop.agentrun.looking.objects import Object, mapping, name_of, part, text, uid_of
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Conflict, Forbidden, NotFound, Stopped
from run_cycle_loop.model.ports import Clock

REASON = "CancelledByUser"
SETTLING = 5.0  #: seconds that a cancelled run is looked after
GOING = 30.0  #: seconds that a deletion is waited for
_PAUSE = 0.5  #: seconds between two looks
_LONGEST = 6  #: times as long as settling takes: until then a controller may put it back
_TRIES = 20  #: writes that a busy controller may spoil


class CancelResult(StrEnum):
    """How a cancellation ended."""

    CANCELLED = "cancelled"
    ALREADY_FINAL = "already-final"  #: it had succeeded or failed before; nothing was changed
    DELETED = "deleted"  #: it is gone, as it was asked for
    GONE = "gone"  #: somebody else deleted it meanwhile
    DELETING = "deleting"  #: its deletion was asked for, and waits for the finalizer
    CONTESTED = "contested"  #: a controller keeps putting it back


EXIT_CODES = {
    CancelResult.CANCELLED: 0,
    CancelResult.DELETED: 0,
    CancelResult.ALREADY_FINAL: 1,
    CancelResult.GONE: 4,
    CancelResult.DELETING: 6,
    CancelResult.CONTESTED: 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellation:
    """What was done."""

    name: str
    namespace: str
    result: CancelResult
    phase: str  #: that the run had before
    message: str
    jobs_deleted: tuple[str, ...] = ()
    jobs_left: tuple[str, ...] = ()  #: that still run, or could not be deleted
    restored: int = 0  #: how often a controller had put another phase back
    is_settled: bool = True  #: False where a stop came before it had been looked after for long enough
    notes: tuple[str, ...] = ()
    snapshot: Mapping[str, Any] = field(default_factory=dict)  #: the run as it was before

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "exit_code": EXIT_CODES[self.result]}


def cancel_run(
    cluster: Cluster,
    name: str,
    namespace: str,
    *,
    clock: Clock,
    wait: Wait,
    reason: str = REASON,
    message: str = "cancelled on request",
    settling: float = SETTLING,
) -> Cancellation:
    """Cancel a run. May be called again: what is done already is not done twice.

    A stop that comes meanwhile cuts the looking after short, never what comes before it.

    Raises:
        NotFound: There is no such run.
        Forbidden: Its status may not be changed; nothing was.
        KubernetesError: The cluster does not answer; calling again goes on where it ended.
    """
    body = existing_run(cluster, name, namespace)
    before = read_status(body.get("status"))
    if before.is_final and before.phase != Phase.CANCELLED:
        return _was_over(cluster, body, before)
    work = _Work(cluster, body, clock, reason, message)
    return work.done(wait, settling)


def delete_run(
    cluster: Cluster,
    done: Cancellation,
    *,
    clock: Clock,
    wait: Wait,
    drop_finalizer: bool = False,
    going: float = GOING,
) -> Cancellation:
    """Delete a run that was cancelled, and wait until it is gone.

    Args:
        cluster: Where it is.
        done: The cancellation.
        clock: The clock.
        wait: A stop ends the waiting.
        drop_finalizer: Whether the finalizer may be taken away where nobody honours it; only a run that was never
            started loses it, because nothing can be left behind then.
        going: Seconds to wait.

    Raises:
        KubernetesError: The cluster does not answer.
    """
    uid = uid_of(done.snapshot)
    if not cluster.delete(kinds.AGENT_RUN, done.name, done.namespace, uid=uid or None):
        return replace(done, result=CancelResult.GONE, message="somebody else has deleted it meanwhile")
    until = clock.monotonic() + going
    while (left := _same(cluster, done, uid)) is not None and clock.monotonic() < until:
        if drop_finalizer and not never_started(cluster, left):
            _drop_finalizer(cluster, left)
            continue
        if wait(_PAUSE):
            break
    if left is None:
        return replace(done, result=CancelResult.DELETED, message="it is cancelled and deleted")
    return replace(done, result=CancelResult.DELETING, message=_held(cluster, left, drop_finalizer=drop_finalizer))


def never_started(cluster: Cluster, body: Object) -> str:
    """Why a run may have left something on the cluster; empty where it never started."""
    if part(body, "status", "runtimeRef"):
        return "its status names something that was started"
    jobs = cluster.list(kinds.JOB, text(body, "metadata", "namespace"), {names.LABEL_RUN: name_of(body)}).items
    return f"its Jobs are there: {', '.join(name_of(one) for one in jobs)}" if jobs else ""


class _Work:
    """One cancellation on its way."""

    def __init__(self, cluster: Cluster, body: Object, clock: Clock, reason: str, message: str) -> None:
        self._cluster, self._clock = cluster, clock
        self._body, self._name = body, name_of(body)
        self._namespace = text(body, "metadata", "namespace")
        self._reason, self._message = reason, message
        self._deleted: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._restored = 0

    def done(self, wait: Wait, settling: float) -> Cancellation:
        """The status, the Jobs, and then a look after both."""
        result = self._say_cancelled()
        settled = True
        try:
            if result in (CancelResult.CANCELLED, CancelResult.GONE):
                self._delete_jobs()
            if result is CancelResult.CANCELLED:
                result, settled = self._looked_after(wait, settling)
        except Stopped as stop:  # the cluster was slow, and whoever waited for it was told to stop
            self._notes[str(stop)] = None
            settled = False
        return self._told(result, settled=settled)

    def _looked_after(self, wait: Wait, settling: float) -> tuple[CancelResult, bool]:
        """It is settled once nothing has come back for so many seconds."""
        quiet_since = began = self._clock.monotonic()
        while self._clock.monotonic() - quiet_since < settling:
            if wait(_PAUSE):
                return CancelResult.CANCELLED, False
            before = (self._restored, len(self._deleted))
            result = self._say_cancelled(again=True)
            if result is not CancelResult.ALREADY_FINAL:
                self._delete_jobs()
            if result is not CancelResult.CANCELLED:
                return result, True
            if (self._restored, len(self._deleted)) != before:
                quiet_since = self._clock.monotonic()
            if quiet_since - began > settling * _LONGEST:
                return CancelResult.CONTESTED, True
        return CancelResult.CANCELLED, True

    def _say_cancelled(self, *, again: bool = False) -> CancelResult:
        """Let the status say Cancelled, by changing the very version that was read."""
        for _ in range(_TRIES):
            body = self._cluster.get(kinds.AGENT_RUN, self._name, self._namespace)
            if body is None or uid_of(body) != uid_of(self._body):
                return CancelResult.GONE
            status = read_status(body.get("status"))
            if status.phase == Phase.CANCELLED:
                return CancelResult.CANCELLED
            if status.phase == Phase.SUCCEEDED or (status.is_final and not again):
                self._body = body
                return CancelResult.ALREADY_FINAL
            self._restored += again
            try:
                self._write(body, _reopened(status))
            except Conflict:
                continue
            except NotFound:
                return CancelResult.GONE
        return CancelResult.CONTESTED

    def _write(self, body: Object, status: RunStatus) -> None:
        ended = cancel(status, self._clock.now(), reason=self._reason, message=self._message)
        version = {"resourceVersion": text(body, "metadata", "resourceVersion")}
        patch = {"metadata": version, "status": write_status(ended)}
        self._cluster.patch(kinds.AGENT_RUN, self._name, patch, self._namespace, subresource="status")

    def _delete_jobs(self) -> None:
        """The Jobs that are not over; each by its uid, so that no other one of that name is hit.

        Finished ones start nothing, and hold the logs of what was done.
        """
        try:
            for job in self._jobs():
                if text(job, "metadata", "deletionTimestamp") or job_state(job) is not JobState.ACTIVE:
                    continue
                try:
                    self._cluster.delete(kinds.JOB, name_of(job), self._namespace, uid=uid_of(job))
                except Conflict:
                    continue  # another one of that name by now: the next look finds it
                self._deleted[name_of(job)] = None
        except Forbidden as error:
            self._notes[str(error)] = None

    def _jobs(self) -> tuple[Object, ...]:
        return tuple(self._cluster.list(kinds.JOB, self._namespace, {names.LABEL_RUN: self._name}).items)

    def _left(self) -> tuple[str, ...]:
        try:
            return tuple(name_of(one) for one in self._jobs())
        except (Forbidden, Stopped) as error:
            self._notes[str(error)] = None
            return ()

    def _told(self, result: CancelResult, *, settled: bool) -> Cancellation:
        before = read_status(self._body.get("status")).phase
        if result is CancelResult.ALREADY_FINAL:
            over = _was_over(self._cluster, self._body, read_status(self._body.get("status")))
            return replace(over, jobs_deleted=tuple(self._deleted), restored=self._restored)
        left = self._left()
        early = "it is cancelled; a stop came early" + (f", and its Jobs are left: {', '.join(left)}" if left else "")
        said = {
            CancelResult.CANCELLED: "it is cancelled, and stayed so" if settled else early,
            CancelResult.GONE: "somebody deleted it meanwhile; its Jobs are deleted",
            CancelResult.CONTESTED: "a controller keeps changing its status: try again, or stop the controller",
        }
        if before == Phase.CANCELLED and result is CancelResult.CANCELLED:
            said[result] = (
                "it was cancelled already; its Jobs are deleted" if self._deleted else "it was cancelled already"
            )
        return Cancellation(
            name=self._name,
            namespace=self._namespace,
            result=result,
            phase=before,
            message=said[result],
            jobs_deleted=tuple(self._deleted),
            jobs_left=left,
            restored=self._restored,
            is_settled=settled,
            notes=tuple(self._notes),
            snapshot=self._body,
        )


def _reopened(status: RunStatus) -> RunStatus:
    """A phase that a pass wrote over the cancellation gives way to it, even where it is a final one."""
    return replace(status, phase=str(Phase.RUNNING)) if status.is_final else status


def _was_over(cluster: Cluster, body: Object, status: RunStatus) -> Cancellation:
    name, namespace = name_of(body), text(body, "metadata", "namespace")
    jobs = cluster.list(kinds.JOB, namespace, {names.LABEL_RUN: name}).items
    left = tuple(name_of(one) for one in jobs if job_state(one) is JobState.ACTIVE)
    told = f"it is over already: {status.phase}" + (f", since {status.finished_at}" if status.finished_at else "")
    if left:
        told += f"; still running beside it: {', '.join(left)}"
    return Cancellation(
        name=name,
        namespace=namespace,
        result=CancelResult.ALREADY_FINAL,
        phase=status.phase,
        message=told,
        jobs_left=left,
        snapshot=body,
    )


def _same(cluster: Cluster, done: Cancellation, uid: str) -> Object | None:
    """The run, while it is still that one."""
    body = cluster.get(kinds.AGENT_RUN, done.name, done.namespace)
    return body if body is not None and uid_of(body) == uid else None


def _drop_finalizer(cluster: Cluster, body: Object) -> None:
    held = part(body, "metadata", "finalizers")
    rest = [one for one in held if one != names.FINALIZER] if isinstance(held, list) else []
    metadata = {"resourceVersion": text(body, "metadata", "resourceVersion"), "finalizers": rest}
    try:
        cluster.patch(kinds.AGENT_RUN, name_of(body), {"metadata": metadata}, text(body, "metadata", "namespace"))
    except (Conflict, NotFound):
        return  # it moved: whoever asks looks again


def _held(cluster: Cluster, body: Object, *, drop_finalizer: bool) -> str:
    held = ", ".join(str(one) for one in part(mapping(body, "metadata"), "finalizers") or ())
    told = f"its deletion waits for the finalizer {held}, which its controller takes away"
    if not drop_finalizer:
        return told
    why = never_started(cluster, body)
    return f"{told}; it is not taken away here, because {why}" if why else told
