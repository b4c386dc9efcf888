"""Where a real agent is driven through the product: one cycle's session against the scripted model server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.agent_homes import HOMES
from tests.model_server.script import Script, Turn
from tests.model_server.server import Asked, ModelServer

START_AGENT = Path(__file__).resolve().parents[2] / "scripts" / "start_agent.py"
GOAL = "Write hello.txt with one line."
PATIENCE = 45.0  #: seconds; what takes longer on a busy machine has failed
_MARK = "RUN_CYCLE_ID"


def wait_until(look: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first true thing that ``look`` finds."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.02)


@dataclass(kw_only=True)
class Cycle:
    """One session that was started, and what is seen of it from outside."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    began: float = field(default_factory=time.monotonic)
    peak: int = 0  #: KiB that the product held itself, at most
    seconds: float = 0.0

    def ended(self) -> int:
        """Its exit code, waited for."""

        def look() -> bool:
            self.peak = max(self.peak, _resident(self.process.pid))
            return self.process.poll() is not None

        wait_until(look, f"the end of the session; it said: {self.said}")
        self.seconds = time.monotonic() - self.began
        return self.process.returncode

    @property
    def said(self) -> str:
        """What it printed, both streams."""
        return "".join((self.folder / name).read_text(errors="replace")[-3000:] for name in ("stdout", "stderr"))

    @property
    def control(self) -> dict[str, Any]:
        """What it told the loop."""
        path = self.folder / "control.json"
        if not path.exists():
            pytest.fail(f"there is no control file; it said: {self.said}")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


class Stage:
    """A fresh checkout-like folder, a home for one agent, and the model that it will meet."""

    def __init__(self, root: Path, agent: str, server: ModelServer, programs: Path) -> None:
        self.root = root
        self.agent = agent
        self.server = server
        self.workdir = root / "sandbox"
        self.workdir.mkdir(parents=True)
        self.identity = f"{agent}-{os.getpid()}-{time.monotonic_ns()}"
        home = HOMES[agent](root / "home", server.url)
        self.env = home | {
            "PATH": f"{programs}{os.pathsep}{home['PATH']}",
            "RUN_CYCLE_CONSENT_GUARD": "off",
            "RUN_CYCLE_STATE_DIR": str(root / "state"),
            "RUN_CYCLE_CONTROL_FILE": str(root / "control.json"),
            "RUN_CYCLE_NUMBER": "1",
            _MARK: self.identity,
        }
        (root / "state").mkdir()
        self.cycles: list[Cycle] = []

    @property
    def turns(self) -> list[Asked]:
        """The requests that the agent made at its work."""
        return self.server.turns

    def start(self, *turns: Turn, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> Cycle:
        """Begin a session in which the model takes these turns."""
        self.server.follow(Script.of(*turns))
        argv = [sys.executable, str(START_AGENT), "--agent", self.agent, "--mode", "experimental", "--goal", GOAL]
        argv += [
            "--workdir",
            "sandbox",
            "--assume-yes",
            *(options if "--isolate" in options else (*options, "--isolate", "none")),
        ]
        with (self.root / "stdout").open("wb") as stdout, (self.root / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                cwd=self.root,
                env=self.env | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.cycles.append(Cycle(process=process, folder=self.root))
        return self.cycles[-1]

    def run(self, *turns: Turn, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> Cycle:
        """A session to its end."""
        cycle = self.start(*turns, options=options, env=env)
        cycle.ended()
        return cycle

    def await_turns(self, count: int) -> None:
        """Wait until the agent has asked the model so often."""
        wait_until(lambda: len(self.turns) >= count, f"{count} requests; it said: {self.cycles[-1].said}")

    def left(self) -> dict[int, str]:
        """The processes that carry this session's mark, and what they are."""
        mark = f"{_MARK}={self.identity}".encode()
        return {pid: _command(pid) for pid in _pids() if mark in _environment(pid) and _is_running(pid)}

    def end(self) -> None:
        """End whatever the test left running."""
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for cycle in self.cycles:
            cycle.process.wait(PATIENCE)


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return ""


def _is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"
