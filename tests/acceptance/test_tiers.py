"""The tests behind ``--all`` and ``--cluster`` are left out aloud, and never skipped where they were asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALL_MARKS = "root or systemd or agents or cluster"

SUITE = """\
import pytest

@pytest.mark.{mark}
def test_gated():
    pytest.skip("no strace here")

def test_plain():
    pytest.skip("not today")
"""
SKIPPED_WHOLE = """\
import pytest
pytest.skip("no systemd here", allow_module_level=True)
"""


def run_suite(folder: Path, module: str, switch: str = "") -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_suite.py").write_text(module)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder, folder],
        cwd=folder,
        env={
            **os.environ,
            "RUN_CYCLE_TEST_ALL": "0",
            "RUN_CYCLE_TEST_CLUSTER": "0",
            **({switch: "1"} if switch else {}),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("mark", ["root", "systemd", "agents", "cluster"])
def test_without_all_they_are_left_out_and_one_line_says_so(tmp_path: Path, mark: str) -> None:
    result = run_suite(tmp_path, SUITE.format(mark=mark))
    assert result.returncode == 0, result.stdout
    assert f"left out, marked {ALL_MARKS}: 1 (./scripts/test --all, as root, runs them)" in result.stdout
    assert "1 skipped, 1 deselected" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize("mark", ["root", "systemd", "agents", "cluster"])
def test_with_all_a_skip_of_theirs_is_a_failure(tmp_path: Path, mark: str) -> None:
    result = run_suite(tmp_path, SUITE.format(mark=mark), "RUN_CYCLE_TEST_ALL")
    assert result.returncode == 1, result.stdout
    assert "skipped, which --all does not allow: Skipped: no strace here" in result.stdout
    assert "1 failed, 1 skipped" in result.stdout.splitlines()[-1]


def test_with_cluster_only_the_tests_of_a_cluster_come_in(tmp_path: Path) -> None:
    suite = SUITE.format(mark="root").replace("test_plain", "test_free") + SUITE.format(mark="cluster")
    result = run_suite(tmp_path, suite.replace("test_gated", "test_of_root", 1), "RUN_CYCLE_TEST_CLUSTER")
    assert result.returncode == 1, result.stdout
    assert "left out, marked root or systemd or agents: 1" in result.stdout
    assert "skipped, which --cluster does not allow: Skipped: no strace here" in result.stdout
    assert "1 failed, 2 skipped, 1 deselected" in result.stdout.splitlines()[-1]


def test_with_all_a_module_that_skips_itself_is_a_failure(tmp_path: Path) -> None:
    result = run_suite(tmp_path, SKIPPED_WHOLE, "RUN_CYCLE_TEST_ALL")
    assert result.returncode != 0
    assert "skipped while collecting, which --all does not allow: Skipped: no systemd here" in result.stdout
