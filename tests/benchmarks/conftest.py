"""The workbench: what is compared is measured in the same run, in turns (A B A B ...), and reported as medians.

Nothing here, and no benchmark, asserts a time: a row says whether its target is met, and a test fails only where the
measured thing did not work.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.benchmarks.figures import Row, Samples, Table, Target
from tests.benchmarks.processes import ENVIRONMENT, Loop, Running, running, seconds

RESULT_VARIABLE = "RUN_CYCLE_BENCH_OUT"
_TABLE = pytest.StashKey[Table]()


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """Collects the rows, which are printed and written at the end."""
    collected = pytestconfig.stash[_TABLE] = Table()
    yield collected
    named = os.environ.get(RESULT_VARIABLE)
    collected.write(Path(named) if named else tmp_path_factory.getbasetemp() / "benchmarks.json")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash.get(_TABLE, None)
    if table is None or not table.rows:
        return
    load = os.getloadavg()[0]
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}, medians"
    terminalreporter.write_sep("-", f"benchmarks: {where}")
    for line in table.lines():
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"samples: {table.written_to}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What a benchmark works with: folders of its own, turns, and the table."""

    folder: Path
    table: Table

    def loop(self, name: str = "loop", **environment: str) -> Loop:
        """A loop in a fresh folder."""
        folder = self.folder / name
        folder.mkdir()
        return Loop(folder=folder, environment={**ENVIRONMENT, **environment})

    def seconds(self, *argv: str) -> float:
        """How long a whole process takes; it must exit 0."""
        return seconds(argv, self.folder)

    def running(self, *argv: str) -> AbstractContextManager[Running]:
        """A process while it runs."""
        return running(argv, self.folder)

    def python(self, program: str, *arguments: str) -> float:
        """The number that a small Python program prints."""
        argv = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(argv, cwd=self.folder, env=ENVIRONMENT, check=True, capture_output=True, text=True)
        return float(done.stdout)

    def alternate(self, rounds: int, *sides: Callable[[], float]) -> list[list[float]]:
        """Measure all sides in turns; the samples of each side."""
        taken = [[side() for side in sides] for _ in range(rounds)]
        return [list(samples) for samples in zip(*taken, strict=True)]

    def row(self, what: str, unit: str, ours: Samples, target: Target | None = None) -> None:
        """Add a figure of ours to the table."""
        self.table.rows.append(Row(what=what, unit=unit, ours=ours, target=target))

    def compare(
        self, what: str, unit: str, ours: Samples, against: str, reference: Samples, target: Target | None = None
    ) -> None:
        """Add a figure of ours beside a floor or a peer."""
        self.table.rows.append(
            Row(what=what, unit=unit, ours=ours, against=against, reference=reference, target=target)
        )


@pytest.fixture
def bench(tmp_path: Path, table: Table) -> Bench:
    return Bench(folder=tmp_path, table=table)
