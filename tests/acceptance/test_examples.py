"""Every directory of ``examples/`` is run as its README says, and does what it is there to show."""

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from run_cycle_loop.agents.registry import ADAPTERS
from run_cycle_loop.config.sources import resolve
from run_cycle_loop.policies.backoff import Backoff
from tests.acceptance.pages import ROOT, run, steps

EXAMPLES = ROOT / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())
#: What the cycles of each example come to.
OUTCOMES = {
    "agent-command": ["prereq_failed", "success"],
    "agent-planner": ["success"] * 2,
    "agent-scripted": ["success", "rate_limited", "success"],
    "agentrun-conditional-loop": [],
    "agentrun-fixed-loop": [],
    "agentrun-plain": ["success"] * 2,
    "budgets": ["success"] * 2,
    "count-until-done": ["success"] * 3,
    "goal-file": ["success"] * 3,
    "goals": ["success"] * 6,
    "nightly-command": ["success"] * 2,
    "prerequisites": ["prereq_failed", "success"],
    "prometheus": ["success", "failed"],
}
#: Those of real agents, whose programs are never started here; ``tests/agents`` does that.
AGENTS = {f"agent-{name}" for name, entry in ADAPTERS.items() if entry.program}


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An example's folder, where no earlier run left anything."""
    source = EXAMPLES / request.param
    left_out = shutil.ignore_patterns("state", "logs", "sandbox", "out")
    return Path(shutil.copytree(source, tmp_path / "examples" / source.name, ignore=left_out))


def outcomes(folder: Path) -> list[str]:
    path = folder / "state" / "run_cycle_history.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["status"] for line in lines]


@pytest.mark.parametrize("copy", [folder.name for folder in FOLDERS], indirect=True)
def test_an_example_runs_to_its_end_and_its_cycles_come_to_what_it_shows(copy: Path) -> None:
    printed = run("./run.sh", copy)
    assert not printed[-1].startswith("[exit code"), "\n".join(printed)
    assert outcomes(copy) == ([] if copy.name in AGENTS else OUTCOMES[copy.name])


def test_every_coding_agent_has_an_example() -> None:
    assert {folder.name for folder in FOLDERS} == AGENTS | OUTCOMES.keys()


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_the_settings_for_a_coding_agent_are_settings_with_limits(name: str) -> None:
    settings = resolve({}, {}, EXAMPLES / name).settings
    assert (f"agent-{settings.agent}", settings.consent_guard, settings.write_guard) == (name, "enforce", "enforce")
    assert settings.timeout
    assert settings.idle_timeout
    assert settings.cap_writes
    assert {(limit.unit, limit.period) for limit in settings.budget} >= {("usd", "cycle"), ("usd", "day")}


@pytest.mark.parametrize(
    ("copy", "stop", "iterations"),
    [
        ("agentrun-fixed-loop", "LoopMaxIterationsReached", 3),
        ("agentrun-conditional-loop", "LoopConditionFalse", 3),
        ("agentrun-plain", None, None),
    ],
    indirect=["copy"],
)
def test_an_agentrun_of_the_examples_ends_as_it_is_meant_to(
    copy: Path, stop: str | None, iterations: int | None
) -> None:
    run("./run.sh", copy)
    (first, *_) = sorted((copy / "state" / "agentruns" / "agents").glob("*/status.json"))
    status = json.loads(first.read_text())
    loop = status["workflow"]["steps"][0].get("loop", {})
    assert (status["phase"], loop.get("stopReason"), loop.get("completedIterations")) == ("Succeeded", stop, iterations)


@pytest.mark.parametrize("copy", ["nightly-command"], indirect=True)
def test_the_nightly_command_leaves_its_archives(copy: Path) -> None:
    run("./run.sh", copy)
    assert sorted(path.name for path in (copy / "out").iterdir()) == ["notes-1.tar", "notes-2.tar"]


@pytest.mark.parametrize("copy", ["goal-file"], indirect=True)
def test_an_example_takes_the_checkouts_own_script_where_nothing_is_installed(copy: Path) -> None:
    scripts = copy.parent.parent / "scripts"
    scripts.mkdir()
    installed = Path(sysconfig.get_path("scripts")) / "run-cycle-loop"
    (scripts / "run-cycle-loop").symlink_to(installed)
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not Path(folder, "run-cycle-loop").exists())
    assert run("./run.sh", copy, path=path)[-1] == "mode stabilize, goal: Write the release notes."


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_says_what_it_shows(folder: Path) -> None:
    """What its script prints; or what the script does, command by command, and then it is named."""
    page = folder / "README.md"
    assert steps(page)[0].command == "./run.sh" or "`./run.sh` does the same" in page.read_text()
    assert f"({folder.name}/README.md)" in (EXAMPLES / "README.md").read_text()


def test_the_sample_settings_are_settings(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "run-cycle-loop.toml", tmp_path)
    settings = resolve({}, {}, tmp_path).settings
    assert (settings.command, settings.iterations, settings.sleep) == (("make", "nightly"), 0, 600)
    backoff = Backoff(
        initial=settings.backoff_initial, factor=settings.backoff_factor, longest=settings.max_backoff, jitter=0
    )
    waits = [backoff.delay(streak, lambda: 0.5) for streak in range(1, settings.max_failures)]
    assert waits == [120, 360, 1080, 1800]  # as its comment says


@pytest.mark.root
@pytest.mark.parametrize("command", [["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]])
def test_prometheus_takes_the_rules(command: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *command],
        cwd=EXAMPLES / "prometheus",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
