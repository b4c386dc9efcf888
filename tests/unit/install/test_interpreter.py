import sys
from pathlib import Path

import pytest

from run_cycle_loop.install.interpreter import current_python, homes_of, python_of, require, workdir_of
from run_cycle_loop.model.errors import ConfigError


def test_a_prefix_means_its_virtual_environment() -> None:
    python = python_of(Path("/opt/loop"))
    assert python == Path("/opt/loop/.venv/bin/python")
    assert workdir_of(python) == Path("/opt/loop")


def test_without_a_prefix_it_is_the_python_that_runs_this() -> None:
    assert python_of(None) == current_python()
    assert current_python().resolve() == Path(sys.executable).resolve()


def test_a_python_outside_of_a_checkout_works_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert workdir_of(Path("/usr/bin/python3")) == tmp_path


def test_every_installation_that_the_links_lead_through_is_needed(tmp_path: Path) -> None:
    real, alias, venv = tmp_path / "cpython-3.12.1", tmp_path / "cpython-3.12", tmp_path / "loop" / ".venv"
    for folder in (real, venv):
        (folder / "bin").mkdir(parents=True)
    (real / "bin" / "python3.12").touch()
    alias.symlink_to(real)
    (venv / "bin" / "python3").symlink_to(alias / "bin" / "python3.12")
    (venv / "bin" / "python").symlink_to("python3")
    assert set(homes_of(venv / "bin" / "python")) == {venv, alias, real}


def test_links_in_a_ring_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("python")
    assert homes_of(tmp_path / "bin" / "python") == (tmp_path,)


def test_a_python_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Python at .*--prefix"):
        require(tmp_path / "python")
