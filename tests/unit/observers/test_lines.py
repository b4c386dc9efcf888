import io
import os
from pathlib import Path

import pytest

from run_cycle_loop.observers.lines import LineWriter


def test_a_line_reaches_the_descriptor_without_a_flush(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        LineWriter(stream).write("one \udcff")
        assert (tmp_path / "out").read_bytes() == b"one \\udcff\n"


def test_a_stream_without_descriptor_is_written_to_as_it_is() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    writer.write("one")
    assert stream.getvalue() == "one\n"
    assert not writer.isatty()


def test_a_gone_reader_is_an_os_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, pytest.raises(BrokenPipeError):
        LineWriter(stream).write("one")


def test_a_full_device_is_an_os_error_and_leaves_nothing_for_the_interpreters_exit() -> None:
    with Path("/dev/full").open("w") as stream, pytest.raises(OSError, match="No space"):
        LineWriter(stream).write("one")
    # Leaving the block flushed and closed the stream: a buffered line would have raised there.


def test_a_pipe_that_nobody_empties_is_an_os_error_where_it_would_block() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(reader, "rb"), os.fdopen(writer, "w") as stream, pytest.raises(BlockingIOError):
        LineWriter(stream).write("x" * 1_000_000)


def test_a_stream_closed_behind_our_back_is_an_os_error() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    stream.close()
    with pytest.raises(OSError, match="closed"):
        writer.write("one")


def test_a_terminal_is_told_from_a_pipe() -> None:
    leader, follower = os.openpty()
    with os.fdopen(leader, "w"), os.fdopen(follower, "w") as terminal:
        assert LineWriter(terminal).isatty()


@pytest.mark.parametrize("line", ["x" * 1000, "x" * 200_000])
def test_a_terminal_that_nobody_reads_is_an_os_error_and_not_a_wait_for_ever(line: str) -> None:
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w") as terminal:
        writer = LineWriter(terminal)

        def fill() -> None:
            for _ in range(1000):
                writer.write(line)

        with pytest.raises(BlockingIOError):
            fill()


def test_the_terminals_own_descriptor_stays_as_the_shell_set_it() -> None:
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb") as screen, os.fdopen(follower, "w") as terminal:
        LineWriter(terminal).write("one")
        assert os.get_blocking(terminal.fileno())
        assert os.read(screen.fileno(), 100).strip() == b"one"
