"""Processes under measurement: the installed command in a folder of its own, and whatever runs beside it."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

COMMAND = str(Path(sys.executable).with_name("run-cycle-loop"))
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
_PATIENCE = 60.0  #: seconds for a process to get where a benchmark wants it


def wait_for(look: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """Wait for something that a process brings about in its own time."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.01)


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A process that is watched from outside."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def memory(self, key: str = "VmRSS") -> float:
        """MiB by ``/proc/PID/status``: resident now (VmRSS) or at most so far (VmHWM); 0 once it has exited."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def seconds_to_exit(self, act: Callable[[], object], meanwhile: Callable[[], object] | None = None) -> float:
        """How long it lives on after ``act``; ``meanwhile`` is called every 10 ms until then."""
        exits = select.poll()
        descriptor = os.pidfd_open(self.pid)
        exits.register(descriptor, select.POLLIN)
        began = time.perf_counter()
        act()
        while not exits.poll(10):
            if meanwhile is not None:
                meanwhile()
            if time.perf_counter() - began > _PATIENCE:
                pytest.fail(f"waited {_PATIENCE:.0f} s in vain for pid {self.pid} to exit")
        took = time.perf_counter() - began
        os.close(descriptor)
        self.process.wait()
        return took


@dataclass(frozen=True, kw_only=True, slots=True)
class Loop:
    """A folder in which the installed command runs."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)

    @property
    def history(self) -> Path:
        """Its history."""
        return self.folder / "state" / "run_cycle_history.jsonl"

    @property
    def latest_path(self) -> Path:
        """Where its latest.json is."""
        return self.folder / "logs" / "run_cycle" / "latest.json"

    @property
    def latest(self) -> dict[str, Any]:
        """Its latest.json; empty while there is none."""
        try:
            value: dict[str, Any] = json.loads(self.latest_path.read_bytes())
        except FileNotFoundError:
            return {}
        return value

    def records(self) -> list[dict[str, Any]]:
        """The history, oldest first."""
        return [json.loads(line) for line in self.history.read_bytes().splitlines()]

    def outcomes(self) -> list[str]:
        """The outcomes in the history, oldest first."""
        return [record["status"] for record in self.records()]

    def seconds(self, *arguments: str) -> float:
        """How long the whole command takes; it must exit 0."""
        return seconds([COMMAND, *arguments], self.folder, self.environment)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Running]:
        """The command while it runs; ended afterwards where it still does."""
        with running([COMMAND, *arguments], self.folder, self.environment) as process:
            yield process

    def wait_for_state(self, state: str) -> None:
        """Wait until latest.json shows a state."""
        wait_for(lambda: self.latest.get("state") == state, f"the state {state!r} in {self.folder}")


def seconds(argv: Sequence[str], folder: Path, environment: Mapping[str, str] = ENVIRONMENT) -> float:
    """How long a whole process takes; it must exit 0."""
    with (folder / "stderr").open("wb") as err:
        began = time.perf_counter()
        code = subprocess.call(
            argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err
        )
        took = time.perf_counter() - began
    if code:
        pytest.fail(f"{argv} exited with {code}: {(folder / 'stderr').read_text()}")
    return took


@contextmanager
def running(argv: Sequence[str], folder: Path, environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[Running]:
    """A process while it runs; killed afterwards with all its descendants where it still does."""
    with (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err
        )
    try:
        yield Running(process=process)
    finally:
        if process.poll() is None:
            left = psutil.Process(process.pid)
            for one in (left, *left.children(recursive=True)):
                one.kill()
        process.wait()
