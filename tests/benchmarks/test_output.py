"""A gibibyte of a child's output: throughput beside ``cat``, memory beside a cycle that prints nothing."""

import base64
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target
from tests.benchmarks.processes import Loop

pytestmark = pytest.mark.benchmark

ROUNDS = 3
TOTAL = 1 << 30
PIECE = 64 << 20
CANARIES = {
    "SERVICE_API_KEY": "canary-key-7d1f4b0a9c3e",
    "DB_PASSWORD": "canary-password-52aa",
    "ACCESS_TOKEN": "canary-token-0123456789abcdef0123456789abcdef",
}


THROUGHPUT = Target(of="ratio", least=0.5)
MEMORY = Target(of="excess", most=16)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Lines of 76 characters at random, 64 MiB of them."""
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(base64.encodebytes(os.urandom(PIECE * 3 // 4))[:PIECE])
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def telling_text(text: Path) -> Iterator[Path]:
    """The same with a secret in every mebibyte."""
    path = text.with_name("telling")
    secret = CANARIES["ACCESS_TOKEN"].encode()
    data = bytearray(text.read_bytes())
    for at in range(0, PIECE, 1 << 20):
        data[at : at + len(secret)] = secret
    path.write_bytes(data)
    yield path
    path.unlink()


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One cycle from outside."""

    seconds: float
    peak: float  #: MiB


def cycle(loop: Loop, *command: str) -> Seen:
    with loop.running("run", "--log-level", "error", "--max-log-bytes", "64MiB", "--", *command) as ours:
        peak = 0.0

        def look() -> None:
            nonlocal peak
            peak = max(peak, ours.memory("VmHWM"))

        seconds = ours.seconds_to_exit(lambda: None, meanwhile=look)
        assert ours.process.returncode == 0
    return Seen(seconds=seconds, peak=peak)


def test_a_gibibyte_of_output(bench: Bench, text: Path) -> None:
    compare(bench, text, "1 GiB of output")


def test_a_gibibyte_of_output_with_secrets(bench: Bench, telling_text: Path) -> None:
    assert b"[redacted]" in compare(bench, telling_text, "1 GiB of output, a secret in each MiB")


def compare(bench: Bench, text: Path, what: str) -> bytes:
    """Add the rows; the last log."""
    producer = ["cat", *[str(text)] * (TOTAL // PIECE)]
    loop, silent = bench.loop("ours", **CANARIES), bench.loop("silent", **CANARIES)
    taken = [(cycle(loop, *producer), cycle(silent, "true"), cat(bench, producer)) for _ in range(ROUNDS)]
    mibs = [1024 / (ours.seconds - start.seconds) for ours, start, _ in taken]
    bench.compare(what, "MiB/s", mibs, "cat > file", [1024 / seconds for *_, seconds in taken], THROUGHPUT)
    peaks, quiet = [ours.peak for ours, *_ in taken], [start.peak for _, start, _ in taken]
    bench.compare(f"{what}: peak memory", "MiB", peaks, "no output", quiet, MEMORY)
    return checked_log(loop)


def cat(bench: Bench, producer: list[str]) -> float:
    target = bench.folder / "cat"
    took = bench.seconds("sh", "-c", f"{shlex.join(producer)} | cat >{shlex.quote(str(target))}")
    assert target.stat().st_size == TOTAL
    target.unlink()
    return took


def checked_log(loop: Loop) -> bytes:
    assert loop.outcomes() == ["success"] * ROUNDS
    assert all(record["output_bytes"] == TOTAL for record in loop.records())
    kept = Path(loop.folder, loop.records()[-1]["log_path"]).read_bytes()
    assert b"bytes left out]" in kept
    assert len(kept) < (65 << 20)
    assert not any(secret.encode() in kept for secret in CANARIES.values())
    return kept
