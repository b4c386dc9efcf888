"""A server on loopback that answers as an API server may, badly: each request gets the next answer of a script."""

import base64
import hashlib
import json
import select
import socket
import ssl
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

_WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


class Handler(BaseHTTPRequestHandler):
    """One connection; an answer gets it whole."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Answers"

    def respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        asked = Asked(
            method=self.command,
            path=parts.path,
            query=parse_qs(parts.query),
            headers=dict(self.headers),
            body=self.rfile.read(length),
        )
        self.server.asked.append(asked)
        answer = self.server.script.popleft() if self.server.script else self.server.otherwise
        with suppress(OSError):  # whoever asked has gone away
            answer(self)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = respond  # noqa: N815 - the library's names

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def send(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> None:
        """The head of an answer that comes in pieces."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def cut(self) -> None:
        """End the connection in the middle."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


Answer = Callable[[Handler], None]


class Answers(ThreadingHTTPServer):
    """The server while its ``with`` block lasts."""

    daemon_threads = True

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: deque[Answer] = deque()
        self.otherwise: Answer = refused(404, "NotFound")
        self.asked: list[Asked] = []
        self.released = threading.Event()  #: ends what hangs
        self.open = 0  #: connections that nobody has closed yet
        self._changed = threading.Condition()
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate, certificate.with_suffix(".key"))

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.server_port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._count(1)
        try:
            if self._tls is not None:
                request.settimeout(10)
                with self._tls.wrap_socket(request, server_side=True) as wrapped:
                    wrapped.settimeout(None)
                    super().finish_request(wrapped, client_address)
            else:
                super().finish_request(request, client_address)
        except OSError:
            pass  # a client that does not trust us, or is gone
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._changed:
            self.open += step
            self._changed.notify_all()

    def becomes_idle(self, within: float = 10.0) -> bool:
        """Whether every connection is closed before so many seconds are over."""
        with self._changed:
            return self._changed.wait_for(lambda: self.open == 0, within)

    def then(self, *answers: Answer) -> Self:
        self.script.extend(answers)
        return self

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


def given(body: Mapping[str, Any], status: int = 200, **headers: str) -> Answer:
    return lambda handler: handler.send(status, json.dumps(body).encode(), **headers)


def plain(status: int, text: str, kind: str = "text/plain; charset=utf-8") -> Answer:
    return lambda handler: handler.send(status, text.encode(), kind)


def status(code: int, reason: str, message: str = "said the server", **details: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


def refused(code: int, reason: str, message: str = "said the server", **details: Any) -> Answer:
    return given(status(code, reason, message, **details), code)


def cut_off(handler: Handler) -> None:
    """No answer at all."""
    handler.cut()


def cut_short(handler: Handler) -> None:
    """Half of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"half": ')
    handler.cut()


def hang(handler: Handler) -> None:
    """Nothing, until whoever asked has gone away, or the test is over."""
    while not handler.server.released.is_set():
        readable, _, _ = select.select([handler.connection], [], [], 0.02)
        if readable and not handler.connection.recv(1):
            break
    handler.cut()


def dribble(handler: Handler) -> None:
    """A head that never ends, one byte at a time, so that no silence is ever long."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b"x")
        handler.wfile.flush()
    handler.cut()


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-Something\r\n\r\n")
    handler.cut()


def event(kind: str, name: str, version: int, **more: Any) -> bytes:
    item = {
        "kind": "ConfigMap",
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)},
        **more,
    }
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def stream(*pieces: bytes, then: str = "end") -> Answer:
    """Pieces, and then the end, a cut, or silence."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for data in pieces:
            handler.piece(data)
        if then == "end":
            handler.piece(b"")
        elif then == "cut":
            handler.cut()
        else:
            hang(handler)

    return answer


def executed(*messages: tuple[int, bytes], then: str = "close") -> Answer:
    """A websocket with what a command printed, by channel."""

    def answer(handler: Handler) -> None:
        key = handler.headers["Sec-WebSocket-Key"].encode()
        accepted = base64.b64encode(hashlib.sha1(key + _WEBSOCKET, usedforsecurity=False).digest())
        handler.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\nSec-WebSocket-Accept: " + accepted + b"\r\n\r\n"
        )
        for channel, data in messages:
            handler.wfile.write(_frame(bytes([channel]) + data))
        handler.wfile.flush()
        if then == "hang":
            hang(handler)
        handler.cut()

    return answer


def _frame(data: bytes) -> bytes:
    """One binary message, unmasked, as a server sends it."""
    if len(data) < 126:
        return bytes([0x82, len(data)]) + data
    return bytes([0x82, 126]) + len(data).to_bytes(2, "big") + data


def certificate(folder: Path, name: str = "server", host: str = "IP:127.0.0.1") -> Path:
    """A certificate that stands for itself, beside its key."""
    path = folder / f"{name}.crt"
    key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        str(path.with_suffix(".key")),
    ]
    about = ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={host}"]
    subprocess.run(["openssl", "req", "-x509", *key, *about, "-out", str(path)], check=True, capture_output=True)
    return path
