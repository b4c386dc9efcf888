"""A Kubernetes API in memory, for tests of whoever asks one; it passes the same contract suite as the real client.

It keeps the API server's promises about objects (versions, uids, conflicts, selectors, finalizers, owners, apply) and
none about what is in them: no schema is checked. Nothing sleeps: a watch that has nothing to say moves a clock.
"""

import base64
import copy
import math
import re
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import (
    ADDED,
    ALL_NAMESPACES,
    DELETED,
    MODIFIED,
    QUIET,
    Event,
    ExecResult,
    Listing,
    Object,
)
from run_cycle_loop.clients.kubernetes.errors import KubernetesError
from run_cycle_loop.clients.kubernetes.kinds import Kind
from run_cycle_loop.clients.kubernetes.merging import merged
from run_cycle_loop.clients.kubernetes.refusals import Request, refusal, require_labels, require_name
from run_cycle_loop.testing import FakeClock

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_WITHOUT_STATUS = frozenset({kinds.CONFIG_MAP, kinds.SECRET})
#: What a caller cannot change.
_FIXED = ("name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp")
_Key = tuple[Kind, str, str]
_Path = tuple[str, ...]
_UPDATE, _APPLY = "update", "apply"


@dataclass(frozen=True, slots=True)
class _Change:
    version: int
    key: _Key
    type: str
    object: Object
    before: Object | None


@dataclass(frozen=True, slots=True)
class _Fault:
    error: KubernetesError | None
    after: bool


class InMemoryCluster:
    """A cluster whose every answer a test can know beforehand; also a context manager, as every cluster is."""

    def __init__(
        self,
        namespace: str = "default",
        *,
        namespaces: Sequence[str] = (),
        clock: FakeClock | None = None,
        pass_time: Callable[[float], object] | None = None,
    ) -> None:
        """An empty cluster.

        Args:
            namespace: the default one.
            namespaces: further ones that are there.
            clock: what creation times are read from; a watch ends by it.
            pass_time: called with seconds when a watch waits, such as a fake stop's ``wait``; None: moves the clock.
        """
        self.namespace = namespace
        self.clock = clock or FakeClock()
        self.asked: list[tuple[str, Request]] = []  #: each call so far: the method, and what it asked for
        self.unserved: set[Kind] = set()  #: kinds whose definition is not installed
        self.denied: set[tuple[str, str]] = set()  #: verb and resource, as RBAC names them: ("create", "pods/exec")
        self.reviews_access = True  #: whether ``allowed`` can be asked
        self.server_version = "v1.34.0"
        self.closed = False
        self.renewals = 0  #: how often the credentials were read again
        #: What a command in a container leaves: called with the pod's name and the command.
        self.command: Callable[[str, Sequence[str]], ExecResult] = lambda _pod, _argv: ExecResult(b"", 0)
        self._pass_time = pass_time or self.clock.move
        self._objects: dict[_Key, Object] = {}
        self._owners: dict[_Key, dict[_Path, set[str]]] = {}
        self._changes: list[_Change] = []
        self._version = 0
        self._forgotten = 0
        self._cuts = 0
        self._made = 0
        self._faults: defaultdict[str, deque[_Fault]] = defaultdict(deque)
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._said: defaultdict[tuple[str, str, str], list[tuple[datetime, bytes]]] = defaultdict(list)
        for name in {namespace, "default", *namespaces}:
            self.add(kinds.NAMESPACE, {"metadata": {"name": name}})

    # What a test does to it.

    def fail(self, method: str, *errors: KubernetesError | None, after: bool = False) -> None:
        """Let the next calls of a method fail, one error each; None lets one go well.

        Args:
            method: of the protocol: ``get``, ``create``, ``watch``, ...
            errors: in turn.
            after: whether it is done nevertheless, and only the answer lost; of a watch: after the waiting events.
        """
        self._faults[method].extend(_Fault(error, after) for error in errors)

    def after(self, seconds: float, event: Callable[[], object]) -> None:
        """Let something happen once so many seconds have passed."""
        self._due.append((self.clock.monotonic() + seconds, event))
        self._due.sort(key=lambda item: item[0])

    def add(self, kind: Kind, body: Mapping[str, Any]) -> Object:
        """Put an object there as it is, with its status, as others in the cluster would."""
        return self._create(Request(verb="create", kind=kind), body, with_status=True)

    def set_status(self, kind: Kind, name: str, status: Mapping[str, Any], namespace: str | None = None) -> Object:
        """Give an object another status, as its controller would."""
        key = self._key(kind, namespace, name)
        changed = copy.deepcopy(self._objects[key])
        changed["status"] = copy.deepcopy(dict(status))
        return self._store(key, changed, MODIFIED)

    def say(self, pod: str, line: str, namespace: str | None = None, container: str = "") -> None:
        """Let a container print a line."""
        place = (namespace or self.namespace, pod, container)
        self._said[place].append((self.clock.now(), line.encode() + b"\n"))

    def forget(self) -> None:
        """Forget all that happened so far, so that older versions can no longer be watched from."""
        self._forgotten = self._version

    def cut(self) -> None:
        """Cut the connection of every watch, together with what it has not told yet."""
        self._cuts += 1

    # What the product asks of it.

    def limit(self, seconds: float | None) -> None:
        """Nothing here takes any time."""

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """One object; None where there is none."""
        key = self._key(kind, namespace, name)
        request = _request("get", key)
        require_name(request, name)
        with self._answering("get", request):
            return copy.deepcopy(self._objects.get(key))

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
    ) -> Listing:
        """All objects of a kind that carry these labels, by name."""
        scope = self._scope(kind, namespace)
        request = Request(verb="list", kind=kind, namespace=scope or "", name=name or "")
        require_labels(request, labels)
        with self._answering("list", request):
            found = sorted(key for key in self._objects if key[0] == kind and scope in (None, key[1]))
            items = [self._objects[key] for key in found if name in (None, key[2])]
            chosen = tuple(copy.deepcopy(item) for item in items if _carries(item, labels))
            return Listing(chosen, str(self._version))

    def create(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Make an object."""
        request = _request("create", self._key(kind, _meta(body).get("namespace"), _meta(body).get("name", "")))
        with self._answering("create", request):
            return self._create(request, body, dry_run=dry_run)

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
        key = self._key(kind, namespace, name)
        request = _request("patch", key, subresource or "")
        require_name(request, name)
        with self._answering("patch", request):
            current = self._existing(request, key)
            for field in ("resourceVersion", "uid"):
                if _meta(body).get(field) not in (None, current["metadata"][field]):
                    raise refusal(request, 409, reason="Conflict", said=f"the {field} is another one")
            wanted = merged(current, body)
            if subresource == "status":
                wanted = {**copy.deepcopy(current), "status": wanted.get("status", {})}
            return self._change(key, wanted, keep_status=subresource != "status")

    def apply(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Let an object have these fields."""
        key = self._key(kind, _meta(body).get("namespace"), _meta(body).get("name", ""))
        request = _request("patch", key)
        with self._answering("apply", request):
            current = self._objects.get(key)
            if current is None:
                return self._create(request, body, dry_run=dry_run, owner=_APPLY)
            return self._applied(request, key, current, body, dry_run=dry_run)

    def delete(self, kind: Kind, name: str, namespace: str | None = None, *, uid: str | None = None) -> bool:
        """Delete an object and what it owns."""
        key = self._key(kind, namespace, name)
        request = _request("delete", key)
        require_name(request, name)
        with self._answering("delete", request):
            current = self._objects.get(key)
            if current is None:
                return False
            if uid not in (None, current["metadata"]["uid"]):
                raise refusal(request, 409, reason="Conflict", said="the uid in the precondition is another one")
            self._delete(key)
            return True

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
    ) -> "InMemoryWatch":
        """What becomes of the objects of a kind after a version."""
        scope = self._scope(kind, namespace)
        request = Request(verb="watch", kind=kind, namespace=scope or "", name=name or "")
        self._hear("watch", request)
        fault = self._fault("watch")
        if fault and fault.error and not fault.after:
            raise fault.error
        self._admit(request)
        if not resource_version.isdecimal():
            raise refusal(request, 500, said=f"resourceVersion: Invalid value: {resource_version!r}")
        if int(resource_version) < self._forgotten:
            raise refusal(request, 410, reason="Expired", said=f"too old resource version: {resource_version}")

        def wanted(key: _Key, item: Object | None) -> bool:
            return (
                item is not None
                and key[0] == kind
                and scope in (None, key[1])
                and name in (None, key[2])
                and _carries(item, labels)
            )

        return InMemoryWatch(
            self, wanted, int(resource_version), seconds=seconds, beat=beat, error=fault.error if fault else None
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
        """What a container was made to ``say``; followed until its pod has ended."""
        key = self._key(kinds.POD, namespace, pod)
        request = _request("get", key, "log")
        with self._answering("log", request):
            self._existing(request, key)
        since = datetime.fromisoformat(since_time) if since_time else None
        lines = self._said[key[1], pod, container or ""]
        chosen = [line for line in lines if since is None or line[0] >= since]
        at = len(lines)
        yield from _printed(chosen[max(0, len(chosen) - tail) :] if tail is not None else chosen, timestamps=timestamps)
        while follow and self._runs(key):
            if not (beat or self._due):
                return
            passed = self._let_pass(self.clock.monotonic() + (beat or math.inf))
            fresh, at = lines[at:], len(lines)
            if not passed and not beat:
                return
            if fresh or beat:
                yield b"".join(_printed(fresh, timestamps=timestamps))
        yield from _printed(lines[at:] if follow else (), timestamps=timestamps)

    def exec(
        self,
        pod: str,
        argv: Sequence[str],
        namespace: str | None = None,
        *,
        container: str | None = None,
        seconds: float = 10.0,
    ) -> ExecResult:
        """What ``command`` gives."""
        del container, seconds
        key = self._key(kinds.POD, namespace, pod)
        request = _request("create", key, "exec")
        with self._answering("exec", request):
            self._existing(request, key)
            return self.command(pod, tuple(argv))

    def allowed(
        self, verb: str, kind: Kind, namespace: str | None = None, *, subresource: str = "", name: str = ""
    ) -> bool | None:
        """Whether it is not among what is ``denied``."""
        request = _request(verb, self._key(kind, namespace, name), subresource)
        self._hear("allowed", request)
        fault = self._fault("allowed")
        if fault and fault.error:
            raise fault.error
        return (verb, request.resource) not in self.denied if self.reviews_access else None

    def version(self) -> str:
        """The version it was given."""
        with self._answering("version", Request(verb="get", kind=kinds.NAMESPACE)):
            return self.server_version

    def renew(self) -> None:
        """Count it."""
        self.renewals += 1

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # How it is done.

    @contextmanager
    def _answering(self, method: str, request: Request) -> Iterator[None]:
        self._hear(method, request)
        fault = self._fault(method)
        if fault and fault.error and not fault.after:
            raise fault.error
        self._admit(request)
        yield
        if fault and fault.error:
            raise fault.error

    def _hear(self, method: str, request: Request) -> None:
        if self.closed:
            raise RuntimeError(f"{method} was called on a closed cluster")
        self.asked.append((method, request))
        self._catch_up()

    def _fault(self, method: str) -> _Fault | None:
        waiting = self._faults[method]
        return waiting.popleft() if waiting else None

    def _admit(self, request: Request) -> None:
        if request.kind in self.unserved:
            raise refusal(request, 404, said="404 page not found")
        if (request.verb, request.resource) in self.denied:
            raise refusal(request, 403, reason="Forbidden", said=f"{request.resource} is forbidden")

    def _key(self, kind: Kind, namespace: str | None, name: str) -> _Key:
        return (kind, (namespace or self.namespace) if kind.namespaced else "", name)

    def _scope(self, kind: Kind, namespace: str | None) -> str | None:
        if not kind.namespaced or namespace == ALL_NAMESPACES:
            return None
        return namespace or self.namespace

    def _existing(self, request: Request, key: _Key) -> Object:
        if key in self._objects:
            return self._objects[key]
        raise refusal(request, 404, reason="NotFound", said=f'{request.kind.resource} "{key[2]}" not found')

    def _create(
        self,
        request: Request,
        body: Mapping[str, Any],
        *,
        dry_run: bool = False,
        with_status: bool = False,
        owner: str = _UPDATE,
    ) -> Object:
        made = copy.deepcopy(dict(body))
        meta = made.setdefault("metadata", {})
        kind = request.kind
        if not meta.get("name") and meta.get("generateName"):
            self._made += 1
            meta["name"] = f"{meta['generateName'][:58]}{self._made:05d}"
        key = self._key(kind, meta.get("namespace"), meta.get("name", ""))
        self._check_new(request, made, key)
        self._made += 1
        meta |= {"uid": f"00000000-0000-4000-8000-{self._made:012d}", "creationTimestamp": _stamp(self.clock.now())}
        meta |= {"namespace": key[1]} if kind.namespaced else {}
        if kind not in _WITHOUT_STATUS:
            meta["generation"] = 1
            if not with_status:
                made.pop("status", None)
        made = {"apiVersion": kind.api_version, "kind": kind.kind} | _encoded(made)
        if dry_run:
            return made
        self._owners[key] = {path: {owner} for path, _ in _leaves(key, made)}
        return self._store(key, made, ADDED)

    def _check_new(self, request: Request, made: Object, key: _Key) -> None:
        kind, namespace, name = key
        said = (made.get("apiVersion", kind.api_version), made.get("kind", kind.kind))
        if said != (kind.api_version, kind.kind):
            raise refusal(request, 400, reason="BadRequest", said=f"the object is a {said[0]} {said[1]}")
        if kind.namespaced and (kinds.NAMESPACE, "", namespace) not in self._objects:
            raise refusal(request, 404, reason="NotFound", said=f'namespaces "{namespace}" not found')
        if not _NAME.fullmatch(name):
            raise refusal(request, 422, reason="Invalid", said=f"metadata.name: Invalid value: {name!r}")
        if key in self._objects:
            raise refusal(request, 409, reason="AlreadyExists", said=f'{kind.resource} "{name}" already exists')

    def _change(self, key: _Key, wanted: Object, *, keep_status: bool, owner: str = _UPDATE) -> Object:
        """Store what an object is to become, without what a caller cannot change."""
        current = self._objects[key]
        meta = wanted["metadata"] = dict(wanted.get("metadata") or {})
        for field in _FIXED:
            meta.pop(field, None)
            if field in current["metadata"]:
                meta[field] = current["metadata"][field]
        if key[0] not in _WITHOUT_STATUS and keep_status:
            wanted.pop("status", None)
            if "status" in current:
                wanted["status"] = copy.deepcopy(current["status"])
        wanted = _encoded(wanted)
        if wanted == current:
            return copy.deepcopy(current)
        if "generation" in meta and _content(wanted) != _content(current):
            meta["generation"] += 1
        if owner == _UPDATE:
            self._take_over(key, current, wanted)
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            return self._remove(key, wanted)
        return self._store(key, wanted, MODIFIED)

    def _take_over(self, key: _Key, current: Object, wanted: Object) -> None:
        """Who changes a field by a patch owns it alone."""
        before, after = dict(_leaves(key, current)), dict(_leaves(key, wanted))
        known = self._owners[key]
        self._owners[key] = {
            path: known.get(path, {_UPDATE}) if path in before and before[path] == value else {_UPDATE}
            for path, value in after.items()
        }

    def _applied(
        self, request: Request, key: _Key, current: Object, body: Mapping[str, Any], *, dry_run: bool
    ) -> Object:
        before, fields = dict(_leaves(key, current)), dict(_leaves(key, _encoded(dict(body))))
        owners = {path: set(names) for path, names in self._owners[key].items()}
        for path, value in fields.items():
            if _UPDATE in owners.get(path, ()) and before.get(path) != value:
                said = f"conflict with another manager: .{'.'.join(path)}"
                raise refusal(request, 409, reason="Conflict", said=said)
            owners.setdefault(path, set()).add(_APPLY)
        wanted = copy.deepcopy(current)
        for path in [path for path, names in owners.items() if _APPLY in names and path not in fields]:
            owners[path].discard(_APPLY)
            if not owners[path]:
                del owners[path]
                _drop(wanted, path)
        for path, value in fields.items():
            _put(wanted, path, copy.deepcopy(value))
        if dry_run:
            return wanted
        self._owners[key] = owners
        return self._change(key, wanted, keep_status=True, owner=_APPLY)

    def _delete(self, key: _Key) -> None:
        doomed = copy.deepcopy(self._objects[key])
        meta = doomed["metadata"]
        if not meta.get("finalizers"):
            self._remove(key, doomed)
        elif "deletionTimestamp" not in meta:
            meta |= {"deletionTimestamp": _stamp(self.clock.now()), "deletionGracePeriodSeconds": 0}
            self._store(key, doomed, MODIFIED)

    def _remove(self, key: _Key, last: Object) -> Object:
        gone = self._store(key, last, DELETED)
        uids = {item["metadata"]["uid"] for item in self._objects.values()}
        for dependent in [other for other, item in self._objects.items() if _owned_by(item, gone["metadata"]["uid"])]:
            if dependent in self._objects and not any(_owned_by(self._objects[dependent], uid) for uid in uids):
                self._delete(dependent)
        return gone

    def _store(self, key: _Key, item: Object, event: str) -> Object:
        self._version += 1
        before = self._objects.get(key)
        item["metadata"]["resourceVersion"] = str(self._version)
        if event == DELETED:
            del self._objects[key], self._owners[key]
        else:
            self._objects[key] = item
        self._changes.append(_Change(self._version, key, event, copy.deepcopy(item), before))
        return copy.deepcopy(item)

    def _runs(self, pod: _Key) -> bool:
        phase = self._objects.get(pod, {}).get("status", {}).get("phase")
        return pod in self._objects and phase not in ("Succeeded", "Failed")

    def _let_pass(self, until: float) -> bool:
        """Wait until then, or until something has happened on the way; False where time did not pass."""
        began = self.clock.monotonic()
        self._pass_time(max(0.0, min([until, *(moment for moment, _ in self._due)]) - began))
        self._catch_up()
        return self.clock.monotonic() > began

    def _catch_up(self) -> None:
        while self._due and self._due[0][0] <= self.clock.monotonic():
            self._due.pop(0)[1]()


class InMemoryWatch:
    """The events of one watch."""

    def __init__(
        self,
        cluster: InMemoryCluster,
        wanted: Callable[[_Key, Object | None], bool],
        version: int,
        *,
        seconds: float,
        beat: float | None,
        error: KubernetesError | None,
    ) -> None:
        self.resource_version = str(version)
        self._cluster = cluster
        self._wanted = wanted
        self._seen = version
        self._ends = cluster.clock.monotonic() + seconds
        self._beat = beat
        self._error = error
        self._cuts = cluster._cuts  # noqa: SLF001 - two halves of one thing
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        clock = self._cluster.clock
        quiet_at = clock.monotonic() + (self._beat or math.inf)
        while not self._over and self._cuts == self._cluster._cuts:  # noqa: SLF001
            if (event := self._found()) is not None:
                return event
            if self._error is not None:
                self._over = True
                raise self._error
            if clock.monotonic() >= self._ends:
                break
            passed = self._cluster._let_pass(min(self._ends, quiet_at))  # noqa: SLF001
            if self._beat and (not passed or quiet_at <= clock.monotonic() < self._ends) and not self._has_more():
                return Event(QUIET, {})
            if not passed:
                break
        self._over = True
        raise StopIteration

    def close(self) -> None:
        """End it."""
        self._over = True

    def _has_more(self) -> bool:
        return self._seen < self._cluster._version  # noqa: SLF001

    def _found(self) -> Event | None:
        for change in self._cluster._changes:  # noqa: SLF001
            if change.version <= self._seen:
                continue
            self._seen = change.version
            self.resource_version = str(change.version)
            event = self._as_seen(change)
            if event is not None:
                return Event(event, copy.deepcopy(change.object))
        return None

    def _as_seen(self, change: _Change) -> str | None:
        """An object that loses what was asked for is gone, and one that gains it is new."""
        was, now = self._wanted(change.key, change.before), self._wanted(change.key, change.object)
        if change.type == DELETED:
            return DELETED if was else None
        if was and now:
            return MODIFIED
        return (ADDED if now else DELETED) if was is not now else None


def _request(verb: str, key: _Key, subresource: str = "") -> Request:
    return Request(verb=verb, kind=key[0], namespace=key[1], name=key[2], subresource=subresource)


def _meta(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return body.get("metadata") or {}


def _carries(item: Object, labels: Mapping[str, str] | None) -> bool:
    return (labels or {}).items() <= (item["metadata"].get("labels") or {}).items()


def _owned_by(item: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences") or ())


def _content(item: Object) -> Object:
    return {field: value for field, value in item.items() if field not in ("metadata", "status")}


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _encoded(item: Object) -> Object:
    """What a Secret is given in plain text is kept in base64."""
    if "stringData" in item:
        plain = item.pop("stringData") or {}
        item["data"] = (item.get("data") or {}) | {
            name: base64.b64encode(text.encode()).decode() for name, text in plain.items()
        }
    return item


def _leaves(key: _Key, item: Mapping[str, Any]) -> Iterator[tuple[_Path, Any]]:
    """What can be owned, field by field; a list is one field."""
    for path, value in _walk(item, ()):
        own = path[0] in ("apiVersion", "kind") or (path[0] == "metadata" and path[1:2] and path[1] in _FIXED)
        if not own and not (path[0] == "status" and key[0] not in _WITHOUT_STATUS):
            yield path, value


def _walk(value: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _walk(inner, (*path, name))
    elif path:
        yield path, value


def _put(item: Object, path: _Path, value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(item.get(name), dict):
            item[name] = {}
        item = item[name]
    item[path[-1]] = value


def _drop(item: Object, path: _Path) -> None:
    for name in path[:-1]:
        item = item.get(name, {})
    item.pop(path[-1], None)


def _printed(lines: Sequence[tuple[datetime, bytes]], *, timestamps: bool) -> Iterator[bytes]:
    for moment, line in lines:
        yield (f"{moment:%Y-%m-%dT%H:%M:%S.%f000Z} ".encode() if timestamps else b"") + line
