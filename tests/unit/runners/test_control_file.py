import json
import os
from pathlib import Path

import pytest

from run_cycle_loop.runners import control_file
from tests.obstacles import OBSTACLES, plant


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control" / "cycle-1.json"


def test_to_prepare_makes_the_folder_and_no_file(path: Path) -> None:
    control_file.prepare(str(path))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_an_earlier_cycle_left_is_moved_away(path: Path, kind: str) -> None:
    path.parent.mkdir()
    plant(kind, path, path.with_name("nowhere"))
    control_file.prepare(str(path))
    assert not os.path.lexists(path)
    assert control_file.take(str(path)) == (None, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write wherever it likes")
def test_where_no_payload_could_be_left_nothing_is_started(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="cannot be written to, where it is to leave its control payload"):
        control_file.prepare(str(path))


def test_a_payload_is_taken_once(path: Path) -> None:
    control_file.prepare(str(path))
    payload = {"continue": False, "outputs": {"a": 1}, "reason": "done"}
    path.write_text(json.dumps(payload))
    assert control_file.take(str(path)) == (payload, None)
    assert control_file.take(str(path)) == (None, None)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b" " * (1 << 20) + b"{}", "is no JSON of at most 1048576 bytes"),
        (b"[]", "holds no JSON object but list"),
        (b"null", "holds no JSON object but NoneType"),
        (b'"text"', "holds no JSON object but str"),
    ],
)
def test_what_is_no_object_is_kept_for_whoever_wants_to_see_it(path: Path, content: bytes, why: str) -> None:
    control_file.prepare(str(path))
    path.write_bytes(content)
    value, error = control_file.take(str(path))
    assert value is None
    assert error is not None
    assert why in error
    assert not path.exists()
    assert path.with_name("refused").read_bytes() == content


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_regular_file_is_not_opened(path: Path, tmp_path: Path, kind: str) -> None:
    control_file.prepare(str(path))
    victim = tmp_path / "victim"
    victim.write_text("{}")
    plant(kind, path, victim)
    value, error = control_file.take(str(path))
    assert value is None
    assert error is not None
    assert error.startswith("the control file cannot be read")
    assert victim.exists()


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_no_json_do_not_reach_the_history(path: Path, number: str) -> None:
    control_file.prepare(str(path))
    path.write_text(f'{{"usage": {{"cost": {number}}}}}')
    value, error = control_file.take(str(path))
    assert value is None
    assert error is not None
    assert "is no JSON" in error


@pytest.mark.parametrize(("depth", "taken"), [(1, True), (63, True), (64, False), (500, False)])
def test_a_payload_may_be_nested_as_deep_as_anybody_needs(path: Path, depth: int, taken: bool) -> None:
    control_file.prepare(str(path))
    path.write_text('{"a": ' + "[" * depth + "]" * depth + "}")
    value, error = control_file.take(str(path))
    assert (value is not None) is taken
    assert (error is None) is taken


def test_what_would_grow_beyond_the_bound_once_it_is_recorded_is_refused(path: Path) -> None:
    control_file.prepare(str(path))
    path.write_text(f'{{"a": [{",".join(["1e15"] * 200_000)}]}}')
    assert path.stat().st_size < 1 << 20
    value, error = control_file.take(str(path))
    assert value is None
    assert error is not None
    assert error.startswith("the control file comes to")
