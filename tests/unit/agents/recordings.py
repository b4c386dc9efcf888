"""Recorded output of agents' command lines, played back to their readers."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.adapter import Adapter, AgentResult, Ended, Reader, Request
from run_cycle_loop.model.enums import AgentClass, Role

NOW = datetime(2026, 11, 25, 22, 30, tzinfo=UTC)
_RECORDED = Path(__file__).parent / "recorded"


def output(agent: str, case: str) -> bytes:
    """What an agent printed."""
    return (_RECORDED / agent / f"{case}.jsonl").read_bytes()


def request(scratch: Path, **asked: Any) -> Request:
    """A request for a session with this scratch folder."""
    given: Mapping[str, Any] = {"prompt": "Write hello.txt.", "workdir": scratch / "work", "scratch": scratch, **asked}
    return Request(**given)


def ended(
    exit_code: int | None = 0, *, signal: int | None = None, stopped: AgentClass | None = None, stderr: str = ""
) -> Ended:
    """The end of a process; one that a signal ended has no exit code."""
    code = None if signal is not None else exit_code
    return Ended(exit_code=code, signal=signal, stopped=stopped, stderr_tail=stderr, at=NOW)


def feed(reader: Reader, data: bytes, size: int = 997) -> Reader:
    """Give it the data in chunks that break anywhere."""
    for start in range(0, len(data), size):
        reader.feed("stdout", data[start : start + size])
    return reader


def play(adapter: Adapter, case: str, scratch: Path, end: Ended | None = None, **asked: Any) -> AgentResult:
    """What a recorded session comes to."""
    reader = feed(adapter.reader(request(scratch, **asked)), output(adapter.name, case))
    return reader.result(end or ended())


def twisted(data: bytes) -> Iterator[bytes]:
    """The same output, damaged in all the ways in which an event can be of another shape than expected."""
    for there, instead in ((b":{", b":[{"), (b'":"', b'":9,"x":"'), (b'":', b'":null,"x":'), (b'"type"', b'"kind"')):
        yield data.replace(there, instead)
        yield data.replace(there, instead, 5)
    for value in (b"[]", b"7", b"{}", b'"x"', b"null", b"true", b"-1", b"1e999", b"9" * 400):
        for key in (b"message", b"item", b"usage", b"error", b"content", b"text", b"id", b"type"):
            yield data.replace(b'"' + key + b'":', b'"' + key + b'":' + value + b',"x":')
    yield data[: len(data) // 2]
    yield data[len(data) // 2 :]


READ_ONLY: Mapping[str, Any] = {"role": Role.READ_ONLY}
