from pathlib import Path

import pytest

from run_cycle_loop.model.records import CheckResult
from run_cycle_loop.prerequisites.resources import DiskCheck, MemoryCheck, WritableCheck
from run_cycle_loop.testing import InMemoryCycleLog, make_spec

LOG = InMemoryCycleLog("log")
HUGE = 1 << 62


def writable(path: Path) -> CheckResult:
    return WritableCheck(path=path).check(make_spec(), LOG)


def test_a_folder_and_a_file_and_what_could_be_made_are_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "not" / "yet"):
        assert writable(path).ok
    assert not (tmp_path / "not").exists()


def test_what_lies_below_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = writable(tmp_path / "file" / "below")
    assert not result.ok
    assert result.detail == f"{tmp_path / 'file'} is not writable; mend its owner or mode, or name another path"


def test_what_lies_below_a_file_of_the_kernels_is_not() -> None:
    assert not writable(Path("/proc/version/below")).ok


@pytest.mark.parametrize(("least", "ok"), [(0, True), (1, True), (HUGE, False)])
def test_enough_is_at_least_what_is_asked(tmp_path: Path, least: int, ok: bool) -> None:
    disk = DiskCheck(path=tmp_path / "not" / "yet", least=least).check(make_spec(), LOG)
    memory = MemoryCheck(least=least).check(make_spec(), LOG)
    assert (disk.ok, memory.ok) == (ok, ok)
    assert ("lower --min-free-disk" in disk.detail, "lower --min-free-memory" in memory.detail) == (not ok, not ok)
