"""A directory in which the installed command runs as an operator would run it."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

COMMAND = Path(sysconfig.get_path("scripts")) / "run-cycle-loop"
PATIENCE = 20.0  #: seconds; what takes longer on a busy machine has failed
#: A cycle that says that it has begun and goes on until it is let go.
HELD = "touch begun; until [ -e go ]; do sleep 0.01; done"
_T = TypeVar("_T")


def python(code: str) -> list[str]:
    """A child that runs everywhere."""
    return [sys.executable, "-S", "-c", code]


def shell(script: str) -> list[str]:
    """A child in one line."""
    return ["sh", "-c", script]


def wait_until(look: Callable[[], _T | None], what: str) -> _T:
    """The first true thing that ``look`` finds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    pytest.fail(f"waited {PATIENCE:g} s in vain for {what}")


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


class Loop:
    """A loop that runs meanwhile."""

    def __init__(self, argv: list[str], cwd: Path, env: Mapping[str, str]) -> None:
        with (cwd / "screen").open("ab") as screen:
            self._process = subprocess.Popen(argv, cwd=cwd, env=env, stdout=screen, stderr=screen)
        self.pid = self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Signal the loop itself and nothing of its cycle."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait(PATIENCE)


class Place:
    """The directory, what was started in it, and what the command left there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.env = {"PATH": os.environ["PATH"], "HOME": str(path), "LANG": "C.UTF-8"}
        self._loops: list[Loop] = []

    def __call__(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            [str(COMMAND), *args],
            cwd=self.path,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run cycles without pauses to speak of; what is in ``args`` comes later and wins."""
        return self("run", "--sleep", "0", "--backoff-initial", "10ms", "--grace", "1s", *args, **env)

    def start(self, *args: str, **env: str) -> Loop:
        """Start a loop that runs until it is stopped."""
        swift = ("--sleep", "0", "--backoff-initial", "10ms", "--grace", "1s", "--continuous")
        loop = Loop([str(COMMAND), "run", *swift, *args], self.path, self.env | env)
        self._loops.append(loop)
        return loop

    def end(self) -> None:
        """End whatever still runs, the cycles of killed loops included."""
        for loop in self._loops:
            loop.end()
        mark = f"HOME={self.path}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and mark in _environment(entry):
                os.kill(int(entry.name), signal.SIGKILL)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The complete lines of the history."""
        path = self.path / "state" / "run_cycle_history.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    @property
    def outcomes(self) -> list[str]:
        """What the cycles came to."""
        return [record["status"] for record in self.records]

    @property
    def latest(self) -> dict[str, Any]:
        """What ``latest.json`` says."""
        found: dict[str, Any] = json.loads((self.path / "logs" / "run_cycle" / "latest.json").read_text())
        return found

    @property
    def screen(self) -> str:
        """What the started loops printed."""
        return (self.path / "screen").read_text()

    def has(self, name: str) -> bool:
        """Whether the cycle left such a file."""
        return (self.path / name).exists()

    def write(self, name: str, text: str) -> Path:
        """A file of the operator's."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def wait_for(self, name: str) -> str:
        """What a file holds once it is there."""
        return wait_until(lambda: (self.path / name).read_text() or "empty" if self.has(name) else None, name)

    def wait_for_state(self, state: str) -> dict[str, Any]:
        """What ``latest.json`` says once the loop is in a state."""

        def look() -> dict[str, Any] | None:
            if not (self.path / "logs" / "run_cycle" / "latest.json").exists():
                return None
            return self.latest if self.latest["state"] == state else None

        return wait_until(look, f"the state {state}")


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
