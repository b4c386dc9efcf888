"""The part of a controller manager that Jobs need: a pod for each Job, again after a failure, and the Job's status.

Differences from the real one: one pod at a time (``parallelism`` and ``completions`` are not read), and no pause before
the next pod. Jobs that are deleted with ``Foreground`` or ``Orphan`` are let go of as the garbage collector would.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.cluster.client import Client, Watch, tolerant
from tests.cluster.pod import now

_TRACKING = "batch.kubernetes.io/job-tracking"
_UID = "batch.kubernetes.io/controller-uid"


class JobController:
    """Follows the Jobs and the pods of one namespace until it is closed."""

    def __init__(self, client: Client, namespace: str, node: str) -> None:
        self._client, self._node = client, node
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._due: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended: dict[str, dict[str, str]] = {}  # by the Job's uid, by the pod's: how it ended
        self._timers: dict[tuple[str, str], threading.Timer] = {}
        self._thread = threading.Thread(target=self._work, name=f"jobs of {namespace}", daemon=True)
        self._thread.start()
        self._watches = (Watch(client, self._jobs, self._job_changed), Watch(client, self._pods, self._pod_changed))

    def close(self) -> None:
        for watch in self._watches:
            watch.close()
        self._due.put(None)
        self._thread.join(10)
        for timer in self._timers.values():
            timer.cancel()

    def _job_changed(self, kind: str, job: dict[str, Any]) -> None:
        if kind == "DELETED":
            for pod in self._owned(job):
                self._delete(pod)
                self._release(pod)
        else:
            self._due.put(job["metadata"]["name"])

    def _pod_changed(self, kind: str, pod: dict[str, Any]) -> None:
        owner = _owner(pod)
        if owner is None:
            return
        if kind == "DELETED" or _is_over(pod):
            self._ended.setdefault(owner["uid"], {})[pod["metadata"]["uid"]] = _how(pod)
            if kind != "DELETED":
                self._release(pod)
        self._due.put(owner["name"])

    def _work(self) -> None:
        while (name := self._due.get()) is not None:
            with tolerant():
                self._reconcile(name)

    def _reconcile(self, name: str) -> None:
        job = self._client.get(f"{self._jobs}/{name}")
        if "deletionTimestamp" in job["metadata"]:
            self._let_go(job)
            return
        if _has(job, "Complete") or _has(job, "Failed"):
            self._expire(job)
            return
        if job["spec"].get("suspend"):
            return
        ended = self._ended.setdefault(job["metadata"]["uid"], {})
        owned = self._owned(job)
        for pod in owned:  # a list may know of an end before the watch tells it
            if _is_over(pod):
                ended[pod["metadata"]["uid"]] = _how(pod)
        active = [pod for pod in owned if pod["metadata"]["uid"] not in ended]
        self._decide(job, active, list(ended.values()))

    def _decide(self, job: Mapping[str, Any], active: list[dict[str, Any]], ended: list[str]) -> None:
        succeeded, failed = ended.count("Succeeded"), ended.count("Failed")
        target = _condition(job, "FailureTarget")
        if target is None and succeeded:
            self._status(
                job,
                0,
                ended,
                [_true("SuccessCriteriaMet", "CompletionsReached", ""), _true("Complete", "CompletionsReached", "")],
            )
        elif target is None and failed > job["spec"].get("backoffLimit", 6):
            why = _true("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
            self._status(job, len(active), ended, [why, *([] if active else [why | {"type": "Failed"}])])
        elif target is None and self._is_late(job):
            why = _true("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
            self._status(job, len(active), ended, [why, *([] if active else [why | {"type": "Failed"}])])
            for pod in active:
                self._delete(pod)
        elif target is not None and not active:
            self._status(job, 0, ended, [target, target | {"type": "Failed"}])
        elif target is None:
            if not active:
                active = [self._create_pod(job)]
            self._status(job, len(active), ended, [])

    def _status(
        self, job: Mapping[str, Any], active: int, ended: list[str], conditions: list[Mapping[str, Any]]
    ) -> None:
        over = any(condition["type"] in {"Complete", "Failed"} for condition in conditions)
        status: dict[str, Any] = {
            "startTime": job.get("status", {}).get("startTime") or now(),
            "active": active,
            "succeeded": ended.count("Succeeded"),
            "failed": ended.count("Failed"),
            "ready": 0 if over else active,
            "terminating": 0,
            "uncountedTerminatedPods": {},
        }
        if any(condition["type"] == "Complete" for condition in conditions):
            status["completionTime"] = now()
        if conditions:
            status["conditions"] = conditions
        before = job.get("status", {})
        if any(before.get(key) != value for key, value in status.items() if value or before.get(key)):
            version = {"uid": job["metadata"]["uid"], "resourceVersion": job["metadata"]["resourceVersion"]}
            self._client.patch(
                f"{self._jobs}/{job['metadata']['name']}/status", {"metadata": version, "status": status}
            )

    def _create_pod(self, job: Mapping[str, Any]) -> dict[str, Any]:
        template, name = job["spec"]["template"], job["metadata"]["name"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        metadata = {
            "generateName": f"{name[:57]}-",
            "labels": template["metadata"].get("labels", {}),
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
            "finalizers": [_TRACKING],
        }
        made = self._client.create(
            self._pods, {"metadata": metadata, "spec": template["spec"] | {"nodeName": self._node}}
        )
        return dict(made)

    def _is_late(self, job: Mapping[str, Any]) -> bool:
        allowed, started = job["spec"].get("activeDeadlineSeconds"), job.get("status", {}).get("startTime")
        if allowed is None or started is None:
            return False
        left = datetime.fromisoformat(started).timestamp() + float(allowed) - datetime.now(UTC).timestamp()
        if left > 0:
            name = job["metadata"]["name"]
            self._once(job, "deadline", left, lambda: self._due.put(name))
        return left <= 0

    def _expire(self, job: Mapping[str, Any]) -> None:
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return
        path = f"{self._jobs}/{job['metadata']['name']}"
        body = {"propagationPolicy": "Background", "preconditions": {"uid": job["metadata"]["uid"]}}

        def delete() -> None:
            with tolerant():
                self._client.delete(path, body)

        self._once(job, f"ttl {seconds}", float(seconds), delete)

    def _once(self, job: Mapping[str, Any], what: str, seconds: float, then: Callable[[], None]) -> None:
        key = (job["metadata"]["uid"], what)
        if key not in self._timers:
            self._timers[key] = timer = threading.Timer(seconds, then)
            timer.daemon = True
            timer.start()

    def _let_go(self, job: Mapping[str, Any]) -> None:
        """What the garbage collector does for a Job that waits for its dependents."""
        finalizers = job["metadata"].get("finalizers", [])
        pods = self._owned(job)
        if "foregroundDeletion" in finalizers:
            for pod in pods:
                self._delete(pod)
                if _is_over(pod):
                    self._release(pod)
            if pods:
                return
        for pod in pods:
            with tolerant():
                self._client.patch(self._path(pod), {"metadata": {"ownerReferences": None, "finalizers": None}})
        kept = [finalizer for finalizer in finalizers if finalizer not in {"orphan", "foregroundDeletion"}]
        if kept != finalizers:
            self._client.patch(f"{self._jobs}/{job['metadata']['name']}", {"metadata": {"finalizers": kept or None}})

    def _owned(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        pods = self._client.list(self._pods, labelSelector=f"{_UID}={job['metadata']['uid']}")
        return [pod for pod in pods if (owner := _owner(pod)) is not None and owner["uid"] == job["metadata"]["uid"]]

    def _path(self, pod: Mapping[str, Any]) -> str:
        return f"{self._pods}/{pod['metadata']['name']}"

    def _delete(self, pod: Mapping[str, Any]) -> None:
        with tolerant():
            self._client.delete(self._path(pod), {"preconditions": {"uid": pod["metadata"]["uid"]}})

    def _release(self, pod: Mapping[str, Any]) -> None:
        if _TRACKING in pod["metadata"].get("finalizers", ()):
            with tolerant():
                self._client.patch(self._path(pod), {"metadata": {"uid": pod["metadata"]["uid"], "finalizers": None}})


def _owner(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    owners: list[Mapping[str, Any]] = pod["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner["kind"] == "Job"), None)


def _is_over(pod: Mapping[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _how(pod: Mapping[str, Any]) -> str:
    """A pod that vanished before it came to an end counts as failed."""
    return "Succeeded" if pod.get("status", {}).get("phase") == "Succeeded" else "Failed"


def _condition(job: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    conditions: list[dict[str, Any]] = job.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind and found["status"] == "True"), None)


def _has(job: Mapping[str, Any], kind: str) -> bool:
    return _condition(job, kind) is not None


def _true(kind: str, reason: str, message: str) -> dict[str, Any]:
    stamp = now()
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastProbeTime": stamp,
        "lastTransitionTime": stamp,
    }
