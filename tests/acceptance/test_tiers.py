"""The tests behind ``scripts/test --all`` are left out aloud, and never skipped where they were asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

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


def run_suite(folder: Path, module: str, *, everything: bool) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_suite.py").write_text(module)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder, folder],
        cwd=folder,
        env={**os.environ, "RUN_CYCLE_TEST_ALL": "1" if everything else "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("mark", ["root", "systemd", "agents"])
def test_without_all_they_are_left_out_and_one_line_says_so(tmp_path: Path, mark: str) -> None:
    result = run_suite(tmp_path, SUITE.format(mark=mark), everything=False)
    assert result.returncode == 0, result.stdout
    assert "left out, marked root or systemd or agents: 1 (./scripts/test --all, as root, runs them)" in result.stdout
    assert "1 skipped, 1 deselected" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize("mark", ["root", "systemd", "agents"])
def test_with_all_a_skip_of_theirs_is_a_failure(tmp_path: Path, mark: str) -> None:
    result = run_suite(tmp_path, SUITE.format(mark=mark), everything=True)
    assert result.returncode == 1, result.stdout
    assert "skipped, which --all does not allow: Skipped: no strace here" in result.stdout
    assert "1 failed, 1 skipped" in result.stdout.splitlines()[-1]


def test_with_all_a_module_that_skips_itself_is_a_failure(tmp_path: Path) -> None:
    result = run_suite(tmp_path, SKIPPED_WHOLE, everything=True)
    assert result.returncode != 0
    assert "skipped while collecting, which --all does not allow: Skipped: no systemd here" in result.stdout
