"""The attempts of a run: one row for each Job that is there, and for each that only the run's status still knows."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.lifecycle.observed import JobState
from run_cycle_loop.agentrun.lifecycle.status import IterationStatus, JobRef, RunStatus, StepStatus, moment
from run_cycle_loop.agentrun.looking.faults import Fault, pod_fault, printed_fault
from run_cycle_loop.agentrun.looking.objects import (
    Object,
    condition,
    container,
    created_at,
    entries,
    is_being_deleted,
    labels_of,
    mapping,
    name_of,
    number,
    owners_of,
    part,
    seconds_between,
    text,
    uid_of,
)
from run_cycle_loop.agentrun.model import AgentRun, whole
from run_cycle_loop.agentrun.rendering.jobs import CONTAINER

JOB_LABELS = ("batch.kubernetes.io/job-name", "job-name")
_MOST_ATTEMPTS = 100  #: tried when a Job's name is only known by its hash
_LONGEST_MESSAGE = 4096  #: bytes of a termination message that a kubelet keeps
_ATTEMPT = re.compile(r"-attempt-([0-9]{1,9})$")


class AttemptState(StrEnum):
    """What an attempt's Job is doing."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETING = "deleting"  #: asked to go, and still there
    GONE = "gone"  #: the run's status names it, and there is no such Job


@dataclass(frozen=True, kw_only=True, slots=True)
class PodRow:
    """The newest pod of an attempt."""

    name: str
    phase: str
    container: str = ""  #: the one that the run's agent is in; others may have been added beside it
    node: str = ""
    image: str = ""
    image_id: str = ""  #: with the digest of what really ran
    started_at: str = ""
    finished_at: str = ""
    exit_code: int | None = None
    waiting: str = ""  #: why it does not run, in one word
    message: str = ""  #: what goes with it, or with its end
    runner: Mapping[str, Any] | None = None  #: the runner's status, where the termination message holds one


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt."""

    job: str
    step: str = ""
    step_index: int = 0  #: 1-based; 0 where the run has no steps
    iteration: int | None = None  #: None outside of loops
    attempt: int = 1
    state: AttemptState = AttemptState.ACTIVE
    phase: str = ""  #: the iteration's, in the words of the run's status, where it names this Job
    uid: str = ""
    started_at: str = ""
    finished_at: str = ""
    seconds: float | None = None
    reason: str = ""  #: why the Job failed, in its own words
    message: str = ""
    pod: PodRow | None = None
    fault: Fault | None = None
    is_stale: bool = False  #: the Job is older than the run: it belonged to an earlier one of the same name

    @property
    def place(self) -> tuple[int, int, int]:
        """By what attempts are put in order."""
        return self.step_index, self.iteration or 0, self.attempt

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def job_state(job: Object) -> JobState:
    """What a Job has come to, by the controller's own rule."""
    if number(job, "status", "succeeded") > 0 or condition(job, "Complete"):
        return JobState.SUCCEEDED
    if number(job, "status", "failed") > 0 and condition(job, "Failed"):
        return JobState.FAILED
    return JobState.ACTIVE


def attempts(
    run: AgentRun,
    status: RunStatus,
    jobs: Iterable[Object],
    pods: Sequence[Object],
    now: datetime,
    *,
    printed: Mapping[str, str] | None = None,
) -> tuple[Attempt, ...]:
    """All attempts that are known, in their order.

    Args:
        run: The run.
        status: Its status.
        jobs: The Jobs that carry its label.
        pods: The pods that carry its label.
        now: For the durations of what still runs.
        printed: By pod, the last lines of what it printed, where they were asked for.
    """
    remembered = {one.job: one for one in _remembered(status)}
    rows = [_row(run, status, job, _pod_of(job, pods), now, printed or {}) for job in jobs]
    rows = [replace(row, phase=remembered.pop(row.job).phase) if row.job in remembered else row for row in rows]
    rows += remembered.values()
    return tuple(sorted(rows, key=lambda row: row.place))


def pods_of(job: Object, pods: Iterable[Object]) -> tuple[Object, ...]:
    """The pods of a Job, oldest first."""
    mine = [pod for pod in pods if _belongs(pod, job)]
    return tuple(sorted(mine, key=lambda pod: (created_at(pod), name_of(pod))))


def read_pod(pod: Object) -> PodRow:
    """What matters of a pod."""
    name = _container(pod)
    statuses = entries(pod, "status", "containerStatuses")
    status = next((one for one in statuses if one.get("name") == name), statuses[0] if statuses else {})
    waiting, ended = mapping(status, "state", "waiting"), mapping(status, "state", "terminated")
    starting = next((one for one in entries(pod, "status", "initContainerStatuses") if _waits(one)), None)
    if starting is not None:
        waiting = mapping(starting, "state", "waiting")
    fault = pod_fault(pod)
    said = text(ended, "message")
    code = part(ended, "exitCode")
    return PodRow(
        name=name_of(pod),
        phase=text(pod, "status", "phase"),
        container=name,
        node=text(pod, "spec", "nodeName"),
        image=text(status, "image") or text(container(pod), "image"),
        image_id=text(status, "imageID"),
        started_at=text(ended, "startedAt") or text(status, "state", "running", "startedAt"),
        finished_at=text(ended, "finishedAt"),
        exit_code=code if isinstance(code, int) and not isinstance(code, bool) else None,
        waiting=text(waiting, "reason") or (fault.reason if fault and not ended else ""),
        message=text(waiting, "message") or said or (fault.message if fault else ""),
        runner=runner_status(said),
    )


def _container(pod: Object) -> str:
    known = [text(one, "name") for one in entries(pod, "spec", "containers")]
    return CONTAINER if CONTAINER in known else (known[0] if known else "")


def runner_status(message: str) -> Mapping[str, Any] | None:
    """The runner's own status in a termination message; None where there is none, or only the beginning of one."""
    if not message.lstrip().startswith("{") or len(message.encode()) > _LONGEST_MESSAGE:
        return None
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "status" in found else None


def _waits(status: Object) -> bool:
    return bool(text(status, "state", "waiting", "reason"))


def _belongs(pod: Object, job: Object) -> bool:
    owners = [one for one in owners_of(pod) if one.get("kind") == "Job"]
    if owners:
        return any(one.get("uid") == uid_of(job) for one in owners)
    labels = labels_of(pod)
    return any(labels.get(label) == name_of(job) for label in JOB_LABELS)


def _pod_of(job: Object, pods: Iterable[Object]) -> Object | None:
    mine = pods_of(job, pods)
    return mine[-1] if mine else None


def _row(
    run: AgentRun, status: RunStatus, job: Object, pod: Object | None, now: datetime, printed: Mapping[str, str]
) -> Attempt:
    state = job_state(job)
    index, iteration, attempt = _place(run, job)
    started, finished = text(job, "status", "startTime"), text(job, "status", "completionTime")
    failed = condition(job, "Failed") if state is JobState.FAILED else {}
    finished = finished or text(failed, "lastTransitionTime")
    seconds = seconds_between(started, finished if state is not JobState.ACTIVE and finished else now)
    row = None if pod is None else read_pod(pod)
    going = state is JobState.ACTIVE and is_being_deleted(job)
    return Attempt(
        job=name_of(job),
        uid=uid_of(job),
        step=_step_name(run, status, index),
        step_index=index,
        iteration=iteration,
        attempt=attempt,
        state=AttemptState.DELETING if going else AttemptState(state),
        started_at=started or created_at(job),
        finished_at=finished,
        seconds=seconds,
        reason=text(failed, "reason"),
        message=text(failed, "message"),
        pod=row,
        fault=_fault(pod, row, printed),
        is_stale=_is_older(job, run),
    )


def _fault(pod: Object | None, row: PodRow | None, printed: Mapping[str, str]) -> Fault | None:
    if pod is None or row is None:
        return None
    lived = seconds_between(row.started_at, row.finished_at) if row.exit_code else None
    words = f"{row.message}\n{printed.get(row.name, '')}" if row.exit_code else ""
    return pod_fault(pod) or printed_fault(words, seconds=lived)


def _is_older(job: Object, run: AgentRun) -> bool:
    owners = [one for one in owners_of(job) if one.get("kind") == "AgentRun"]
    if run.uid and owners:
        return all(one.get("uid") != run.uid for one in owners)
    mine, theirs = moment(text(run.body, "metadata", "creationTimestamp")), moment(created_at(job))
    return mine is not None and theirs is not None and theirs < mine


def _place(run: AgentRun, job: Object) -> tuple[int, int | None, int]:
    """Which attempt a Job is: its labels say the step and the iteration, and its name the rest."""
    labels, name = labels_of(job), name_of(job)
    index = whole(labels.get(names.LABEL_STEP_INDEX))
    iteration = whole(labels.get(names.LABEL_ITERATION)) or None
    found = _ATTEMPT.search(name)
    if found:
        return index, iteration, int(found[1])
    hashed = (n for n in range(1, _MOST_ATTEMPTS + 1) if names.job_name(run.name, index, iteration, n) == name)
    return index, iteration, next(hashed, 1)


def _step_name(run: AgentRun, status: RunStatus, index: int) -> str:
    if 0 < index <= len(run.steps):
        return run.steps[index - 1].name
    return status.steps[index - 1].name if 0 < index <= len(status.steps) else ""


def _remembered(status: RunStatus) -> Iterable[Attempt]:
    """What the status names: of an iteration the last attempt alone, all earlier ones are forgotten there."""
    for place, step in enumerate(status.steps, 1):
        for one in step.loop.iterations if step.loop else ():
            if one.job is not None:
                yield _gone(step, place, one.index, one.attempts, one, one.job)
        if step.loop is None and step.job is not None:
            yield _gone(step, place, None, step.attempt, step, step.job)


def _gone(
    step: StepStatus, place: int, iteration: int | None, attempt: int, kept: StepStatus | IterationStatus, job: JobRef
) -> Attempt:
    return Attempt(
        job=job.name,
        uid=job.uid,
        step=step.name,
        step_index=place,
        iteration=iteration,
        attempt=attempt or 1,
        state=AttemptState.GONE,
        phase=str(kept.phase),
        started_at=kept.started_at,
        finished_at=kept.finished_at,
        seconds=seconds_between(kept.started_at, kept.finished_at),
        message=kept.message,
    )
