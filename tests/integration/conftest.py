"""This process as a supervisor: orphans come to it while a test runs, and to nobody of ours afterwards."""

import ctypes
from collections.abc import Iterator

import pytest

from run_cycle_loop.kit import process_tree

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def adopting() -> Iterator[None]:
    """Orphaned descendants become children of the test."""
    assert process_tree.adopt_orphans()
    yield
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
