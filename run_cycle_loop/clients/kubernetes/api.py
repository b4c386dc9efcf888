"""What the product needs of a cluster. Objects are plain JSON, as the API gives them."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from run_cycle_loop.clients.kubernetes.kinds import Kind

Object = dict[str, Any]  #: one object of the API

ALL_NAMESPACES = "*"  #: for ``list`` and ``watch``

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"
QUIET = "QUIET"  #: nothing happened for a beat; our own word, no server sends it


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long a server is waited for, in seconds."""

    connect: float = 5.0
    read: float = 30.0  #: the longest silence, but in a watch or a log that is followed
    call: float = 60.0  #: the longest call, however much it dribbles


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects at one moment, and the version to watch them from."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event:
    """What became of one object."""

    type: str  #: ADDED, MODIFIED, DELETED; QUIET with an empty object, where a beat was asked for
    object: Object


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a container left."""

    stdout: bytes
    code: int | None  #: the exit code; None where the server does not say
    stderr: bytes = b""


class Watching(Protocol):
    """The events of a watch, one by one; it ends when its time is over or its connection is."""

    @property
    def resource_version(self) -> str:
        """To watch from again: of the last event or bookmark so far."""
        ...

    def __iter__(self) -> Self:
        """Itself."""
        ...

    def __next__(self) -> Event:
        """The next event.

        Raises:
            StopIteration: the watch is over; another one may go on from ``resource_version``.
            Expired: the version to go on from is forgotten.
            KubernetesError: anything else.
        """
        ...

    def close(self) -> None:
        """End it early; its connection is closed when this returns."""
        ...


class Cluster(Protocol):
    """A Kubernetes API. Every method raises :class:`~run_cycle_loop.clients.kubernetes.errors.KubernetesError`.

    ``namespace=None`` is the default one everywhere, or the one in the body's metadata. Objects that are handed out
    belong to the caller, and those handed in stay as they are.
    """

    @property
    def namespace(self) -> str:
        """The default namespace: the kubeconfig's context has one."""
        ...

    def limit(self, seconds: float | None) -> None:
        """Let no call take longer than so many seconds from now on; None: than it usually may. Not watches and logs."""
        ...

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """One object; None where there is none.

        Raises:
            KindNotServed: the API has no such kind at all.
        """
        ...

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
    ) -> Listing:
        """All objects of a kind that carry these labels, or the one of this name."""
        ...

    def create(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Make an object of that name, or of a free one where the metadata has a ``generateName``.

        Raises:
            AlreadyExists: the name is taken.
            Invalid: the server does not accept it.
        """
        ...

    def patch(
        self,
        kind: Kind,
        name: str,
        body: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Object:
        """Change an object by a merge patch; with a ``resourceVersion`` or ``uid`` in its metadata, only that one.

        Raises:
            NotFound: there is none.
            Conflict: it was changed meanwhile, or is another one.
        """
        ...

    def apply(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Let an object have these fields, by server-side apply without force.

        Raises:
            Conflict: another manager has set a field to something else.
        """
        ...

    def delete(self, kind: Kind, name: str, namespace: str | None = None, *, uid: str | None = None) -> bool:
        """Have an object deleted, and in the background what it owns; False where it was not there.

        Raises:
            Conflict: what is there has another uid.
        """
        ...

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
        """What becomes of the objects of a kind after a version.

        Args:
            kind: what to watch.
            namespace: where.
            labels: only objects that carry these; one that loses them counts as deleted.
            name: only this object.
            resource_version: of a listing, or of an earlier watch.
            seconds: after which it ends by itself.
            beat: seconds; whenever so long passes without an event, there is one of type QUIET.
        """
        ...

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
        """What a container printed, in pieces as they come, which end anywhere.

        Args:
            pod: its name.
            namespace: where.
            container: None: the only one.
            follow: whether to go on until the container ends; closing the generator ends it earlier.
            tail: how many lines of what is there already; None: all.
            since_time: RFC 3339; nothing that was printed before.
            timestamps: whether each line begins with the time it was printed at.
            beat: seconds; whenever so long passes without output, there is an empty piece.
        """
        ...

    def exec(
        self,
        pod: str,
        argv: Sequence[str],
        namespace: str | None = None,
        *,
        container: str | None = None,
        seconds: float = 10.0,
    ) -> ExecResult:
        """Run a command in a container, for so many seconds at most."""
        ...

    def allowed(
        self, verb: str, kind: Kind, namespace: str | None = None, *, subresource: str = "", name: str = ""
    ) -> bool | None:
        """Whether we may do this, by what the server says; None where it does not say."""
        ...

    def version(self) -> str:
        """The server's version, such as ``v1.34.1``."""
        ...

    def renew(self) -> None:
        """Read the configuration and the credentials again, as after a 401; what is being watched may be cut.

        Raises:
            ConfigError: there is none any more.
        """
        ...

    def close(self) -> None:
        """Let go of every connection; nothing may be asked afterwards."""
        ...

    def __enter__(self) -> Self:
        """Itself: closed at the end of a ``with``."""
        ...

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        ...
