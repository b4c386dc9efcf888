"""The composition root in a process of its own: the whole house on real files, without the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = """
import json, os, sys
from pathlib import Path
from run_cycle_loop.app.loop import run_loop
from run_cycle_loop.config.settings import Settings
given = json.loads(sys.argv[1])
paths = {key: Path(value) for key, value in given.pop("paths", {}).items()}
settings = Settings.of(**given, **paths, log_format="json")
finish = run_loop(settings, dict(os.environ), lambda: settings)
print(json.dumps([finish.reason, finish.exit_code]))
"""


def run(folder: Path, command: list[str], **settings: Any) -> tuple[str, int]:
    known = {"command": command, "sleep": 0.0, "backoff_initial": 0.01, "grace": 0.5}
    argv = [sys.executable, "-c", RUN, json.dumps(known | settings)]
    found = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    reason, code = json.loads(found.stdout)
    return reason, code


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "state/run_cycle_history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("command", "settings", "ending"),
    [
        (["true"], {"iterations": 3}, ("iterations_done", 0)),
        (["false"], {"iterations": 1}, ("iterations_done", 1)),
        (["false"], {"iterations": 0}, ("failure_limit", 11)),
        (["true"], {"iterations": 0, "while_": "iteration.index < 2"}, ("condition_false", 0)),
        (["sh", "-c", "touch state/run_cycle.stop"], {"iterations": 0}, ("stop_file", 10)),
        (["sh", "-c", "kill -TERM $PPID"], {"iterations": 0}, ("signal", 0)),
    ],
)
def test_a_loop_ends_for_its_reason(
    tmp_path: Path, command: list[str], settings: dict[str, Any], ending: tuple[str, int]
) -> None:
    assert run(tmp_path, command, **settings) == ending
    latest = json.loads((tmp_path / "logs/run_cycle/latest.json").read_text())
    assert (latest["state"], latest["stop_reason"]) == ("stopped", ending[0])
    assert latest["seq"] == len(records(tmp_path))


def test_many_cycles_leave_a_record_each_and_few_files(tmp_path: Path) -> None:
    run(tmp_path, ["true"], iterations=200, keep_logs=5)
    assert [record["number"] for record in records(tmp_path)] == list(range(1, 201))
    assert len(list((tmp_path / "logs/run_cycle").iterdir())) == 6
    assert len(list((tmp_path / "state").rglob("*"))) <= 5


def test_a_cycle_that_removes_the_state_folder_is_recorded_all_the_same(tmp_path: Path) -> None:
    assert run(tmp_path, ["rm", "-rf", "state", "logs"], iterations=2)[1] == 0
    assert records(tmp_path)[-1]["status"] == "success"


def test_a_cycle_that_changes_what_it_can_of_itself_changes_nothing_of_ours(tmp_path: Path) -> None:
    hostile = "umask 0; cd /; exec 1>&- 2>&-; kill -USR2 $PPID; trap '' TERM HUP INT; exit 0"
    assert run(tmp_path, ["sh", "-c", hostile], iterations=2) == ("iterations_done", 0)
    assert [record["status"] for record in records(tmp_path)] == ["success", "success"]
