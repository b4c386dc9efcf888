from collections.abc import Generator, Iterable, Iterator
from typing import Any, cast

import pytest

from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import (
    Forbidden,
    Invalid,
    KubernetesError,
    NotFound,
    ServerFault,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.runners.pod_log import PodLog
from run_cycle_loop.testing import FakeClock

CUT = Unreachable("cut")
Script = Iterable[bytes | KubernetesError]


class Streams:
    """One script for each time the log is asked for: pieces, and how it breaks off; the last one repeats."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.renewals = 0

    def log(self, *_: Any, **__: Any) -> Generator[bytes, None, None]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        for piece in script:
            if isinstance(piece, KubernetesError):
                raise piece
            yield piece

    def renew(self) -> None:
        self.renewals += 1


class Pump:
    def __init__(self, *scripts: Script) -> None:
        self.clock = FakeClock()
        self.streams = Streams(*scripts)
        self.log = PodLog(cast("Cluster", self.streams), "pod", "here", container="c", clock=self.clock)
        self.printed = b""

    def take(self, data: bytes) -> None:
        self.printed += data

    def until_out(self, *, has_ended: bool = True, seconds: float = 200.0) -> bool:
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            if self.log.pump(self.take, has_ended=has_ended):
                return True
            self.clock.move(1.0)
        return False


@pytest.mark.parametrize(
    "scripts",
    [
        ([b"one\ntwo\n"],),
        ([b"one\n", CUT], [b"one\ntwo\n"]),
        ([b"on", CUT], [b"o", b"ne\ntw", ServerFault("500")], [b"one\ntwo\n"]),
        ([b"one\n", b"", b"two\n", CUT], [b"one\ntwo\n"]),
        ([Invalid("waiting to start")], [b"one\ntwo\n"]),
        ([b"one\n", Unauthorized("expired")], [b"one\ntwo\n"]),
        ([CUT], [CUT], [b"one\ntwo\n"]),
    ],
    ids=["whole", "cut", "cut in a line", "after silence", "early", "token", "twice"],
)
def test_each_byte_comes_once_whatever_happens_to_the_connection(scripts: tuple[Script, ...]) -> None:
    pump = Pump(*scripts)
    assert pump.until_out()
    assert (pump.printed, pump.log.trouble) == (b"one\ntwo\n", "")


def test_a_log_that_was_rotated_meanwhile_is_said() -> None:
    pump = Pump([b"one\ntwo\n", CUT], [b"six\nten\nlast\n"])
    assert pump.until_out()
    assert pump.printed == b"one\ntwo\nlast\n"
    assert "rotated" in pump.log.trouble


def test_an_output_that_ends_before_its_container_is_asked_for_again() -> None:
    pump = Pump([b"one\n"], [b"one\ntwo\n"])
    assert not pump.until_out(has_ended=False, seconds=20.0)
    assert pump.printed == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("scripts", "said"),
    [
        (([b"one\n", NotFound("no pod")],), "gone"),
        (([b"one\n", Forbidden("may not")],), "may not"),
        (([b"one\n", CUT], [CUT]), "cut"),
        (([b"one\n", Unauthorized("no")], [Unauthorized("no")]), "no"),
    ],
    ids=["gone", "forbidden", "silent", "no login"],
)
def test_what_cannot_be_had_is_given_up_and_said(scripts: tuple[Script, ...], said: str) -> None:
    pump = Pump(*scripts)
    assert pump.until_out()
    assert (pump.printed, said in pump.log.trouble) == (b"one\n", True)


def test_much_output_gives_others_their_turn() -> None:
    pump = Pump([b"x"] * 100)
    assert not pump.log.pump(lambda _: pump.clock.move(0.3), has_ended=True, seconds=1.0)


def test_a_stream_that_does_not_end_with_its_container_is_let_go() -> None:
    def for_ever() -> Iterator[bytes]:
        yield b"one\n"
        while True:
            yield b""

    pump = Pump(for_ever())
    assert pump.until_out(seconds=60.0)
    assert pump.printed == b"one\n"
    assert "was not seen to end" in pump.log.trouble


def test_a_log_that_is_shorter_after_a_rotation_is_said_and_gone_on_with() -> None:
    after = [b"new\n", *[b""] * 10, b"newer\n", b"newest\n"]
    pump = Pump([b"a long line of the first file\n", CUT], after)
    assert pump.until_out()
    assert b"newer\nnewest\n" in pump.printed
    assert "rotated" in pump.log.trouble
