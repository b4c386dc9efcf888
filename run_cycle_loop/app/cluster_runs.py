"""The AgentRuns of a cluster, as the commands see them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

from run_cycle_loop.agentrun.cluster import evidence, listing, logs, status, watching
from run_cycle_loop.agentrun.cluster.cancel import Cancellation, CancelResult, cancel_run, delete_run
from run_cycle_loop.agentrun.cluster.flags import FlagReport, controller_flags
from run_cycle_loop.agentrun.cluster.preflight import Preflight, preflight
from run_cycle_loop.agentrun.cluster.submit import Plan, Submission, plan, submit
from run_cycle_loop.agentrun.looking.output import Choice, Piece
from run_cycle_loop.agentrun.looking.progress import Progress
from run_cycle_loop.agentrun.looking.rows import RunRow
from run_cycle_loop.agentrun.looking.verify import Verification, judge
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.app.clusters import connected, profile_of
from run_cycle_loop.app.cycle import CycleStops
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import KubernetesError
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.kit.clock import SystemClock


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterRuns:
    """What can be done with runs there; each call may raise a KubernetesError."""

    where: str  #: for people
    cluster: PatientCluster
    settings: Settings
    stops: CycleStops
    clock: SystemClock
    noticed: Callable[[KubernetesError], object]

    @classmethod
    def of(
        cls,
        settings: Settings,
        stack: ExitStack,
        stops: CycleStops,
        *,
        noticed: Callable[[KubernetesError], object],
        budget: float,
    ) -> Self:
        """The runs of the cluster that the settings name.

        Args:
            settings: which cluster.
            stack: closes the connection.
            stops: by which waiting ends.
            noticed: told what is overcome while something is watched.
            budget: seconds that one call may be tried for.
        """
        cluster = connected(settings, stack, stops.wait, stops.fileno(), budget)
        context = f" ({settings.kube_context})" if settings.kube_context else ""
        return cls(
            where=f"on the cluster{context}",
            cluster=cluster,
            settings=settings,
            stops=stops,
            clock=SystemClock(),
            noticed=noticed,
        )

    @property
    def namespace(self) -> str:
        """Where runs are looked for."""
        return self.settings.namespace or "agents"

    @property
    def plain(self) -> Cluster:
        """The connection for watches and logs, which are taken up again by those who follow them."""
        return self.cluster.plain

    def profile(self) -> Profile:
        """The controller's generation."""
        return profile_of(self.settings, self.cluster)

    def look(self, name: str) -> Progress:
        """How far a run is."""
        return status.look(self.cluster, name, self.namespace, clock=self.clock)

    def watch(self, name: str, *, timeout: float | None, nudge: bool) -> Iterator[Progress]:
        """How far it is, whenever that has changed; the last one has a result."""
        return watching.watch(
            self.plain,
            name,
            self.namespace,
            clock=self.clock,
            wait=self.stops.wait,
            timeout=timeout,
            nudging=nudge,
            noticed=self.noticed,
        )

    def rows(self, *, everywhere: bool) -> tuple[RunRow, ...]:
        """All runs, the newest first."""
        return listing.runs(self.cluster, "*" if everywhere else self.namespace, clock=self.clock)

    def logs(self, name: str, choice: Choice, *, follow: bool, every: bool, tail: int | None) -> Iterator[Piece]:
        """What the attempts print."""
        return logs.logs(
            self.plain,
            name,
            self.namespace,
            clock=self.clock,
            wait=self.stops.wait,
            choice=choice,
            follow=follow,
            every=every,
            tail=tail,
        )

    def verify(self, name: str, *, ask_pods: bool) -> Verification:
        """Whether each attempt had the system prompt that was meant."""
        found = evidence.gather(
            self.cluster, name, self.namespace, profile=self.profile(), now=self.clock.now(), ask_pods=ask_pods
        )
        return judge(found)

    def cancel(self, name: str, *, message: str, delete: bool, drop_finalizer: bool) -> Cancellation:
        """End a run so that it stays ended."""
        done = cancel_run(self.cluster, name, self.namespace, clock=self.clock, wait=self.stops.wait, message=message)
        if not delete or done.result is CancelResult.CONTESTED:
            return done
        return delete_run(self.cluster, done, clock=self.clock, wait=self.stops.wait, drop_finalizer=drop_finalizer)

    def flags(self, *, controller_namespace: str, deployment: str) -> FlagReport:
        """The controller's flags."""
        return controller_flags(self.cluster, self.profile(), namespace=controller_namespace, deployment=deployment)

    def check(self, bundle: Bundle, document: Document, *, key: str, controller_namespace: str) -> Preflight:
        """What a run will need here, before it is sent."""
        return preflight(
            self.cluster,
            bundle,
            document,
            profile=self.profile(),
            clock=self.clock,
            key=key,
            controller_namespace=controller_namespace,
        )

    def plan(self, bundle: Bundle, document: Document, *, key: str) -> Plan:
        """What sending it would do; the server has tried all of it."""
        return plan(self.cluster, bundle, document, key=key)

    def in_namespace_of(self, namespace: str) -> "ClusterRuns":
        """The same for runs of another namespace."""
        return replace(self, settings=replace(self.settings, namespace=namespace))

    def submit(self, planned: Plan) -> Submission:
        """Send it."""
        return submit(self.cluster, planned, wait=self.stops.wait)


def in_namespace(bundle: Bundle, namespace: str | None) -> Bundle:
    """The manifests as they are for another namespace; those without one of their own get it too."""
    if namespace is None:
        return bundle

    def moved(one: Document) -> Document:
        metadata = {**one.body.get("metadata", {}), "namespace": namespace}
        return replace(one, body={**one.body, "metadata": metadata}, namespace=namespace)

    return Bundle(documents=tuple(map(moved, bundle.documents)))
