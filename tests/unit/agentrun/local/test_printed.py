"""What attempts of this machine print: from which line on."""

from pathlib import Path

import pytest

from run_cycle_loop.agentrun.local.printed import printed
from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState, PodRow
from run_cycle_loop.agentrun.looking.output import Choice

LONG = b"".join(b"line %d\n" % number for number in range(30_000))  # several times what is read at once


def shown(folder: Path, text: bytes, tail: int | None) -> bytes:
    (folder / ".agent").mkdir()
    (folder / ".agent" / "runner.log").write_bytes(text)
    row = Attempt(
        job="demo",
        step="work",
        step_index=1,
        iteration=None,
        attempt=1,
        state=AttemptState.SUCCEEDED,
        started_at="",
        finished_at="",
        seconds=None,
        reason="",
        message="",
        pod=PodRow(name=str(folder), phase="", exit_code=0),
    )
    pieces = printed(
        lambda: ((row,), True), Choice(), follow=False, every=False, tail=tail, wait=lambda _seconds: False
    )
    return b"".join(piece.data for piece in pieces)


@pytest.mark.parametrize(
    ("text", "tail", "seen"),
    [
        (LONG, 3, b"line 29997\nline 29998\nline 29999\n"),
        (LONG, 20_000, LONG[LONG.index(b"line 10000\n") :]),
        (LONG, 0, b""),
        (LONG, 30_001, LONG),
        (LONG, None, LONG),
        (LONG + b"half", 2, b"line 29999\nhalf"),
        (b"one", 1, b"one"),
        (b"\n\n\n", 2, b"\n\n"),
        (b"", 5, b""),
    ],
)
def test_the_last_lines_of_a_log_are_shown(tmp_path: Path, text: bytes, tail: int | None, seen: bytes) -> None:
    assert shown(tmp_path, text, tail) == seen
