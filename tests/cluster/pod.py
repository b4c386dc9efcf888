"""One pod: its volumes and environment taken from the API, its one container run as a process of this machine.

Volumes are folders below the scratch root, mounted truly at their mount paths (``tests.cluster.sandbox``). The image is
only a name: the process sees this machine's own programs. An image whose name ends in ``:missing`` cannot be pulled.
"""

import hashlib
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster.client import Client, tolerant
from tests.cluster.materials import Materials, Waiting
from tests.cluster.sandbox import Mount, Sandboxed


class Log:
    """What a container wrote; whoever reads on waits until there is more."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._closed = False
        self._more = threading.Condition()

    def append(self, data: bytes) -> None:
        with self._more:
            self._data += data
            self._more.notify_all()

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._more.notify_all()

    def read(self, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        with self._more:
            at = self._start(tail)
        over = False
        while not over:
            piece, over = self._after(at, follow=follow)
            yield piece
            at += len(piece)

    def _after(self, at: int, *, follow: bool) -> tuple[bytes, bool]:
        """What stands behind a place, at least a byte while more may come; and whether that was the last."""
        with self._more:
            self._more.wait_for(lambda: not follow or self._closed or len(self._data) > at)
            return bytes(self._data[at:]), self._closed or not follow

    def _start(self, tail: int | None) -> int:
        if tail is None:
            return 0
        lines = bytes(self._data).splitlines(keepends=True)
        return len(self._data) - sum(map(len, lines[max(0, len(lines) - tail) :]))


class Pod:
    """The life of one pod, in a thread of its own, until it ends or is deleted."""

    def __init__(
        self, client: Client, seen: Mapping[str, Any], scratch: Path, environment: Mapping[str, str], grace: float
    ) -> None:
        self.name, self.uid = seen["metadata"]["name"], seen["metadata"]["uid"]
        self._seen, self._client, self._grace = seen, client, grace
        self._materials = Materials(client, seen, scratch, environment)
        self._path = f"/api/v1/namespaces/{seen['metadata']['namespace']}/pods/{self.name}"
        self._container = seen["spec"]["containers"][0]
        self._changed = threading.Condition()
        self._changes = 0
        self._deleted = self._gone = False
        self._running: Sandboxed | None = None
        self.log = Log()
        self.waiting: str | None = "ContainerCreating"
        self._thread = threading.Thread(target=self._live, name=f"pod {self.name}", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """Something of the namespace changed that the container may wait for."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def end(self) -> None:
        """The pod was deleted: its process gets a TERM, and a KILL after the grace."""
        with self._changed:
            known, self._deleted = self._deleted, True
            self._changed.notify_all()
            running = self._running
        if running is not None and not known:
            self._stop(running)

    def kill(self) -> None:
        """The node goes away: nothing of the pod is left running, and nothing is said about it."""
        with self._changed:
            self._gone = self._deleted = True
            self._changed.notify_all()
            running = self._running
        if running is not None:
            self._stop(running)
        self._thread.join(10)

    def _stop(self, running: Sandboxed) -> None:
        if self._gone:
            running.signal(signal.SIGKILL)
            return
        running.signal(signal.SIGTERM)
        threading.Thread(target=self._kill_later, args=(running,), daemon=True).start()

    def _kill_later(self, running: Sandboxed) -> None:
        if running.wait(self._grace) is None:
            running.signal(signal.SIGKILL)

    def _live(self) -> None:
        self._run()
        self.log.close()
        with self._changed:
            deleted = self._deleted and not self._gone
        if deleted:
            at_once = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
            with tolerant():
                self._client.delete(self._path, at_once)

    def _run(self) -> None:
        prepared = self._prepare()
        if prepared is None:
            self._report("Failed", None)
            return
        command, env, mounts = prepared
        image = f"{self._container['image'].partition('@')[0]}@sha256:{_digest(self._container['image'])}"
        started = now()
        if not _is_there(command[0], env["PATH"], mounts):
            message = f'exec: "{command[0]}": executable file not found'
            self._terminated("Failed", image, {"exitCode": 128, "reason": "StartError", "message": message}, started)
            return
        self.waiting = None
        with Sandboxed(
            command, env=env, mounts=mounts, hostname=self.name[:63], folder=self._container.get("workingDir", "/")
        ) as running:
            with self._changed:
                self._running = running
                deleted = self._deleted
            if deleted:
                self._stop(running)
            state = {"running": {"startedAt": started}}
            self._report("Running", {"state": state, "ready": True, "started": True, "imageID": image})
            while piece := running.read():
                self.log.append(piece)
            code = running.wait()
        self.log.close()
        ended: dict[str, Any] = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        if said := self._materials.termination_message():
            ended["message"] = said
        self._terminated("Failed" if code else "Succeeded", image, ended, started)

    def _prepare(self) -> tuple[list[str], dict[str, str], list[Mount]] | None:
        """What is started; None: the pod was deleted while it waited."""
        while True:
            with self._changed:
                seen, deleted = self._changes, self._deleted
            if deleted:
                return None
            try:
                mounts = self._materials.mounts()
                return (*self._materials.command(), mounts)
            except Waiting as waiting:
                self.waiting = waiting.reason
                state = {"waiting": {"reason": waiting.reason, "message": waiting.message}}
                self._report(
                    "Pending",
                    {"state": state, "ready": False, "started": False, "imageID": ""},
                    unscheduled=None if waiting.scheduled else waiting.message,
                )
            with self._changed:
                while not self._deleted and self._changes == seen:
                    self._changed.wait()

    def _terminated(self, phase: str, image: str, ended: Mapping[str, Any], started: str) -> None:
        state = {"terminated": {**ended, "startedAt": started, "finishedAt": now()}}
        self.waiting = None
        self._report(phase, {"state": state, "ready": False, "started": False, "imageID": image})

    def _report(self, phase: str, container: Mapping[str, Any] | None, *, unscheduled: str | None = None) -> None:
        status: dict[str, Any] = {
            "phase": phase,
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "startTime": self._seen["metadata"]["creationTimestamp"],
        }
        ready = "True" if phase == "Running" else "False"
        scheduled = {"type": "PodScheduled", "status": "True"}
        if unscheduled is not None:
            scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unscheduled}
        status["conditions"] = [scheduled, {"type": "Ready", "status": ready}]
        if container is not None and unscheduled is None:
            about = {"name": self._container["name"], "image": self._container["image"], "restartCount": 0}
            status["containerStatuses"] = [{**about, **container}]
        if not self._gone:
            with tolerant():
                self._client.patch(f"{self._path}/status", {"metadata": {"uid": self.uid}, "status": status})


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(image: str) -> str:
    return image.partition("@sha256:")[2] or hashlib.sha256(image.encode()).hexdigest()


def _is_there(program: str, path: str, mounts: list[Mount]) -> bool:
    """Whether it can be started; what stands below a mount is left to the start itself."""
    if any(program.startswith(f"{mount.target.rstrip('/')}/") for mount in mounts):
        return True
    return shutil.which(program, path=path) is not None
