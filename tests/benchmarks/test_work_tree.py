"""What it costs to measure a tree, to keep a copy of it, and to look at it while a cycle runs."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.kit.manifest import Scan
from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.stores.work_tree import Caps, MeasuredTree
from run_cycle_loop.testing import make_spec
from tests.benchmarks.conftest import Bench
from tests.benchmarks.figures import Target

pytestmark = pytest.mark.benchmark

ROUNDS = {10_000: 7, 100_000: 3}
A_FOLDER = 100  #: files


@pytest.mark.parametrize("files", ROUNDS)
def test_a_tree(bench: Bench, files: int) -> None:
    root = bench.folder / "tree"
    for folder in range(files // A_FOLDER):
        (root / f"{folder // 100}" / f"{folder}").mkdir(parents=True)
        for number in range(A_FOLDER):
            (root / f"{folder // 100}" / f"{folder}" / f"{number}").write_bytes(b"content")
    name = f"tree of {files} files"
    ours, floor = bench.alternate(
        ROUNDS[files], lambda: took(lambda: scan(root, files)), lambda: took(lambda: walk(root))
    )
    bench.compare(f"{name}: scan", "ms", ours, "os.walk and lstat", floor, Target(of="ratio", most=3))

    tree = MeasuredTree(
        root, bench.folder / "state", mode=GuardMode.ENFORCE, caps=Caps(files=1), clock=SystemClock(), fingerprint=False
    )
    first = took(lambda: tree.mark(make_spec()))
    bench.compare(f"{name}: first mark, all copied", "ms", [first], "os.walk and lstat", [took(lambda: walk(root))])
    settled, floor = bench.alternate(
        ROUNDS[files], lambda: took(lambda: tree.settle(make_spec())) + took(lambda: tree.mark(make_spec())),
        lambda: took(lambda: walk(root)),
    )  # fmt: skip
    bench.compare(f"{name}: settle and next mark, unchanged", "ms", settled, "os.walk and lstat", floor)
    looks = longest_looks(tree)
    bench.row(f"{name}: the longest look", "ms", [max(looks)], Target(of="value", most=20))
    (root / "one").touch()
    (root / "two").touch()
    verdict = tree.settle(make_spec())
    assert verdict.files == 2
    assert not (root / "one").exists()


def test_a_folder_that_is_not_there(bench: Bench) -> None:
    missing = bench.folder / "missing"
    tree = MeasuredTree(
        missing, bench.folder / "state", mode=GuardMode.ENFORCE, caps=Caps(files=1), clock=SystemClock()
    )
    ours, floor = bench.alternate(5, lambda: took(lambda: nothing_done(tree)), lambda: took(lambda: lstats(missing)))
    bench.compare("no tree: mark, look and settle", "us", ours, "two lstat", floor)


def took(act: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def scan(root: Path, files: int) -> None:
    whole = Scan(root)
    whole.step()
    assert len(whole.manifest().entries) > files


def walk(root: Path) -> None:
    for base, _, names in os.walk(root):
        for name in names:
            os.lstat(f"{base}/{name}")


def longest_looks(tree: MeasuredTree) -> list[float]:
    """Every look for four seconds, at the pace at which the loop calls."""
    looks = []
    until = time.perf_counter() + 4
    while time.perf_counter() < until:
        looks.append(took(tree.look))
        time.sleep(0.05)
    return looks


def nothing_done(tree: MeasuredTree) -> None:
    """A thousand times, so that milliseconds are microseconds each."""
    for _ in range(1000):
        tree.mark(make_spec())
        tree.look()
        tree.settle(make_spec())


def lstats(path: Path) -> None:
    for _ in range(1000):
        os.path.lexists(path)
        os.path.lexists(path)
