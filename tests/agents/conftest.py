"""The agents' own command lines, a model server for each test, and a network without anything beyond this machine."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents.loopback import loopback_alone
from tests.agents.stage import Stage
from tests.model_server.server import ModelServer

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "agent_clis.sh"
_INSTALLING = 280.0  #: seconds


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the command lines; installed once, in the cache of this user."""
    done = subprocess.run([_SCRIPT], capture_output=True, text=True, check=False, timeout=_INSTALLING)
    if done.returncode:
        pytest.fail(f"these tests need the agents' command lines: {done.stderr.strip()}")
    return Path(done.stdout.strip())


@pytest.fixture
def model_server(programs: Path) -> Iterator[ModelServer]:
    """In a network where nothing else is; the installation before it needs the one outside."""
    del programs
    with loopback_alone(), ModelServer() as server:
        yield server


@pytest.fixture
def stage_for(tmp_path: Path, model_server: ModelServer, programs: Path) -> Iterator[Callable[[str], Stage]]:
    """A stage for an agent, cleared at the end."""
    stages: list[Stage] = []

    def make(agent: str) -> Stage:
        stages.append(Stage(tmp_path / agent, agent, model_server, programs))
        return stages[-1]

    yield make
    for stage in stages:
        stage.end()
