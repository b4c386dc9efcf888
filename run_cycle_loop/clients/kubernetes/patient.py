"""A cluster that tries again where that is safe, for as long as it was told, and waits only as it was told to."""

import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Self, TypeVar

from run_cycle_loop.clients.kubernetes.api import Cluster, ExecResult, Listing, Object, Watching
from run_cycle_loop.clients.kubernetes.errors import (
    AlreadyExists,
    Conflict,
    KubernetesError,
    ServerFault,
    Stopped,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.clients.kubernetes.kinds import Kind
from run_cycle_loop.clients.kubernetes.merging import merged
from run_cycle_loop.clients.kubernetes.pausing import pause

_T = TypeVar("_T")

PASSING = (TooManyRequests, ServerFault, Unreachable)  #: may be over after a while


class PatientCluster:
    """Another cluster's answers, in spite of what passes by itself: 429, 5xx, no answer, an expired token.

    What may have been done although there was no answer is not simply done again:

    * a create is looked up by its name first; what is there and carries the same mark is our own success. Without a
      name or a mark nobody can tell, and the error goes out;
    * a patch that was to hit one version only counts as done where the object has become as the patch wants it;
    * a delete that finds nothing the second time counts as done;
    * a command in a container is not run again.

    Watches and logs are handed through: whoever listens goes on from where he was.
    """

    def __init__(
        self,
        plain: Cluster,
        *,
        wait: Callable[[float], bool],
        budget: float = 60.0,
        marks: Sequence[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is asked yet.

        Args:
            plain: the impatient cluster.
            wait: waits so many seconds; True where a stop was asked for.
            budget: seconds that one call may be tried for in all.
            marks: labels and annotations that tell whose create an object comes from.
            monotonic: seconds that never step.
            chance: gives a number from 0 to 1.
        """
        self.plain = plain
        self._wait = wait
        self._budget = budget
        self._marks = tuple(marks)
        self._monotonic = monotonic
        self._chance = chance

    @property
    def namespace(self) -> str:
        """The default namespace."""
        return self.plain.namespace

    def limit(self, seconds: float | None) -> None:
        """Let no call take longer; within the budget."""
        self.plain.limit(seconds)

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """One object; None where there is none."""
        return self._patiently(lambda _: self.plain.get(kind, name, namespace))

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
    ) -> Listing:
        """All objects of a kind that carry these labels."""
        return self._patiently(lambda _: self.plain.list(kind, namespace, labels, name=name))

    def create(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Make an object, once."""
        meta = body.get("metadata") or {}
        name, namespace = str(meta.get("name") or ""), meta.get("namespace")
        marks = self._marked(body)

        def ours() -> Object | None:
            found = self.plain.get(kind, name, namespace)
            return found if found is not None and self._is_ours(found, marks) else None

        def attempt(in_doubt: bool) -> Object:
            in_doubt = in_doubt and not dry_run
            if in_doubt and (found := ours()) is not None:
                return found
            try:
                return self.plain.create(kind, body, dry_run=dry_run)
            except AlreadyExists:
                # The first try may have arrived late.
                if in_doubt and (found := ours()) is not None:
                    return found
                raise

        return self._patiently(attempt, again_in_doubt=dry_run or bool(name and marks))

    def patch(
        self,
        kind: Kind,
        name: str,
        body: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Object:
        """Change an object by a merge patch."""

        def attempt(in_doubt: bool) -> Object:
            try:
                return self.plain.patch(kind, name, body, namespace, subresource=subresource)
            except Conflict:
                found = self.plain.get(kind, name, namespace) if in_doubt else None
                if found is not None and _has(found, body):
                    return found
                raise

        return self._patiently(attempt)

    def apply(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Let an object have these fields."""
        return self._patiently(lambda _: self.plain.apply(kind, body, dry_run=dry_run))

    def delete(self, kind: Kind, name: str, namespace: str | None = None, *, uid: str | None = None) -> bool:
        """Have an object deleted; False where it was not there."""
        return self._patiently(lambda in_doubt: self.plain.delete(kind, name, namespace, uid=uid) or in_doubt)

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        resource_version: str,
        seconds: float,
        beat: float | None = None,
    ) -> Watching:
        """What becomes of the objects of a kind, without patience."""
        return self.plain.watch(
            kind,
            namespace,
            labels=labels,
            name=name,
            resource_version=resource_version,
            seconds=seconds,
            beat=beat,
        )

    def log(
        self,
        pod: str,
        namespace: str | None = None,
        *,
        container: str | None = None,
        follow: bool = False,
        tail: int | None = None,
        since_time: str | None = None,
        timestamps: bool = False,
        beat: float | None = None,
    ) -> Generator[bytes, None, None]:
        """What a container printed, without patience."""
        return self.plain.log(
            pod,
            namespace,
            container=container,
            follow=follow,
            tail=tail,
            since_time=since_time,
            timestamps=timestamps,
            beat=beat,
        )

    def exec(
        self,
        pod: str,
        argv: Sequence[str],
        namespace: str | None = None,
        *,
        container: str | None = None,
        seconds: float = 10.0,
    ) -> ExecResult:
        """Run a command in a container, once."""
        return self._patiently(
            lambda _: self.plain.exec(pod, argv, namespace, container=container, seconds=seconds),
            again_in_doubt=False,
        )

    def allowed(
        self, verb: str, kind: Kind, namespace: str | None = None, *, subresource: str = "", name: str = ""
    ) -> bool | None:
        """Whether we may do this, by what the server says."""
        return self._patiently(lambda _: self.plain.allowed(verb, kind, namespace, subresource=subresource, name=name))

    def version(self) -> str:
        """The server's version."""
        return self._patiently(lambda _: self.plain.version())

    def renew(self) -> None:
        """Read the configuration and the credentials again."""
        self.plain.renew()

    def close(self) -> None:
        """Let go of every connection."""
        self.plain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _patiently(self, attempt: Callable[[bool], _T], *, again_in_doubt: bool = True) -> _T:
        """Try until it goes well, or is refused for good.

        Args:
            attempt: does it; told whether an earlier try may have succeeded.
            again_in_doubt: whether it may be tried again although it may have succeeded.

        Raises:
            Stopped: a stop was asked for meanwhile.
            KubernetesError: the last one; of all tries together it says whether it may have happened.
        """
        began, tries, in_doubt, renewed = self._monotonic(), 0, False, False
        while True:
            tries += 1
            try:
                self.plain.limit(self._budget - (self._monotonic() - began))
                return attempt(in_doubt)
            except Unauthorized as error:
                if renewed:
                    raise _after(error, tries, self._monotonic() - began, in_doubt=in_doubt) from error
                renewed = True
                self.plain.renew()
            except PASSING as error:
                in_doubt = in_doubt or error.may_have_happened
                delay = max(pause(tries, self._chance), error.retry_after or 0.0)
                spent = self._monotonic() - began
                if (in_doubt and not again_in_doubt) or spent + delay > self._budget:
                    raise _after(error, tries, spent, in_doubt=in_doubt) from error
                if self._wait(delay):
                    said = f"a stop was asked for while waiting for the cluster: {error}"
                    raise Stopped(said, may_have_happened=in_doubt) from error
            except KubernetesError as error:
                if not in_doubt:
                    raise
                raise _after(error, tries, self._monotonic() - began, in_doubt=True) from error
            finally:
                self.plain.limit(None)

    def _marked(self, body: Mapping[str, Any]) -> dict[str, str]:
        meta = body.get("metadata") or {}
        carried = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
        return {name: carried[name] for name in self._marks if name in carried}

    def _is_ours(self, found: Object, marks: Mapping[str, str]) -> bool:
        return bool(marks) and self._marked(found) == marks


def _after(error: KubernetesError, tries: int, seconds: float, *, in_doubt: bool) -> KubernetesError:
    """The same error, with how long it was tried, and whether one of the tries may have succeeded."""
    if tries == 1:
        return error
    told = error.adding(f"tried {tries} times in {seconds:.0f} s")
    told.may_have_happened = in_doubt
    return told


def _has(found: Object, patch: Mapping[str, Any]) -> bool:
    """Whether an object is as a patch wants it, whichever version it has become."""
    meta = {name: value for name, value in (patch.get("metadata") or {}).items() if name != "resourceVersion"}
    return bool(merged(found, {**patch, "metadata": meta}) == found)
