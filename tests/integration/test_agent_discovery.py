import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from run_cycle_loop.agents import registry
from run_cycle_loop.agents.discovery import Found, ask, survey

pytestmark = pytest.mark.usefixtures("adopting")

#: Help that names every flag that is looked for.
HELP = "--json --sandbox --output-schema --output-last-message --mode --session --tools --offline"


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def surveyed(folder: Path, home: Path) -> dict[str, Found]:
    return {found.name: found for found in survey({"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(home)}, home)}


def test_every_agent_is_told_of_in_its_order_installed_or_not(bin_folder: Path, tmp_path: Path) -> None:
    path = program(bin_folder, "codex", f'case "$1" in --version) echo "codex-cli 0.169.0";; *) echo "{HELP}";; esac')
    found = surveyed(bin_folder, tmp_path)
    assert tuple(found) == registry.NAMES
    assert (found["codex"].version, found["codex"].path, found["codex"].trouble) == ("0.169.0", str(path), "")
    assert (found["pi"].path, found["pi"].usable) == (None, False)
    assert (found["planner"].kind, found["planner"].usable) == ("built-in", True)


def test_a_version_without_what_is_needed_is_told(bin_folder: Path, tmp_path: Path) -> None:
    program(
        bin_folder, "pi", f'case "$1" in --version) echo 0.9.1;; *) echo "{HELP} --modest" | sed "s/--mode //";; esac'
    )
    found = surveyed(bin_folder, tmp_path)["pi"]
    assert found.version == "0.9.1"
    assert "--mode, which is needed" in found.trouble


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("echo no idea", "did not say its version"),
        ("exit 3", "with exit code 3"),
        ("kill -9 $$", "with exit code None"),
    ],
)
def test_a_program_that_says_no_version_is_told(bin_folder: Path, tmp_path: Path, script: str, trouble: str) -> None:
    program(bin_folder, "codex", script)
    found = surveyed(bin_folder, tmp_path)["codex"]
    assert (found.version, found.usable) == (None, True)
    assert trouble in found.trouble


def test_an_answer_on_standard_error_is_one_too(bin_folder: Path, tmp_path: Path) -> None:
    program(bin_folder, "pi", f'case "$1" in --version) echo 0.73.1 >&2;; *) echo "{HELP}";; esac')
    found = surveyed(bin_folder, tmp_path)["pi"]
    assert (found.version, found.trouble) == ("0.73.1", "")


def test_nothing_of_a_program_outlives_the_question(bin_folder: Path) -> None:
    path = program(bin_folder, "codex", "setsid sleep 987654 >/dev/null 2>&1 & echo 1.2.3; echo $!")
    text, trouble = ask([str(path), "--version"], {"PATH": os.environ["PATH"]})
    assert trouble == ""
    assert not Path(f"/proc/{text.split()[1]}").exists()


def test_what_a_program_prints_is_bounded(bin_folder: Path) -> None:
    path = program(bin_folder, "codex", "echo 1.2.3; head -c 50000000 /dev/zero")
    text, _ = ask([str(path), "--version"], {"PATH": os.environ["PATH"]})
    assert text.startswith("1.2.3")
    assert len(text) <= 256 << 10


def test_a_program_that_reads_its_input_finds_its_end(bin_folder: Path) -> None:
    path = program(bin_folder, "codex", "cat; echo 1.2.3")
    began = time.monotonic()
    assert ask([str(path), "--version"], {"PATH": os.environ["PATH"]}) == ("1.2.3\n", "")
    assert time.monotonic() - began < 8


def test_the_command_prints_a_table_and_json(bin_folder: Path, tmp_path: Path) -> None:
    program(bin_folder, "codex", f'case "$1" in --version) echo "codex-cli 0.169.0";; *) echo "{HELP}";; esac')
    code = "import sys; from run_cycle_loop.cli.agents import agents; sys.exit(agents(standalone_mode=False))"
    env = {**os.environ, "PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "70"}

    def said(*arguments: str) -> str:
        argv = [sys.executable, "-c", code, *arguments]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout

    lines = said().splitlines()
    assert any(line.startswith("codex*") for line in lines)
    assert max(map(len, lines)) <= 70
    told = json.loads(said("--json"))
    assert told["default"] == "codex"
    assert [agent["name"] for agent in told["agents"]] == list(registry.NAMES)
