import os
from pathlib import Path

import pytest

from run_cycle_loop.install.placing import Placement, Verdict, compare, place
from run_cycle_loop.model.errors import ConfigError


def test_what_is_not_there_is_created_with_its_folder_and_mode(tmp_path: Path) -> None:
    found = compare(Placement(path=tmp_path / "a" / "unit", text="new\n", mode=0o600))
    assert found.verdict is Verdict.CREATE
    place([found], force=False)
    assert (tmp_path / "a" / "unit").read_text() == "new\n"
    assert (tmp_path / "a" / "unit").stat().st_mode & 0o777 == 0o600


def test_what_is_the_same_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("same\n")
    before = (tmp_path / "unit").stat()
    found = compare(Placement(path=tmp_path / "unit", text="same\n"))
    place([found], force=True)
    assert found.verdict is Verdict.UNCHANGED
    assert (tmp_path / "unit").stat() == before


def test_what_differs_is_shown_and_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("[Unit]\nold\n")
    fresh = compare(Placement(path=tmp_path / "other", text="x"))
    found = compare(Placement(path=tmp_path / "unit", text="[Unit]\nnew\n"))
    assert found.verdict is Verdict.REPLACE
    assert found.diff.splitlines()[-2:] == ["-old", "+new"]
    with pytest.raises(ConfigError, match=r"nothing was changed.*--force"):
        place([fresh, found], force=False)
    assert not (tmp_path / "other").exists()
    assert (tmp_path / "unit").read_text() == "[Unit]\nold\n"


def test_force_replaces_what_differs(tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("old\n")
    place([compare(Placement(path=tmp_path / "unit", text="new\n"))], force=True)
    assert (tmp_path / "unit").read_text() == "new\n"


def test_not_even_force_touches_what_is_the_operators(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("KEY=theirs\n")
    found = compare(Placement(path=tmp_path / "env", text="#KEY=\n", operators=True))
    assert found.verdict is Verdict.KEEP
    place([found], force=True)
    assert (tmp_path / "env").read_text() == "KEY=theirs\n"


def test_what_cannot_be_read_or_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"folder is no regular file"):
        compare(Placement(path=tmp_path / "folder", text=""))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot read .*file/unit"):
        compare(Placement(path=tmp_path / "file" / "unit", text=""))
    gone = compare(Placement(path=Path("/proc/1/unit"), text=""))
    with pytest.raises(ConfigError, match="cannot write /proc/1/unit"):
        place([gone], force=False)


def test_what_is_no_file_is_not_even_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        with pytest.raises(ConfigError, match=f"{name} is no regular file"):
            compare(Placement(path=tmp_path / name, text=""))
