"""Children that will not die, multiply, stop themselves, babble, break their surroundings or cannot be started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.lab import Lab, is_running, resident, wait_until

BEGUN = 'echo "$RUN_CYCLE_ID" >> "$S/begun"'
TIMED = ("--timeout", "0.5", "--grace", "0.3")


def test_a_child_that_ignores_term_is_killed_after_the_grace(lab: Lab) -> None:
    deaf = lab.python(
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nopen(S + '/up', 'w').write('1')\ntime.sleep(60)"
    )
    assert lab.run(*TIMED, cycle=deaf).code == 1
    (record,) = lab.history()
    assert (record["status"], record["return_code"], record["signal"]) == ("timeout", 124, signal.SIGKILL)
    assert 0.8 <= record["duration_seconds"] < 2.5


def test_a_thousand_processes_ten_deep_are_all_ended(lab: Lab) -> None:
    tree = lab.python(
        "import os, time\n"
        "for _ in range(100):\n"
        "    if os.fork() == 0:\n"
        "        for _ in range(9):\n"
        "            if os.fork() != 0:\n"
        "                break\n"
        "        open(S + '/up', 'a').write('x')\n"
        "        time.sleep(1000)\n"
        "time.sleep(1000)\n"
    )
    loop = lab.start("--timeout", "20", "--grace", "0", cycle=tree)
    up = lab.scratch / "up"
    wait_until(lambda: up.exists() and up.stat().st_size == 1000, "the tree")
    loop.send(signal.SIGTERM)
    loop.send(signal.SIGQUIT)
    assert loop.ended(15) == 0
    assert lab.outcomes() == ["interrupted"]


@pytest.mark.parametrize("away", ["setsid sleep 1000 &", "setsid env -i sleep 1000 >/dev/null 2>&1 </dev/null &"])
def test_a_daemonised_grandchild_does_not_outlive_its_cycle(lab: Lab, away: str) -> None:
    loop = lab.run(cycle=(lab.script(f"{BEGUN}; ({away}) ; exit 0"),))
    assert loop.code == 0
    (record,) = lab.history()
    assert (record["status"], record["leftovers"]) == ("success", 1)
    assert record["duration_seconds"] < 5


def test_a_grandchild_that_holds_the_output_open_does_not_hold_the_cycle_open(lab: Lab) -> None:
    assert lab.run("--timeout", "20", cycle=(lab.script(f"{BEGUN}; sleep 1000 & exit 0"),)).code == 0
    assert lab.history()[0]["duration_seconds"] < 5


def test_a_grandchild_that_ignores_everything_and_changes_its_group_is_ended(lab: Lab) -> None:
    hard = lab.python(
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        os.setpgid(0, 0)\n"
        "        for n in set(signal.valid_signals()) - {9, 19}: signal.signal(n, signal.SIG_IGN)\n"
        "        os.closerange(0, 100)\n"
        "        os.chdir('/')\n"
        "        time.sleep(1000)\n"
        "    os._exit(0)\n"
        "time.sleep(0.2)\n"
    )
    assert lab.run(cycle=hard).code == 0
    assert lab.history()[0]["leftovers"] == 1


@pytest.mark.parametrize("step", ["pass", "time.sleep(0.001)", "os.setsid(); time.sleep(0.001)"])
def test_a_family_of_runaways_that_keeps_forking_is_ended(lab: Lab, step: str) -> None:
    """Each process lives a moment and leaves a successor: whoever lists them first and kills them later is too late."""
    runaway = lab.python(
        "import os, signal, time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        while os.fork() == 0:\n"
        f"            {step}\n"
        "        os._exit(0)\n"
        "open(S + '/up', 'w').write('1')\n"
        "time.sleep(1000)\n"
    )
    assert lab.run("--timeout", "0.4", "--grace", "0.1", cycle=runaway).code == 1
    assert lab.outcomes() == ["timeout"]
    _require_no_sign_of(lab, 0.3)


def _require_no_sign_of(lab: Lab, seconds: float) -> None:
    """One look could miss a process that lives for a moment."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert lab.processes() == []


@pytest.mark.root
def test_a_fork_bomb_is_ended(lab: Lab) -> None:
    """Under a user of its own with room for 200 processes, so that the machine survives a failure."""
    bomb = (
        "import os, time\n"
        "until = time.monotonic() + 30\n"
        "while time.monotonic() < until:\n"
        "    try: os.fork()\n"
        "    except OSError: time.sleep(0.001)\n"
    )
    python = "/usr/bin/python3"  # Debian's own: this user may not see ours
    cycle = (
        "setpriv",
        "--reuid=64999",
        "--regid=64999",
        "--clear-groups",
        "prlimit",
        "--nproc=200",
        python,
        "-c",
        bomb,
    )
    loop = lab.run("--timeout", "1", "--grace", "0.2", cycle=cycle)
    assert loop.code == 1
    assert lab.outcomes() == ["timeout"]
    assert subprocess.run(["pgrep", "-u", "64999"], check=False, stdout=subprocess.DEVNULL).returncode == 1


def test_orphans_that_end_during_a_long_cycle_are_reaped_meanwhile(lab: Lab) -> None:
    storm = lab.script(
        f"{BEGUN}; i=0; while [ $i -lt 300 ]; do (true &); i=$((i+1)); done; echo > $S/up; "
        "until [ -e $S/go ]; do sleep 0.02; done"
    )
    loop = lab.start(cycle=(storm,))
    lab.await_file("up")
    wait_until(lambda: _zombies(loop.pid) < 10, "the zombies to be reaped", 5)
    (lab.scratch / "go").touch()
    assert loop.ended() == 0


def _zombies(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sum(not is_running(int(pid)) for pid in children)


@pytest.mark.root
@pytest.mark.parametrize("target", ["0", "-1"])
def test_a_child_that_kills_all_it_can_reach_does_not_reach_the_supervisors_records(lab: Lab, target: str) -> None:
    """``kill -9 -1`` takes the supervisor along where it has the same user; in a pid namespace it takes no more."""
    lab.settles = target == "0"
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child") if target == "-1" else ()
    loop = lab.run("--iterations", "2", cycle=(lab.script(f"{BEGUN}; kill -9 {target}"),), prefix=prefix)
    if target == "0":
        assert lab.outcomes() == ["failed"] * 2
    loop.killed = target == "-1"
    assert lab.run().code == 0


def test_a_gigabyte_of_output_passes_in_flat_memory(lab: Lab) -> None:
    loop = lab.start("--max-log-bytes", "4MiB", cycle=("sh", "-c", "head -c 1073741824 /dev/zero; exit 3"))
    lab.await_state("running")
    before = resident(loop.pid, "VmRSS")
    assert loop.ended(120) == 1
    (record,) = lab.history()
    assert (record["return_code"], record["output_bytes"]) == (3, 1 << 30)
    assert loop.peak <= before + 16 * 1024
    assert Path(lab.root, record["log_path"]).stat().st_size < 5 << 20
    assert b"bytes left out" in Path(lab.root, record["log_path"]).read_bytes()


@pytest.mark.parametrize("odd", [r"\377\376\200\n", r"\033]0;owned\007\033[2J\n", r"a\0b\n", r"\r\r\r", r"no newline"])
def test_any_bytes_are_logged_and_never_reach_the_operators_screen_raw(lab: Lab, odd: str) -> None:
    assert lab.run(cycle=(lab.script(f"{BEGUN}; printf '{odd}'; printf '{odd}' >&2; exit 4"),)).code == 1
    for view in (("status",), ("history",)):
        shown = lab.command(*view)
        assert shown.code == 0
        assert not set(shown.stdout) & set("\x1b\x07\0\r")


def test_a_line_without_an_end_passes_in_flat_memory(lab: Lab) -> None:
    loop = lab.run("--max-log-bytes", "1MiB", cycle=("sh", "-c", "head -c 104857600 /dev/zero | tr '\\0' x; exit 0"))
    assert loop.code == 0
    assert lab.history()[0]["output_bytes"] == 104857600


def test_a_slow_drip_is_no_silence_and_silence_is_ended(lab: Lab) -> None:
    drip = lab.script("for i in 1 2 3 4 5 6 7 8; do printf .; sleep 0.2; done", "drip")
    assert lab.run("--idle-timeout", "1", cycle=(drip,)).code == 0
    assert lab.run("--idle-timeout", "0.4", "--grace", "0.2", cycle=("sleep", "60")).code == 1
    assert lab.outcomes() == ["success", "timeout"]


def test_every_exit_code_is_told_as_it_is(lab: Lab) -> None:
    counter = lab.script("exit $((RUN_CYCLE_NUMBER - 1))")
    assert lab.run("--iterations", "256", "--backoff-initial", "0", "--keep-logs", "5", cycle=(counter,)).code == 1
    records = lab.history()
    assert [record["return_code"] for record in records] == list(range(256))
    assert [record["status"] for record in records] == ["success"] + ["failed"] * 255
    assert {record["signal"] for record in records} == {None}


def test_every_signal_is_told_as_it_is(lab: Lab) -> None:
    numbers = sorted({*range(1, 32), 34, 64} - {17, 18, 19, 20, 21, 22, 23, 28})
    listed = " ".join(map(str, numbers))
    text = f"set -- {listed}\nshift $((RUN_CYCLE_NUMBER - 1))\nulimit -c 0\nkill -$1 $$\nsleep 60"
    options = ("--iterations", str(len(numbers)), "--backoff-initial", "0")
    assert lab.run(*options, cycle=(lab.script(text),)).code == 1
    assert [record["signal"] for record in lab.history()] == numbers
    assert [record["return_code"] for record in lab.history()] == [128 + number for number in numbers]
    assert set(lab.outcomes()) == {"failed"}


@pytest.mark.parametrize("code", [124, 137])
def test_the_exit_code_of_an_inner_timeout_is_no_timeout_of_ours(lab: Lab, code: int) -> None:
    assert lab.run(cycle=("sh", "-c", f"exit {code}")).code == 1
    assert lab.outcomes() == ["failed"]


def _unstartable(lab: Lab) -> dict[str, tuple[str, int]]:
    """Commands that cannot be executed, and the exit code of each."""
    files = {"plain": "echo no shebang", "bad": "#!/no/such/interpreter\n", "loop": f"#!{lab.scratch}/loop\n"}
    for name, text in files.items():
        (lab.scratch / name).write_text(text)
        (lab.scratch / name).chmod(0o755)
    (lab.scratch / "mode").write_text("#!/bin/sh\n")
    (lab.scratch / "dangling").symlink_to("nowhere")
    (lab.scratch / "elf").write_bytes(b"\x7fELF" + b"\0" * 100)
    (lab.scratch / "elf").chmod(0o755)
    codes = {"plain": 126, "bad": 126, "loop": 126, "mode": 126, "dangling": 126, "elf": 126, "missing": 127, ".": 126}
    found = {name: (f"{lab.scratch}/{name}", code) for name, code in codes.items()}
    return found | {"unknown": ("no-such-command-anywhere", 127), "empty": ("", 127)}


def test_a_command_that_cannot_be_started_is_an_error_with_a_reason_and_a_backoff(lab: Lab) -> None:
    for name, (command, code) in _unstartable(lab).items():
        assert lab.run(cycle=(command,)).code in {1, 2}, name
        if name == "empty":
            continue
        record = lab.history()[-1]
        assert (record["status"], record["return_code"]) == ("error", code), name
        assert record["reason"], name
    busy = lab.start("--continuous", "--backoff-initial", "1h", cycle=("no-such-command-anywhere",))
    lab.await_state("backoff")
    busy.send(signal.SIGTERM)
    assert busy.ended() == 0


def test_a_program_that_is_being_written_is_an_error(lab: Lab) -> None:
    program = lab.scratch / "true"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    with program.open("ab"):
        assert lab.run(cycle=(program,)).code == 1
    assert lab.outcomes() == ["error"]


@pytest.mark.parametrize("size", [131_056, 131_057, 200_000, 1_000_000])
def test_a_goal_of_any_size_is_refused_or_reaches_the_cycle(lab: Lab, size: int) -> None:
    goal = lab.scratch / "goal"
    goal.write_text("x" * size)
    script = lab.script(f'{BEGUN}; printf %s "$2" | wc -c > $S/size')
    loop = lab.launch(
        [lab.command_path, "run", "--goal-file", str(goal), "--cycle-script", str(script), "--archive-glob", "off"]
    )
    assert loop.ended() in {0, 2}
    if loop.code == 0:
        assert int((lab.scratch / "size").read_text()) == size


@pytest.mark.parametrize(
    "mischief",
    [
        "cd /; umask 000",
        "umask 0777",
        "exec 0<&- 1>&- 2>&-",
        "chmod 000 logs/run_cycle; chmod 000 state",
        "rm -rf logs",
        "rm -f state/run_cycle_in_flight.json state/run_cycle.lock",
        "rm -rf state/control; echo > state/control",
        "rm -rf logs/run_cycle/latest.json; mkdir -p logs/run_cycle/latest.json/x",
        "mkdir logs/run_cycle/.latest.json.tmp",
        "rm -rf state/control; mkfifo state/control",
    ],
)
def test_a_child_that_breaks_its_surroundings_is_still_judged_and_so_is_the_next(lab: Lab, mischief: str) -> None:
    lab.allowed |= {"I2", "I3", "I10"}  # the child has broken them
    script = lab.script(f'{BEGUN}; [ "$RUN_CYCLE_NUMBER" != 2 ] || {{ cd {lab.root}; {mischief}; }}')
    loop = lab.run("--iterations", "4", cycle=(script,))
    subprocess.run(["chmod", "-R", "u+rwX", lab.state, lab.logs], check=True)
    assert lab.outcomes()[:2] == ["success"] * 2, loop.stderr
    assert len(lab.history()) == 4
    (lab.logs / "latest.json").is_dir() and subprocess.run(["rm", "-rf", lab.logs / "latest.json"], check=True)
    for junk in (lab.state / "control", lab.logs / ".latest.json.tmp"):
        if not junk.is_dir():
            junk.unlink(missing_ok=True)


def test_the_working_directory_deleted_before_the_start_is_said_in_one_sentence(lab: Lab) -> None:
    gone = lab.scratch / "gone"
    gone.mkdir()
    prefix = ("sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh")
    loop = lab.run(prefix=prefix)
    assert loop.code in {2, 74}


def test_a_child_that_stops_itself_is_woken_and_ended(lab: Lab) -> None:
    assert lab.run(*TIMED, cycle=(lab.script(f"{BEGUN}; kill -STOP $$; sleep 60"),)).code == 1
    assert lab.outcomes() == ["timeout"]


def test_a_tree_that_stopped_itself_after_its_leader_left_is_ended(lab: Lab) -> None:
    assert (
        lab.run(
            cycle=(lab.script(f"{BEGUN}; (setsid sh -c 'kill -STOP $$; sleep 60' &); sleep 0.3; kill -KILL $$"),)
        ).code
        == 1
    )
    assert lab.outcomes() == ["failed"]


@pytest.mark.root
def test_a_leader_whose_exit_a_tracer_holds_back_is_waited_for_and_no_longer_than_the_timeout(lab: Lab) -> None:
    tracer = (
        "import os, signal, subprocess, sys, time\n"
        "leader = os.getpid()\n"
        "tracer = subprocess.Popen(['strace', '-qq', '-o', '/dev/null', '-p', str(leader)])\n"
        "while 'TracerPid:\\t0' in open('/proc/self/status').read(): time.sleep(0.01)\n"
        "os.kill(tracer.pid, signal.SIGSTOP)\n"
        "os._exit(0)\n"
    )
    loop = lab.run("--timeout", "3", "--grace", "0.5", cycle=lab.python(tracer))
    assert loop.code in {0, 1}
    assert len(lab.history()) == 1


def test_a_child_ended_for_want_of_memory_is_a_failure_like_any_other(lab: Lab) -> None:
    hungry = ("prlimit", "--as=60000000", sys.executable, "-I", "-S", "-c", "x = bytearray(1 << 30)")
    assert lab.run(cycle=hungry).code == 1
    assert lab.outcomes() == ["failed"]
    assert "MemoryError" in lab.history()[0]["stderr_tail"]


def test_standard_input_is_at_its_end(lab: Lab) -> None:
    assert lab.run("--timeout", "10", cycle=("sh", "-c", "cat; read x && exit 9; exit 0"), stdin=0).code == 0


@pytest.mark.root
def test_in_a_tiny_pid_space_no_stranger_is_ever_signalled(lab: Lab) -> None:
    """300 pids in all: they come round again within a cycle, and the bystander has one that a dead child had."""
    text = (
        "mount -t proc proc /proc; echo 400 > /proc/sys/kernel/pid_max; sleep 300 & stranger=$!; "
        '"$@"; code=$?; kill -0 $stranger || code=99; kill $stranger; exit $code'
    )
    prefix = ("unshare", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", text, "sh")
    churn = lab.script("i=0; while [ $i -lt 400 ]; do (true &); i=$((i+1)); done; (sleep 50 &) ; exit 0")
    loop = lab.run("--iterations", "3", cycle=(churn,), prefix=prefix)
    assert loop.code == 0
    assert lab.outcomes() == ["success"] * 3


# --- the control file --------------------------------------------------------------------------------------------


def _payloads() -> dict[str, bytes]:
    deep = {f"deep {depth}": b'{"outputs":' * depth + b"1" + b"}" * depth for depth in (60, 200, 400, 480, 900, 5000)}
    return deep | {
        "lists": b'{"outputs":' + b"[" * 480 + b"]" * 480 + b"}",
        "not a number": b'{"outputs": NaN}',
        "infinite": b'{"outputs": [1e999, -Infinity]}',
        "half a pair": b'{"reason": "\\ud800", "\\udfff": 1}',
        "binary": bytes(range(256)),
        "null bytes": b"\0" * 1000,
        "escapes": b'{"reason": "\\u001b[2J\\u0007\\r"}',
        "twice": b'{"continue": true, "continue": false}',
        "no object": b"[1]",
        "empty": b"",
        "bom": b"\xef\xbb\xbf{}",
        "utf-16": '{"reason": "x"}'.encode("utf-16"),
        "huge number": b'{"outputs": ' + b"9" * 4000 + b"}",
        "far too huge number": b'{"outputs": ' + b"9" * 10_000 + b"}",
        "one megabyte": b'{"outputs": "' + b"x" * ((1 << 20) - 16) + b'"}',
        "many keys": json.dumps({str(number): number for number in range(50_000)}).encode(),
        "more than a megabyte": b'{"outputs": "' + b"x" * (2 << 20) + b'"}',
        "odd usage": b'{"usage": [1, 2], "continue": "yes"}',
    }


@pytest.mark.parametrize("name", _payloads())
def test_whatever_stands_in_the_control_file_the_record_is_whole(lab: Lab, name: str) -> None:
    payload = lab.scratch / "payload"
    payload.write_bytes(_payloads()[name])
    script = lab.script(f'{BEGUN}; cp $S/payload "$RUN_CYCLE_CONTROL_FILE"')
    assert lab.run("--iterations", "2", cycle=(script,)).code == 0
    assert lab.outcomes() == ["success"] * 2
    assert lab.command("history").code == 0
    assert lab.command("history", "--json").code == 0
    for leftover in (lab.state / "control").iterdir():
        lab.planted.add(leftover)


@pytest.mark.parametrize(
    "kind",
    [
        "mkfifo $F",
        "mkdir $F",
        "ln -s /etc/passwd $F",
        "ln -s $F $F",
        "ln -s /dev/zero $F",
        "mknod $F c 1 5 || :",
        "echo {} > $F; chmod 000 $F",
    ],
)
def test_a_control_file_that_is_no_plain_file_is_said_and_does_not_hang(lab: Lab, kind: str) -> None:
    assert lab.run("--iterations", "2", cycle=(lab.script(f'{BEGUN}; F="$RUN_CYCLE_CONTROL_FILE"; {kind}'),)).code == 0
    assert lab.outcomes() == ["success"] * 2
    for leftover in (lab.state / "control").iterdir():
        lab.planted.add(leftover)


def test_control_files_that_could_not_be_read_do_not_pile_up(lab: Lab) -> None:
    assert lab.run("--iterations", "30", cycle=(lab.script('echo "{" > "$RUN_CYCLE_CONTROL_FILE"'),)).code == 0
    left = list((lab.state / "control").iterdir())
    lab.planted |= set(left)
    assert len(left) <= 10


# --- too little of everything ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["--nofile=24", "--nofile=16", "--nofile=14", "--fsize=100000", "--stack=262144"])
def test_under_a_tight_limit_a_cycle_runs_or_is_said_not_to(lab: Lab, limit: str) -> None:
    loop = lab.run("--iterations", "2", cycle=(lab.script(BEGUN),), prefix=("prlimit", limit))
    assert loop.code in {0, 1, 74}
    assert lab.processes() == []


def test_a_file_size_limit_on_the_history_is_a_state_error(lab: Lab) -> None:
    loop = lab.run("--iterations", "3", cycle=("true",), prefix=("prlimit", "--fsize=1500"))
    assert loop.code == 74
    assert os.path.getsize(lab.history_path) <= 1500  # noqa: PTH202


@pytest.mark.root
def test_a_launch_that_fails_halfway_leaves_no_child(lab: Lab) -> None:
    from tests.faults import injection  # noqa: PLC0415

    begun = lab.script(f"{BEGUN}; sleep 30")
    began = time.monotonic()
    loop = injection.failing(lab, "pidfd_open", "error=EMFILE", "--timeout", "3", "--grace", "0.2", cycle=(begun,))
    assert loop.code == 1
    assert lab.outcomes() == ["error"]
    assert time.monotonic() - began < 3  # strace waits for the last of the children
