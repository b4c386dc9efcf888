import os
import stat
from pathlib import Path

import pytest

from run_cycle_loop.kit import files
from tests.obstacles import OBSTACLES, plant


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "latest.json"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("durable", [False, True])
def test_a_replaced_file_has_the_new_content_and_leaves_no_draft(target: Path, durable: bool) -> None:
    target.write_text("old and longer")
    files.replace_file(target, b"new", durable=durable)
    assert target.read_bytes() == b"new"
    assert names(target.parent) == {target.name}


def test_a_replaced_file_is_private_whatever_the_umask(target: Path) -> None:
    before = os.umask(0)
    try:
        files.replace_file(target, b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_reader_keeps_the_old_file_whole(target: Path) -> None:
    target.write_text("old")
    with target.open() as reader:
        files.replace_file(target, b"new")
        assert reader.read() == "old"


def test_a_link_in_its_place_is_replaced_and_not_followed(target: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target.symlink_to(victim)
    files.replace_file(target, b"new")
    assert (victim.read_text(), target.is_symlink()) == ("mine", False)


def test_a_draft_that_a_killed_writer_left_is_no_obstacle(target: Path) -> None:
    target.with_name(f".{target.name}.tmp").write_text("half")
    files.replace_file(target, b"new")
    assert target.read_bytes() == b"new"


def test_a_link_planted_as_the_draft_leads_nowhere(target: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target.with_name(f".{target.name}.tmp").symlink_to(victim)
    files.replace_file(target, b"new")
    assert (victim.read_text(), target.read_bytes()) == ("mine", b"new")


@pytest.mark.parametrize("kind", OBSTACLES)
def test_only_a_regular_file_is_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    plant(kind, path, Path("/etc/hostname"))
    with pytest.raises(OSError, match=r"not a regular file|symbolic links"):
        files.open_regular(path, os.O_RDONLY)


def test_a_bounded_read_takes_the_limit_and_not_a_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_bounded(path, 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        files.read_bounded(path, 4)


def test_what_is_set_aside_never_overwrites_what_was(tmp_path: Path) -> None:
    kept = []
    for content in "abc":
        damaged = tmp_path / "slot"
        damaged.write_text(content)
        kept.append(files.set_aside(damaged, "corrupt"))
    assert [path.name for path in kept] == ["slot.corrupt", "slot.corrupt-2", "slot.corrupt-3"]
    assert [path.read_text() for path in kept] == ["a", "b", "c"]


def test_a_dangling_link_counts_as_taken(tmp_path: Path) -> None:
    (tmp_path / "slot.corrupt").symlink_to("nowhere")
    (tmp_path / "slot").write_text("x")
    assert files.set_aside(tmp_path / "slot", "corrupt").name == "slot.corrupt-2"


def test_a_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    files.make_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) & 0o077 == 0


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    files.make_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    files.unlink_quietly(tmp_path / "nothing")
