"""What becomes of the objects of a kind for as long as somebody wants to know, across lost connections."""

import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from run_cycle_loop.clients.kubernetes.api import (
    ADDED,
    DELETED,
    MODIFIED,
    QUIET,
    Cluster,
    Event,
    Listing,
    Object,
    Watching,
)
from run_cycle_loop.clients.kubernetes.errors import (
    Expired,
    Forbidden,
    KubernetesError,
    NotFound,
    ServerFault,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.clients.kubernetes.kinds import Kind
from run_cycle_loop.clients.kubernetes.pausing import pause

_PASSING = (TooManyRequests, ServerFault, Unreachable)
#: A server that has just been started says these for a moment of what it knows quite well.
_PASSING_LATER = (NotFound, Forbidden)
_SILENT = 120.0  #: seconds; a watch that ends after so long and without a new version is not gone on with
_SHORT = 1.0  #: seconds; a watch without a change that ends sooner counts as a failure


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one object; a deleted one is as it was seen last."""

    type: str  #: ADDED, MODIFIED or DELETED
    object: Object


def follow(  # noqa: PLR0913 - what to follow, how patiently, and the effects
    cluster: Cluster,
    kind: Kind,
    *,
    wait: Callable[[float], bool],
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    name: str | None = None,
    seconds_per_watch: float = 300.0,
    beat: float = 1.0,
    patience: float = 300.0,
    noticed: Callable[[KubernetesError], object] | None = None,
    listed: Callable[[], object] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    chance: Callable[[], float] = random.random,
) -> Generator[Change | None, None, None]:
    """Each change once, beginning with what is there; None at every beat without one, and after every listing.

    What happens while there is no connection is made up for: a watch goes on from its last version, and where that is
    forgotten the objects are listed again and only what differs is told. Closing the generator closes the connection.

    Args:
        cluster: a plain one; a patient one would let beats pass while it tries again.
        kind: what to follow.
        wait: waits so many seconds between two tries; True where a stop was asked for, which ends this.
        namespace: where.
        labels: only objects that carry these; one that loses them counts as deleted.
        name: only this object.
        seconds_per_watch: after which a watch is begun anew.
        beat: seconds between two looks of the caller at his own affairs, at most; a single listing may take longer.
        patience: seconds of failures without a success between them, after which the last one goes out.
        noticed: told each failure that is overcome.
        listed: told after each listing, before its None: all that is there is told then. A None alone may as well
            come from the wait after a failure.
        monotonic: seconds that never step.
        chance: gives a number from 0 to 1.

    Raises:
        KubernetesError: what does not pass by itself, or did not in time.
    """
    trouble = _Trouble(patience, monotonic, noticed)
    pursuit = _Pursuit(
        partial(cluster.list, kind, namespace, labels, name=name),
        partial(cluster.watch, kind, namespace, labels=labels, name=name, seconds=seconds_per_watch, beat=beat),
        trouble,
        monotonic,
        listed,
    )
    while True:
        try:
            yield from pursuit.turn()
        except Expired as error:
            pursuit.version = ""
            trouble.count(error)
        except Unauthorized as error:
            trouble.weigh_credentials(error)
            cluster.renew()
        except KubernetesError as error:
            trouble.weigh(error)
        left = trouble.pause(chance)
        while left > 0:
            if wait(min(beat, left)):
                return
            left -= beat
            yield None


class _Pursuit:
    """What is followed, and how far that has come."""

    def __init__(
        self,
        listing: Callable[[], Listing],
        watching: Callable[..., Watching],
        trouble: "_Trouble",
        monotonic: Callable[[], float],
        listed: Callable[[], object] | None,
    ) -> None:
        self.version = ""  #: to watch from; empty: to be listed
        self._list = listing
        self._watch = watching
        self._view = _View()
        self._trouble = trouble
        self._monotonic = monotonic
        self._listed = listed

    def turn(self) -> Generator[Change | None, None, None]:
        """One watch from its beginning to its end, and a listing before it where that is needed."""
        if not self.version:
            listing = self._list()
            yield from self._view.compared(listing.items)
            self.version = listing.resource_version
            self._trouble.has_listed()
            if self._listed is not None:
                self._listed()
            yield None
        began, lives = self._monotonic(), False
        watch = self._watch(resource_version=self.version)
        try:
            for event in watch:
                change = self._view.changed(event)
                if lives := lives or change is not None or self._monotonic() - began >= _SHORT:
                    self._trouble.is_over()
                if change is not None or event.type == QUIET:
                    yield change
        finally:
            # A server gives signs of life, if only bookmarks; from a version that it does not know, as after it was put
            # back to an older state, it tells nothing at all. Then only a listing shows what has become of everything.
            is_silent = watch.resource_version == self.version and self._monotonic() - began >= _SILENT
            self.version = "" if is_silent else watch.resource_version
            watch.close()
        if not lives and self._monotonic() - began < _SHORT:
            self._trouble.count()


class _View:
    """The objects as they were told of last, by uid."""

    def __init__(self) -> None:
        self._known: dict[str, Object] = {}

    def compared(self, items: Iterable[Object]) -> Iterable[Change]:
        """What a listing changes: first what is gone, as its name may have been taken again."""
        found = {_uid(item): item for item in items}
        for uid in [uid for uid in self._known if uid not in found]:
            yield Change(DELETED, self._known.pop(uid))
        for item in found.values():
            if (change := self.changed(Event(MODIFIED, item))) is not None:
                yield change

    def changed(self, event: Event) -> Change | None:
        """What an event changes; None where that is known."""
        if event.type == QUIET:
            return None
        uid = _uid(event.object)
        if event.type == DELETED:
            return Change(DELETED, event.object) if self._known.pop(uid, None) is not None else None
        before = self._known.get(uid)
        if before is not None and _version(before) == _version(event.object):
            return None
        self._known[uid] = event.object
        return Change(ADDED if before is None else MODIFIED, event.object)


class _Trouble:
    """The failures since the last success."""

    def __init__(
        self,
        patience: float,
        monotonic: Callable[[], float],
        noticed: Callable[[KubernetesError], object] | None,
    ) -> None:
        self._patience = patience
        self._monotonic = monotonic
        self._noticed = noticed
        self._listed = False
        self._renewed = False
        self._failures = 0
        self._since = 0.0
        self._retry_after = 0.0

    def has_listed(self) -> None:
        """The server knows the kind and lets us see it."""
        self._listed = True

    def is_over(self) -> None:
        """Forget the failures."""
        self._failures, self._renewed = 0, False

    def count(self, error: KubernetesError | None = None) -> None:
        """Take note of a failure, or of an end that may be one.

        Raises:
            KubernetesError: this one, where patience is at its end.
        """
        now = self._monotonic()
        if not self._failures:
            self._since = now
        self._failures += 1
        # A server that wants to be left alone for longer than that is given up, and not waited for blindly.
        self._retry_after = min((error.retry_after or 0.0) if error else 0.0, self._patience)
        if error is None:
            return
        if now - self._since > self._patience:
            raise error.adding(f"tried {self._failures} times in {now - self._since:.0f} s") from error
        if self._noticed is not None:
            self._noticed(error)

    def weigh(self, error: KubernetesError) -> None:
        """Count what may pass by itself.

        Raises:
            KubernetesError: it does not.
        """
        if not isinstance(error, _PASSING) and not (self._listed and isinstance(error, _PASSING_LATER)):
            raise error
        self.count(error)

    def weigh_credentials(self, error: KubernetesError) -> None:
        """Count a refused login once; new credentials that are refused as well are the end."""
        if self._renewed:
            raise error
        self._renewed = True
        self.count(error)

    def pause(self, chance: Callable[[], float]) -> float:
        """Seconds to wait before the next try; none after a success."""
        return max(pause(self._failures, chance), self._retry_after) if self._failures else 0.0


def _uid(item: Object) -> str:
    return str(item["metadata"]["uid"])


def _version(item: Object) -> str:
    return str(item["metadata"]["resourceVersion"])
