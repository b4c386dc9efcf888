"""A cluster in memory with everything the guides' runs need, a controller, and a node that runs Jobs by a script."""

import functools
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.checks.crds import crds
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.kinds import Kind
from run_cycle_loop.testing import FakeClock
from run_cycle_loop.testing_cluster import InMemoryCluster
from tests.cluster.controller import FLAGS, Controller
from tests.unit.agentrun import guide_runs

NAMESPACE = "agents"
RUN = "demo"
CLAIM = "torghut-loop-workspace"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a Job is to end."""

    code: int = 0
    after: float = 5.0  #: seconds that it runs
    control: Mapping[str, Any] | str | None = None
    message: str = ""  #: the termination message
    printed: tuple[str, ...] = ()


class Stage:
    """The cluster, the clock, and what happens by itself while time passes."""

    def __init__(self, *, profile: Profile = Profile.GUIDE, flags: ControllerFlags = FLAGS) -> None:
        self.clock = FakeClock()
        self.cluster = InMemoryCluster(NAMESPACE, clock=self.clock)
        self.controller = Controller(self.cluster, [NAMESPACE], profile=profile, flags=flags)
        self.endings: dict[str, Ending] = {}
        self.waits: list[float] = []
        self.stops_after = float("inf")
        self.is_working = True  #: whether controller and node do anything
        self._due: dict[str, float] = {}

    def with_world(self, profile: Profile = Profile.GUIDE) -> "Stage":
        """All that a run leads to, the controller's Deployment and the definitions among it."""
        for body in guide_runs.around().objects.values():
            self.add(kinds.BY_NAME[str(body["kind"])], body)
        for secret in ("codex-auth",):
            self.add(kinds.SECRET, {"metadata": {"name": secret}, "data": {"key": "dmFsdWU="}})
        claim = {"metadata": {"name": CLAIM}, "spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}
        self.add(kinds.PERSISTENT_VOLUME_CLAIM, claim)
        for body in _definitions(profile):
            established = {"conditions": [{"type": "Established", "status": "True"}]}
            self.add(kinds.CUSTOM_RESOURCE_DEFINITION, {**body, "status": established})
        self.deploy(profile)
        self.cluster.asked.clear()
        return self

    def deploy(self, profile: Profile = Profile.GUIDE, *entries: Mapping[str, Any], **flags: str) -> None:
        prefix = profile.traits.controller_prefix
        env = [{"name": f"{prefix}WORKFLOW_LOOPS_ENABLED", "value": "true"}]
        env += [{"name": profile.traits.image_variables[0], "value": "runner:1"}]
        env += [{"name": prefix + name, "value": value} for name, value in flags.items()]
        self.cluster.delete(kinds.DEPLOYMENT, "agents-controllers")
        spec = {"template": {"spec": {"containers": [{"name": "controller", "env": [*env, *entries]}]}}}
        body = {"metadata": {"name": "agents-controllers"}, "spec": spec, "status": {"availableReplicas": 1}}
        self.add(kinds.DEPLOYMENT, body)

    def add(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
        return self.cluster.add(kind, {**body, "metadata": {"namespace": NAMESPACE, **body["metadata"]}})

    def run(self, **changes: Any) -> dict[str, Any]:
        """The guide's loop as a manifest, under a short name."""
        body = guide_runs.loop_body(**changes)
        return {**body, "metadata": {**body["metadata"], "name": RUN}}

    def submitted(self, iterations: int = 2, **changes: Any) -> dict[str, Any]:
        return self.cluster.create(kinds.AGENT_RUN, looping(self.run(**changes), iterations))

    def wait(self, seconds: float) -> bool:
        """Time passes, and the world with it."""
        if seconds:
            self.waits.append(seconds)
        self.clock.move(seconds)
        with self.others():
            self.cluster.get(kinds.NAMESPACE, NAMESPACE)  # whatever was due happens
        return sum(self.waits) >= self.stops_after

    def go_on(self, every: float = 1.0) -> None:
        """Let controller and node work from now on, each time that so many seconds have passed."""

        def turn() -> None:
            if self.is_working:
                self.turn()
            self.cluster.after(every, turn)

        self.cluster.after(0.0, turn)

    def turn(self) -> None:
        """One tick of the controller, and what the node does."""
        with self.others():
            self.controller.tick(self.clock.now())
            for job in self.cluster.list(kinds.JOB).items:
                self._work_on(job)

    @contextmanager
    def others(self) -> Iterator[None]:
        """What others on the cluster do: it is allowed, goes well, and is not remembered."""
        mine = self.cluster
        kept = (mine._faults, mine.denied, mine.unserved, mine.asked)
        mine._faults, mine.denied, mine.unserved, mine.asked = defaultdict(deque), set(), set(), []
        try:
            yield
        finally:
            mine._faults, mine.denied, mine.unserved, mine.asked = kept

    def finish(self, seconds: float = 300.0) -> None:
        """Turns, a second each, until so many have passed."""
        for _ in range(int(seconds)):
            self.turn()
            self.clock.move(1.0)

    def status(self, name: str = RUN) -> Mapping[str, Any]:
        with self.others():
            found = self.cluster.get(kinds.AGENT_RUN, name)
        assert found is not None
        return found.get("status") or {}

    def jobs(self) -> list[str]:
        with self.others():
            return [one["metadata"]["name"] for one in self.cluster.list(kinds.JOB).items]

    def at(self, seconds: float) -> str:
        return f"{self.clock.now() + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"

    # The node.

    def _work_on(self, job: Mapping[str, Any]) -> None:
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        ending = self.endings.get(name, Ending())
        if uid not in self._due:
            self._due[uid] = self.clock.monotonic() + ending.after
            self.cluster.set_status(kinds.JOB, name, {"active": 1, "startTime": self.at(0)})
            self._add_pod(job, name)
            for line in ending.printed:
                self.cluster.say(f"{name}-pod", line, container="agent-runner")
                self.cluster.say(f"{name}-pod", line)
        elif self.clock.monotonic() >= self._due[uid] and not job.get("status", {}).get("conditions"):
            self._end(name, job, ending)

    def _add_pod(self, job: Mapping[str, Any], name: str) -> None:
        template = job["spec"]["template"]
        labels = {**template["metadata"]["labels"], "job-name": name}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        metadata = {"name": f"{name}-pod", "namespace": NAMESPACE, "labels": labels, "ownerReferences": [owner]}
        running = {
            "name": "agent-runner",
            "imageID": "runner@sha256:1",
            "state": {"running": {"startedAt": self.at(0)}},
        }
        status = {"phase": "Running", "containerStatuses": [running]}
        self.cluster.add(kinds.POD, {"metadata": metadata, "spec": template["spec"], "status": status})

    def _end(self, name: str, job: Mapping[str, Any], ending: Ending) -> None:
        if ending.control is not None:
            written = ending.control if isinstance(ending.control, str) else json.dumps(ending.control)
            annotations = {"annotations": {names.ANNOTATION_CONTROL: written}}
            self.cluster.patch(kinds.JOB, name, {"metadata": annotations})
        started = job["status"]["startTime"]
        how: dict[str, Any] = {"exitCode": ending.code, "reason": "Completed" if ending.code == 0 else "Error"}
        how |= {"startedAt": started, "finishedAt": self.at(0)} | (
            {"message": ending.message} if ending.message else {}
        )
        over = {"name": "agent-runner", "imageID": "runner@sha256:1", "state": {"terminated": how}}
        phase = "Failed" if ending.code else "Succeeded"
        if self.cluster.get(kinds.POD, f"{name}-pod") is not None:
            self.cluster.set_status(kinds.POD, f"{name}-pod", {"phase": phase, "containerStatuses": [over]})
        self.cluster.set_status(kinds.JOB, name, _job_status(started, self.at(0), ending.code))


@functools.cache
def _definitions(profile: Profile) -> tuple[dict[str, Any], ...]:
    """Read once: the cluster keeps copies of what it is given."""
    return crds(str(profile))


def _job_status(started: str, ended: str, code: int) -> dict[str, Any]:
    if code == 0:
        conditions = [{"type": "Complete", "status": "True"}]
        return {"succeeded": 1, "startTime": started, "completionTime": ended, "conditions": conditions}
    failed = {
        "type": "Failed",
        "status": "True",
        "reason": "BackoffLimitExceeded",
        "message": "Job has reached the specified backoff limit",
        "lastTransitionTime": ended,
    }
    return {"failed": 1, "startTime": started, "conditions": [failed]}


def looping(body: dict[str, Any], iterations: int, **loop: Any) -> dict[str, Any]:
    """The manifest with that many iterations."""
    step = body["spec"]["workflow"]["steps"][0]
    step = {**step, "loop": {**step["loop"], "maxIterations": iterations, **loop}}
    return {**body, "spec": {**body["spec"], "workflow": {"steps": [step]}}}


def conditional(expression: str, *, on_missing: str = "stop", on_invalid: str = "fail") -> dict[str, Any]:
    source = {"type": "file", "path": "/workspace/c.json", "onMissing": on_missing, "onInvalid": on_invalid}
    return {"condition": {"type": "cel", "expression": expression, "source": source}}


def bundle(*bodies: Mapping[str, Any]) -> Bundle:
    """What a file with these objects would give."""
    documents = []
    for number, body in enumerate(bodies):
        metadata = body["metadata"]
        documents.append(
            Document(
                body=body,
                kind=body["kind"],
                name=metadata["name"],
                namespace=metadata.get("namespace", NAMESPACE),
                file="manifest.yaml",
                line=number * 10 + 1,
            )
        )
    return Bundle(documents=tuple(documents))


def writes(stage: Stage) -> list[tuple[str, str, str]]:
    """What was changed on the cluster: verb, kind, name."""
    changing = {"create", "patch", "delete"}
    return [(one.verb, one.kind.kind, one.name) for _, one in stage.cluster.asked if one.verb in changing]


Do = Callable[[Stage], object]
