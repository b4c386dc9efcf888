"""A place for the installed command, swept after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A directory of its own."""
    made = Place(tmp_path / "place")
    yield made
    made.end()
