"""AgentRuns: a decision, a transition on disk, an iteration on this machine, a check; each beside its floor."""

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agentrun.lifecycle.observed import Observed
from run_cycle_loop.agentrun.lifecycle.reconcile import reconcile
from run_cycle_loop.agentrun.lifecycle.status import read_status, write_status
from run_cycle_loop.model.runs import AttemptRecord, RunEvent
from run_cycle_loop.stores.runs import SqliteRunStore
from run_cycle_loop.testing import make_run
from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target
from tests.benchmarks.processes import COMMAND
from tests.unit.agentrun.simulation import Simulation, run_with, step, succeeded

pytestmark = pytest.mark.benchmark

ROUNDS = 9
FEW, MANY = 2, 18  #: iterations; the difference leaves start-up out
DECISIONS = 300
TRANSITIONS = 150
OLD_RUNS = 2000
TRUE = shutil.which("true") or "/bin/true"


def bundle(name: str, iterations: int) -> dict[str, Any]:
    """A loop whose agent is ``true``, with all that it refers to."""
    api = {"apiVersion": "agents.proompteng.ai/v1alpha1"}
    work = {"name": "work", "loop": {"maxIterations": iterations}}
    spec = {
        "agentRef": {"name": "a"},
        "implementation": {"inline": {"text": "Do it."}},
        "runtime": {"type": "workflow"},
        "workflow": {"steps": [work]},
    }
    items = [
        {**api, "kind": "AgentProvider", "metadata": {"name": "p"}, "spec": {"binary": TRUE}},
        {**api, "kind": "Agent", "metadata": {"name": "a"}, "spec": {"providerRef": {"name": "p"}}},
        {**api, "kind": "AgentRun", "metadata": {"name": name}, "spec": spec},
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def manifest(folder: Path, name: str, iterations: int) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(bundle(name, iterations)))
    return str(path)


def test_an_iteration_on_this_machine(bench: Bench) -> None:
    numbers = iter(range(10_000))

    def run(iterations: int) -> float:
        return bench.seconds(
            COMMAND, "agentrun", "run", "-f", manifest(bench.folder, f"run-{next(numbers)}", iterations)
        )

    def iteration() -> float:
        return (run(MANY) - run(FEW)) / (MANY - FEW) * 1000

    ours, python = bench.alternate(
        ROUNDS // 3, iteration, lambda: bench.seconds(sys.executable, "-c", "import json, signal, subprocess") * 1000
    )
    bench.compare("local iteration of true", "ms", ours, "a Python that imports json, signal, subprocess", python)

    states = list((bench.folder / "state" / "agentruns" / "agents").glob("*/status.json"))
    assert len(states) == ROUNDS // 3 * 2
    assert {json.loads(path.read_text())["phase"] for path in states} == {"Succeeded"}


def test_a_check_of_a_manifest(bench: Bench) -> None:
    path = manifest(bench.folder, "checked", 3)
    check, help_, libraries, click = bench.alternate(
        ROUNDS,
        lambda: bench.seconds(COMMAND, "agentrun", "validate", "-f", path) * 1000,
        lambda: bench.seconds(COMMAND, "agentrun", "--help") * 1000,
        lambda: bench.seconds(sys.executable, "-c", "import click, yaml, jsonschema, cel_expr_python.cel") * 1000,
        lambda: bench.seconds(sys.executable, "-c", "import click") * 1000,
    )
    bench.compare("agentrun validate", "ms", check, "its libraries imported", libraries)
    bench.compare("agentrun --help", "ms", help_, "python -c 'import click'", click, Target(of="value", most=120))


def test_a_decision(bench: Bench) -> None:
    simulation = Simulation(run_with(step(loop={"maxIterations": 60})), lambda *_: succeeded())
    for _ in range(101):
        simulation.pass_once()
    status, seen = simulation.status, Observed(now=simulation.now, jobs=dict(simulation.jobs))
    text = json.dumps(write_status(status))

    def decide() -> float:
        began = time.perf_counter()
        write_status(reconcile(simulation.run, read_status(json.loads(text)), seen).status)
        return (time.perf_counter() - began) * 1e6

    def parse() -> float:
        began = time.perf_counter()
        json.loads(text)
        return (time.perf_counter() - began) * 1e6

    ours, floor = bench.alternate(DECISIONS, decide, parse)
    bench.compare("a decision, 50 iterations behind it", "us", ours, "its status parsed as JSON", floor)
    assert len(simulation.status.steps[0].loop.iterations) == 50  # type: ignore[union-attr]


def test_a_transition_on_disk(bench: Bench) -> None:
    empty, long = (SqliteRunStore(bench.folder / name / "runs.sqlite") for name in ("empty", "long"))
    for number in range(OLD_RUNS):
        long.create(make_run(f"old-{number}", is_final=True))
    stores = {store: store.create(make_run("now")) for store in (empty, long)}
    line = json.dumps(bundle("now", 9)).encode() + b"\n"
    floor = os.open(bench.folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    counter = iter(range(10**6))

    def change(store: SqliteRunStore) -> float:
        number = next(counter)
        attempt = AttemptRecord(name=f"attempt-{number}", step=1, iteration=number, attempt=1, folder="x")
        began = time.perf_counter()
        stores[store] = store.change(
            replace(stores[store], phase="Running"), attempts=(attempt,), events=(RunEvent(at="", kind="run.changed"),)
        )
        return (time.perf_counter() - began) * 1e6

    def bare() -> float:
        began = time.perf_counter()
        os.write(floor, line)
        os.fdatasync(floor)
        return (time.perf_counter() - began) * 1e6

    ours, behind, least = bench.alternate(TRANSITIONS, lambda: change(empty), lambda: change(long), bare)
    bench.compare("a transition in the run store", "us", ours, "write and fdatasync", least)
    bench.compare(f"a transition, {OLD_RUNS} runs behind it", "us", behind, "an empty store", ours)
    assert all(len(store.attempts(run)) == TRANSITIONS for store, run in stores.items())
    for store in stores:
        store.close()
    os.close(floor)
