"""AgentRuns on a real API server: submitted, watched, read, verified and cancelled, to every end that a loop has."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.cancel import CancelResult, cancel_run, delete_run
from run_cycle_loop.agentrun.cluster.detect import detect
from run_cycle_loop.agentrun.cluster.evidence import gather
from run_cycle_loop.agentrun.cluster.flags import controller_flags
from run_cycle_loop.agentrun.cluster.listing import runs
from run_cycle_loop.agentrun.cluster.logs import logs
from run_cycle_loop.agentrun.cluster.nudge import nudge
from run_cycle_loop.agentrun.cluster.preflight import Preflight, preflight
from run_cycle_loop.agentrun.cluster.submit import Action, Plan, Submission, SubmitResult, plan, submit
from run_cycle_loop.agentrun.cluster.watching import watch
from run_cycle_loop.agentrun.looking.attempts import AttemptState
from run_cycle_loop.agentrun.looking.faults import FaultKind
from run_cycle_loop.agentrun.looking.outcomes import Result
from run_cycle_loop.agentrun.looking.output import Choice
from run_cycle_loop.agentrun.looking.progress import Progress
from run_cycle_loop.agentrun.looking.verify import Verdict, judge
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.agentrun.names import LABEL_RUN
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.connecting import connect
from run_cycle_loop.clients.kubernetes.errors import Forbidden, Invalid
from run_cycle_loop.kit.clock import SystemClock
from tests.cluster.apiserver import ApiServer
from tests.cluster.controller import Running
from tests.cluster.kubelet import Kubelet

pytestmark = pytest.mark.cluster

API = "agents.proompteng.ai/v1alpha1"
RUN, CLAIM = "demo", "workspace"
WITHIN = 90.0  #: seconds that a run may take
NOTES = "echo working; date >> /workspace/notes; wc -l < /workspace/notes"
#: Ends when the test says so, which has time then to leave what the real workload would leave.
TOLD = "echo started; until test -e /workspace/go; do sleep 0.05; done; rm /workspace/go; exit $(cat /workspace/code)"
CONDITION = "iteration.last.control.continue == true"


class Place:
    """A namespace with all that a run leads to, a controller and a node."""

    def __init__(self, api: ApiServer, namespace: str, node: Kubelet, cluster: Cluster) -> None:
        self.api, self.namespace, self.node, self.cluster = api, namespace, node, cluster
        self.clock = SystemClock()
        self.volume: Path = node.claim(CLAIM)

    def wait(self, seconds: float) -> bool:
        threading.Event().wait(seconds)
        return False

    def world(self, script: str) -> tuple[dict[str, Any], ...]:
        """The objects of the guide's loop, with a shell for an agent."""
        reference = {"kind": "ConfigMap", "name": "system-prompt", "key": "system-prompt.md"}
        token = {"method": "token", "token": {"secretRef": {"name": "github-token", "key": "token"}}}
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}
        shell = {"binary": "sh", "argsTemplate": ["-c", script], "adapter": {"type": "codex-app-server"}}
        agent = {"providerRef": {"name": "shell"}, "defaults": {"systemPromptRef": reference}}
        return (
            self.body("PersistentVolumeClaim", CLAIM, "v1", spec=claim),
            self.body("ConfigMap", "system-prompt", "v1", data={"system-prompt.md": "be good\n"}),
            self.body("Secret", "github-token", "v1", stringData={"token": "t"}),
            self.body("Secret", "codex-auth", "v1", stringData={"auth.json": "{}"}),
            self.body("AgentProvider", "shell", spec=shell),
            self.body("Agent", "worker", spec=agent),
            self.body("ImplementationSpec", "task", spec={"text": "Write notes."}),
            self.body("VersionControlProvider", "github", spec={"provider": "github", "auth": token}),
        )

    def run(self, *, name: str = RUN, loop: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        state = {"state": {"required": True, "volumeNames": ["workspace"]}}
        step = {"name": "implement", "timeoutSeconds": 5400, "parameters": {"stage": "implement"}}
        step |= {"loop": {**state, **loop}, **changes.pop("step", {})}
        volume = {"name": "workspace", "type": "pvc", "claimName": CLAIM, "mountPath": "/workspace"}
        spec = {
            "agentRef": {"name": "worker"},
            "implementationSpecRef": {"name": "task"},
            "runtime": {"type": "workflow"},
            "workflow": {"steps": [step]},
            "vcsRef": {"name": "github"},
            "vcsPolicy": {"required": True, "mode": "read-write"},
            "secrets": ["github-token", "codex-auth"],
            "parameters": {"repository": "acme/app", "base": "main", "head": "codex/demo"},
            "workload": {"image": "runner:1", "volumes": [volume]},
        }
        return self.body("AgentRun", name, spec={**spec, **changes})

    def body(self, kind: str, name: str, api: str = API, **rest: Any) -> dict[str, Any]:
        return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": self.namespace}, **rest}

    def bundle(self, *bodies: Mapping[str, Any]) -> Bundle:
        def document(body: Mapping[str, Any]) -> Document:
            name = body["metadata"]["name"]
            return Document(body=body, kind=body["kind"], name=name, namespace=self.namespace, file="run.yaml")

        return Bundle(documents=tuple(document(body) for body in bodies))

    def planned(self, *bodies: Mapping[str, Any], key: str = "") -> Plan:
        whole = self.bundle(*bodies)
        return plan(self.cluster, whole, whole.runs[0], key=key)

    def submit(self, *bodies: Mapping[str, Any], key: str = "") -> Submission:
        return submit(self.cluster, self.planned(*bodies, key=key), wait=self.wait)

    def check(self, *bodies: Mapping[str, Any]) -> Preflight:
        whole = self.bundle(*bodies)
        return preflight(
            self.cluster,
            whole,
            whole.runs[0],
            profile=Profile.GUIDE,
            clock=self.clock,
            controller_namespace=self.namespace,
        )

    def watch(self, **options: Any) -> Iterator[Progress]:
        options = {"timeout": WITHIN, **options}
        return watch(self.cluster, RUN, self.namespace, clock=self.clock, wait=self.wait, **options)

    def jobs(self) -> list[str]:
        labels = {LABEL_RUN: RUN}
        return [one["metadata"]["name"] for one in self.cluster.list(kinds.JOB, self.namespace, labels).items]

    def read(self, **options: Any) -> bytes:
        pieces = logs(self.cluster, RUN, self.namespace, clock=self.clock, wait=self.wait, **options)
        return b"".join(one.data for one in pieces)

    def end(self, job: str, *, control: str | None = None, code: int = 0) -> None:
        """Let the attempt of that Job end so, with this for the loop's condition."""
        if control is not None:
            annotations = {names.ANNOTATION_CONTROL: control}
            self.cluster.patch(kinds.JOB, job, {"metadata": {"annotations": annotations}}, self.namespace)
        (self.volume / "code").write_text(str(code))
        (self.volume / "go").touch()

    def to_the_end(self, ending: Callable[[int], Mapping[str, Any]], **options: Any) -> Progress:
        """Watch a run whose attempts end as told, by the number of the attempt."""
        told: list[str] = []
        last = None
        for last in self.watch(**options):
            for one in last.attempts:
                running = one.state is AttemptState.ACTIVE and one.pod is not None and one.pod.phase == "Running"
                if running and one.job not in told:
                    told.append(one.job)
                    self.end(one.job, **ending(len(told)))
        assert last is not None
        return last


@pytest.fixture
def cluster(api: ApiServer, namespace: str) -> Iterator[Cluster]:
    api.install("guide")
    with connect(kubeconfig=api.kubeconfigs["admin"], context=None, namespace=namespace) as found:
        yield found


@pytest.fixture
def place(api: ApiServer, namespace: str, kubelet: Kubelet, cluster: Cluster) -> Iterator[Place]:
    def reach() -> Cluster:
        return connect(kubeconfig=api.kubeconfigs["admin"], context=None, namespace=namespace)

    with Running(reach, [namespace], clock=SystemClock()):
        yield Place(api, namespace, kubelet, cluster)


def test_the_guides_loop_is_submitted_watched_read_verified_and_over(place: Place) -> None:
    run, world = place.run(loop={"maxIterations": 3}), place.world(NOTES)
    found = place.check(run, *world)
    assert found.errors == (), found.errors
    done = place.submit(run, *world)
    assert done.result is SubmitResult.CREATED
    assert done.made[0].kind == "PersistentVolumeClaim"
    seen = list(place.watch())
    last = seen[-1]
    assert (last.result, last.steps[0].stop_reason) == (Result.SUCCEEDED, "LoopMaxIterationsReached"), last
    assert last.hints == ()
    assert [(row.iteration, row.state) for row in last.attempts] == [
        (number, AttemptState.SUCCEEDED) for number in (1, 2, 3)
    ]
    assert all(row.pod and row.pod.image_id for row in last.attempts)
    assert place.read(every=True).split() == [b"working", b"1", b"working", b"2", b"working", b"3"]
    assert place.read(choice=Choice(iteration=2)).split() == [b"working", b"2"]
    evidence = gather(place.cluster, RUN, place.namespace, profile=Profile.GUIDE, now=place.clock.now())
    verified = judge(evidence)
    assert verified.verdict is Verdict.PASS, verified.why
    (row,) = runs(place.cluster, place.namespace, clock=place.clock)
    assert (row.name, row.phase, row.iteration) == (RUN, "Succeeded", "3/3")
    over = cancel_run(place.cluster, RUN, place.namespace, clock=place.clock, wait=place.wait)
    assert over.result is CancelResult.ALREADY_FINAL


@pytest.mark.parametrize(
    ("loop", "ending", "result", "stop", "iterations"),
    [
        (
            {"maxIterations": 2},
            lambda _number: {},
            Result.SUCCEEDED,
            "LoopMaxIterationsReached",
            2,
        ),
        (
            {"maxIterations": 8, "condition": {"type": "cel", "expression": CONDITION}},
            lambda number: {"control": json.dumps({"continue": number < 3})},
            Result.SUCCEEDED,
            "LoopConditionFalse",
            3,
        ),
        (
            {"maxIterations": 8, "condition": {"type": "cel", "expression": CONDITION}},
            lambda _number: {},  # nothing was left
            Result.SUCCEEDED,
            "LoopConditionFalse",
            1,
        ),
        (
            {"maxIterations": 8, "condition": {"type": "cel", "expression": CONDITION}},
            lambda _number: {"control": '{"other": 1}'},
            Result.FAILED,
            "LoopConditionError",
            1,
        ),
        (
            {"maxIterations": 8, "condition": {"type": "cel", "expression": CONDITION}},
            lambda _number: {"control": "no JSON"},
            Result.FAILED,
            "LoopConditionError",
            1,
        ),
        (
            {"maxIterations": 3},
            lambda number: {"code": 0 if number == 1 else 1},
            Result.FAILED,
            "LoopIterationFailed",
            2,
        ),
    ],
    ids=["maximum", "false", "missing", "error", "invalid", "failed"],
)
def test_a_loop_ends_for_its_reason(
    place: Place,
    loop: dict[str, Any],
    ending: Callable[[int], Mapping[str, Any]],
    result: Result,
    stop: str,
    iterations: int,
) -> None:
    place.submit(place.run(loop=loop), *place.world(TOLD))
    last = place.to_the_end(ending)
    assert (last.result, last.steps[0].stop_reason) == (result, stop), last
    assert len(last.attempts) == iterations


def test_a_failed_attempt_is_tried_again_and_the_watch_shows_both(place: Place) -> None:
    step = {"retries": 1, "retryBackoffSeconds": 1}
    place.submit(place.run(loop={"maxIterations": 1}, step=step), *place.world(TOLD))
    last = place.to_the_end(lambda number: {"code": 1 if number == 1 else 0})
    assert last.result is Result.SUCCEEDED, last
    assert [(row.attempt, row.state) for row in last.attempts] == [
        (1, AttemptState.FAILED),
        (2, AttemptState.SUCCEEDED),
    ]
    assert (last.attempts[0].reason, last.attempts[0].pod.exit_code if last.attempts[0].pod else None) == (
        "BackoffLimitExceeded",
        1,
    )


def until_running(place: Place) -> Progress:
    for seen in place.watch():
        if any(row.pod and row.pod.phase == "Running" for row in seen.attempts):
            return seen
        assert seen.result is None, seen
    raise AssertionError("the watch ended")


def test_a_cancelled_loop_stays_cancelled_and_leaves_no_job(place: Place) -> None:
    place.submit(place.run(loop={"maxIterations": 5}), *place.world(TOLD))
    until_running(place)
    done = cancel_run(place.cluster, RUN, place.namespace, clock=place.clock, wait=place.wait, settling=2.0)
    assert (done.result, done.is_settled, len(done.jobs_deleted)) == (CancelResult.CANCELLED, True, 1)
    last = list(place.watch())[-1]
    assert (last.result, last.steps[0].stop_reason) == (Result.CANCELLED, "LoopCancelled")
    assert place.jobs() == []
    gone = delete_run(place.cluster, done, clock=place.clock, wait=place.wait)
    assert gone.result is CancelResult.DELETED, gone.message


def test_a_run_that_is_deleted_meanwhile_ends_its_watch_and_its_jobs(place: Place) -> None:
    place.submit(place.run(loop={"maxIterations": 5}), *place.world(TOLD))
    last = None
    for last in place.watch():
        if any(row.pod and row.pod.phase == "Running" for row in last.attempts):
            place.cluster.delete(kinds.AGENT_RUN, RUN, place.namespace)
    assert last is not None
    assert last.result is Result.DELETED
    assert place.jobs() == []


def test_following_the_logs_goes_from_iteration_to_iteration(place: Place) -> None:
    place.submit(place.run(loop={"maxIterations": 2}), *place.world(NOTES))
    assert place.read(follow=True, every=True).split() == [b"working", b"1", b"working", b"2"]


def test_the_same_submission_twice_is_one_run_and_touches_nothing(place: Place) -> None:
    run, world = place.run(loop={"maxIterations": 5}), place.world(TOLD)
    first = place.submit(run, *world, key="cycle-1")
    again = place.planned(run, *world, key="cycle-1")
    assert {one.action for one in again.dependencies} == {Action.KEEP}, again.dependencies
    second = submit(place.cluster, again, wait=place.wait)
    assert (second.result, second.uid) == (SubmitResult.ADOPTED, first.uid)


def test_what_a_bundle_changes_is_said_before(place: Place) -> None:
    place.submit(place.run(loop={"maxIterations": 5}), *place.world(TOLD))
    other = place.run(name="other", loop={"maxIterations": 5})
    planned = place.planned(other, *place.world(NOTES))
    (changed,) = [one for one in planned.dependencies if one.action is Action.CHANGE]
    assert (changed.kind, [one.path for one in changed.changes]) == ("AgentProvider", ["spec.argsTemplate"])


def test_a_run_that_the_server_refuses_leaves_nothing_behind(place: Place) -> None:
    with pytest.raises(Invalid):
        place.submit(place.run(loop={"maxIterations": 0}), *place.world(NOTES))
    assert place.cluster.get(kinds.AGENT, "worker", place.namespace) is None
    assert place.cluster.get(kinds.PERSISTENT_VOLUME_CLAIM, CLAIM, place.namespace) is None


def test_a_run_that_the_controller_refuses_is_invalid(place: Place) -> None:
    run = place.run(loop={"maxIterations": 5}, agentRef={"name": "nobody"})
    assert "MissingAgent" in {one.reason for one in place.check(run, *place.world(NOTES)).errors}
    place.submit(run, *place.world(NOTES))
    last = list(place.watch())[-1]
    assert (last.result, last.reason) == (Result.INVALID, "MissingAgent")


def test_an_image_that_cannot_be_pulled_is_shown_while_it_is_waited_for(place: Place) -> None:
    run = place.run(loop={"maxIterations": 1})
    run["spec"]["workload"]["image"] = "runner:missing"
    place.submit(run, *place.world(NOTES))
    for seen in place.watch():
        fault = seen.attempts[0].fault if seen.attempts else None
        if fault is not None:
            assert (fault.kind, fault.reason) == (FaultKind.IMAGE, "ImagePullBackOff")
            return
    pytest.fail("no fault was shown")


def test_a_prompt_that_is_changed_between_iterations_is_drift(place: Place) -> None:
    place.submit(place.run(loop={"maxIterations": 2}), *place.world(TOLD))

    def ending(number: int) -> Mapping[str, Any]:
        if number == 1:
            data = {"data": {"system-prompt.md": "be bad\n"}}
            place.cluster.patch(kinds.CONFIG_MAP, "system-prompt", data, place.namespace)
        return {}

    last = place.to_the_end(ending)
    assert "PromptDrift" in {one.reason for one in last.hints}
    evidence = gather(place.cluster, RUN, place.namespace, profile=Profile.GUIDE, now=place.clock.now())
    assert judge(evidence).verdict is Verdict.DRIFT


def test_a_nudge_is_a_change_that_a_watch_sees(place: Place) -> None:
    place.submit(place.run(loop={"maxIterations": 5}), *place.world(TOLD))
    assert nudge(place.cluster, RUN, place.namespace, clock=place.clock).is_done
    assert not nudge(place.cluster, RUN, place.namespace, clock=place.clock).is_done


def test_the_preflight_of_somebody_with_few_rights_says_what_it_cannot_see(place: Place, api: ApiServer) -> None:
    place.submit(place.run(loop={"maxIterations": 1}), *place.world(NOTES))
    list(place.watch())
    readable = ["agentruns", "agents", "agentproviders", "implementationspecs", "versioncontrolproviders", "memories"]
    rule = {"apiGroups": ["agents.proompteng.ai"], "resources": readable, "verbs": ["get", "list"]}
    api.grant(place.namespace, [rule])
    whole = place.bundle(place.run(name="other", loop={"maxIterations": 1}))
    with connect(kubeconfig=api.kubeconfigs["weak"], context=None, namespace=place.namespace) as weak:
        found = preflight(
            weak,
            whole,
            whole.runs[0],
            profile=Profile.GUIDE,
            clock=place.clock,
            controller_namespace=place.namespace,
        )
        with pytest.raises(Forbidden):
            submit(weak, plan(weak, whole, whole.runs[0]), wait=place.wait)
    reasons = {one.reason for one in found.findings}
    assert reasons >= {"FlagsUnknown", "SecretUnknown", "ConfigMapUnknown", "LeftoversUnknown", "NotAllowed"}
    assert {one.reason for one in found.errors} == {"NotAllowed"}, found.errors


@pytest.mark.parametrize("profile", list(Profile))
def test_flags_and_generation_are_read_from_the_deployment(api: ApiServer, place: Place, profile: Profile) -> None:
    prefix = profile.traits.controller_prefix
    env = [{"name": f"{prefix}WORKFLOW_LOOPS_ENABLED", "value": "true"}]
    env += [{"name": f"{prefix}WORKFLOW_LOOP_MAX_ITERATIONS", "value": "7"}]
    labels = {"app": "agents-controllers"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "controller:1", "env": env}]},
    }
    spec = {"selector": {"matchLabels": labels}, "template": template}
    place.cluster.create(kinds.DEPLOYMENT, place.body("Deployment", "agents-controllers", "apps/v1", spec=spec))
    found = controller_flags(place.cluster, profile, namespace=place.namespace)
    assert (found.flags.known, found.flags.loops_enabled, found.flags.max_iterations) == (True, True, 7)
    api.install(str(profile))
    told = detect(place.cluster, place.namespace, controller_namespace=place.namespace)
    assert (told.profile, told.is_certain) == (profile, True), told
