"""The laboratory: a fresh working directory where the installed command runs as a child, is watched and disturbed."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

COMMAND = str(Path(sys.executable).with_name("run-cycle-loop"))
PATIENCE = 30.0  #: seconds; what takes longer on a busy machine has failed
#: Cycle after cycle, whatever they come to; a test's own options win.
SWIFT = tuple(
    "--sleep 0 --backoff-initial 20ms --backoff-factor 1 --backoff-jitter 0 --max-failures 0 --grace 1s".split()
)
_MARK = "FAULTS_LAB"


def wait_until(look: Callable[..., Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first true thing that ``look`` finds."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie that its parent has not yet reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def resident(pid: int, field: str = "VmHWM") -> int:
    """KiB of memory that a process holds (``VmRSS``) or has held at most (``VmHWM``); 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0


class Loop:
    """The command as a child of the test, with its output in files."""

    def __init__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], out: Path, **how: Any) -> None:
        self.out = out
        self.process: subprocess.Popen[bytes]
        self.killed = False  #: by the test; its exit code then says nothing
        self.peak = 0  #: KiB
        with (out / "stdout").open("wb") as stdout, (out / "stderr").open("wb") as stderr:
            streams: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": stdout,
                "stderr": stderr,
                "start_new_session": True,
            }
            self.process = subprocess.Popen(list(argv), cwd=cwd, env=dict(env), **(streams | how))
        self.pid = self.process.pid

    @property
    def stdout(self) -> str:
        return (self.out / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.out / "stderr").read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        self.peak = max(self.peak, resident(self.pid))
        return self.process.poll()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self.killed = True
        self.process.kill()
        self.process.wait(PATIENCE)

    def ended(self, seconds: float = PATIENCE) -> int:
        """The exit code, waited for."""
        deadline = time.monotonic() + seconds
        while (code := self.code) is None:
            if time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"still running after {seconds:g} s; it said: {self.stderr[-2000:]}")
            time.sleep(0.005)
        return code


class Lab:
    """Where one test happens. What a cycle writes by itself belongs into ``scratch``; all else is the product's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.command_path = COMMAND
        self.state = root / "state"
        self.logs = root / "logs" / "run_cycle"
        self.scratch = root / "scratch"
        self.scratch.mkdir(parents=True)
        self.name = secrets.token_hex(8)
        self.canary = "canary-" + secrets.token_hex(12)
        self.env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(root),
            "LANG": "C.UTF-8",
            "FAULTS_API_KEY": self.canary,
            _MARK: self.name,
        }
        self.loops: list[Loop] = []
        self.allowed: set[str] = set()  #: invariants that this test suspends, by name, with its reason beside it
        self.planted: set[Path] = set()  #: files that the test made or changed itself: modes and content are not judged
        self.settles = True  #: whether a plain next start is possible and owed

    @property
    def history_path(self) -> Path:
        return self.state / "run_cycle_history.jsonl"

    @property
    def latest_path(self) -> Path:
        return self.logs / "latest.json"

    @property
    def slot_path(self) -> Path:
        return self.state / "run_cycle_in_flight.json"

    @property
    def lock_path(self) -> Path:
        return self.state / "run_cycle.lock"

    @property
    def stop_path(self) -> Path:
        return self.state / "run_cycle.stop"

    def start(
        self,
        *options: str,
        cycle: Sequence[str | Path] = ("true",),
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        streams: Mapping[str, Any] | None = None,
        **how: Any,
    ) -> Loop:
        """Start ``run``; later options win over the swift defaults."""
        argv = [*prefix, COMMAND, "run", *SWIFT, *options, "--", *map(str, cycle)]
        return self.launch(argv, env=env, **how, **(streams or {}))

    def launch(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **how: Any) -> Loop:
        """Start any command line in the lab."""
        out = self.root / "out" / str(len(self.loops))
        out.mkdir(parents=True)
        loop = Loop(argv, cwd=self.root, env={**self.env, **(env or {})}, out=out, **how)
        self.loops.append(loop)
        return loop

    def run(self, *options: str, cycle: Sequence[str | Path] = ("true",), **how: Any) -> Loop:
        """Run to the end; one cycle by default."""
        loop = self.start(*options, cycle=cycle, **how)
        loop.ended()
        return loop

    def command(self, *argv: str, **how: Any) -> Loop:
        """Another sub-command, run to its end."""
        loop = self.launch([COMMAND, *argv], **how)
        loop.ended()
        return loop

    def script(self, text: str, name: str = "cycle") -> Path:
        """An executable shell script; ``$S`` in it is the scratch folder."""
        path = self.scratch / name
        path.write_text(f"#!/bin/sh\nS={self.scratch}\n{text}\n")
        path.chmod(0o755)
        return path

    def python(self, text: str, name: str = "cycle.py") -> tuple[str, ...]:
        """The command that runs a Python text without site-packages; ``S`` in it is the scratch folder."""
        path = self.scratch / name
        path.write_text(f"S = {str(self.scratch)!r}\n{text}\n")
        return (sys.executable, "-I", "-S", str(path))

    def history(self) -> list[dict[str, Any]]:
        """All readable records."""
        try:
            raw = self.history_path.read_bytes()
        except FileNotFoundError:
            return []
        records = []
        for line in raw.split(b"\n")[:-1]:
            with contextlib.suppress(ValueError, RecursionError):
                records.append(json.loads(line))
        return [record for record in records if isinstance(record, dict)]

    def outcomes(self) -> list[str]:
        return [record.get("status", "") for record in self.history()]

    def latest(self) -> dict[str, Any]:
        """What latest.json says; empty where there is none."""
        try:
            found: dict[str, Any] = json.loads(self.latest_path.read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def await_state(self, *words: str) -> dict[str, Any]:
        """Wait until the loop shows one of these states."""

        def look() -> dict[str, Any] | None:
            found = self.latest()
            return found if found.get("state") in words else None

        shown: dict[str, Any] = wait_until(look, f"the state {' or '.join(words)}")
        return shown

    def await_file(self, name: str) -> Path:
        """Wait until a cycle has left a file with something in it in the scratch folder."""
        path = self.scratch / name
        wait_until(lambda: path.exists() and path.stat().st_size > 0, f"a file {name}")
        return path

    def await_records(self, count: int) -> list[dict[str, Any]]:
        """Wait until the history has so many records."""
        wait_until(lambda: len(self.history()) >= count, f"{count} records")
        return self.history()

    def processes(self) -> list[int]:
        """The living processes that descend from this lab's loops, by a variable in their environment."""
        mark = f"{_MARK}={self.name}".encode()
        return [pid for pid in _pids() if is_running(pid) and mark in _environment(pid)]

    def written(self) -> Iterator[Path]:
        """Every regular file that the product wrote: state, logs, and what it said."""
        for folder in (self.state, self.logs, self.root / "out"):
            for base, _, names in os.walk(folder):
                yield from (Path(base, name) for name in names if os.path.isfile(Path(base, name)))  # noqa: PTH113

    def end(self) -> None:
        """End whatever the test left running."""
        for loop in self.loops:
            if loop.code is None:
                with contextlib.suppress(ProcessLookupError):
                    loop.send(signal.SIGCONT)
                loop.kill()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
