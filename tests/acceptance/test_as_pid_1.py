"""The loop as the first process of a container."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.place import COMMAND, PATIENCE, Place, shell

CONTAINED = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.mark.root
def test_as_pid_1_it_ends_what_a_cycle_leaves_and_drains_on_term(place: Place) -> None:
    loop = [str(COMMAND), "run", "--continuous", "--sleep", "1m", "--", *shell("setsid sleep 60 & exit 0")]
    container = subprocess.Popen([*CONTAINED, *loop], cwd=place.path, env=place.env)
    try:
        assert place.wait_for_state("waiting")["supervisor"]["pid"] == 1
        assert [(record["status"], record["leftovers"]) for record in place.records] == [("success", 1)]
        (first,) = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        assert container.wait(PATIENCE) == 0
        assert place.latest["stop_reason"] == "signal"
    finally:
        container.kill()
        container.wait(PATIENCE)
