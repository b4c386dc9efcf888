"""A run watched until it ends: its own changes, those of its Jobs and of its pods, and the time that passes."""

from collections.abc import Callable, Generator
from dataclasses import replace

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.nudge import APART, nudge
from run_cycle_loop.agentrun.cluster.waits import Wait
from run_cycle_loop.agentrun.looking.attempts import PodRow
from run_cycle_loop.agentrun.looking.objects import Object, uid_of
from run_cycle_loop.agentrun.looking.outcomes import Result
from run_cycle_loop.agentrun.looking.progress import Hint, Progress, Waiting, ended, progress
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import DELETED, Cluster
from run_cycle_loop.clients.kubernetes.errors import (
    Forbidden,
    KubernetesError,
    NotFound,
    ServerFault,
    TooManyRequests,
    Unreachable,
)
from run_cycle_loop.clients.kubernetes.following import Change, follow
from run_cycle_loop.model.ports import Clock

BEAT = 0.5  #: seconds that one of the three watches is listened to, where nothing happens
TICK = 10.0  #: seconds after which progress is told again, though only the time has passed
_AT_ONCE = 200  #: changes that are taken before the other watches get their turn
_PRINTED = 40  #: lines of a pod that ended badly
_LONGEST = 1 << 16  #: bytes of them
_PASSING = (TooManyRequests, ServerFault, Unreachable)
#: Seconds by which something has to be late before the controller is woken: it may be about to look by itself.
_GRACE = {Waiting.RETRY: 5.0, Waiting.TIMEOUT: 5.0, Waiting.BLOCKED: 60.0, Waiting.UNTOUCHED: 0.0}


def watch(  # noqa: PLR0913 - what to watch, how long, and the effects
    cluster: Cluster,
    name: str,
    namespace: str,
    *,
    clock: Clock,
    wait: Wait,
    timeout: float | None = None,
    nudging: bool = False,
    tick: float = TICK,
    beat: float = BEAT,
    patience: float = 300.0,
    noticed: Callable[[KubernetesError], object] | None = None,
) -> Generator[Progress, None, None]:
    """How far a run is, whenever something about it has changed; the last one has a result.

    Args:
        cluster: Where it is; a plain one, whose watches are taken up again here.
        name: The run's.
        namespace: Its.
        clock: The clocks.
        wait: Ends the watching where it says that a stop was asked for; the run goes on.
        timeout: Seconds to watch; None: as long as it takes.
        nudging: Whether the controller is woken for what is overdue.
        tick: Seconds between two reports where only the time passes.
        beat: Seconds to listen to each of the watches.
        patience: Seconds of failures of the cluster that are overcome.
        noticed: Told each of those.

    Raises:
        NotFound: There is no such run.
        KubernetesError: The cluster refuses, or does not answer for longer than ``patience``.
    """

    def followed(kind: kinds.Kind, labels: dict[str, str] | None, only: str | None) -> "_Followed":
        changes = follow(
            cluster,
            kind,
            wait=wait,
            namespace=namespace,
            labels=labels,
            name=only,
            beat=beat,
            patience=patience,
            noticed=noticed,
            monotonic=clock.monotonic,
        )
        return _Followed(changes, needed=only is not None)

    mine = {names.LABEL_RUN: name}
    watched = _Watched(
        cluster,
        clock,
        run=followed(kinds.AGENT_RUN, None, name),
        jobs=followed(kinds.JOB, mine, None),
        pods=followed(kinds.POD, mine, None),
    )
    try:
        yield from _told(watched, _first(watched, name, namespace), wait, timeout, tick, nudging=nudging)
    finally:
        watched.close()


class _Followed:
    """The objects that one watch has told of, as they are now."""

    def __init__(self, changes: Generator[Change | None, None, None], *, needed: bool) -> None:
        self._changes = changes
        self._needed = needed
        self.objects: dict[str, Object] = {}
        self.deleted: Object | None = None  #: the last one that went away
        self.is_over = False  #: a stop was asked for
        self.refusal = ""  #: why these may not be seen

    def advance(self) -> None:
        """Take what has happened; wait a beat where nothing has."""
        if self.refusal or self.is_over:
            return
        try:
            for _ in range(_AT_ONCE):
                change = next(self._changes)
                if change is None:
                    return
                self._take(change)
        except StopIteration:
            self.is_over = True
        except Forbidden as error:
            if self._needed:
                raise
            self.refusal = str(error)

    def _take(self, change: Change) -> None:
        if change.type == DELETED:
            self.deleted = self.objects.pop(uid_of(change.object), None) or change.object
        else:
            self.objects[uid_of(change.object)] = change.object

    def close(self) -> None:
        self._changes.close()


class _Watched:
    """The three watches of one run."""

    def __init__(self, cluster: Cluster, clock: Clock, *, run: _Followed, jobs: _Followed, pods: _Followed) -> None:
        self.cluster, self.clock = cluster, clock
        self.run, self.jobs, self.pods = run, jobs, pods
        self.printed: dict[str, str] = {}  #: by pod

    def advance(self) -> None:
        """The run first: what belongs to a change of it is then seen with it."""
        for one in (self.run, self.jobs, self.pods):
            one.advance()

    @property
    def is_over(self) -> bool:
        return any(one.is_over for one in (self.run, self.jobs, self.pods))

    def refusals(self) -> tuple[Hint, ...]:
        told = (one.refusal for one in (self.jobs, self.pods) if one.refusal)
        return tuple(Hint(reason="NotAllowed", message=message) for message in told)

    def close(self) -> None:
        for one in (self.run, self.jobs, self.pods):
            one.close()

    def look(self, body: Object) -> Progress:
        """The fold; with what a pod printed where its end is not explained otherwise."""
        jobs, pods = tuple(self.jobs.objects.values()), tuple(self.pods.objects.values())
        seen = progress(body, jobs, pods, self.clock.now(), printed=self.printed)
        puzzling = [one.pod for one in seen.attempts if one.pod and one.pod.exit_code and one.fault is None]
        fresh = [pod for pod in puzzling if pod.name not in self.printed]
        for pod in fresh:
            self.printed[pod.name] = _last_lines(self.cluster, pod, seen.namespace)
        if fresh:
            seen = progress(body, jobs, pods, self.clock.now(), printed=self.printed)
        return replace(seen, hints=(*seen.hints, *self.refusals()))


def _first(watched: _Watched, name: str, namespace: str) -> Object | None:
    """The run as it is at the beginning; None where a stop came before it was seen."""
    while not watched.run.is_over:
        watched.run.advance()
        if watched.run.objects:
            return next(iter(watched.run.objects.values()))
        try:
            found = watched.cluster.get(kinds.AGENT_RUN, name, namespace)
        except _PASSING:
            continue  # the watch is patient, and raises when its patience is at its end
        if found is None:
            told = "run-cycle-loop agentrun list --where cluster shows those that are there"
            raise NotFound(f"there is no AgentRun {name} in namespace {namespace}: {told}")
    return None


def _told(
    watched: _Watched, first: Object | None, wait: Wait, timeout: float | None, tick: float, *, nudging: bool
) -> Generator[Progress, None, None]:
    if first is None:
        return
    began = last_at = watched.clock.monotonic()
    last: Progress | None = None
    waker = _Waker(watched.cluster, watched.clock) if nudging else None
    while True:
        watched.advance()
        body = watched.run.objects.get(uid_of(first))
        if body is None:
            yield ended(watched.look(watched.run.deleted or first), Result.DELETED)
            return
        seen = watched.look(body)
        if waker is not None:
            seen = waker.woken(seen)
        now = watched.clock.monotonic()
        if seen.result is None:
            seen = _given_up(
                seen, stopped=watched.is_over or wait(0), late=timeout is not None and now - began >= timeout
            )
        if seen.result is not None or last is None or _shape(seen) != _shape(last) or now - last_at >= tick:
            yield seen
            last, last_at = seen, now
        if seen.result is not None:
            return


def _given_up(seen: Progress, *, stopped: bool, late: bool) -> Progress:
    if stopped:
        return ended(seen, Result.STOPPED)
    if not late:
        return seen
    never_in = seen.blocked or not seen.phase or any(one.what is Waiting.UNTOUCHED for one in seen.overdue)
    return ended(seen, Result.BLOCKED if never_in else Result.TIMED_OUT)


def _shape(seen: Progress) -> Progress:
    """What of a progress is worth a report: all but the time that passes."""
    return replace(
        seen,
        at="",
        age=None,
        seconds=None,
        attempts=tuple(replace(one, seconds=None) for one in seen.attempts),
        overdue=tuple(replace(one, seconds=0.0, message="") for one in seen.overdue),
    )


def _last_lines(cluster: Cluster, pod: PodRow, namespace: str) -> str:
    """What it printed last; nothing where that cannot be had, since this only explains."""
    taken = b""
    try:
        for piece in cluster.log(pod.name, namespace, container=pod.container or None, tail=_PRINTED):
            taken += piece
            if len(taken) > _LONGEST:
                break
    except KubernetesError:
        return ""
    return taken.decode(errors="replace")


class _Waker:
    """Nudges, at a pace."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster, self._clock = cluster, clock
        self._not_before = clock.monotonic()
        self._told: tuple[Hint, ...] = ()
        self._may = True

    def woken(self, seen: Progress) -> Progress:
        """The progress, with what was done about it."""
        late = [one for one in seen.overdue if one.seconds >= _GRACE[one.what]]
        if late and self._may and self._clock.monotonic() >= self._not_before:
            self._not_before = self._clock.monotonic() + APART
            self._told = (Hint(reason="Nudged", message=self._try(seen)),)
        return replace(seen, hints=(*seen.hints, *self._told)) if late else seen

    def _try(self, seen: Progress) -> str:
        try:
            return nudge(self._cluster, seen.name, seen.namespace, clock=self._clock).message
        except Forbidden as error:
            self._may = False
            return str(error)
        except KubernetesError as error:
            return str(error)
