"""The kill switch in every guise, the failure limit, the dry run, hostile settings, and who may run at once."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.hung_mount import hung_mount
from tests.faults.lab import COMMAND, Lab, wait_until

BEGUN = 'echo "$RUN_CYCLE_ID" >> "$S/begun"'


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        sock.bind(path.name)
        os.chdir(here)


GUISES: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("stop"),
    "empty file": lambda path: path.touch(),
    "unreadable file": lambda path: path.touch(mode=0),
    "folder": lambda path: path.mkdir(),
    "FIFO": os.mkfifo,
    "socket": _socket,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "loop of links": lambda path: path.symlink_to(path),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
}


def _remove(path: Path) -> None:
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("guise", GUISES)
def test_anything_at_the_stop_files_path_stops_an_idle_loop_at_once(lab: Lab, guise: str) -> None:
    lab.planted.add(lab.stop_path)
    loop = lab.start("--continuous", "--sleep", "1h")
    lab.await_state("waiting")
    GUISES[guise](lab.stop_path)
    assert loop.ended(3) == 10
    assert lab.run(cycle=(lab.script(BEGUN),)).code == 10
    assert not (lab.scratch / "begun").exists()
    _remove(lab.stop_path)


@pytest.mark.root
def test_an_unreadable_parent_of_the_stop_file_stops_the_loop(lab: Lab) -> None:
    """As root without the power to pass by modes."""
    parent = lab.scratch / "closed"
    parent.mkdir()
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    loop = lab.start("--continuous", "--sleep", "1h", "--stop-file", str(parent / "stop"), prefix=prefix)
    lab.await_state("waiting")
    parent.chmod(0)
    assert loop.ended(3) == 10
    parent.chmod(0o700)


def test_a_file_where_the_stop_files_folder_was_stops_the_loop(lab: Lab) -> None:
    parent = lab.scratch / "folder"
    parent.mkdir()
    loop = lab.start("--continuous", "--sleep", "1h", "--stop-file", str(parent / "stop"))
    lab.await_state("waiting")
    parent.rmdir()
    parent.write_text("no folder")
    assert loop.ended(3) == 10


@pytest.mark.root
def test_a_stop_file_on_a_mount_that_hangs_blocks_neither_signals_nor_lets_cycles_start(lab: Lab) -> None:
    mount = lab.root / "hung"
    with hung_mount(mount) as hang:
        loop = lab.start(
            "--continuous", "--sleep", "0.2", "--stop-file", str(mount / "stop"), cycle=(lab.script(BEGUN),)
        )
        lab.await_records(2)
        hang()
        time.sleep(1.0)
        before = len(lab.history())
        time.sleep(1.0)
        assert len(lab.history()) == before
        assert loop.code is None
        loop.send(signal.SIGTERM)
        assert loop.ended(3) == 0


@pytest.mark.root
def test_a_stop_file_on_a_mount_that_hangs_from_the_start_leaves_the_loop_stoppable(lab: Lab) -> None:
    mount = lab.root / "hung"
    with hung_mount(mount) as hang:
        hang()
        loop = lab.start("--continuous", "--stop-file", str(mount / "stop"), cycle=(lab.script(BEGUN),))
        time.sleep(1.5)
        assert loop.code is None
        loop.send(signal.SIGTERM)
        assert loop.ended(3) == 0
        assert not (lab.scratch / "begun").exists()


def test_the_stop_command_ends_the_loop_after_its_cycle_and_resume_lets_it_run_again(lab: Lab) -> None:
    loop = lab.start("--continuous", cycle=(lab.script(f"{BEGUN}; sleep 0.5"),))
    lab.await_file("begun")
    assert lab.command("stop").code == 0
    assert loop.ended() == 10
    assert lab.outcomes() == ["success"]
    assert lab.command("resume").code == 0


def test_stop_now_ends_the_running_cycle(lab: Lab) -> None:
    loop = lab.start("--continuous", cycle=(lab.script(f"{BEGUN}; sleep 60"),))
    lab.await_file("begun")
    assert lab.command("stop", "--now").code == 0
    assert loop.ended(5) == 10
    assert lab.outcomes() == ["interrupted"]
    assert lab.command("resume").code == 0


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_failure_limit_is_exact(lab: Lab, limit: int) -> None:
    loop = lab.run("--continuous", "--max-failures", str(limit), cycle=("false",))
    assert loop.code == 11
    assert len(lab.history()) == limit


def test_failures_of_every_kind_count_and_only_a_success_starts_anew(lab: Lab) -> None:
    text = (
        "case $RUN_CYCLE_NUMBER in 1) exit 1;; 2) sleep 60;; 3) exit 0;; 4) kill -9 $$;; 5) exit 2;; *) exit 3;; esac"
    )
    options = ("--continuous", "--max-failures", "3", "--timeout", "0.3")
    assert lab.run(*options, cycle=(lab.script(text),)).code == 11
    assert [record["consecutive_failures"] for record in lab.history()] == [1, 2, 0, 1, 2, 3]


# --- the dry run -------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_a_dry_run_writes_nothing_and_starts_nothing(lab: Lab) -> None:
    trace = lab.root / "trace"
    calls = "trace=%file,ftruncate,fchmod,execve"
    prefix = ("strace", "-f", "-qq", "-y", "-o", str(trace), "-e", calls)
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    loop = lab.run("--dry-run", cycle=("echo", lab.canary, "$(reboot)"), prefix=prefix, env=env)
    assert loop.code == 0
    lines = trace.read_text().splitlines()
    writing = re.compile(
        r"O_WRONLY|O_RDWR|O_CREAT|\b(mkdir|unlink|rename|f?truncate|f?chmod|symlink|link|mknod)(at)?\("
    )
    assert [line for line in lines if writing.search(line) and "/dev/null" not in line] == []
    assert sum("execve(" in line and "= 0" in line for line in lines) == 1
    assert not lab.state.exists()
    assert not lab.logs.exists()
    assert "'$(reboot)'" in loop.stdout


@pytest.mark.root
def test_a_dry_run_works_on_a_read_only_file_system(lab: Lab) -> None:
    prefix = ("unshare", "--mount", "sh", "-c", 'mount -o bind,ro "$0" "$0" && cd "$0" && exec "$@"', str(lab.root))
    loop = lab.start("--dry-run", prefix=prefix)
    assert loop.ended() == 1
    assert "FAILED" in loop.stdout or "not writable" in loop.stdout
    assert not lab.state.exists()


# --- hostile settings --------------------------------------------------------------------------------------------


HOSTILE = (
    "$(reboot)",
    "`reboot`",
    "1;reboot",
    "5\n5",
    "x" * 1_000_000,
    "-1",
    "nan",
    "inf",
    "1e308",
    " ",
    "٣",
    "\x1b[2J",
)


@pytest.mark.parametrize("name", ["SLEEP", "TIMEOUT", "ITERATIONS", "MAX_FAILURES", "MAX_LOG_BYTES", "STATE_DIR"])
def test_hostile_values_of_a_variable_are_refused_in_one_sentence_or_taken_as_they_stand(lab: Lab, name: str) -> None:
    for value in HOSTILE:
        if len(value) > 100_000:
            value = value[:100_000]  # noqa: PLW2901 - the kernel takes no larger variable
        loop = lab.launch([COMMAND, "run", "--dry-run", "--", "true"], env={f"RUN_CYCLE_{name}": value})
        assert loop.ended() in {0, 1, 2}
        if loop.code == 2:
            assert len(loop.stderr) < 1000
            assert len(loop.stderr.splitlines()) == 1
            assert "\x1b" not in loop.stderr


@pytest.mark.parametrize("odd", ["with space", "with 'quote\"", "-dash", "${HOME}", "ünïcode", "a;b|c&d", "*?["])
def test_odd_but_legal_names_of_folders_work(lab: Lab, odd: str) -> None:
    lab.settles = False
    where = lab.root / odd
    argv = [
        COMMAND,
        "run",
        "--state-dir",
        str(where / "s"),
        "--log-dir",
        str(where / "l"),
        "--sleep",
        "0",
        "--",
        "true",
    ]
    assert lab.launch(argv).ended() == 0
    assert lab.launch([COMMAND, "status", "--state-dir", str(where / "s"), "--log-dir", str(where / "l")]).ended() == 0
    assert (where / "s" / "run_cycle_history.jsonl").exists()


def test_a_working_directory_whose_name_is_no_text_works(lab: Lab) -> None:
    lab.settles = False
    odd = Path(os.fsdecode(os.fsencode(lab.root) + b"/caf\xe9\n\x1b[2J"))
    odd.mkdir()
    cycle = ["sh", "-c", 'echo "{}" > "$RUN_CYCLE_CONTROL_FILE"; test -d "$RUN_CYCLE_STATE_DIR"']
    for argv in (
        [COMMAND, "run", "--iterations", "2", "--sleep", "0", "--", *cycle],
        [COMMAND, "status"],
        [COMMAND, "logs"],
    ):
        done = subprocess.run(argv, cwd=odd, env=lab.env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert b"\x1b" not in done.stdout


def test_arguments_and_variables_that_are_no_text_reach_the_cycle_as_they_are(lab: Lab) -> None:
    odd = os.fsdecode(b"caf\xe9 \xff")
    script = lab.script(f'{BEGUN}; printf %s "$1" > $S/argument; printf %s "$ODD" > $S/variable; printf %s "$1"')
    assert lab.run("--iterations", "2", cycle=(script, odd), env={"ODD": odd}).code == 0
    assert (lab.scratch / "argument").read_bytes() == b"caf\xe9 \xff"
    assert (lab.scratch / "variable").read_bytes() == b"caf\xe9 \xff"


def test_options_behind_the_dashes_are_the_commands_own(lab: Lab) -> None:
    script = lab.script(f'{BEGUN}; printf "%s|" "$@" > $S/arguments')
    assert lab.run(cycle=(script, "--help", "--", "--iterations", "9", "", "$HOME", "a b", "*")).code == 0
    assert (lab.scratch / "arguments").read_text() == "--help|--|--iterations|9||$HOME|a b|*|"


# --- one at a time -----------------------------------------------------------------------------------------------


def test_of_twenty_started_at_once_exactly_one_runs(lab: Lab) -> None:
    cycle = lab.script(f"{BEGUN}; until [ -e $S/go ]; do sleep 0.02; done")
    for _ in range(2):
        (lab.scratch / "go").unlink(missing_ok=True)
        loops = [lab.start(cycle=(cycle,)) for _ in range(20)]
        wait_until(lambda loops=loops: sum(loop.code == 75 for loop in loops) == 19, "nineteen refusals")
        (lab.scratch / "go").touch()
        assert sorted(loop.ended() for loop in loops) == [0] + [75] * 19
        assert all("another instance" in loop.stderr for loop in loops if loop.code == 75)
    assert len(lab.history()) == 2


def test_the_lock_is_free_as_soon_as_its_holder_was_killed_though_its_cycle_lives_on(lab: Lab) -> None:
    first = lab.start(cycle=(lab.script(f"{BEGUN}; sleep 60"),))
    lab.await_file("begun")
    first.kill()
    assert lab.run().code == 0
    assert lab.outcomes() == ["lost", "success"]


def test_a_removed_lock_file_does_not_let_a_second_loop_stay(lab: Lab) -> None:
    first = lab.start("--continuous", "--sleep", "0.05")
    lab.await_records(2)
    lab.lock_path.unlink()
    wait_until(lab.lock_path.exists, "the lock to be taken again")
    assert lab.run().code == 75
    first.send(signal.SIGTERM)
    assert first.ended() == 0


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff" * 5000, b'{"pid": "x", "start_ticks": [], "boot_id": 5}', b"[]"]
)
def test_whatever_stands_in_the_lock_file_the_lock_works(lab: Lab, content: bytes) -> None:
    lab.run()
    lab.lock_path.write_bytes(content)
    assert lab.command("trigger").code == 1
    assert lab.run().code == 0
    holder = lab.start("--continuous", "--sleep", "1h")
    lab.await_state("waiting")
    lab.lock_path.write_bytes(content)
    assert lab.run().code == 75
    holder.send(signal.SIGTERM)
    assert holder.ended() == 0


@pytest.mark.parametrize("kind", ["folder", "FIFO", "dangling link", "loop of links", "link to a device"])
def test_a_lock_that_cannot_be_a_lock_is_said_in_one_sentence(lab: Lab, kind: str) -> None:
    lab.state.mkdir(mode=0o700)
    GUISES[kind](lab.lock_path)
    loop = lab.run()
    assert loop.code == 74
    assert len(loop.stderr.splitlines()) == 1
    _remove(lab.lock_path)


def test_a_one_shot_beside_the_daemon_is_refused_and_leaves_it_alone(lab: Lab) -> None:
    daemon = lab.start("--continuous", "--sleep", "0.05")
    lab.await_records(2)
    for _ in range(5):
        assert lab.run("--iterations", "1").code == 75
    daemon.send(signal.SIGTERM)
    assert daemon.ended() == 0
