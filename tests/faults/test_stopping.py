"""Signals in every phase, stopped and killed supervisors, streams that go away."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.lab import Lab, Loop, is_running, wait_until

BEGUN = 'echo "$RUN_CYCLE_ID" >> "$S/begun"'
UNTIL_GO = f"{BEGUN}; until [ -e $S/go ]; do sleep 0.02; done"


def _stopped_within(loop: Loop, seconds: float, number: int = signal.SIGTERM) -> int:
    """The exit code after a signal; the machine may be busy, so the limit is the order of magnitude that matters."""
    loop.send(number)
    return loop.ended(seconds)


# --- a signal in each phase --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_waiting_is_heard_at_once(lab: Lab, number: int) -> None:
    loop = lab.start("--continuous", "--sleep", "1h")
    lab.await_state("waiting")
    assert _stopped_within(loop, 2, number) == 0
    assert lab.outcomes() == ["success"]


def test_a_stop_in_backoff_is_heard_at_once(lab: Lab) -> None:
    loop = lab.start("--continuous", "--backoff-initial", "1h", cycle=("false",))
    lab.await_state("backoff")
    assert _stopped_within(loop, 2) == 0


def test_a_stop_in_a_backoff_that_a_restart_took_up_is_heard_at_once(lab: Lab) -> None:
    first = lab.start("--continuous", "--backoff-initial", "1h", cycle=("false",))
    lab.await_state("backoff")
    first.kill()
    second = lab.start("--continuous", "--backoff-initial", "1h", cycle=("false",))
    wait_until(lambda: lab.latest()["supervisor"]["pid"] == second.pid and lab.latest()["state"] == "backoff", "it")
    assert _stopped_within(second, 2) == 0
    assert lab.outcomes() == ["failed"]


def test_a_stop_during_a_cycle_lets_it_finish(lab: Lab) -> None:
    loop = lab.start("--continuous", cycle=(lab.script(UNTIL_GO),))
    lab.await_file("begun")
    loop.send(signal.SIGTERM)
    lab.await_state("stopping")
    (lab.scratch / "go").touch()
    assert loop.ended() == 0
    assert lab.outcomes() == ["success"]


def test_a_stop_during_the_check_script_lets_the_cycle_finish(lab: Lab) -> None:
    check = lab.script("echo > $S/checking; until [ -e $S/go ]; do sleep 0.02; done", "check")
    loop = lab.start("--continuous", "--prereq-script", str(check))
    lab.await_file("checking")
    loop.send(signal.SIGTERM)
    (lab.scratch / "go").touch()
    assert loop.ended() == 0
    assert lab.outcomes() == ["success"]


def test_a_second_stop_during_the_check_script_ends_it_and_starts_no_cycle(lab: Lab) -> None:
    check = lab.script("echo > $S/checking; sleep 60", "check")
    loop = lab.start("--continuous", "--prereq-script", str(check), cycle=(lab.script(BEGUN),))
    lab.await_file("checking")
    loop.send(signal.SIGTERM)
    lab.await_state("stopping")
    loop.send(signal.SIGTERM)
    assert loop.ended(5) == 0
    assert not (lab.scratch / "begun").exists()
    assert len(lab.history()) == 1


def test_a_stop_in_the_grace_period_of_a_timeout_keeps_the_outcome(lab: Lab) -> None:
    stubborn = lab.script(f'{BEGUN}; trap "echo > $S/asked" TERM; while :; do sleep 0.05; done')
    loop = lab.start("--continuous", "--timeout", "0.3", "--grace", "1", cycle=(stubborn,))
    lab.await_file("asked")
    loop.send(signal.SIGTERM)
    assert loop.ended(5) == 0
    assert lab.outcomes() == ["timeout"]


def test_the_second_stop_ends_the_cycle_and_the_third_its_grace(lab: Lab) -> None:
    stubborn = lab.script(f'{BEGUN}; trap "echo > $S/asked" TERM; while :; do sleep 0.05; done')
    loop = lab.start("--continuous", "--grace", "1h", cycle=(stubborn,))
    lab.await_file("begun")
    loop.send(signal.SIGTERM)
    lab.await_state("stopping")
    assert not (lab.scratch / "asked").exists()
    loop.send(signal.SIGTERM)
    lab.await_file("asked")
    assert loop.code is None
    loop.send(signal.SIGTERM)
    assert loop.ended(5) == 0
    assert lab.outcomes() == ["interrupted"]


def test_a_stop_at_any_instant_leaves_a_whole_record_and_exit_code_0(lab: Lab) -> None:
    dice = random.Random(19)
    for _ in range(25):
        loop = lab.start("--continuous", "--sleep", "0.005", cycle=(lab.script(f"{BEGUN}; sleep 0.005"),))
        wait_until(lambda loop=loop: (lab.latest().get("supervisor") or {}).get("pid") == loop.pid, "its first word")
        time.sleep(dice.uniform(0, 0.06))
        assert _stopped_within(loop, 5) == 0
    assert set(lab.outcomes()) <= {"success"}


def test_a_stop_during_start_up_ends_it_with_0_or_by_the_signal_itself(lab: Lab) -> None:
    """Before Python has begun there is nobody to hear it; later it must be heard."""
    for delay in range(0, 300, 20):
        loop = lab.start("--continuous", "--sleep", "1h", cycle=(lab.script(BEGUN),))
        time.sleep(delay / 1000)
        loop.send(signal.SIGTERM)
        code = loop.ended(5)
        assert code in {0, -signal.SIGTERM}
        assert "Traceback" not in loop.stderr
        loop.killed = code != 0


def test_many_stops_at_once_leave_no_process_and_one_record(lab: Lab) -> None:
    loop = lab.start("--continuous", cycle=(lab.script(f"{BEGUN}; sleep 60 & sleep 60"),))
    lab.await_file("begun")
    until = time.monotonic() + 10
    while loop.code is None and time.monotonic() < until:  # signals that wait for the same ear become one
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            loop.send(number)
    assert loop.ended(5) == 0
    assert lab.outcomes() == ["interrupted"]


def test_the_terminals_interrupt_reaches_the_whole_group_but_not_the_cycle(lab: Lab) -> None:
    loop = lab.start("--continuous", cycle=(lab.script(UNTIL_GO),))
    lab.await_file("begun")
    os.killpg(loop.pid, signal.SIGINT)
    lab.await_state("stopping")
    (lab.scratch / "go").touch()
    assert loop.ended() == 0
    assert lab.outcomes() == ["success"]


def _asked_again(loop: Loop) -> bool:
    if loop.code is None:
        time.sleep(0.05)
        loop.send(signal.SIGTERM)
    return loop.code is not None


def test_stops_in_the_window_of_the_launch_orphan_nothing(lab: Lab) -> None:
    """Two signals end a cycle wherever it stands; one round in many falls between fork and exec."""
    dice = random.Random(26)
    for _ in range(20):
        loop = lab.start("--continuous", cycle=(lab.script("sleep 60 & sleep 60"),))
        wait_until(lambda loop=loop: (lab.latest().get("supervisor") or {}).get("pid") == loop.pid, "its first word")
        time.sleep(dice.uniform(0, 0.02))
        loop.send(signal.SIGTERM)
        loop.send(signal.SIGTERM)
        wait_until(lambda loop=loop: _asked_again(loop), "the end")  # the kernel may have made one signal of two
        assert loop.ended(10) == 0
        assert lab.processes() == []


# --- other signals -----------------------------------------------------------------------------------------------


def test_a_trigger_starts_the_next_cycle_now(lab: Lab) -> None:
    loop = lab.start("--continuous", "--sleep", "1h")
    lab.await_state("waiting")
    loop.send(signal.SIGUSR1)
    lab.await_records(2)
    assert _stopped_within(loop, 2) == 0


def test_a_reload_reads_the_configuration_before_the_next_cycle(lab: Lab) -> None:
    config = lab.root / "run-cycle-loop.toml"
    config.write_text('mode = "one"\n')
    loop = lab.start("--continuous", "--sleep", "1h")
    lab.await_state("waiting")
    for text, mode in (('mode = "two"\n', "two"), ("mode = [\n", "two"), ('modus = "x"\n', "two")):
        config.write_text(text)
        loop.send(signal.SIGHUP)
        loop.send(signal.SIGUSR1)
        lab.await_records(len(lab.history()) + 1)
        assert lab.history()[-1]["mode"] == mode
        lab.await_state("waiting")
    assert _stopped_within(loop, 2) == 0
    assert loop.stderr.count("config.refused") == 2
    config.unlink()


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGPIPE, signal.SIGWINCH, signal.SIGCONT, signal.SIGURG])
def test_a_signal_without_a_meaning_changes_nothing(lab: Lab, number: int) -> None:
    loop = lab.start("--continuous", cycle=(lab.script(UNTIL_GO),))
    lab.await_file("begun")
    for _ in range(3):
        loop.send(number)
    (lab.scratch / "go").touch()
    lab.await_records(2)
    assert _stopped_within(loop, 5) == 0
    assert set(lab.outcomes()) == {"success"}


def test_a_supervisor_stopped_for_longer_than_the_timeout_enforces_it_at_once(lab: Lab) -> None:
    loop = lab.start("--timeout", "0.5", "--grace", "0.2", cycle=(lab.script(f"{BEGUN}; sleep 60"),))
    lab.await_file("begun")
    loop.send(signal.SIGSTOP)
    time.sleep(1.0)
    loop.send(signal.SIGCONT)
    assert loop.ended(3) == 1
    assert lab.outcomes() == ["timeout"]


def test_a_cycle_that_ended_while_the_supervisor_was_stopped_is_a_success(lab: Lab) -> None:
    loop = lab.start("--timeout", "0.5", cycle=(lab.script(f"{BEGUN}; sleep 0.1"),))
    lab.await_file("begun")
    loop.send(signal.SIGSTOP)
    time.sleep(1.0)
    loop.send(signal.SIGCONT)
    assert loop.ended(3) == 0
    assert lab.outcomes() == ["success"]


def test_ignored_and_blocked_signals_are_not_inherited_from_the_caller(lab: Lab) -> None:
    """As after ``nohup`` or a careless parent: everything that can be ignored is, and the rest is blocked."""
    deaf = (
        "import os, signal, sys\n"
        "for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGPIPE):\n"
        "    signal.signal(n, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    prefix = lab.python(deaf, "deaf.py")
    shown = lab.script(f"{BEGUN}; grep -E 'Sig(Blk|Ign)' /proc/self/status > $S/status")
    loop = lab.start("--continuous", "--sleep", "1h", cycle=(shown,), prefix=prefix)
    lab.await_state("waiting")
    words = (lab.scratch / "status").read_text().split()
    glibc_own = 3 << 31  # 32 and 33, which nobody can set
    assert [int(word, 16) & ~glibc_own for word in words[1::2]] == [0, 0]
    assert _stopped_within(loop, 2) == 0
    assert lab.outcomes() == ["success"]


# --- killed supervisors ------------------------------------------------------------------------------------------


def test_what_a_killed_supervisor_left_is_ended_before_the_next_cycle_begins(lab: Lab) -> None:
    left = lab.script(f"{BEGUN}; (setsid sleep 1000 &) ; (env -i sleep 1001 &) ; sleep 1002")
    first = lab.start(cycle=(left,))
    lab.await_state("running")
    wait_until(lambda: len(_sleepers()) == 3, "the tree")
    first.kill()
    seen = lab.script(f"{BEGUN}; pgrep -x sleep -a > $S/seen; true", "second")
    assert lab.run(cycle=(seen,)).code == 0
    assert "100" not in (lab.scratch / "seen").read_text()
    assert lab.outcomes() == ["lost", "success"]
    assert lab.history()[0]["leftovers"] >= 3


def _sleepers() -> list[int]:
    found = subprocess.run(["pgrep", "-f", "^sleep 100[012]$"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split() if is_running(int(pid))]


def test_a_stranger_with_the_pid_of_a_lost_leader_is_spared(lab: Lab) -> None:
    """Its pid and session number are those of the leader, and it is younger: only its identity tells."""
    lab.allowed.add("I5")  # the test makes the lost cycle up
    lab.run()
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        slot = json.loads(lab.slot_path.read_bytes())
        slot |= {"cycle_id": "a" * 32, "number": 2, "leader_pid": stranger.pid, "leader_start_ticks": 1}
        slot["output_inodes"] = []
        lab.slot_path.write_text(json.dumps(slot))
        assert lab.run().code == 0
        assert lab.outcomes() == ["success", "lost", "success"]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_crash_loop_of_the_supervisor_backs_off_and_reaches_the_limit(lab: Lab) -> None:
    lab.settles = False
    for _ in range(3):
        loop = lab.start("--continuous", "--max-failures", "3", cycle=(lab.script(f"{BEGUN}; sleep 60"),))
        wait_until(lambda loop=loop: loop.code is not None or _began(lab, loop), "a cycle, or the end")
        if loop.code is None:
            loop.kill()
    last = lab.run("--continuous", "--max-failures", "3")
    assert last.code == 11
    assert lab.outcomes() == ["lost"] * 3
    assert [record["consecutive_failures"] for record in lab.history()] == [1, 2, 3]


def _began(lab: Lab, loop: Loop) -> bool:
    latest = lab.latest()
    return latest.get("state") == "running" and latest["supervisor"]["pid"] == loop.pid


# --- streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_does_not_end_the_loop(lab: Lab, stream: str) -> None:
    read, write = os.pipe()
    loop = lab.start("--iterations", "4", "--metrics-stdout", "--sleep", "0.02", streams={stream: write})
    os.close(write)
    os.close(read)
    assert loop.ended() == 0
    assert lab.outcomes() == ["success"] * 4


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_stream_neither_ends_the_loop_nor_changes_its_exit_code(lab: Lab, stream: str) -> None:
    with Path("/dev/full").open("wb") as full:
        loop = lab.start("--iterations", "2", "--metrics-stdout", cycle=("false",), streams={stream: full})
        assert loop.ended() == 1
    assert lab.outcomes() == ["failed"] * 2


def test_the_exit_code_survives_a_dead_standard_error(lab: Lab) -> None:
    read, write = os.pipe()
    os.close(read)
    loop = lab.start("--max-failures", "1", "--continuous", cycle=("false",), stderr=write, env={"RUN_CYCLE_SLEP": "1"})
    os.close(write)
    assert loop.ended() == 11
    lab.settles = lab.run().code == 0


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_streams_closed_at_the_start_are_no_obstacle(lab: Lab, closed: str) -> None:
    prefix = ("sh", "-c", f'exec "$@" {closed}', "sh")
    cycle = lab.script(f"{BEGUN}; ls -l /proc/$$/fd > $S/descriptors; echo out; echo err >&2; cat")
    loop = lab.run("--iterations", "2", "--metrics-stdout", cycle=(cycle,), prefix=prefix)
    assert loop.code == 0
    assert lab.outcomes() == ["success"] * 2
    log = Path(lab.root, lab.history()[0]["log_path"]).read_text()
    assert "out\n" in log
    assert "err\n" in log
    assert lab.history_path.read_bytes().count(b"\n") == 2


def test_a_child_gets_three_descriptors_whatever_the_caller_left_open(lab: Lab) -> None:
    prefix = ("sh", "-c", 'exec 7>"$0/seven" 9<"$0"; exec "$@"', str(lab.scratch))
    listed = lab.script(f"{BEGUN}; ls /proc/self/fd | wc -l > $S/count", "ls")
    assert lab.run(cycle=(listed,), prefix=prefix).code == 0
    assert int((lab.scratch / "count").read_text()) == 4  # three, and the folder that ls reads


def test_a_reader_that_does_not_read_blocks_neither_cycles_nor_the_stop(lab: Lab) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    loop = lab.start("--continuous", "--sleep", "0.05", "--metrics-stdout", stdout=write)
    os.close(write)
    try:
        lab.await_records(3)
        assert _stopped_within(loop, 5) == 0
    finally:
        os.close(read)
