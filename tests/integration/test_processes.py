"""One real child and all that it starts, from launch to the last of them."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.kit import descriptors, process_table
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.kit.process_tree import ProcessTree
from run_cycle_loop.kit.processes import Demand, EndedBy, Exit, Launched, LaunchError, Limits, supervise

pytestmark = pytest.mark.usefixtures("adopting")

ENV = {"PATH": os.environ["PATH"]}


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


class Run:
    """One supervised command, what it printed and what became known of it."""

    def __init__(self, argv: Sequence[str], env: dict[str, str] = ENV, pulse: Any = None, **limits: Any) -> None:
        self.output = {"stdout": b"", "stderr": b""}
        self.launched: list[Launched] = []
        self.exit: Exit = supervise(
            argv,
            env,
            limits=Limits(**{"timeout": 30.0, "grace": 0.2} | limits),
            output=self._take,
            pulse=pulse,
            launched=self.launched.append,
        )

    def _take(self, stream: str, chunk: memoryview) -> None:
        self.output[stream] += chunk

    @property
    def pids(self) -> list[int]:
        """The numbers that the command printed."""
        return [int(word) for word in self.output["stdout"].split()]


class Pulse:
    """Demands something after so many beats; readable all the time, so that it is never waited for."""

    def __init__(self, *demands: Demand) -> None:
        self._demands = list(demands)
        self._read, self._write = os.pipe()
        os.write(self._write, b"x")

    def fileno(self) -> int:
        return self._read

    def beat(self) -> Demand:
        return self._demands.pop(0) if len(self._demands) > 1 else self._demands[0]

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Patient(Run):
    """Demands an end once the command is up, and a harder one once it was heard."""

    def __init__(self, argv: Sequence[str], **limits: Any) -> None:
        self._read, self._write = os.pipe()
        super().__init__(argv, pulse=self, **limits)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def beat(self) -> Demand:
        if b"heard" in self.output["stdout"]:
            return Demand.KILL
        return Demand.TERMINATE if b"up" in self.output["stdout"] else Demand.NOTHING


def is_gone(pid: int) -> bool:
    return process_table.identify(pid) is None


# How it ends


@pytest.mark.parametrize("code", [0, 1, 2, 124, 126, 127, 137, 255])
def test_an_exit_code_is_kept(code: int) -> None:
    exit_ = Run(shell(f"exit {code}")).exit
    assert (exit_.ended_by, exit_.exit_code, exit_.signal) == (EndedBy.ITSELF, code, None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP, signal.SIGPIPE])
def test_a_signal_is_kept(number: signal.Signals) -> None:
    exit_ = Run(shell(f"kill -{number.name[3:]} $$")).exit
    assert (exit_.ended_by, exit_.exit_code, exit_.signal) == (EndedBy.ITSELF, None, number)


def test_what_runs_too_long_is_asked_to_end() -> None:
    run = Run(shell("trap 'echo heard; exit 3' TERM; while :; do sleep 0.01; done"), timeout=0.3, grace=20.0)
    assert (run.exit.ended_by, run.exit.exit_code, run.output["stdout"]) == (EndedBy.DEADLINE, 3, b"heard\n")


def test_what_does_not_listen_is_killed() -> None:
    exit_ = Run(shell("trap '' TERM; while :; do sleep 1; done"), timeout=0.2, grace=0.1).exit
    assert (exit_.ended_by, exit_.signal, exit_.survivors) == (EndedBy.DEADLINE, signal.SIGKILL, ())


def test_what_stopped_itself_is_woken_to_hear_it() -> None:
    run = Run(shell("trap 'echo heard; exit 0' TERM; kill -STOP $$"), timeout=0.2, grace=20.0)
    assert run.output["stdout"] == b"heard\n"


def test_silence_is_its_own_ending_and_output_puts_it_off() -> None:
    chatty = "import time\nfor _ in range(20): print(flush=True); time.sleep(0.05)\ntime.sleep(60)"
    run = Run(python(chatty), idle_timeout=0.5)
    assert run.exit.ended_by is EndedBy.SILENCE
    assert run.output["stdout"].count(b"\n") == 20


def test_a_demand_ends_it() -> None:
    pulse = Pulse(Demand.NOTHING, Demand.TERMINATE)
    exit_ = Run(["sleep", "60"], pulse=pulse, grace=30.0).exit
    pulse.close()
    assert (exit_.ended_by, exit_.signal) == (EndedBy.DEMAND, signal.SIGTERM)


def test_a_demand_that_hardens_does_not_wait_for_the_grace() -> None:
    run = Patient(shell("trap 'echo heard' TERM; echo up; while :; do sleep 0.01; done"), grace=600.0)
    assert run.output["stdout"].startswith(b"up\nheard\n")
    assert (run.exit.ended_by, run.exit.signal) == (EndedBy.DEMAND, signal.SIGKILL)


# What it starts


def test_a_background_child_that_holds_the_output_holds_nothing_up() -> None:
    run = Run(shell("sleep 600 & echo $!"))
    assert (run.exit.ended_by, run.exit.exit_code, run.exit.leftovers) == (EndedBy.ITSELF, 0, 1)
    assert all(map(is_gone, run.pids))


def test_a_background_child_may_say_its_last_words_within_the_grace(tmp_path: Path) -> None:
    late = f"trap 'echo last words; exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.01; done"
    run = Run(shell(f'sh -c "{late}" & until [ -e {tmp_path}/up ]; do sleep 0.01; done'), grace=20.0)
    assert run.output["stdout"] == b"last words\n"


ESCAPES = {
    "child": "sleep 600 & echo $!; wait",
    "own group": "set -m; sleep 600 & echo $!; wait",
    "own session": "setsid sh -c 'echo $$; exec sleep 600' & wait",
    "double fork": "(setsid sh -c 'echo $$; exec sleep 600' &); sleep 600",
    "tree": "for n in 1 2 3; do sh -c 'echo $$; sleep 600 & echo $!; wait' & done; wait",
}


@pytest.mark.parametrize("script", ESCAPES.values(), ids=ESCAPES)
def test_none_of_its_processes_is_left(script: str) -> None:
    run = Run(shell(f"{script}"), timeout=0.5)
    assert run.pids
    assert [pid for pid in run.pids if not is_gone(pid)] == []
    assert run.exit.survivors == ()


def test_a_tree_that_forks_faster_than_it_is_killed_is_frozen_first() -> None:
    bomb = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 20
while time.monotonic() < end:
    if os.fork():
        time.sleep(0.002)
        os._exit(0)
    os.setsid()
"""
    exit_ = Run(python(bomb), timeout=0.3, grace=0.05).exit
    assert exit_.survivors == ()


def test_the_tests_own_children_are_strangers_to_it() -> None:
    own = os.posix_spawn("/bin/sleep", ["sleep", "600"], ENV)
    try:
        Run(shell("sleep 600 &"))
        assert not is_gone(own)
    finally:
        os.kill(own, signal.SIGKILL)
        os.waitpid(own, 0)


# What it is given


def test_its_input_is_empty_its_session_its_own_and_its_descriptors_three() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)  # noqa: FBT003 - the signature is the standard library's
    descriptors.settle()
    code = (
        "import os, sys; print(sys.stdin.read() == '', os.getsid(0) == os.getpid(), len(os.listdir('/proc/self/fd')))"
    )
    run = Run(python(code))
    os.close(read)
    os.close(write)
    assert run.output["stdout"] == b"True True 4\n"  # the fourth one lists the folder


def test_dispositions_and_mask_are_the_defaults_whatever_ours_are() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        exit_ = Run(shell("kill -TERM $$; exit 0")).exit
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGTERM, before)
    assert exit_.signal == signal.SIGTERM


def test_only_the_given_environment_is_there() -> None:
    assert Run(["env"], {"PATH": ENV["PATH"], "ONLY": "this"}).output["stdout"].splitlines()[-1:] == [b"ONLY=this"]


def test_it_is_named_while_it_runs() -> None:
    run = Run(shell("echo $$; readlink /proc/$$/fd/2 >&2"))
    launched = run.launched[0]
    assert [launched.pid] == run.pids
    assert launched.start_ticks is not None
    assert run.output["stderr"] == f"pipe:[{launched.pipe_inodes[1]}]\n".encode()


def test_it_can_be_fed_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("fed")
    fed = bytearray()
    ended = supervise(
        ["cat"],
        ENV,
        limits=Limits(timeout=30.0),
        output=lambda _stream, chunk: fed.extend(chunk),
        stdin=tmp_path / "in",
    )
    assert (ended.exit_code, bytes(fed)) == (0, b"fed")


def test_a_file_that_is_not_there_to_be_fed_is_not_taken_for_the_command(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"standard input '.*/none' cannot be read") as caught:
        supervise(["cat"], ENV, limits=Limits(), output=lambda _stream, _chunk: None, stdin=tmp_path / "none")
    assert caught.value.exit_code == 126


# What it prints


def test_the_streams_are_kept_apart_and_nothing_is_lost() -> None:
    code = "import os\nfor _ in range(50): os.write(1, b'o' * 100_000); os.write(2, b'e' * 1000)"
    run = Run(python(code))
    assert (run.output["stdout"], run.output["stderr"]) == (b"o" * 5_000_000, b"e" * 50_000)
    assert run.exit.output_bytes == 5_050_000


def test_the_last_output_before_an_end_is_kept() -> None:
    assert Run(python("import os; os.write(1, b'x' * 60_000); os._exit(9)")).output["stdout"] == b"x" * 60_000


# What cannot be started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content, mode in [
        ("plain", "#!/bin/sh\n", 0o644),
        ("bad-interpreter", "#!/no/such/interpreter\n", 0o755),
        ("no-shebang", "echo\n", 0o755),
    ]:
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("missing", 127, "does not exist; name one that does"),
        ("plain", 126, "may not be executed; chmod"),
        ("bad-interpreter", 126, "names an interpreter in its first line that does not exist"),
        ("no-shebang", 126, "has no #! line; give it one"),
        ("", 126, "may not be executed"),
    ],
)
def test_what_cannot_be_started_says_why(folder: Path, name: str, code: int, sentence: str) -> None:
    with pytest.raises(LaunchError) as caught:
        Run([f"{folder}/{name}"])
    assert (caught.value.exit_code, sentence in str(caught.value)) == (code, True)


def test_a_command_is_looked_for_on_the_childs_own_path(folder: Path) -> None:
    with pytest.raises(LaunchError, match="'true' was not found on PATH") as caught:
        Run(["true"], {"PATH": str(folder)})
    assert caught.value.exit_code == 127


def test_a_command_line_that_is_too_long_says_so() -> None:
    with pytest.raises(LaunchError, match="too long for the kernel") as caught:
        Run(["true", "x" * 200_000])
    assert caught.value.exit_code == 126


def test_nothing_of_ours_stays_open(folder: Path) -> None:
    opened = Path("/proc/self/fd")
    before = {path.name for path in opened.iterdir()}
    Run(["true"])
    with pytest.raises(LaunchError):
        Run([str(folder / "missing")])
    assert {path.name for path in opened.iterdir()} == before


def test_no_zombie_stays() -> None:
    Run(shell("(setsid sleep 600 &) ; (true &) ; true &"))
    ProcessTree()  # what the next cycle begins with: it takes the orphan away that was handed over at the very last
    with pytest.raises(ChildProcessError) as caught:
        os.waitpid(-1, os.WNOHANG)
    assert caught.value.errno == errno.ECHILD


def test_an_identity_that_is_over_is_alive_no_more() -> None:
    run = Run(["true"])
    pid, ticks = run.launched[0].pid, run.launched[0].start_ticks
    assert ticks is not None
    assert not process_table.is_alive(ProcessId(pid, ticks))
