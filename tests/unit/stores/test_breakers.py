import json
import os
from pathlib import Path

import pytest

from run_cycle_loop.model.breakers import BreakerMarks, BreakerName, Reset
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.stores.breakers import BreakerFile
from run_cycle_loop.testing import NOON

RESET = BreakerMarks(reset=Reset(at="then", by="me", number=7))


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path, warnings: list[str]) -> BreakerFile:
    return BreakerFile(tmp_path / "state" / "breakers.json", lambda: NOON, warnings.append)


def test_without_a_file_nothing_is_kept(file: BreakerFile) -> None:
    assert file.load() == BreakerMarks()
    assert not file.path.parent.exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"\0" * 200,
        b"\xff\xfe",
        b"[" * 5000,
        b"x" * (1 << 17),
        json.dumps({"reset": {"number": "7"}, "opened": None}).encode(),
        json.dumps({"reset": None, "opened": {"name": "fuse"}}).encode(),
    ],
)
def test_damage_is_set_aside_and_opens_the_breakers_for_good(
    file: BreakerFile, warnings: list[str], damage: bytes
) -> None:
    file.save(RESET)
    file.path.write_bytes(damage)
    marks = file.load()
    assert marks.opened is not None
    assert (marks.opened.name, marks.reset) == (BreakerName.STATE, None)
    assert "was damaged" in marks.opened.why
    kept = file.path.with_name("breakers.json.corrupt")
    assert kept.read_bytes() == damage
    assert len(warnings) == 1
    assert file.load() == marks  # and stays so, with nothing more set aside
    assert len(warnings) == 1


@pytest.mark.parametrize("what", ["link", "fifo", "folder"])
def test_what_is_no_file_of_ours_is_damage(file: BreakerFile, tmp_path: Path, what: str) -> None:
    file.path.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_text('{"reset": null, "opened": null}')
    if what == "link":
        file.path.symlink_to(victim)
    elif what == "fifo":
        os.mkfifo(file.path)
    else:
        file.path.mkdir()
    assert file.load().opened is not None
    assert file.path.is_file()
    assert not file.path.is_symlink()
    assert victim.read_text() == '{"reset": null, "opened": null}'
    assert file.load().opened is not None


def test_damage_that_an_attempt_has_kept_already_is_not_kept_again(file: BreakerFile) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(b"{")
    os.link(file.path, file.path.with_name("breakers.json.corrupt"))  # killed after that
    assert file.load().opened is not None
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["breakers.json", "breakers.json.corrupt"]


def test_a_look_alone_sets_nothing_aside(file: BreakerFile) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(b"{")
    with pytest.raises(ValueError, match=r"."):
        file.read()
    assert [path.name for path in file.path.parent.iterdir()] == ["breakers.json"]


def test_what_cannot_be_written_is_an_error_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    with pytest.raises(StateError, match=r"breakers\.json cannot be rewritten: .*mend its folder"):
        BreakerFile(tmp_path / "state" / "breakers.json", lambda: NOON).save(RESET)
