"""The examples for real agents, run as their pages say, with each agent's own command line and a scripted model."""

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.pages import agrees, blocks
from tests.agent_homes import HOMES
from tests.agents.stage import PATIENCE, Stage
from tests.model_server.script import Script, Turn

pytestmark = pytest.mark.agents

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_OURS = ("RUN_CYCLE_", "PYTHON")


def run_example(agent: str, stage: Stage) -> list[str]:
    """What ``run.sh`` of a copy of the example prints."""
    left_out = shutil.ignore_patterns("state", "logs", "sandbox")
    copy = shutil.copytree(EXAMPLES / f"agent-{agent}", stage.root / f"agent-{agent}", ignore=left_out)
    env = {name: value for name, value in stage.env.items() if not name.startswith(_OURS)}
    env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env["PATH"]])
    done = subprocess.run(
        ["./run.sh"],
        cwd=copy,
        env={**env, "COLUMNS": "100", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.stdout.splitlines() + ([f"[exit code {done.returncode}]"] if done.returncode else [])


@pytest.mark.parametrize("agent", sorted(HOMES))
def test_an_example_of_an_agent_does_what_its_page_shows(stage_for: Callable[[str], Stage], agent: str) -> None:
    stage = stage_for(agent)
    write = Turn(write=("hello.txt", "Good morning, whoever you are.\n"))
    stage.server.follow(Script.of(write, Turn(text="I wrote hello.txt. Nothing is left to do.")))
    printed = run_example(agent, stage)
    shown = blocks(EXAMPLES / f"agent-{agent}" / "README.md", "text")[0].splitlines()
    assert agrees(shown, printed), "\n".join(printed)
    [line] = (stage.root / f"agent-{agent}" / "state" / "run_cycle_history.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["status"], record["agent_class"], record["files_changed"]) == ("success", "ok", 1)
