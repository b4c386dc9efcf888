"""The consent audit killed at every call that touches its files: what was confirmed is there, and more can follow."""

import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from run_cycle_loop.stores.audit import AuditChain
from tests.faults import injection
from tests.faults.injection import TOUCHING, Point

AUDIT = Path("state", "consent_audit.jsonl")
#: Says each number only once its entry is confirmed.
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from run_cycle_loop.stores.audit import AuditChain
chain = AuditChain(Path(sys.argv[1]), lambda: datetime(2026, 1, 2, tzinfo=UTC))
for _ in range(3):
    print(chain.append("cycle", {"text": "x" * 100})["seq"], flush=True)
"""


def _write(root: Path, prefix: Sequence[str]) -> set[int]:
    """Run the writer; the numbers that it confirmed."""
    root.mkdir()
    argv = [*prefix, sys.executable, "-B", "-c", WRITER, str(AUDIT)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=root)
    return {int(line) for line in done.stdout.split()}


def _traced(tmp_path: Path) -> list[Point]:
    output = tmp_path / "trace"
    options = ("--seccomp-bpf", "-y", "-e", f"trace={','.join(TOUCHING)}")
    assert _write(tmp_path / "traced", injection._strace(output, *options)) == {1, 2, 3}
    return injection.points(output.read_text(errors="replace").splitlines())


@pytest.mark.root
@pytest.mark.parametrize("torn", [False, True])
def test_a_kill_at_any_call_costs_nothing_that_was_confirmed(tmp_path: Path, torn: bool) -> None:
    found = _traced(tmp_path)
    assert {"openat", "write", "fdatasync", "rename", "fsync"} <= {point.call for point in found}
    died = 0
    for number, point in enumerate(found):
        path = tmp_path / str(number) / AUDIT
        confirmed = _write(tmp_path / str(number), injection._inject(point.call, f"signal=KILL:when={point.nth}"))
        died += confirmed != {1, 2, 3}
        if torn and path.exists():
            with path.open("ab") as file:
                file.write(b'{"seq":')
        chain = AuditChain(path, lambda: datetime(2026, 1, 2, tzinfo=UTC))
        there = [entry["seq"] for entry in chain.entries()]
        assert confirmed <= set(there), f"killed at {point}"
        chain.append("grant", {})
        chain.append("revoke", {})
        after = [entry["seq"] for entry in chain.entries()]
        assert after == list(range(1, len(there) + 3)), f"killed at {point}"
    assert died > len(found) // 2
    assert not any(re.search(r"\.tmp$", path.name) for path in tmp_path.rglob("*") if path.name != "trace")
