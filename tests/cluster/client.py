"""Plain JSON over HTTPS to an API server: no client library, so that no test leans on the one under test."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

_TIMEOUT = 30.0  #: seconds, for all but watches
_PATCH = "application/merge-patch+json"


class ApiError(Exception):
    """The server refused; ``code`` is HTTP's, ``reason`` Kubernetes' own word."""

    def __init__(self, code: int, status: Mapping[str, Any]) -> None:
        self.code = code
        self.reason = str(status.get("reason", ""))
        self.message = str(status.get("message", ""))
        super().__init__(f"{code} {self.reason}: {self.message}")


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """What was deleted meanwhile, or made anew under the same name, is no error: an event tells of it."""
    try:
        yield
    except ApiError as error:
        if error.code not in {404, 409}:
            raise


class Client:
    """One user of one server. Each request has a connection of its own, so that threads may share a client."""

    def __init__(self, url: str, ca: Path, token: str) -> None:
        parts = urlsplit(url)
        self.url, self.ca, self.token = url, ca, token
        self._address = (parts.hostname or "", parts.port or 443)
        self._tls = ssl.create_default_context(cafile=str(ca))

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, None, **query)

    def list(self, path: str, **query: str) -> list[dict[str, Any]]:
        return list(self.request("GET", path, None, **query)["items"])

    def create(self, path: str, body: Mapping[str, Any], **query: str) -> Any:
        return self.request("POST", path, body, **query)

    def replace(self, path: str, body: Mapping[str, Any], **query: str) -> Any:
        return self.request("PUT", path, body, **query)

    def patch(self, path: str, body: Mapping[str, Any], **query: str) -> Any:
        return self.request("PATCH", path, body, **query)

    def delete(self, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        return self.request("DELETE", path, body, **query)

    def text(self, path: str, **query: str) -> str:
        """What is no JSON: logs.

        Raises:
            ApiError: the server refused.
        """
        connection = self._connect(_TIMEOUT)
        try:
            return self._answer(connection, "GET", path, None, query).read().decode()
        finally:
            connection.close()

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """The parsed answer.

        Raises:
            ApiError: the server refused.
        """
        connection = self._connect(_TIMEOUT)
        try:
            return json.loads(self._answer(connection, method, path, body, query).read())
        finally:
            connection.close()

    def lines(self, path: str, on_open: Callable[[socket.socket], None], **query: str) -> Iterator[bytes]:
        """An answer that goes on, line by line; ``on_open`` gets a socket whose shutdown ends it.

        Raises:
            ApiError: the server refused.
        """
        connection = self._connect(None)
        try:
            answer = self._answer(connection, "GET", path, None, query)
            with socket.socket(fileno=socket.dup(connection.sock.fileno())) as handle:
                on_open(handle)
                while line := answer.readline():
                    yield line
        except (OSError, http.client.HTTPException):
            return  # shut down by its owner, or lost: both are an end
        finally:
            connection.close()

    def _connect(self, timeout: float | None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self._address, timeout=timeout, context=self._tls)

    def _answer(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = _PATCH if method == "PATCH" else "application/json"
        target = f"{path}?{urlencode(query)}" if query else path
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status >= 400:
            raw = answer.read()
            try:
                status = json.loads(raw)
            except ValueError:
                status = {"message": raw.decode(errors="replace").strip()}
            raise ApiError(answer.status, status)
        return answer


class Watch:
    """Hands each object of a list, and each later change to one, to ``handle(kind of event, object)``, in a thread."""

    def __init__(self, client: Client, path: str, handle: Callable[[str, dict[str, Any]], None]) -> None:
        self._client, self._path, self._handle = client, path, handle
        self._closed = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; no event is handed on afterwards."""
        with self._lock:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it ended by itself just now
                    self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._follow()
            except ApiError as error:
                if error.code != 410:  # gone: what was missed is seen by listing again
                    raise
            except (OSError, http.client.HTTPException):
                return  # the server is gone, and with it what could be watched

    def _follow(self) -> None:
        listed = self._client.get(self._path)
        for item in listed["items"]:
            self._handle("ADDED", item)
        version = listed["metadata"]["resourceVersion"]
        for line in self._client.lines(self._path, self._opened, watch="true", resourceVersion=version):
            event = json.loads(line)
            if self._closed or event["type"] == "ERROR":
                break
            self._handle(event["type"], event["object"])
        with self._lock:
            self._socket = None

    def _opened(self, handle: socket.socket) -> None:
        with self._lock:
            self._socket = handle
            if self._closed:
                handle.shutdown(socket.SHUT_RDWR)
