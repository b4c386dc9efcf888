import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, StateError
from run_cycle_loop.stores.folders import claim, secure

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def anyones_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("anyones_umask")
def test_a_missing_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    secure(tmp_path / "a" / "state")
    assert mode(tmp_path / "a" / "state") == 0o700


@pytest.mark.parametrize(("before", "after"), [(0o777, 0o755), (0o775, 0o755), (0o700, 0o700), (0o1777, 0o1755)])
def test_write_access_is_taken_from_others_and_nothing_else(tmp_path: Path, before: int, after: int) -> None:
    tmp_path.chmod(before)
    secure(tmp_path)
    assert mode(tmp_path) == after


@needs_root
def test_a_strangers_folder_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="belongs to uid 65534; chmod go-w it, or name another"):
        secure(tmp_path)


@needs_root
def test_a_group_that_the_owner_chose_may_write(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    tmp_path.chmod(0o770)
    secure(tmp_path)
    assert mode(tmp_path) == 0o770


def test_a_folder_below_a_file_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="mend its parent, or name another"):
        secure(tmp_path / "file" / "state")


def test_a_folder_of_logs_has_one_loop_at_a_time(tmp_path: Path) -> None:
    descriptor = claim(tmp_path)
    with pytest.raises(AlreadyRunning, match=r"another loop keeps its logs in .* choose another --log-dir"):
        claim(tmp_path)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    os.close(claim(tmp_path))


def test_what_is_no_folder_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot be opened"):
        claim(tmp_path / "file")
