import os
from pathlib import Path

import pytest

from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.runners.sandbox import reset


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    folder = tmp_path / "sandbox"
    folder.mkdir()
    return folder


def test_a_missing_sandbox_is_made(tmp_path: Path) -> None:
    reset(tmp_path / "a" / "sandbox")
    assert list((tmp_path / "a" / "sandbox").iterdir()) == []


def test_everything_in_it_goes_and_the_folder_itself_stays(sandbox: Path) -> None:
    inode = sandbox.stat().st_ino
    (sandbox / "deep" / "deeper").mkdir(parents=True)
    (sandbox / "deep" / "file").touch()
    (sandbox / ".hidden").touch()
    (sandbox / "dangling").symlink_to("nowhere")
    os.mkfifo(sandbox / "fifo")
    reset(sandbox)
    assert (list(sandbox.iterdir()), sandbox.stat().st_ino) == ([], inode)


def test_links_are_removed_and_not_followed(sandbox: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    (sandbox / "link").symlink_to(victim)
    (sandbox / "up").symlink_to("..")
    os.link(victim / "file", sandbox / "hard")
    reset(sandbox)
    assert (victim / "file").exists()
    assert list(sandbox.iterdir()) == []


def test_a_folder_that_was_made_unreadable_goes_too(sandbox: Path) -> None:
    (sandbox / "locked").mkdir()
    (sandbox / "locked" / "file").touch()
    (sandbox / "locked").chmod(0)
    if os.geteuid() != 0:
        pytest.skip("whoever is not root cannot even open it, and is told so")
    reset(sandbox)
    assert list(sandbox.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_of_its_own_is_refused(tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    sandbox = tmp_path / "sandbox"
    sandbox.symlink_to(victim) if kind == "link" else sandbox.touch()
    with pytest.raises(RunnerError, match="it must be a folder of its own"):
        reset(sandbox)
    assert (victim / "file").exists()


def test_a_sandbox_that_holds_the_working_directory_is_refused() -> None:
    with pytest.raises(RunnerError, match="holds the working directory"):
        reset(Path.cwd())
    with pytest.raises(RunnerError, match="holds the working directory"):
        reset(Path("/"))


def test_a_mount_point_is_refused() -> None:
    with pytest.raises(RunnerError, match="is a mount point"):
        reset(Path("/proc"))


@pytest.mark.parametrize("width", [1, 2])
def test_a_tree_deeper_than_stack_and_descriptors_goes(sandbox: Path, width: int) -> None:
    make_deep(sandbox, 1500, width)
    reset(sandbox)
    assert list(sandbox.iterdir()) == []


def make_deep(folder: Path, levels: int, width: int = 1) -> None:
    """Folders in folders; no path leads to the last of them, which is longer than the kernel takes."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        for number in range(width):
            os.mkdir(f"{number}", dir_fd=descriptor)
        inner = os.open("0", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def test_names_that_are_no_text_go(sandbox: Path) -> None:
    for name in (b"new\nline", b"\xff\xfe", "\u202eevil".encode(), b"-rf", b"x" * 255):
        (sandbox / os.fsdecode(name)).mkdir()
        (sandbox / os.fsdecode(name) / os.fsdecode(name)).touch()
    reset(sandbox)
    assert list(sandbox.iterdir()) == []
