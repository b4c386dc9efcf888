"""A run on this machine whose engine is killed at every write, and beside a failing disk: nothing is lost or twice."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.model.runs import RunKind
from run_cycle_loop.stores.runs import FILE_NAME, SqliteRunStore
from tests.faults.injection import Point
from tests.faults.lab import is_running, wait_until
from tests.integration.local_runs import NAMESPACE, manifest

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
#: What changes files, says that they are safe, or begins a process.
BEGINS = ("clone", "clone3", "vfork")
TOUCHING = ("pwrite64", "write", "fdatasync", "fsync", "rename", "mkdir", "unlink", "openat", *BEGINS)
_CALL = re.compile(r"^([a-z0-9_]+)\((.*)$")
#: Two iterations; each says what it is when it begins and when it is done, and leaves its pid.
SCRIPT = (
    "echo begin $RUN_CYCLE_ITERATION >> /workspace/said; echo $$ >> /workspace/pids; "
    "echo end $RUN_CYCLE_ITERATION >> /workspace/said"
)


class Place:
    """A state directory with one run in it."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self.root = root
        self.state = root / "state"
        self.bundle = root / "bundle.json"
        self.bundle.write_text(json.dumps(manifest(SCRIPT, loop={"maxIterations": 2})))

    def run(self, what: str, *prefix: str) -> int:
        subject = str(self.bundle) if what == "run" else "demo"
        argv = [*prefix, sys.executable, "-m", "tests.integration.local_runs", what, str(self.state), subject]
        with (self.root / f"{what}.txt").open("w") as out:
            return subprocess.run(argv, cwd=ROOT, stdout=out, stderr=out, check=False, timeout=120).returncode

    def said(self) -> list[str]:
        path = self.state / "volumes" / NAMESPACE / "work" / "said"
        return path.read_text().splitlines() if path.exists() else []

    def pids(self) -> list[int]:
        path = self.state / "volumes" / NAMESPACE / "work" / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def stored(self) -> dict[str, Any] | None:
        with SqliteRunStore(self.state / FILE_NAME) as store:
            record = store.find(RunKind.AGENTRUN, NAMESPACE, name="demo")
            return None if record is None else {"phase": record.phase, "attempts": store.attempts(record)}


def strace(output: str, *options: str) -> list[str]:
    """Of the engine alone (no ``-f``): its attempts are none of the subject."""
    return ["strace", "-qq", "-o", output, *options]


def points(place: Place) -> list[Point]:
    """The calls of the engine's own process that concern the state directory or begin a process."""
    trace = place.root / "trace"
    assert place.run("run", *strace(str(trace), "-y", "-e", f"trace={','.join(TOUCHING)}")) == 0
    seen: Counter[str] = Counter()
    found = []
    for match in map(_CALL.match, trace.read_text(errors="replace").splitlines()):
        if match is None:
            continue
        call, arguments = match[1], match[2]
        seen[call] += 1
        if call in BEGINS or (str(place.state) in arguments and (call != "openat" or "O_CREAT" in arguments)):
            found.append(Point(call, seen[call], arguments[:90]))
    return found


def _spread(found: Sequence[Point], count: int) -> Iterator[Point]:
    """So many of them, evenly; all those that begin a process or sync."""
    step = max(1, len(found) // count)
    for number, point in enumerate(found):
        if number % step == 0 or point.call in ("fdatasync", *BEGINS):
            yield point


def test_an_engine_that_is_killed_at_any_write_loses_and_doubles_nothing(tmp_path: Path) -> None:
    found = points(Place(tmp_path / "undisturbed"))
    assert {"pwrite64", "fdatasync", "rename", "mkdir"} <= {point.call for point in found}
    killed = 0
    for number, point in enumerate(_spread(found, 20)):
        place = Place(tmp_path / str(number))
        inject = ("-e", f"trace={point.call}", "-e", f"inject={point.call}:signal=KILL:when={point.nth}")
        code = place.run("run", *strace("/dev/null", *inject))
        killed += code in {-signal.SIGKILL, 128 + signal.SIGKILL}
        stored = place.stored()
        if stored is None:
            assert place.said() == [], point  # nothing ran that is not known
            assert place.run("run") == 0, point
        elif stored["phase"] != "Succeeded":
            assert place.run("resume") == 0, point
        _check(place, point)
    assert killed >= 30


def _check(place: Place, point: Point) -> None:
    stored = place.stored()
    assert stored is not None, point
    assert stored["phase"] == "Succeeded", point
    said = place.said()
    # An iteration that is done is never made again; one that was lost on its way may begin a second time.
    assert said.index("end 1") < said.index("begin 2"), point
    assert set(said[said.index("begin 2") :]) == {"begin 2", "end 2"}, point
    launches = {one.name[-16:]: one.launches for one in stored["attempts"]}
    assert said.count("begin 1") <= launches["iter-1-attempt-1"], point
    assert said.count("begin 2") <= launches["iter-2-attempt-1"], point
    for pid in place.pids():
        wait_until(lambda pid=pid: not is_running(pid), "the end of every attempt")


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("pwrite64", "error=ENOSPC:when=20+"),
        ("pwrite64", "error=ENOSPC:when=60+"),
        ("fdatasync", "error=EIO:when=3+"),
        ("fdatasync", "error=EIO:when=6+"),
    ],
)
def test_a_store_that_cannot_be_written_ends_the_engine_and_its_attempt(tmp_path: Path, call: str, fault: str) -> None:
    place = Place(tmp_path / "place")
    files = [str(place.state / f"{FILE_NAME}{end}") for end in ("", "-wal", "-shm")]
    paths = [part for path in files for part in ("-P", path)]
    code = place.run("run", *strace("/dev/null", "-e", f"trace={call}", *paths, "-e", f"inject={call}:{fault}"))
    assert code == 74, (place.root / "run.txt").read_text()
    assert "run store" in (place.root / "run.txt").read_text()
    assert not [pid for pid in place.pids() if is_running(pid)]
    if place.stored() is None:
        assert place.run("run") == 0
    else:
        assert place.run("resume") == 0
    _check(place, Point(call, 0, fault))


def test_a_full_disk_fails_the_attempt_or_the_store_and_leaves_what_is_known(tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    place.state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k,mode=0700", "faults", str(place.state)], check=True)
    try:
        code = place.run("run")
        said = (place.root / "run.txt").read_text()
        assert code in {1, 74}, said
        assert "No space left" in said or "disk is full" in said or "free space" in said, said
        assert not [pid for pid in place.pids() if is_running(pid)]
        subprocess.run(["mount", "-o", "remount,size=16m", str(place.state)], check=True)
        if code == 74 and place.stored() is not None:
            assert place.run("resume") == 0
    finally:
        subprocess.run(["umount", "-l", str(place.state)], check=True)
    assert os.listdir(place.state) == []  # noqa: PTH208
