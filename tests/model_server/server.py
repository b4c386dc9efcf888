"""A model server on this machine that follows a script, and keeps what it was asked."""

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.model_server.dialects import Completions, Dialect, Google, Messages, Responses, choose_call
from tests.model_server.script import Script, Turn

_SECRET = frozenset(("authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"))
_BODY_LIMIT = 64 * 1024 * 1024
#: What a program asks beside its work (a title, a summary) is answered at once and counts as no turn.
_ASIDE = Turn(text="A title")
_ROUTES: tuple[tuple[re.Pattern[str], Dialect], ...] = (
    (re.compile(r"/responses$"), Responses()),
    (re.compile(r"/chat/completions$"), Completions()),
    (re.compile(r"/v1/messages$"), Messages()),
    (re.compile(r"/models/[^/]+:(?:streamG|g)enerateContent$"), Google()),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One request, without the values of what it authorized itself with."""

    at: float  #: seconds since the server began
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any  #: parsed, where it is JSON; else its text
    turn: int | None  #: the number of the turn that answered it; None: it was asked aside

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("at", "method", "path", "turn", "headers", "body")}


class ModelServer:
    """The server while the ``with`` block lasts. One script serves one session; ``follow`` gives it another."""

    def __init__(self, *turns: Turn) -> None:
        self._lock = threading.Lock()
        self._script = Script.of(*turns)
        self._began = time.monotonic()
        self._asked: list[Asked] = []
        self._turns = 0
        self.closing = threading.Event()  #: lets go of whoever was left hanging
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[Asked]:
        """All requests so far."""
        with self._lock:
            return list(self._asked)

    @property
    def turns(self) -> list[Asked]:
        """The requests that were turns: of a program at its work."""
        return [asked for asked in self.asked if asked.turn is not None]

    def follow(self, script: Script) -> None:
        """Begin another session."""
        with self._lock:
            self._script, self._turns = script, 0
            self._asked.clear()

    def take(self, method: str, path: str, headers: Mapping[str, str], body: Any, *, works: bool) -> tuple[Turn, int]:
        """Record a request, and say with what it is answered."""
        kept = {key: "***" if key.lower() in _SECRET else value for key, value in headers.items()}
        with self._lock:
            turn, number = (self._script.turn(self._turns), self._turns) if works else (_ASIDE, None)
            self._turns += works
            at = round(time.monotonic() - self._began, 3)
            self._asked.append(Asked(at=at, method=method, path=path, headers=kept, body=body, turn=number))
            return turn, len(self._asked)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    model: ModelServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of programs that hang up; what a test looks at is what they did."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the inherited parameter
        """Nothing goes to the screen of the tests."""

    def do_HEAD(self) -> None:
        self._aside("HEAD", None)

    def do_GET(self) -> None:
        self._aside("GET", None)

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(min(size, _BODY_LIMIT))
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw.decode(errors="replace")
        path = self.path.partition("?")[0]
        for pattern, dialect in _ROUTES:
            if pattern.search(path) and isinstance(body, dict):
                self._work(dialect, path, body)
                return
        self._aside("POST", body)

    def _aside(self, method: str, body: Any) -> None:
        """What programs ask at their start: lists of models, counts of tokens, places to leave their events."""
        self.server.model.take(method, self.path, self._headers(), body, works=False)
        count = {"input_tokens": 10, "totalTokens": 10} if "oken" in self.path else {}
        listed = {"object": "list", "data": [], "models": []} if "models" in self.path and not count else {}
        self._send(200, json.dumps({**count, **listed}).encode())

    def _headers(self) -> dict[str, str]:
        return dict(self.headers.items())

    def _work(self, dialect: Dialect, path: str, body: Mapping[str, Any]) -> None:
        tools = dialect.tools(body)
        turn, serial = self.server.model.take("POST", self.path, self._headers(), body, works=bool(tools))
        named = re.search(r"/models/([^/:]+):", path)
        model = named[1] if named else str(body.get("model", "model"))
        if turn.status != 200:
            headers, error = dialect.error(turn, time.time())
            self._send(turn.status, json.dumps(error).encode(), headers)
        elif turn.fault == "hang":
            self._hang()
        elif turn.fault == "html":
            self._send(200, b"<html><body><h1>Welcome to the hotel network</h1></body></html>", kind="text/html")
        elif turn.fault == "empty":
            self._send(200, b"", kind="text/event-stream")
        elif body.get("stream") or "stream" in path:
            self._stream(turn, list(self._events(dialect, turn, tools, model, serial)))
        else:
            self._whole(dialect, turn, tools, model, serial)

    def _whole(
        self, dialect: Dialect, turn: Turn, tools: Mapping[str, Mapping[str, Any]], model: str, serial: int
    ) -> None:
        """Some programs ask again without a stream when a stream has failed; the fault is the same."""
        if turn.fault == "limit":
            headers, error = dialect.error(replace(turn, status=429), time.time())
            self._send(429, json.dumps(error).encode(), headers)
            return
        raw = json.dumps(dialect.answer(turn, choose_call(turn, tools), model, serial)).encode()
        half = raw[: len(raw) // 2]
        if turn.fault in {"reset", "stall"}:
            self._send(200, half, {"content-length": str(len(raw))})
            (self._hang if turn.fault == "stall" else self._reset)()
        else:
            self._send(200, half if turn.fault in {"cut", "broken"} else raw)

    def _events(
        self, dialect: Dialect, turn: Turn, tools: Mapping[str, Mapping[str, Any]], model: str, serial: int
    ) -> Iterator[str]:
        if turn.fault == "broken":
            yield 'data: {"type": "response.cre\n\n'
            yield "data: neither this\n\n"
            return
        events = list(dialect.events(turn, choose_call(turn, tools), model, serial))
        if turn.fault == "limit":
            yield from (events[0], dialect.limit())
        elif turn.fault in {"cut", "reset", "stall"}:
            yield from events[: len(events) // 2]
        else:
            yield from events

    def _stream(self, turn: Turn, events: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            raw = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
            self.wfile.flush()
            if turn.fault == "trickle":
                self.server.model.closing.wait(turn.pause)
        if turn.fault == "stall":
            self._hang()
        elif turn.fault == "reset":
            self._reset()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, raw: bytes, headers: Mapping[str, str] | None = None, kind: str = "") -> None:
        told = {"content-type": kind or "application/json", "content-length": str(len(raw)), **(headers or {})}
        self.send_response(status)
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _hang(self) -> None:
        self.close_connection = True
        self.server.model.closing.wait()

    def _reset(self) -> None:
        """End the connection so that the other side sees it broken, not closed."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
