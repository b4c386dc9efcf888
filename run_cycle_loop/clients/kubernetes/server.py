"""A real API server, spoken to over HTTP; lightkube gives the authenticated connection and the websocket."""

import asyncio
import contextlib
import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, BinaryIO, Self, cast
from urllib.parse import quote

import httpx2
from lightkube.core.exceptions import ApiError
from lightkube.core.generic_client import BasicRequest
from lightkube.core.websocket import AsyncWebsocketDriver, unwrap_exception_group
from lightkube.types import PatchType

from run_cycle_loop.clients.kubernetes import answers, streams
from run_cycle_loop.clients.kubernetes.answers import Answer
from run_cycle_loop.clients.kubernetes.api import ALL_NAMESPACES, ExecResult, Listing, Object, Timeouts, Watching
from run_cycle_loop.clients.kubernetes.driving import Driver
from run_cycle_loop.clients.kubernetes.errors import (
    Expired,
    Forbidden,
    Invalid,
    KindNotServed,
    KubernetesError,
    NotFound,
    Unreachable,
)
from run_cycle_loop.clients.kubernetes.kinds import POD, Kind
from run_cycle_loop.clients.kubernetes.refusals import Request, refusal, require_labels, require_name

_LARGEST = 64 << 20  #: bytes of one answer
_EXEC_OUTPUT = 4 << 20  #: bytes of what a command in a container prints
_LEAST = 0.5  #: seconds that a call gets, however little is left
_PAGE = 500  #: objects in one answer
_ACCESS_REVIEW = Kind(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False
)
_VERSION = Kind("", "", "version", "version", namespaced=False)
_JSON = "application/json"

Connect = Callable[[], httpx2.AsyncClient]


class ApiServer:
    """The cluster at the other end of a connection. For one thread, and not from within an asyncio loop."""

    def __init__(
        self, connect: Connect, *, namespace: str, field_manager: str, timeouts: Timeouts, alarm: int | None = None
    ) -> None:
        """Connect, without asking anything yet.

        Args:
            connect: gives a client by what the configuration says now.
            namespace: the default one.
            field_manager: whose changes ours are.
            timeouts: of what is no silence but a fault.
            alarm: a descriptor; a call in which it becomes readable is given up, as if nobody had answered.
        """
        self.namespace = namespace
        self._connect = connect
        self._manager = field_manager
        self._timeouts = timeouts
        self._driver = Driver(alarm)
        self._longest = timeouts.call
        try:
            self._client = connect()
        except BaseException:
            self._driver.close()
            raise

    def renew(self) -> None:
        """Read the configuration and the credentials again; what is being watched is cut.

        Raises:
            ConfigError: it is no longer one.
        """
        fresh = self._connect()
        self._let_go()
        self._client = fresh

    def limit(self, seconds: float | None) -> None:
        """Let no call take longer, until this is said again."""
        usual = self._timeouts.call
        self._longest = usual if seconds is None else max(_LEAST, min(usual, seconds))

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """One object; None where there is none."""
        request = self._request("get", kind, namespace, name)
        try:
            return self._ask(request, "GET", self._path(request))
        except KindNotServed:
            raise
        except NotFound:
            return None

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
    ) -> Listing:
        """All objects of a kind that carry these labels."""
        request = self._request("list", kind, namespace, name or "")
        parameters = _selected(request, labels, name)
        try:
            return self._listed(request, parameters)
        except Expired:  # it changed too much between two pages
            return self._listed(request, parameters)

    def create(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Make an object."""
        whole = self._complete(kind, body)
        meta = whole["metadata"]
        request = self._request("create", kind, meta.get("namespace"), meta.get("name") or "")
        path = self._path(request, with_name=False)
        return self._ask(request, "POST", path, self._writing(dry_run=dry_run), whole)

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
        request = self._request("patch", kind, namespace, name, subresource or "")
        try:
            return self._ask(request, "PATCH", self._path(request), self._writing(), body, PatchType.MERGE.value)
        except Invalid as error:
            # What a delete calls a conflict, the server calls an immutable field here.
            if all(cause.field != "metadata.uid" for cause in error.causes):
                raise
            raise refusal(request, 409, reason="Conflict", said="there is another object of this name") from error

    def apply(self, kind: Kind, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Let an object have these fields."""
        whole = self._complete(kind, body)
        meta = whole["metadata"]
        request = self._request("patch", kind, meta.get("namespace"), meta.get("name") or "")
        parameters = self._writing(dry_run=dry_run)
        return self._ask(request, "PATCH", self._path(request), parameters, whole, PatchType.APPLY.value)

    def delete(self, kind: Kind, name: str, namespace: str | None = None, *, uid: str | None = None) -> bool:
        """Have an object deleted; False where it was not there."""
        request = self._request("delete", kind, namespace, name)
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            self._ask(request, "DELETE", self._path(request), None, options)
        except KindNotServed:
            raise
        except NotFound:
            return False
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
    ) -> Watching:
        """What becomes of the objects of a kind after a version."""
        request = self._request("watch", kind, namespace, name or "")
        parameters = _selected(request, labels, name) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, math.ceil(seconds))),
        }
        return streams.WatchStream(
            self._driver,
            self._opening(self._path(request, with_name=False), parameters, silence=None, within=self._timeouts.read),
            request,
            self._server,
            version=resource_version,
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
        """What a container printed."""
        request = self._request("get", POD, namespace, pod, "log")
        wanted = {
            "container": container,
            "follow": "true" if follow else None,
            "tailLines": None if tail is None else str(tail),
            "sinceTime": since_time,
            "timestamps": "true" if timestamps else None,
        }
        parameters = {name: value for name, value in wanted.items() if value is not None}
        # A server that follows a silent container may not even send the headers before it speaks.
        opening = self._opening(self._path(request), parameters, silence=None if follow else self._timeouts.read)
        return streams.log_stream(self._driver, opening, request, self._server, beat=beat)

    def exec(
        self,
        pod: str,
        argv: Sequence[str],
        namespace: str | None = None,
        *,
        container: str | None = None,
        seconds: float = 10.0,
    ) -> ExecResult:
        """Run a command in a container."""
        request = self._request("create", POD, namespace, pod, "exec")
        parameters: dict[str, Any] = {"command": [*argv], "stdout": "true", "stderr": "true"}
        if container is not None:
            parameters["container"] = container
        out, said = _Bounded(), _Bounded()
        asked = BasicRequest(method="GET", url=self._path(request), params=parameters)

        async def run() -> int | None:
            driver = AsyncWebsocketDriver(self._client, asked, timeout=seconds)
            response = await driver.write_and_read(stdout=cast("BinaryIO", out), stderr=cast("BinaryIO", said))
            return response.exit_code

        try:
            code = self._driver.run(run(), within=seconds + self._timeouts.connect)
        except Exception as error:  # noqa: BLE001 - a websocket has many ends, and a group of them is one more
            raise self._not_run(request, unwrap_exception_group(error), seconds) from None
        return ExecResult(bytes(out.data), code, bytes(said.data))

    def allowed(
        self, verb: str, kind: Kind, namespace: str | None = None, *, subresource: str = "", name: str = ""
    ) -> bool | None:
        """Whether we may do this, by what the server says."""
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural}
        where = (namespace or self.namespace) if kind.namespaced and namespace != ALL_NAMESPACES else ""
        more = {"namespace": where, "subresource": subresource, "name": name}
        attributes |= {field: value for field, value in more.items() if value}
        body = self._complete(_ACCESS_REVIEW, {"spec": {"resourceAttributes": attributes}})
        request = Request(verb="create", kind=_ACCESS_REVIEW)
        try:
            answer = self._ask(request, "POST", self._path(request), None, body)
        except (Forbidden, NotFound):
            return None
        status = answer.get("status")
        if not isinstance(status, dict) or not isinstance(status.get("allowed"), bool):
            return None
        unsure = not status["allowed"] and bool(status.get("evaluationError"))
        return None if unsure else status["allowed"]

    def version(self) -> str:
        """The server's version."""
        request = Request(verb="get", kind=_VERSION)
        found = self._ask(request, "GET", "version").get("gitVersion")
        return found if isinstance(found, str) else ""

    def close(self) -> None:
        """Let go of every connection."""
        if not self._driver.is_closed:
            self._let_go()
            self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _let_go(self) -> None:
        with contextlib.suppress(httpx2.HTTPError, OSError, TimeoutError):
            self._driver.run(self._client.aclose(), within=self._timeouts.connect)

    @property
    def _server(self) -> str:
        url = self._client.base_url
        return f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"

    def _request(self, verb: str, kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> Request:
        where = (namespace or self.namespace) if kind.namespaced and namespace != ALL_NAMESPACES else ""
        return Request(verb=verb, kind=kind, namespace=where, name=name, subresource=subresource)

    def _path(self, request: Request, *, with_name: bool = True) -> str:
        kind = request.kind
        parts = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
        if request.namespace:
            parts += ["namespaces", _segment(request, request.namespace)]
        parts.append(kind.plural)
        if (with_name and request.verb not in ("list", "create")) or request.subresource:
            parts.append(_segment(request, request.name))
        if request.subresource:
            parts.append(_segment(request, request.subresource))
        return "/".join(parts)

    def _complete(self, kind: Kind, body: Mapping[str, Any]) -> Object:
        """A body with what it may leave out: its kind, and the namespace of an object that lives in one."""
        meta = dict(body.get("metadata") or {})
        if kind.namespaced:
            meta["namespace"] = meta.get("namespace") or self.namespace
        return {"apiVersion": kind.api_version, "kind": kind.kind, **body, "metadata": meta}

    def _writing(self, *, dry_run: bool = False) -> dict[str, str]:
        return {"fieldManager": self._manager} | ({"dryRun": "All"} if dry_run else {})

    def _ask(
        self,
        request: Request,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = _JSON,
    ) -> Object:
        """One call, and the object that answers it."""
        return answers.as_object(request, self._answer(request, method, path, parameters, body, content))

    def _answer(
        self,
        request: Request,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content: str,
    ) -> Answer:
        try:
            sending = self._client.build_request(
                method,
                path,
                params=dict(parameters or {}),
                content=None if body is None else json.dumps(body).encode(),
                headers={"Accept": _JSON} | ({} if body is None else {"Content-Type": content}),
            )
            return self._driver.run(self._exchange(sending), within=self._longest, heeding=True)
        except answers.FAULTS as error:
            raise answers.unanswered(request, error, self._server) from None

    async def _exchange(self, sending: httpx2.Request) -> Answer:
        response = await self._client.send(sending, stream=True)
        try:
            body = await streams.read(response, _LARGEST)
        finally:
            await response.aclose()
        return Answer(status=response.status_code, headers=response.headers, body=body)

    def _opening(
        self, path: str, parameters: Mapping[str, str], *, silence: float | None, within: float | None = None
    ) -> streams.Open:
        timeout = httpx2.Timeout(
            self._timeouts.read, connect=self._timeouts.connect, pool=self._timeouts.connect, read=silence
        )

        async def opening() -> httpx2.Response:
            sending = self._client.build_request(
                "GET",
                path,
                params=dict(parameters),
                headers={"Accept": f"{_JSON}, */*", "Accept-Encoding": "identity"},
                timeout=timeout,
            )
            async with asyncio.timeout(within):
                return await self._client.send(sending, stream=True)

        return opening

    def _listed(self, request: Request, parameters: Mapping[str, str]) -> Listing:
        items: list[Object] = []
        page: dict[str, str] = {"limit": str(_PAGE)}
        while True:
            found = self._ask(request, "GET", self._path(request), {**parameters, **page})
            meta = found.get("metadata") or {}
            # The items of a list do not say what they are, objects of their own do.
            named = {"apiVersion": request.kind.api_version, "kind": request.kind.kind}
            items += [named | item for item in found.get("items") or ()]
            if not meta.get("continue"):
                return Listing(tuple(items), str(meta.get("resourceVersion", "")))
            page["continue"] = meta["continue"]

    def _not_run(self, request: Request, error: BaseException, seconds: float) -> KubernetesError:
        refused = getattr(error, "response", None)
        if isinstance(error, ApiError):
            status = error.status.to_dict()
            return answers.from_status(request, status)
        if isinstance(refused, httpx2.Response):
            # Its body was not read; but pods are always served, so that only the object can be missing.
            return refusal(request, refused.status_code, reason="NotFound" if refused.status_code == 404 else "")
        if isinstance(error, httpx2.ReadTimeout | TimeoutError):
            return Unreachable(f"cannot {request}: the command was not done after {seconds:g} s; give it more time")
        if isinstance(error, answers.FAULTS):
            return answers.unanswered(request, error, self._server)
        return Unreachable(f"cannot {request}: the connection to {self._server} was cut; ask again")


class _Bounded:
    """Takes output up to a limit, and forgets the rest."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, piece: bytes) -> None:
        self.data += piece[: _EXEC_OUTPUT - len(self.data)]


def _segment(request: Request, name: str) -> str:
    return quote(require_name(request, name), safe="")


def _selected(request: Request, labels: Mapping[str, str] | None, name: str | None) -> dict[str, str]:
    conditions = [f"{key}={value}" for key, value in require_labels(request, labels).items()]
    chosen = {"labelSelector": ",".join(conditions)} if conditions else {}
    return chosen | ({"fieldSelector": f"metadata.name={_segment(request, name)}"} if name is not None else {})
