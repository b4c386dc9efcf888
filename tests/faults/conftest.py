"""The laboratory as a fixture: after every test whatever still runs is ended and the invariants are checked; where a
loop did not come to a good end, before and after a plain next start.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.invariants import check_invariants
from tests.faults.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A fresh working directory; its invariants are the second half of every test."""
    lab = Lab(tmp_path / "lab")
    yield lab
    lab.end()
    check_invariants(lab, settled=False)
    if not lab.settles:
        return
    if any(loop.killed or loop.code == 74 for loop in lab.loops):
        assert lab.run("--iterations", "1").code == 0
    check_invariants(lab, settled=True)
