"""What the attempts of a run printed: one attempt's output, or one after the other until the run ends."""

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.waits import Wait
from run_cycle_loop.agentrun.lifecycle.status import read_status
from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState, PodRow, attempts
from run_cycle_loop.agentrun.looking.objects import Object
from run_cycle_loop.agentrun.looking.outcomes import result_in
from run_cycle_loop.agentrun.looking.output import Choice, Piece
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import (
    KubernetesError,
    NotFound,
    ServerFault,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.model.ports import Clock

PAUSE = 2.0  #: seconds between two looks at what has not begun yet
BEAT = 1.0  #: seconds of silence after which a stop is heard
PATIENCE = 300.0  #: seconds of failures of the cluster that are overcome while following
_PASSING = (TooManyRequests, ServerFault, Unreachable)
_LONGEST = 1 << 20  #: bytes of a line that are kept together; a longer one is handed on in pieces
_TIME = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9:]{5})")
_T = TypeVar("_T")


def logs(  # noqa: PLR0913 - which, how, and the effects
    cluster: Cluster,
    name: str,
    namespace: str,
    *,
    clock: Clock,
    wait: Wait,
    choice: Choice | None = None,
    follow: bool = False,
    every: bool = False,
    tail: int | None = None,
    timestamps: bool = False,
) -> Generator[Piece, None, None]:
    """The output of the newest attempt that is meant, or of all of them, or of each as it comes.

    Args:
        cluster: Where the run is; a plain one.
        name: The run's.
        namespace: Its.
        clock: The clocks.
        wait: Ends it where it says that a stop was asked for.
        choice: Which attempts are meant.
        follow: Whether to go on to later attempts until the run ends.
        every: Whether earlier attempts are shown too; without it, only the newest that is meant.
        tail: Lines to begin with, of each attempt.
        timestamps: Whether each line begins with the time it was printed at.

    Raises:
        NotFound: There is no such run, or no attempt of it is meant.
        KubernetesError: The cluster refuses, or does not answer.
    """
    reading = _Reading(cluster, name, namespace, clock, wait, timestamps=timestamps)
    chosen = choice or Choice()
    done: set[str] = set()
    while True:
        seen = reading.look()
        meant = [row for row in seen.rows if chosen.fits(row)]
        fresh = [row for row in meant if row.job not in done]
        if not (every or done):
            fresh, done = fresh[-1:], {row.job for row in meant[:-1]}
        for row in fresh:
            done.add(row.job)
            yield from reading.attempt(row, tail=tail, follow=follow)
        if fresh:
            continue  # others may have come meanwhile
        if not meant and (seen.is_over or not follow):
            raise NotFound(_nothing(seen, chosen, name))
        if not follow or seen.is_over or wait(PAUSE):
            return


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    rows: tuple[Attempt, ...]
    is_over: bool


class _Reading:
    """The output of one run."""

    def __init__(
        self, cluster: Cluster, name: str, namespace: str, clock: Clock, wait: Wait, *, timestamps: bool
    ) -> None:
        self._cluster, self._name, self._namespace = cluster, name, namespace
        self._clock, self._wait = clock, wait
        self._timestamps = timestamps
        self._last: Object | None = None

    def look(self) -> _Look:
        """The attempts that are known now."""
        body = self._patiently(lambda: self._cluster.get(kinds.AGENT_RUN, self._name, self._namespace))
        if body is None and self._last is None:
            told = "run-cycle-loop agentrun list --where cluster shows those that are there"
            raise NotFound(f"there is no AgentRun {self._name} in namespace {self._namespace}: {told}")
        known: Object = body or self._last or {}
        self._last = known
        run, status, labels = read_run(known), read_status(known.get("status")), {names.LABEL_RUN: self._name}
        jobs = self._patiently(lambda: self._cluster.list(kinds.JOB, self._namespace, labels).items)
        pods = self._patiently(lambda: self._cluster.list(kinds.POD, self._namespace, labels).items)
        rows = attempts(run, status, jobs, pods, self._clock.now())
        return _Look(rows=rows, is_over=body is None or result_in(status) is not None)

    def attempt(self, row: Attempt, *, tail: int | None, follow: bool) -> Iterator[Piece]:
        """All that one attempt printed; with ``follow``, as soon as it prints it."""
        begun: Attempt | None = row
        if follow:
            begun = yield from self._begun(row)
        if begun is None:
            return
        if begun.pod is None or not _has_printed(begun.pod):
            yield Piece(attempt=begun, note=left_of(begun))
            return
        yield Piece(attempt=begun, note=headline(begun))
        yield from self._printed(begun, begun.pod, tail=tail, follow=follow)

    def _begun(self, row: Attempt) -> Generator[Piece, None, Attempt | None]:
        """The attempt once its container has started, or can no longer; None after a stop."""
        told = ""
        while row.state is AttemptState.ACTIVE and not (row.pod and _has_printed(row.pod)):
            why = waiting_for(row)
            if why != told:
                told = why
                yield Piece(attempt=row, note=why)
            if self._wait(PAUSE):
                return None
            found = next((one for one in self.look().rows if one.job == row.job), None)
            if found is None:
                break
            row = found
        return row

    def _printed(self, row: Attempt, pod: PodRow, *, tail: int | None, follow: bool) -> Iterator[Piece]:
        """The lines, each once: after a lost connection it goes on behind the last one that came."""
        lines = _Lines(keep_times=self._timestamps)
        trouble = _Trouble(self._clock, self._cluster)
        while True:
            try:
                for data in self._stream(pod, lines, tail=tail, follow=follow):
                    trouble.is_over()
                    yield Piece(attempt=row, data=data)
                if not follow or self._wait(0) or self._has_ended(pod.name):
                    return
                delay = PAUSE
            except NotFound:
                yield Piece(attempt=row, note=f"pod {pod.name} is gone; {left_of(row)}")
                return
            except (*_PASSING, Unauthorized) as error:
                if not follow:
                    raise
                delay = trouble.overcome(error)
            if self._wait(delay):
                return
            tail = None if lines.last else tail

    def _stream(self, pod: PodRow, lines: "_Lines", *, tail: int | None, follow: bool) -> Iterator[bytes]:
        """One connection's worth of whole lines; a stop ends it."""
        lines.begin_again()
        stream = self._cluster.log(
            pod.name,
            self._namespace,
            container=pod.container or None,
            follow=follow,
            tail=tail,
            since_time=lines.last,
            timestamps=True,
            beat=BEAT,
        )
        with closing(stream):
            for piece in stream:
                if data := lines.take(piece):
                    yield data
                if self._wait(0):
                    return
        if data := lines.rest():
            yield data

    def _has_ended(self, pod: str) -> bool:
        """Whether a stream that ended did so because its container did."""
        found = self._patiently(lambda: self._cluster.get(kinds.POD, pod, self._namespace))
        if found is None:
            return True
        status = found.get("status") or {}
        phase = status.get("phase") if isinstance(status, dict) else ""
        return phase in ("Succeeded", "Failed")

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        """An answer, in spite of what passes by itself."""
        began = self._clock.monotonic()
        while True:
            try:
                return ask()
            except _PASSING as error:
                if self._clock.monotonic() - began > PATIENCE or self._wait(max(PAUSE, error.retry_after or 0.0)):
                    raise


class _Trouble:
    """Failures of the cluster in a row."""

    def __init__(self, clock: Clock, cluster: Cluster) -> None:
        self._clock, self._cluster = clock, cluster
        self._since: float | None = None
        self._renewed = False

    def is_over(self) -> None:
        """Something came."""
        self._since, self._renewed = None, False

    def overcome(self, error: KubernetesError) -> float:
        """Seconds to wait before the next try.

        Raises:
            KubernetesError: this one, where patience, or the second set of credentials, is at its end.
        """
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > PATIENCE or (isinstance(error, Unauthorized) and self._renewed):
            raise error
        if isinstance(error, Unauthorized):
            self._renewed = True
            self._cluster.renew()
        return max(PAUSE, min(error.retry_after or 0.0, PATIENCE))


class _Lines:
    """Output with times, as lines; those that came before a connection was lost are dropped when they come again."""

    def __init__(self, *, keep_times: bool) -> None:
        self._keep_times = keep_times
        self._part = b""
        self._is_cut = False  #: the beginning of the line that is being read was handed on already
        self._at_last = 0  #: lines that bear the time of the last one
        self._known = -1  #: of these, how many are still to come again; -1: what comes is new
        self.last: str | None = None  #: when the last line was printed

    def begin_again(self) -> None:
        """What comes next begins at the time of the last line, or before."""
        self._part, self._is_cut = b"", False
        self._known = self._at_last if self.last is not None else -1

    def take(self, piece: bytes) -> bytes:
        """What of it is new, without the line that is not complete yet."""
        whole, newline, self._part = (self._part + piece).rpartition(b"\n")
        data = b"".join(self._line(line + b"\n") for line in whole.split(b"\n")) if newline else b""
        if len(self._part) > _LONGEST:
            data += self._line(self._part)
            self._part, self._is_cut = b"", True
        return data

    def rest(self) -> bytes:
        """The last line, when no more will come."""
        data, self._part = (self._line(self._part) if self._part else b""), b""
        return data

    def _line(self, line: bytes) -> bytes:
        if self._is_cut:
            self._is_cut = False
            return line
        time, space, words = line.partition(b" ")
        if not space or not _TIME.fullmatch(time):
            return line
        stamp = time.decode()
        if self._known >= 0 and self._was_there(stamp):
            return b""
        self._at_last = self._at_last + 1 if stamp == self.last else 1
        self.last = stamp
        return line if self._keep_times else words

    def _was_there(self, stamp: str) -> bool:
        """Whether a line came already: the server begins at a whole second, and several lines may bear one time."""
        last = self.last or ""
        if stamp < last:
            return True
        if stamp == last and self._known > 0:
            self._known -= 1
            return True
        self._known = -1
        return False


def headline(row: Attempt) -> str:
    """Which attempt follows, in one line."""
    parts = [f"step {row.step}"] if row.step else []
    parts += [f"iteration {row.iteration}"] if row.iteration is not None else []
    parts += [f"attempt {row.attempt}", f"Job {row.job}"]
    parts += [f"pod {row.pod.name}"] if row.pod else []
    return ", ".join(parts)


def waiting_for(row: Attempt) -> str:
    """Why an attempt has printed nothing yet."""
    if row.pod is None:
        return f"{headline(row)}: its pod is not there yet"
    why = f"{row.pod.waiting}: {row.pod.message}" if row.pod.waiting else row.pod.phase or "Pending"
    return f"{headline(row)}: {why.rstrip(': ')}" + (f"; {row.fault.cure}" if row.fault else "")


def left_of(row: Attempt) -> str:
    """What is still known of an attempt whose output is gone."""
    if row.state is AttemptState.ACTIVE and row.pod is not None:
        return waiting_for(row)
    known = [f"Job {row.job} is gone" if row.state is AttemptState.GONE else f"Job {row.job} {row.state}"]
    if row.pod is None and row.state is not AttemptState.GONE:
        known.append("it has no pod any more")
    known += [f"its iteration is {row.phase}"] if row.phase else []
    known += [" ".join(f"{row.reason}: {row.message}".split()).strip(": ")] if row.reason or row.message else []
    if row.pod is not None and row.pod.runner:
        said = row.pod.runner
        known.append(f"the runner said {said.get('status')}, exit code {said.get('exitCode')}")
        known += [str(said["error"])] if said.get("error") else []
    elif row.pod is not None and row.pod.exit_code is not None:
        known.append(f"exit code {row.pod.exit_code}")
    return "; ".join(known)


def _has_printed(pod: PodRow) -> bool:
    """Whether the container has started, so that there is something to ask for."""
    return bool(pod.started_at) or pod.phase in ("Running", "Succeeded", "Failed")


def _nothing(seen: _Look, choice: Choice, name: str) -> str:
    if not seen.rows:
        return f"AgentRun {name} has no attempt: none has begun, or all were cleaned away"
    known = "; ".join(headline(row) for row in seen.rows[-5:])
    return f"AgentRun {name} has no {choice}: there are {known}"
