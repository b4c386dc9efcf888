"""What is on disk after a crash, a failing disk and damage of every kind, and how the next start takes it."""

import json
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from subprocess import run as call
from typing import Any

import pytest

from tests.faults import injection
from tests.faults.injection import Point
from tests.faults.invariants import check_invariants
from tests.faults.lab import Lab, is_running, resident, wait_until

FIVE = ("--iterations", "5")
BEGUN = 'echo "$RUN_CYCLE_ID" >> "$S/begun"'


# --- killed at every write ---------------------------------------------------------------------------------------


def _sweep(tmp_path: Path, found: Sequence[Point], prepare: Callable[[Lab], None], *options: str) -> None:
    """Die at each point in a lab of its own, check, start again, check."""

    def attempt(number: int, point: Point) -> Point | None:
        lab = Lab(tmp_path / f"{number}-{point.call}-{point.nth}")
        prepare(lab)
        died = injection.dying_at(lab, point, *options, cycle=(lab.script(BEGUN),)).killed
        try:
            check_invariants(lab, settled=False)
            restarted = lab.run("--iterations", "1", cycle=(lab.script(BEGUN),))
            assert restarted.code == 0, restarted.stderr
            lab.allowed.discard("I2")
            check_invariants(lab, settled=True)
        except AssertionError as error:
            raise AssertionError(f"killed at {point}: {error}") from error
        shutil.rmtree(lab.root)
        return point if died else None

    with ThreadPoolExecutor(2) as pool:
        died = set(pool.map(attempt, count(), found))
    # A recovery looks at all the processes of the machine, so its openings are not the same from run to run.
    assert {point for point in found if point.call != "openat"} <= died


@pytest.mark.root
def test_a_kill_at_any_write_of_a_five_cycle_run_costs_at_most_the_cycle_in_flight(lab: Lab, tmp_path: Path) -> None:
    found = injection.points(injection.trace(lab, injection.TOUCHING, *FIVE, cycle=(lab.script(BEGUN),)))
    assert {"openat", "write", "fdatasync", "rename", "mkdir"} <= {point.call for point in found}
    _sweep(tmp_path, found, lambda _: None, *FIVE)


@pytest.mark.root
def test_a_kill_at_any_write_of_the_recovery_is_recovered_from(lab: Lab, tmp_path: Path) -> None:
    _break_everything(lab)
    broken = tmp_path / "broken"
    shutil.copytree(lab.root, broken)

    def prepare(fresh: Lab) -> None:
        for name in ("state", "logs"):
            shutil.copytree(broken / name, fresh.root / name)
        shutil.copy(broken / "scratch" / "begun", fresh.scratch / "begun")
        fresh.allowed.add("I2")  # until its repair

    traced = Lab(tmp_path / "traced")
    prepare(traced)
    found = injection.points(injection.trace(traced, injection.TOUCHING, cycle=(traced.script(BEGUN),)))
    assert {"ftruncate", "rename", "fsync"} <= {point.call for point in found}
    _sweep(tmp_path, found, prepare)
    assert lab.run().code == 0


def _break_everything(lab: Lab) -> None:
    """A lost cycle, a torn history, a damaged snapshot, and a log whose tail was never joined."""
    assert lab.run("--iterations", "2", cycle=(lab.script(BEGUN),)).code == 0
    babble = lab.script(f"{BEGUN}; i=0; while [ $i -lt 200 ]; do echo line $i of many; i=$((i+1)); done; sleep 60", "b")
    loop = lab.start("--max-log-bytes", "1024", cycle=(babble,))
    lab.await_state("running")
    wait_until(lambda: list(lab.logs.glob("*.tail-?")), "an unjoined log")
    loop.kill()
    with lab.history_path.open("ab") as history:
        history.write(b'{"timestamp":"2026-01-01T00:00:00.000Z","mode":"torn')
    lab.latest_path.write_bytes(lab.latest_path.read_bytes()[:100])


def test_every_acknowledged_record_survives_kills_at_random_instants(lab: Lab) -> None:
    dice = random.Random(7)
    acknowledged: set[str] = set()
    for _ in range(20):
        loop = lab.start("--continuous", "--metrics-stdout")
        wait_until(lambda loop=loop: loop.stdout, "the first acknowledgement")
        time.sleep(dice.uniform(0, 0.05))
        loop.kill()
        acknowledged |= {json.loads(line)["cycle_id"] for line in loop.stdout.split("\n")[:-1]}
        check_invariants(lab, settled=False)
    assert acknowledged <= {record["cycle_id"] for record in lab.history()}
    assert len(acknowledged) >= 20


@pytest.mark.root
def test_a_record_is_acknowledged_only_once_it_is_synced(lab: Lab) -> None:
    lines = injection.trace(lab, ("write", "fdatasync"), *FIVE, "--metrics-stdout")
    events = [_event(line) for line in lines]
    told = [event for event in events if event]
    assert told == ["written", "synced", "told"] * 5


def _event(line: str) -> str:
    if "run_cycle_history.jsonl" in line:
        return "synced" if "fdatasync" in line else "written"
    return "told" if "write(1<" in line and "cycle_id" not in line and '"{' in line else ""


# --- damage found at the start -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b'{"torn', b"\0" * 4096, b"\xff\xfe\xfd", b'{"status":"success","number":9', b" "])
def test_a_torn_tail_is_set_aside_and_the_next_record_stands_on_its_own_line(lab: Lab, tail: bytes) -> None:
    lab.run("--iterations", "2")
    with lab.history_path.open("ab") as history:
        history.write(tail)
    loop = lab.run()
    assert loop.code == 0
    assert [record["number"] for record in lab.history()] == [1, 2, 3]
    (kept,) = lab.state.glob("*.torn-*")
    assert kept.read_bytes() == tail
    assert loop.stderr.count("state.mended") == 1


def test_a_last_line_without_its_newline_is_kept_as_the_record_it_is(lab: Lab) -> None:
    lab.run("--iterations", "2")
    os.truncate(lab.history_path, lab.history_path.stat().st_size - 1)
    assert lab.run().code == 0
    assert [record["number"] for record in lab.history()] == [1, 2, 3]


def test_two_tears_at_the_same_place_keep_both_remains(lab: Lab) -> None:
    lab.run()
    whole = lab.history_path.read_bytes()
    for torn in (b'{"first', b'{"second'):
        lab.history_path.write_bytes(whole + torn)
        lab.settles = lab.command("history").code == 0
        assert lab.run().code == 0
    assert {path.read_bytes() for path in lab.state.glob("*.torn-*")} == {b'{"first', b'{"second'}
    lab.allowed |= {"I3", "I6"}  # the history was set back by the test


GARBAGE = (
    b"not json",
    b"{}",
    b"[1, 2]",
    b"\xff\xfe\0\0",
    b"[" * 100_000,
    b'{"status": 5}',
    b'{"status": "success", "number": 1e400}',
    b'{"status": "success", "number": NaN, "duration_seconds": Infinity}',
    b'{"status": "failed", "number": {}, "next_delay_seconds": "soon"}',
    b'{"status": "failed", "number": 2, "cycle_id": "x", "reason": ["x"], "supervisor": {"pid": []}, "finished_at": 7}',
    b'{"status": "unheard of", "number": -7}',
    b'{"status": "failed", "number": 999999999999999999999999, "next_delay_seconds": 1e300}',
    b'{"status": "success", "status": "failed", "mode": "\\ud800"}',
)


def _spoil(lab: Lab, lines: Sequence[bytes]) -> None:
    lab.allowed |= {"I1", "I2", "I3", "I5", "I6"}  # the damage stays where it is, and some of it looks like a record
    lab.history_path.write_bytes(b"\n".join(lines) + b"\n")


def test_damaged_lines_in_the_middle_are_kept_and_passed_over(lab: Lab) -> None:
    lab.run("--iterations", "2")
    first, second = lab.history_path.read_bytes().splitlines()
    _spoil(lab, [first, *GARBAGE, second])
    assert lab.run("--iterations", "2").code == 0
    assert set(GARBAGE) < set(lab.history_path.read_bytes().splitlines())
    assert lab.outcomes()[-2:] == ["success", "success"]
    for view in (("history",), ("status",), ("status", "--json"), ("history", "--json"), ("logs",)):
        assert lab.command(*view).code == 0, view


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_damaged_last_line_is_kept_and_passed_over(lab: Lab, garbage: bytes) -> None:
    lab.run()
    _spoil(lab, [lab.history_path.read_bytes().strip(), garbage])
    assert lab.run("--iterations", "2").code == 0
    assert garbage in lab.history_path.read_bytes().splitlines()
    assert lab.outcomes()[-2:] == ["success", "success"]
    assert lab.command("status").code == 0


def test_records_twice_and_out_of_order_neither_repeat_a_number_nor_stop_the_loop(lab: Lab) -> None:
    lab.allowed |= {"I3", "I5", "I6"}  # the test has made the history what it is
    lab.run("--iterations", "3")
    one, two, three = lab.history_path.read_bytes().splitlines()
    lab.history_path.write_bytes(b"\n".join([three, one, one, two]) + b"\n")
    assert lab.run("--iterations", "2").code == 0
    assert min(record["number"] for record in lab.history()[-2:]) > 3


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"state": "run',
        b"\x80\x81\xff" * 100,
        b"[]",
        b"null",
        b'{"schema_version": 99}',
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "state": "waiting", "seq": "3"}',
        b'{"schema_version": 1, "state": "waiting", "seq": 1e999}',
        b'{"schema_version": 1, "state": "waiting", "seq": -1}',
        b'{"schema_version": 1, "state": "waiting", "seq": 2, "counts": {"success": NaN}}',
        b'{"schema_version": 1, "state": "waiting", "seq": 2, "counts": {"success": Infinity}}',
        b'{"schema_version": 1, "state": "waiting", "seq": 2, "counts": [1]}',
        b'{"schema_version": 1, "state": "waiting", "seq": 2, "cycle": []}',
        b'{"schema_version": 1, "state": "waiting", "seq": 2, "cycle": {"number": 1}}',
        b'{"schema_version": 1, "state": "waiting", "seq": 2, "cycle": "x", "last_cycle": 7}',
        b'{"schema_version": 1, "state": "waiting", "seq": 2, "supervisor": {"pid": "me"}, "counts": {"success": 2}}',
        b"[" * 200_000,
        b'{"a":' * 50_000,
    ],
)
def test_a_damaged_snapshot_is_rebuilt_from_the_history(lab: Lab, damage: bytes) -> None:
    lab.run("--iterations", "2")
    lab.latest_path.write_bytes(damage)
    assert lab.command("status").code == 0
    assert lab.run().code == 0
    latest = lab.latest()
    assert (latest["seq"], latest["counts"]) == (3, {"success": 3})


def test_a_damaged_snapshot_is_kept_under_another_name(lab: Lab) -> None:
    lab.run("--iterations", "2")
    lab.latest_path.write_bytes(b"{damage")
    assert lab.run().code == 0
    assert (lab.logs / "latest.json.corrupt-2").read_bytes() == b"{damage"


def test_a_snapshot_of_one_gigabyte_costs_no_memory(lab: Lab) -> None:
    lab.run()
    with lab.latest_path.open("r+b") as file:
        file.truncate(1 << 30)  # sparse
    assert lab.run().code == 0
    assert lab.latest()["seq"] == 2
    (kept,) = lab.logs.glob("*.corrupt-*")
    kept.unlink()  # the search for secrets would read it


def test_a_snapshot_ahead_of_the_history_is_counted_anew(lab: Lab) -> None:
    lab.run("--iterations", "3")
    lab.history_path.write_bytes(lab.history_path.read_bytes().splitlines(keepends=True)[0])
    lab.slot_path.unlink()  # or its cycle, which the history does not know any more, would count as lost
    assert lab.run().code == 0
    assert lab.latest()["counts"] == {"success": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"number": float("inf")},
        {"number": "x"},
        {"started_at": 5, "log_path": 7},
        {"leader_pid": "abc", "leader_start_ticks": []},
        {"leader_pid": -1, "leader_start_ticks": 1},
        {"leader_pid": 1, "leader_start_ticks": 0},
        {"leader_pid": 10**30, "leader_start_ticks": 10**30},
        {"output_inodes": 5},
        {"output_inodes": [float("inf")]},
        {"cycle_id": "", "supervisor_pid": None},
        {"cycle_id": None, "goal": 9, "mode": []},
        {"boot_id": 3},
    ],
)
def test_a_forged_in_flight_slot_harms_nobody(lab: Lab, change: dict[str, Any]) -> None:
    lab.allowed |= {"I5", "I6"}  # what the slot says of a cycle that never was may be recorded as lost
    lab.run()
    slot = json.loads(lab.slot_path.read_bytes()) | {"cycle_id": "f" * 32, "number": 2} | change
    lab.slot_path.write_text(json.dumps(slot))
    assert lab.run().code == 0
    assert lab.outcomes()[-1] == "success"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff" * 10_000, b"[" * 100_000, b"\0" * 2_000_000])
def test_a_damaged_in_flight_slot_does_not_stop_the_loop(lab: Lab, damage: bytes) -> None:
    lab.run()
    lab.slot_path.write_bytes(damage)
    assert lab.run().code == 0
    assert lab.outcomes() == ["success", "success"]


def test_the_lost_cycle_is_known_from_the_snapshot_where_the_slot_is_gone(lab: Lab) -> None:
    loop = lab.start(cycle=(lab.script(f"{BEGUN}; sleep 60"),))
    lab.await_file("begun")
    lab.await_state("running")
    loop.kill()
    lab.slot_path.unlink()
    assert lab.run().code == 0
    assert lab.outcomes() == ["lost", "success"]


# --- a disk that fails -------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("fault", ["EIO:when=1", "EIO:when=2", "EIO:when=2..3", "EDQUOT:when=2..4", "ENOSPC:when=3..4"])
def test_a_failed_sync_is_overcome_with_one_record_for_each_cycle(lab: Lab, fault: str) -> None:
    loop = injection.failing(lab, "fdatasync", f"error={fault}", "--iterations", "3")
    assert loop.code == 0, loop.stderr
    assert lab.outcomes() == ["success"] * 3


@pytest.mark.root
def test_a_disk_that_never_syncs_ends_a_bounded_run_with_74(lab: Lab) -> None:
    loop = injection.failing(lab, "fdatasync", "error=EIO:when=2+", "--iterations", "3")
    assert loop.code == 74
    assert "history" in loop.stderr
    assert lab.latest()["stop_reason"] == "state_unwritable"
    assert lab.latest()["state_errors"] > 0


@pytest.mark.root
@pytest.mark.parametrize("error", ["EXDEV", "EACCES", "EIO", "EROFS"])
def test_a_snapshot_that_cannot_be_replaced_costs_no_record(lab: Lab, error: str) -> None:
    loop = injection.failing(lab, "rename", f"error={error}", *FIVE)
    assert loop.code == 0
    assert lab.outcomes() == ["success"] * 5


@pytest.mark.root
@pytest.mark.parametrize("fault", ["error=EIO:when=1", "error=EIO", "error=EMFILE"])
def test_a_history_that_cannot_be_read_is_no_reason_for_a_traceback(lab: Lab, fault: str) -> None:
    lab.run("--iterations", "3")
    loop = injection.failing(lab, "pread64", fault, only="state/run_cycle_history.jsonl")
    assert loop.code in {0, 74}
    assert lab.outcomes()[:3] == ["success"] * 3


@contextmanager
def _tmpfs(lab: Lab, path: Path, options: str) -> Iterator[None]:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    call(["mount", "-t", "tmpfs", "-o", f"{options},mode=0700", "faults", path], check=True)
    try:
        yield
        check_invariants(lab, settled=False)
    finally:
        call(["umount", "-l", path], check=True)
        lab.settles = False
        lab.allowed.add("I3")  # what was on it is gone


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


@pytest.mark.root
def test_a_full_disk_holds_the_loop_until_there_is_room_again(lab: Lab) -> None:
    address = lab.root / "notify"
    told: list[str] = []
    with _tmpfs(lab, lab.state, "size=64k"), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        notify.setblocking(False)  # noqa: FBT003 - the standard library's signature
        cycle = lab.script(BEGUN)
        env = {"NOTIFY_SOCKET": str(address)}
        loop = lab.start("--continuous", "--sleep", "0.05", "--min-free-disk", "0", cycle=(cycle,), env=env)
        lab.await_records(3)
        filler = lab.state / "filler"
        lab.planted.add(filler)
        _fill(filler)
        assert "cannot be" in lab.await_state("held")["note"]
        begun = (lab.scratch / "begun").read_bytes()
        records = len(lab.history())
        time.sleep(1.2)
        assert (lab.scratch / "begun").read_bytes() == begun
        filler.unlink()
        lab.await_records(records + 3)
        loop.send(15)
        while loop.code is None or not told or told[-1]:
            told.append(_datagram(notify))
        assert loop.code == 0
        assert any("STATUS=held" in word for word in told)
        assert lab.run("--min-free-disk", "0").code == 0
        check_invariants(lab, settled=True)


def _datagram(receiver: socket.socket) -> str:
    try:
        return receiver.recv(4096).decode()
    except BlockingIOError:
        time.sleep(0.005)
        return ""


@pytest.mark.root
@pytest.mark.parametrize("size", ["16k", "12k", "8k"])
def test_a_disk_too_small_for_one_cycle_ends_a_bounded_run_with_74(lab: Lab, size: str) -> None:
    with _tmpfs(lab, lab.state, f"size={size}"):
        _fill(lab.state / "filler")
        lab.planted.add(lab.state / "filler")
        loop = lab.run("--min-free-disk", "0", cycle=(lab.script(BEGUN),))
        assert loop.code == 74
        assert not (lab.scratch / "begun").exists()


@pytest.mark.root
def test_a_disk_made_read_only_during_a_cycle_is_said_and_the_record_is_not_lost(lab: Lab) -> None:
    with _tmpfs(lab, lab.state, "size=1m"):
        cycle = lab.script(f"{BEGUN}; until [ -e $S/go ]; do sleep 0.02; done")
        loop = lab.start("--min-free-disk", "0", cycle=(cycle,))
        lab.await_file("begun")
        call(["mount", "-t", "tmpfs", "-o", "ro", "faults", lab.state], check=True)
        (lab.scratch / "go").touch()
        code = loop.ended()
        call(["umount", lab.state], check=True)
        assert code == 74
        assert "Read-only file system" in loop.stderr
        assert "cycle.unrecorded" in loop.stderr
        assert lab.run("--min-free-disk", "0").code == 0
        check_invariants(lab, settled=True)


def test_a_state_directory_deleted_under_the_loop_is_made_again(lab: Lab) -> None:
    loop = lab.start("--continuous", "--sleep", "0.02")
    last = lab.await_records(3)[-1]["number"]
    shutil.rmtree(lab.state)
    wait_until(lambda: [record for record in lab.history() if record["number"] > last], "a record in the new folder")
    loop.send(15)
    assert loop.ended() == 0
    lab.allowed.add("I3")  # the old records are gone with their folder


def test_a_log_directory_deleted_under_the_loop_is_made_again(lab: Lab) -> None:
    cycle = lab.script('[ "$RUN_CYCLE_NUMBER" != 2 ] || rm -rf ../lab/logs')
    assert lab.run("--iterations", "4", cycle=(cycle,)).code == 0
    assert lab.outcomes() == ["success"] * 4
    assert len(list(lab.logs.glob("*.log"))) == 2


def test_a_file_where_the_state_directory_was_is_said_in_one_sentence(lab: Lab) -> None:
    cycle = lab.script('[ "$RUN_CYCLE_NUMBER" != 2 ] || { rm -rf ../lab/state; echo > ../lab/state; }')
    loop = lab.run("--iterations", "4", cycle=(cycle,))
    assert loop.code == 74
    assert "state" in loop.stderr.splitlines()[-1]
    lab.state.unlink()
    lab.allowed |= {"I3", "I6"}  # the history is gone


def test_a_file_where_a_directory_should_be_at_the_start_is_said_in_one_sentence(lab: Lab) -> None:
    lab.state.write_text("no folder")
    assert lab.run().code == 74
    lab.state.unlink()


@pytest.mark.root
def test_a_log_directory_without_inodes_costs_no_cycle(lab: Lab) -> None:
    with _tmpfs(lab, lab.logs, "size=1m,nr_inodes=4"):
        assert lab.run(*FIVE, cycle=(lab.script(f"{BEGUN}; echo hello"),)).code == 0
        assert lab.outcomes() == ["success"] * 5
        assert lab.history()[-1]["log_path"] is None
        lab.allowed |= {"I2", "I3"}  # there was no inode for latest.json either


def test_a_million_recorded_cycles_cost_neither_time_nor_memory(lab: Lab, tmp_path: Path) -> None:
    lab.run()
    line = lab.history_path.read_bytes()
    large = Lab(tmp_path / "large")
    shutil.copytree(lab.state, large.state)
    shutil.copytree(lab.logs, large.logs)
    template = line.replace(b'"number":1,', b'"number":%d,')
    with large.history_path.open("wb") as history:
        for block in range(0, 1_000_000, 1000):
            history.write(b"".join(template % number for number in range(block + 1, block + 1001)))
    latest = lab.latest() | {"seq": 1_000_000, "counts": {"success": 1_000_000}, "success_count": 1_000_000}
    large.latest_path.write_text(json.dumps(latest))
    pairs = [(_measured(lab), _measured(large)) for _ in range(6)]
    few, many = (list(side) for side in zip(*pairs, strict=True))
    assert min(seconds for seconds, _ in many) < 1.5 * min(seconds for seconds, _ in few)
    assert min(peak for _, peak in many) < min(peak for _, peak in few) + 8 * 1024
    shutil.rmtree(large.root)


def _measured(lab: Lab) -> tuple[float, int]:
    began = time.perf_counter()
    loop = lab.run()
    assert loop.code == 0
    return time.perf_counter() - began, loop.peak


def test_readers_of_the_snapshot_never_see_a_half(lab: Lab) -> None:
    loop = lab.start("--continuous", "--keep-logs", "5")
    lab.await_records(1)
    pid = lab.latest()["supervisor"]["pid"]
    reads = 0
    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert json.loads(lab.latest_path.read_bytes())["supervisor"]["pid"] == pid
        reads += 1
    loop.send(15)
    assert loop.ended() == 0
    assert reads > 1000
    assert len(lab.history()) > 50
    assert not is_running(loop.pid)
    assert resident(loop.pid) == 0
