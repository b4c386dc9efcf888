"""One cycle as a Kubernetes Job: made once, after what earlier cycles left is gone, and followed to its end."""

from collections.abc import Callable, Mapping
from typing import Any

from run_cycle_loop.agentrun.lifecycle.observed import JobState
from run_cycle_loop.agentrun.looking.attempts import job_state
from run_cycle_loop.agentrun.looking.objects import is_being_deleted, labels_of, name_of, text, uid_of
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster, Object
from run_cycle_loop.clients.kubernetes.errors import AlreadyExists, Conflict, KubernetesError, Stopped
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.ports import Clock
from run_cycle_loop.runners.job_following import Following, JobFollower, Wait
from run_cycle_loop.runners.job_result import JobEnd, JobResult
from run_cycle_loop.runners.marks import LABEL_CYCLE, LABEL_LOOP, Marks
from run_cycle_loop.runners.rights import FOR_JOBS, require

GOING = 60.0  #: seconds that what an earlier cycle left is given to be gone
_PAUSE = 0.5  #: seconds between two looks at that


def run_job(
    cluster: Cluster, manifest: Mapping[str, Any], how: Following, *, clock: Clock, wait: Wait, hurry: Wait
) -> JobResult:
    """Make a Job and follow it to its end; one of this cycle that is there already is taken up.

    Args:
        cluster: a plain one.
        manifest: the Job; its name and its labels are this cycle's alone.
        how: where its output goes, and how long is waited for what.
        clock: the clocks.
        wait: says whether the Job is to be ended.
        hurry: says whether even the wait for its end is over.

    Raises:
        Stopped: a stop came before anything was made.
        ConfigError: it may not be followed, or not be ended.
        KubernetesError: the Job was surely not made.
        RunnerError: another one has its name.
    """
    patient = PatientCluster(cluster, wait=wait, budget=how.patience, marks=(LABEL_CYCLE,), monotonic=clock.monotonic)
    require(patient, text(manifest, "metadata", "namespace"), FOR_JOBS)
    try:
        job = _made(patient, manifest, how.say)
    except (KubernetesError, Stopped) as error:
        if not error.may_have_happened:
            raise
        hurried = PatientCluster(cluster, wait=hurry, budget=how.ending, monotonic=clock.monotonic)
        found = _looked_for(hurried, manifest)
        if found is None:
            return _unseen(manifest, error)
        job = found
    return JobFollower(cluster, job, how, clock=clock, wait=wait, hurry=hurry).to_the_end()


def clear_jobs(
    cluster: Cluster, marks: Marks, namespace: str, *, clock: Clock, wait: Wait, say: Callable[[str], object]
) -> None:
    """Delete what earlier cycles of this loop left running, and see it gone: there are never two at once.

    Args:
        cluster: a patient one.
        marks: whose is looked for, and which cycle is spared.
        namespace: where.
        clock: the clocks.
        wait: ends the waiting with a True.
        say: told what is deleted.

    Raises:
        RunnerError: it does not go away.
        KubernetesError: the cluster refuses, or does not answer.
    """
    mine = {LABEL_LOOP: marks.loop}
    for job in cluster.list(kinds.JOB, namespace, mine).items:
        if _is_of(job, marks.cycle) or job_state(job) is not JobState.ACTIVE or is_being_deleted(job):
            continue
        say(f"Job {namespace}/{name_of(job)} of cycle {_cycle(job)}, which nobody ended, is deleted")
        try:
            cluster.delete(kinds.JOB, name_of(job), namespace, uid=uid_of(job))
        except Conflict:
            continue  # it was gone already, and another one has its name
    await_pods(cluster, namespace, mine, spared=marks.cycle, clock=clock, wait=wait)


def await_pods(
    cluster: Cluster, namespace: str, labels: Mapping[str, str], *, spared: str, clock: Clock, wait: Wait
) -> None:
    """Wait until no pod with these labels runs any more, but those of one cycle.

    Raises:
        RunnerError: one does not go away.
    """
    until = clock.monotonic() + GOING
    while left := [
        name_of(pod)
        for pod in cluster.list(kinds.POD, namespace, labels).items
        if not _is_of(pod, spared) and text(pod, "status", "phase") not in ("Succeeded", "Failed")
    ]:
        if clock.monotonic() >= until or wait(_PAUSE):
            raise RunnerError(
                f"pod {left[0]} of an earlier cycle does not end; see kubectl describe pod {left[0]} -n {namespace}"
            )


def _made(cluster: Cluster, manifest: Mapping[str, Any], say: Callable[[str], object]) -> Object:
    name, namespace = name_of(manifest), text(manifest, "metadata", "namespace")
    try:
        job = cluster.create(kinds.JOB, manifest)
    except AlreadyExists:
        found = cluster.get(kinds.JOB, name, namespace)
        if found is None or _cycle(found) != _cycle(manifest):
            raise RunnerError(f"there is a Job {namespace}/{name} that is not this cycle's; delete it") from None
        say(f"Job {namespace}/{name} of this cycle is there already, and is followed")
        return found
    say(f"Job {namespace}/{name} is made")
    return job


def _looked_for(cluster: Cluster, manifest: Mapping[str, Any]) -> Object | None:
    """This cycle's Job, where it was made although nobody said so; a stop that was asked for ends it at once."""
    try:
        found = cluster.get(kinds.JOB, name_of(manifest), text(manifest, "metadata", "namespace"))
    except (KubernetesError, Stopped):
        return None
    return found if found is not None and _cycle(found) == _cycle(manifest) else None


def _unseen(manifest: Mapping[str, Any], error: KubernetesError | Stopped) -> JobResult:
    """What is told where nobody says whether it was made: the request may even arrive later."""
    return JobResult(
        end=JobEnd.LEFT if isinstance(error, Stopped) else JobEnd.UNSEEN,
        name=name_of(manifest),
        namespace=text(manifest, "metadata", "namespace"),
        reason="Unseen",
        message=f"whether it was made is not known: {error}; the next cycle removes it",
    )


def _cycle(item: Mapping[str, Any]) -> str:
    return str(labels_of(item).get(LABEL_CYCLE, ""))


def _is_of(item: Mapping[str, Any], cycle: str) -> bool:
    return _cycle(item) == cycle
