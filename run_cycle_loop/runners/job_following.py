"""A Job followed to its end: its own changes, its pod, what that prints, and a stop that may come at any moment."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from run_cycle_loop.agentrun.looking.objects import condition, entries, mapping, name_of, owners_of, part, text, uid_of
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import DELETED, Cluster, Object
from run_cycle_loop.clients.kubernetes.errors import Conflict, KubernetesError, Stopped
from run_cycle_loop.clients.kubernetes.following import Change, follow
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.model.ports import Clock
from run_cycle_loop.runners.job_faults import HOPELESS, JobFault, fault_of, no_pod
from run_cycle_loop.runners.job_result import JobEnd, JobResult
from run_cycle_loop.runners.marks import LABEL_CYCLE
from run_cycle_loop.runners.pod_log import PodLog

Wait = Callable[[float], bool]  #: waits so many seconds; True where a stop was asked for. ``wait(0)`` only asks

_HOPELESS = 10.0  #: seconds for what nothing can change by itself
_BEAT = 0.2  #: seconds that one watch is listened to, where nothing happens
_AT_ONCE = 100  #: changes that are taken before something else gets its turn
_LATE = 10.0  #: seconds that a pod may be late: to be made, or to tell the end that its Job tells already
_PATIENCE = 300.0  #: seconds without a word from the cluster, after which nobody looks any longer


@dataclass(frozen=True, kw_only=True, slots=True)
class Following:
    """How a Job is followed."""

    output: Callable[[bytes], object]  #: takes what the container prints
    say: Callable[[str], object]  #: takes our own sentences
    starting: float = 300.0  #: seconds for a pod that cannot start to get over it
    ending: float = 8.0  #: seconds to see it gone, once it is to end
    patience: float = 60.0  #: seconds for one question to a cluster that does not answer


class _Changes:
    """What one watch tells, in portions."""

    def __init__(self, follow: Callable[[Callable[[], object]], Generator[Change | None, None, None]]) -> None:
        self._changes = follow(self._note_listing)
        self.is_listed = False  #: whether all that was there at the beginning is told
        self.seen: set[str] = set()  #: uids

    def taken(self) -> Iterator[Change]:
        """What has happened; waits a beat where nothing has."""
        for _ in range(_AT_ONCE):
            change = next(self._changes, None)
            if change is None:
                return
            self.seen.add(uid_of(change.object))
            yield change

    def _note_listing(self) -> None:
        self.is_listed = True

    def close(self) -> None:
        """Let go of the connection."""
        self._changes.close()


class JobFollower:
    """One Job, from the moment it was made."""

    def __init__(self, cluster: Cluster, job: Object, how: Following, *, clock: Clock, wait: Wait, hurry: Wait) -> None:
        self._cluster, self._how, self._clock = cluster, how, clock
        self._wait, self._hurry = wait, hurry
        self._job = job
        self._name, self._namespace, self._uid = name_of(job), text(job, "metadata", "namespace"), uid_of(job)
        self._is_deleted = False  #: the Job is gone
        self._pods: dict[str, Object] = {}  #: by uid, those that are there
        self._pod: Object | None = None  #: the newest, as it was seen last
        self._log: PodLog | None = None
        self._log_is_out = False
        self._began = clock.monotonic()
        self._hindered_since: float | None = None
        self._finished_since: float | None = None
        self._ending: JobEnd | None = None  #: what it is to come to, once it is gone
        self._why: JobFault | None = None  #: why it was ended
        self._until = 0.0
        self._told = ""
        label = text(job, "metadata", "labels", LABEL_CYCLE)
        self._changes_of_job = self._followed(kinds.JOB, name=self._name)
        self._changes_of_pods = self._followed(kinds.POD, labels={LABEL_CYCLE: label})

    def to_the_end(self) -> JobResult:
        """Look at everything in turn until it is over."""
        try:
            while True:
                self._advance()
                if (result := self._result()) is not None:
                    return result
                if self._ending is None and self._wait(0):
                    self._end(JobEnd.CANCELLED, "it is to end")
                if self._ending is not None and (self._hurry(0) or self._clock.monotonic() >= self._until):
                    return self._told_of(JobEnd.LEFT, message=self._what_is_left())
        except KubernetesError as error:
            end = JobEnd.UNSEEN if self._ending is None else JobEnd.LEFT
            return self._told_of(end, reason="Unseen", message=f"{error}; the next cycle removes what is left")
        finally:
            self._close()

    def _close(self) -> None:
        self._changes_of_job.close()
        self._changes_of_pods.close()
        if self._log is not None:
            self._log.close()

    # --- looking -----------------------------------------------------------------------------------------------

    def _followed(
        self, kind: kinds.Kind, *, name: str | None = None, labels: Mapping[str, str] | None = None
    ) -> "_Changes":
        def pause(seconds: float) -> bool:
            # A stop is heard between two looks; the watch itself has to go on until the pod is gone.
            (self._wait if self._ending is None else self._hurry)(seconds)
            return False

        return _Changes(
            lambda listed: follow(
                self._cluster,
                kind,
                wait=pause,
                namespace=self._namespace,
                name=name,
                labels=labels,
                beat=_BEAT,
                patience=_PATIENCE,
                noticed=lambda error: self._say_once(f"the cluster is asked again: {error}"),
                listed=listed,
                monotonic=self._clock.monotonic,
            )
        )

    def _advance(self) -> None:
        for change in self._changes_of_job.taken():
            if uid_of(change.object) == self._uid:
                self._job, self._is_deleted = change.object, change.type == DELETED
        # It may have gone, and its name may have been taken again, before the first look.
        self._is_deleted = self._is_deleted or (self._changes_of_job.is_listed and not self._saw_job())
        for change in self._changes_of_pods.taken():
            self._take_pod(change)
        if self._pod is not None and self._has_begun():
            self._read_log(self._pod)

    def _saw_job(self) -> bool:
        return self._uid in self._changes_of_job.seen

    def _take_pod(self, change: Change) -> None:
        pod = change.object
        if not any(one.get("uid") == self._uid for one in owners_of(pod)):
            return
        if change.type == DELETED:
            self._pods.pop(uid_of(pod), None)
        else:
            self._pods[uid_of(pod)] = pod
        if self._pod is not None and uid_of(self._pod) != uid_of(pod):
            if change.type == DELETED:
                return
            self._how.say(f"pod {name_of(pod)} follows pod {name_of(self._pod)}")
            self._log, self._log_is_out = None, False
        self._pod = pod

    def _read_log(self, pod: Object) -> None:
        if self._log is None:
            name = text(next(iter(entries(pod, "spec", "containers")), {}), "name")
            self._log = PodLog(self._cluster, name_of(pod), self._namespace, container=name, clock=self._clock)
            node = text(pod, "spec", "nodeName")
            self._how.say(f"pod {name_of(pod)} runs{f' on {node}' if node else ''}")
        self._log_is_out = self._log.pump(self._how.output, has_ended=self._pod_has_ended())

    def _has_begun(self) -> bool:
        state = mapping(self._container(), "state")
        return bool(state.get("running") or state.get("terminated"))

    def _pod_has_ended(self) -> bool:
        is_gone = self._pod is not None and uid_of(self._pod) not in self._pods
        return is_gone or bool(mapping(self._container(), "state", "terminated"))

    def _container(self) -> Mapping[str, Any]:
        """The status of the first container, whichever place that has among them."""
        first = text(next(iter(entries(self._pod, "spec", "containers")), {}), "name")
        statuses = entries(self._pod, "status", "containerStatuses")
        return next((one for one in statuses if one.get("name") == first), {})

    # --- judging -----------------------------------------------------------------------------------------------

    def _result(self) -> JobResult | None:
        if self._is_deleted and not self._pods:
            return self._gone()
        if self._ending is not None:
            return None
        if self._is_deleted:
            self._end(JobEnd.DELETED, "somebody has deleted it")
        elif condition(self._job, "Complete") or condition(self._job, "Failed"):
            return self._finished() if self._is_settled() else None
        else:
            self._look_at_start()
        return None

    def _is_settled(self) -> bool:
        """Whether all that a finished Job can still tell is told: its pod's end, and the last of its output."""
        now = self._clock.monotonic()
        self._finished_since = now if self._finished_since is None else self._finished_since
        if now - self._finished_since > _LATE and (self._log is None or self._log_is_out):
            return True
        if self._pod is None:
            return False
        if not self._has_begun():
            return not self._pods or fault_of(self._pod) is not None
        return self._log_is_out and self._pod_has_ended()

    def _finished(self) -> JobResult:
        end = JobEnd.SUCCEEDED if condition(self._job, "Complete") else JobEnd.FAILED
        said = condition(self._job, "Failed")
        reason, message = text(said, "reason"), text(said, "message")
        fault = fault_of(self._pod) if end is JobEnd.FAILED and reason != "DeadlineExceeded" else None
        if fault is not None:
            return self._told_of(end, reason=fault.reason, message=fault.message, advice=fault.advice)
        if reason == "BackoffLimitExceeded" and self._exit_code() is not None:
            reason = message = ""  # it only says that a container which ended so is not tried again
        elif reason == "BackoffLimitExceeded" and self._pod is not None and not self._pods:
            reason, message = "PodDeleted", f"pod {name_of(self._pod)} was deleted in mid run"
        return self._told_of(end, reason=reason, message=message)

    def _gone(self) -> JobResult:
        if self._ending is JobEnd.CANCELLED:
            return self._told_of(JobEnd.CANCELLED, message="cancelled: the Job and its pod are gone")
        if self._ending is JobEnd.STUCK and self._why is not None:
            why = self._why
            return self._told_of(JobEnd.STUCK, reason=why.reason, message=why.message, advice=why.advice)
        return self._told_of(JobEnd.DELETED, reason="JobDeleted", message="somebody deleted the Job in mid run")

    def _look_at_start(self) -> None:
        """Say why it does not start, once for each reason, and end what will not."""
        fault = self._hindrance()
        now = self._clock.monotonic()
        if fault is None:
            self._hindered_since = None
            return
        self._hindered_since = now if self._hindered_since is None else self._hindered_since
        self._say_once(f"it does not start: {fault.reason}: {fault.message}; {fault.advice}")
        bound = min(_HOPELESS, self._how.starting) if fault.reason in HOPELESS else self._how.starting
        if now - self._hindered_since >= bound:
            self._why = fault
            self._end(JobEnd.STUCK, f"it could not start for {bound:.0f} s")

    def _hindrance(self) -> JobFault | None:
        if self._pod is None:
            is_late = self._clock.monotonic() - self._began >= min(_LATE, self._how.starting)
            return no_pod(self._name, self._namespace) if is_late else None
        if self._has_begun() or uid_of(self._pod) not in self._pods:
            return None
        return fault_of(self._pod)

    # --- ending ------------------------------------------------------------------------------------------------

    def _end(self, end: JobEnd, why: str) -> None:
        self._ending, self._until = end, self._clock.monotonic() + self._how.ending
        self._how.say(f"Job {self._namespace}/{self._name}: {why}")
        if self._is_deleted:
            return
        patient = PatientCluster(
            self._cluster, wait=self._hurry, budget=self._how.ending, monotonic=self._clock.monotonic
        )
        try:
            patient.delete(kinds.JOB, self._name, self._namespace, uid=self._uid)
        except Conflict:
            self._is_deleted = True  # what has its name by now is another one
        except (KubernetesError, Stopped) as error:
            self._how.say(f"it could not be deleted: {error}")
            self._until = self._clock.monotonic()

    def _what_is_left(self) -> str:
        pods = ", ".join(name_of(pod) for pod in self._pods.values())
        if self._is_deleted:
            return f"the Job is gone, and its pod still ends: {pods}"
        return f"the Job is still there{f' with its pod {pods}' if pods else ''}; the next cycle removes it"

    def _told_of(self, end: JobEnd, *, reason: str = "", message: str = "", advice: str = "") -> JobResult:
        container = self._container()
        notes = (self._log.trouble,) if self._log is not None and self._log.trouble else ()
        if end in (JobEnd.SUCCEEDED, JobEnd.FAILED) and self._log is None and not reason:
            notes = ("nothing that it printed could be read: its pod was gone",)
        return JobResult(
            end=end,
            name=self._name,
            namespace=self._namespace,
            pod=name_of(self._pod or {}),
            image=text(container, "imageID") or text(container, "image"),
            exit_code=self._exit_code(),
            reason=reason,
            message=" ".join(message.split()),
            advice=advice,
            said=text(container, "state", "terminated", "message"),
            notes=notes,
        )

    def _exit_code(self) -> int | None:
        code = part(self._container(), "state", "terminated", "exitCode")
        return code if isinstance(code, int) and not isinstance(code, bool) else None

    def _say_once(self, sentence: str) -> None:
        if sentence != self._told:
            self._told = sentence
            self._how.say(sentence)
