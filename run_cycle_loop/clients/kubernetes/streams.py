"""Answers that come in pieces, for as long as somebody listens: read with a beat, and closed without anything left."""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Self

import httpx2

from run_cycle_loop.clients.kubernetes import answers
from run_cycle_loop.clients.kubernetes.answers import Answer
from run_cycle_loop.clients.kubernetes.api import QUIET, Event
from run_cycle_loop.clients.kubernetes.driving import Driver
from run_cycle_loop.clients.kubernetes.errors import ServerFault
from run_cycle_loop.clients.kubernetes.refusals import Request

_LONGEST_LINE = 16 << 20  #: bytes; an object has 1.5 MiB at most, and JSON can blow it up six times
_REFUSAL = 1 << 20  #: bytes read of an answer that is an error
_CLOSING = 5.0  #: seconds
_EVENTS = frozenset({"ADDED", "MODIFIED", "DELETED"})

Open = Callable[[], Awaitable[httpx2.Response]]


class Pieces:
    """The body of one answer, piece by piece."""

    def __init__(self, driver: Driver, opening: Open, request: Request, server: str) -> None:
        self._driver = driver
        self._request = request
        self._server = server
        self._response: httpx2.Response | None = None
        self._reading = driver.begin(self._open(opening))
        self._chunks: Any = None

    def take(self, seconds: float | None) -> bytes | None:
        """The next piece; an empty one at the end, None where there is none within so many seconds.

        Raises:
            KubernetesError: the server refuses.
            httpx2.TransportError: the connection was lost in the middle.
        """
        if not self._driver.attend(self._reading, seconds):
            return None
        try:
            piece = self._reading.result()
        except httpx2.TransportError as error:
            if self._chunks is not None:
                raise
            raise answers.unanswered(self._request, error, self._server) from None
        except answers.FAULTS as error:
            raise answers.unanswered(self._request, error, self._server) from None
        if piece:
            self._reading = self._driver.begin(self._read())
        return piece

    def close(self) -> None:
        """Let go of the connection."""
        self._driver.abandon(self._reading)
        if self._response is not None and not self._driver.is_closed:
            with contextlib.suppress(httpx2.HTTPError, OSError, TimeoutError):
                self._driver.run(self._response.aclose(), within=_CLOSING)

    async def _open(self, opening: Open) -> bytes:
        self._response = response = await opening()
        _keep_alive(response)
        if response.status_code != 200:
            body = await read(response, _REFUSAL)
            answer = Answer(status=response.status_code, headers=response.headers, body=body)
            raise answers.refused(self._request, answer)
        self._chunks = response.aiter_bytes()
        return await self._read()

    async def _read(self) -> bytes:
        async for piece in self._chunks:
            if piece:
                return bytes(piece)
        return b""


async def read(response: httpx2.Response, limit: int) -> bytes:
    """A whole body.

    Raises:
        TooLargeError: it is beyond the limit, in bytes.
    """
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > limit:
            raise answers.TooLargeError(f"answers with more than {limit >> 20} MiB")
    return bytes(body)


def _keep_alive(response: httpx2.Response) -> None:
    """Let the kernel notice, within some 35 s, that nobody is at the other end of a silent stream any more."""
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if connection is None:
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class _Version:
    """How far a watch has come."""

    def __init__(self, number: str) -> None:
        self.number = number


class WatchStream:
    """The events of one watch; its connection is closed when it ends, is closed or is dropped."""

    def __init__(
        self,
        driver: Driver,
        opening: Open,
        request: Request,
        server: str,
        *,
        version: str,
        seconds: float,
        beat: float | None,
    ) -> None:
        # The generator knows the version's holder and not this object, so that dropping this drops it at once.
        self._version = _Version(version)
        self._events = _events(
            driver,
            lambda: Pieces(driver, opening, request, server),
            request,
            self._version,
            until=driver.monotonic() + seconds,
            beat=beat,
        )

    @property
    def resource_version(self) -> str:
        """To watch from again."""
        return self._version.number

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """End it."""
        self._events.close()


def _events(
    driver: Driver,
    begin: Callable[[], Pieces],
    request: Request,
    version: _Version,
    *,
    until: float,
    beat: float | None,
) -> Generator[Event, None, None]:
    pieces = begin()
    line = bytearray()
    heard = driver.monotonic()  # since when whoever listens has had no turn
    try:
        while (left := until - driver.monotonic()) > 0:
            try:
                piece = pieces.take(left if beat is None else min(beat, left))
            except httpx2.TransportError:
                return  # the connection is lost; whoever listens goes on from the version
            if piece == b"":
                return
            line += piece or b""
            *whole, rest = line.split(b"\n")
            for one in whole:
                if (event := _event(request, bytes(one), version)) is not None:
                    yield event
                    heard = driver.monotonic()
            line = bytearray(rest)
            if len(line) > _LONGEST_LINE:
                raise ServerFault(f"cannot {request}: an event has more than {_LONGEST_LINE >> 20} MiB; ask for less")
            # Bookmarks without an end, and a line that dribbles, are no event either.
            if beat is not None and (piece is None or driver.monotonic() - heard >= beat):
                yield Event(QUIET, {})
                heard = driver.monotonic()
    finally:
        pieces.close()


def _event(request: Request, line: bytes, version: _Version) -> Event | None:
    if not line.strip():
        return None
    found = answers.parsed(request, line)
    kind, item = found.get("type"), found.get("object")
    if not isinstance(item, dict):
        raise ServerFault(f"cannot {request}: an event has no object; check what stands between the server and us")
    if kind == "ERROR":
        raise answers.from_status(request, item)
    meta = item.get("metadata")
    number = meta.get("resourceVersion") if isinstance(meta, dict) else None
    if not isinstance(number, str) or not number:
        raise ServerFault(f"cannot {request}: an event has no version; check what stands between the server and us")
    version.number = number
    return Event(kind, item) if kind in _EVENTS else None


def log_stream(
    driver: Driver, opening: Open, request: Request, server: str, *, beat: float | None
) -> Generator[bytes, None, None]:
    """What a container prints, with an empty piece at each beat without any.

    Raises:
        Unreachable: the connection was lost: there may be more to come.
    """
    pieces = Pieces(driver, opening, request, server)
    try:
        while True:
            try:
                piece = pieces.take(beat)
            except httpx2.TransportError as error:
                raise answers.unanswered(request, error, server) from None
            if piece == b"":
                return
            yield piece or b""
    finally:
        pieces.close()
