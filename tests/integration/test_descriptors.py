"""Standard streams that are missing and descriptors that were left open, in a process of its own."""

import os
import subprocess
import sys

SETTLE = "import os, sys; from run_cycle_loop.kit import descriptors; descriptors.settle(); "


def run(code: str, shell: str = '"$@"') -> subprocess.CompletedProcess[bytes]:
    argv = ["sh", "-c", shell, "sh", sys.executable, "-c", SETTLE + code]
    return subprocess.run(argv, capture_output=True, check=True, timeout=30, env=dict(os.environ))


def test_missing_streams_lead_to_nowhere() -> None:
    code = "sys.stderr.write(repr([os.readlink(f'/proc/self/fd/{n}') for n in (0, 1)]))"
    assert run(code, '"$@" <&- >&-').stderr == b"['/dev/null', '/dev/null']"


def test_streams_that_are_there_stay_what_they_are() -> None:
    assert run("print('heard')").stdout == b"heard\n"


def test_a_descriptor_that_we_were_given_is_not_handed_on() -> None:
    code = "os.execvp('sh', ['sh', '-c', '[ -e /proc/self/fd/7 ] && echo open || echo closed'])"
    assert run(code, '"$@" 7</dev/null').stdout == b"closed\n"


def test_the_streams_that_were_opened_are_handed_on() -> None:
    code = "os.execvp('sh', ['sh', '-c', 'readlink /proc/self/fd/0'])"
    assert run(code, '"$@" <&-').stdout == b"/dev/null\n"
