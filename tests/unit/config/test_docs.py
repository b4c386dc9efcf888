"""The page ``docs/configuration.md`` is the declarations, and its examples are configurations that work."""

from pathlib import Path

import pytest

from run_cycle_loop.config.docs import COMMAND_EXAMPLE, EXAMPLE, page
from run_cycle_loop.config.settings import OPTIONS
from run_cycle_loop.config.sources import resolve

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_committed_page_is_the_one_that_the_declarations_give() -> None:
    assert PAGE.read_text() == page(), "run: python -m run_cycle_loop.config.docs > docs/configuration.md"


@pytest.mark.parametrize("name", list(OPTIONS))
def test_every_setting_is_one_row(name: str) -> None:
    option = OPTIONS[name]
    first = option.flag if option.on_command_line else "-- COMMAND..."
    assert [line.startswith((f"| `{first}`", f"| `{first} ")) for line in page().splitlines()].count(True) == 1


@pytest.mark.parametrize("line", [line for line in page().splitlines() if line.startswith("| ")])
def test_every_row_has_the_five_cells_of_its_table(line: str) -> None:
    assert len(line.split(" | ")) == 5


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "run-cycle-loop.toml").write_text(EXAMPLE)
    settings = resolve({}, {}, tmp_path).settings
    assert (settings.iterations, settings.sleep, settings.min_free_disk) == (0, 600, 1024**3)


def test_the_example_with_a_command_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "run-cycle-loop.toml").write_text(COMMAND_EXAMPLE)
    assert resolve({}, {}, tmp_path).settings.command == ("make", "nightly")
