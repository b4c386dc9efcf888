"""The scripts as a user calls them: in a small checkout of their own, whose package installs without a network."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "run-cycle-loop"
version = "1"
dependencies = [{dependencies}]

[project.optional-dependencies]
all = []
"""
# The smallest build backend: an editable wheel is one .pth file.
BACKEND = """\
import os, zipfile
from pathlib import Path

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "run_cycle_loop-1-py3-none-any.whl"
    depends = "".join(f"Requires-Dist: {line}\\n" for line in Path("depends").read_text().splitlines())
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        info = "run_cycle_loop-1.dist-info/"
        wheel.writestr("run_cycle_loop_here.pth", os.getcwd() + "\\n")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: run-cycle-loop\\nVersion: 1\\n"
                       "Provides-Extra: all\\n" + depends)
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""
TELLING = """\
import json, os, sys
print(json.dumps({"args": sys.argv[1:], "cwd": os.getcwd(), "prefix": sys.prefix}))
"""


class Checkout:
    """A checkout with the real scripts and a package that tells how it was called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = root / ".venv"
        shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        self.depend_on("")
        (root / "backend.py").write_text(BACKEND)
        (root / "run_cycle_loop").mkdir()
        (root / "run_cycle_loop" / "__main__.py").write_text(TELLING)

    def depend_on(self, name: str) -> None:
        (self.root / "pyproject.toml").write_text(PYPROJECT.format(dependencies=f'"{name}"' if name else ""))
        (self.root / "depends").write_text(name)

    @property
    def wrapper(self) -> Path:
        return self.root / "scripts" / "run-cycle-loop"

    def start(self, *args: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.wrapper, *args],
            cwd=self.root,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return call([self.wrapper, *args], cwd=self.root, **variables)


def environment(**variables: str) -> dict[str, str]:
    """Our own, with this interpreter as the one to use, no package index, and none of the loop's variables."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RUN_CYCLE_", "PIP_", "PYTHON"))}
    return {**ours, "PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}


def call(argv: list[str | Path], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("made") / "a checkout")
    first = made.call()
    assert first.returncode == 0, first.stderr
    assert "making .venv with" in first.stderr
    assert first.stderr.rstrip().endswith("run-cycle-loop: .venv is ready")
    return made


def test_after_the_first_use_it_says_nothing_and_hands_arguments_on_as_they_stand(installed: Checkout) -> None:
    args = ["run", "--", "", "two words", "new\nline", "$(reboot)", "*", "-x", "ünïcode"]
    result = installed.call(*args)
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert told["args"] == args
    assert told["prefix"] == str(installed.venv)


def test_it_works_from_anywhere_through_links_and_stays_there(installed: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "rcl"
    link.symlink_to(installed.wrapper)
    folder = tmp_path / "folder"
    folder.symlink_to(installed.root)
    for path in (link, folder / "scripts" / "run-cycle-loop", Path(os.path.relpath(installed.wrapper, tmp_path))):
        result = call([path], cwd=tmp_path)
        assert result.stderr == ""
        assert json.loads(result.stdout)["cwd"] == str(tmp_path)


def test_what_lies_in_the_callers_directory_is_no_module(installed: Checkout, tmp_path: Path) -> None:
    for name in ("json.py", "run_cycle_loop.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')")
    assert call([installed.wrapper], cwd=tmp_path).returncode == 0


def test_a_changed_pyproject_installs_again(checkout: Checkout) -> None:
    assert checkout.call().returncode == 0
    with (checkout.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    again = checkout.call()
    assert "making .venv" not in again.stderr
    assert "installing run-cycle-loop" in again.stderr
    assert checkout.call().stderr == ""


def test_concurrent_first_uses_wait_for_one_that_builds(checkout: Checkout) -> None:
    running = [checkout.start(str(number)) for number in range(3)]
    results = [process.communicate(timeout=120) for process in running]
    assert [json.loads(out)["args"] for out, _ in results] == [["0"], ["1"], ["2"]]
    assert sum("making .venv" in told for _, told in results) == 1


def test_an_interrupted_build_is_done_again(checkout: Checkout) -> None:
    first = checkout.start()
    deadline = time.monotonic() + 60
    while not (checkout.venv / "bin" / "python").exists():
        assert time.monotonic() < deadline
        os.sched_yield()
    first.kill()
    first.communicate(timeout=60)
    second = checkout.call()
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["prefix"] == str(checkout.venv)


def test_a_half_made_environment_is_not_taken_for_good(checkout: Checkout) -> None:
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / ".building").touch()
    result = checkout.call()
    assert result.returncode == 0, result.stderr
    assert ".venv was left unfinished; making it again" in result.stderr


def test_pips_failure_is_told_with_its_reason_and_tried_again(checkout: Checkout) -> None:
    checkout.depend_on("no-such-distribution-at-all")
    failed = checkout.call()
    assert failed.returncode == 1
    assert "No matching distribution found for no-such-distribution-at-all" in failed.stderr
    assert failed.stderr.rstrip().endswith("see to it and run this again")
    checkout.depend_on("")
    assert checkout.call().returncode == 0


@pytest.mark.parametrize("kind", ["file", "empty folder", "dangling link"])
def test_an_environment_that_is_not_ours_and_broken_is_one_sentence(checkout: Checkout, kind: str) -> None:
    match kind:
        case "file":
            checkout.venv.touch()
        case "empty folder":
            checkout.venv.mkdir()
        case _:
            checkout.venv.symlink_to("nowhere")
    result = checkout.call()
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "holds no working Python 3.11 or newer: remove it" in result.stderr


def test_a_python_that_is_too_old_is_one_sentence(checkout: Checkout) -> None:
    result = checkout.call(PYTHON="/bin/false")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "run-cycle-loop: PYTHON=/bin/false is no working Python 3.11 or newer: name another, or unset PYTHON\n"
    )
    assert not checkout.venv.exists()


def cycle(root: Path, *argv: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run something of ours with state and sandbox under ``root``."""
    folders = {"RUN_CYCLE_STATE_DIR": str(root / "state"), "RUN_CYCLE_SANDBOX_DIR": str(root / "sandbox")}
    return call(list(argv), cwd=root, **{**folders, **variables})


def test_the_cycle_that_ships_leaves_a_plan_and_an_archive(tmp_path: Path) -> None:
    result = cycle(tmp_path, ROOT / "scripts" / "run_cycle.sh", "review", "-- why is it slow?")
    assert result.returncode == 0, result.stderr
    (archive,) = (tmp_path / "state" / "planner_digest_archives").iterdir()
    assert f"Archive: {archive}" in result.stdout
    digest = json.loads((tmp_path / "state" / "planner_digests.jsonl").read_text())
    assert (digest["mode"], digest["goal"]) == ("review", "-- why is it slow?")
    assert digest["experiment"]["metric"] == "median_duration_seconds"
    assert (tmp_path / "sandbox" / "plan.md").read_text().startswith("# Plan")


def test_the_cap_on_writes_reaches_the_planner(tmp_path: Path) -> None:
    result = cycle(tmp_path, ROOT / "scripts" / "run_cycle.sh", "experimental", "plan", RUN_CYCLE_CAP_WRITES="0")
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "sandbox").exists()
    assert "Plan: not written" in result.stdout


def test_the_planner_hears_of_its_cycle_by_the_loops_variables(tmp_path: Path) -> None:
    control = tmp_path / "control.json"
    asked = {"RUN_CYCLE_ID": "abc", "RUN_CYCLE_NUMBER": "7", "RUN_CYCLE_CONTROL_FILE": str(control)}
    assert cycle(tmp_path, ROOT / "scripts" / "run_cycle.sh", "experimental", "plan", **asked).returncode == 0
    digest = json.loads((tmp_path / "state" / "planner_digests.jsonl").read_text())
    assert (digest["cycle_id"], digest["number"]) == ("abc", 7)
    assert json.loads(control.read_text())["continue"] is True


@pytest.mark.parametrize("args", [[], ["experimental"], ["experimental", "goal", "more"]])
def test_the_cycle_script_wants_a_mode_and_a_goal(tmp_path: Path, args: list[str]) -> None:
    result = cycle(tmp_path, ROOT / "scripts" / "run_cycle.sh", *args)
    assert (result.returncode, result.stderr) == (2, "usage: run_cycle.sh MODE GOAL\n")


def test_without_consent_and_without_a_terminal_nothing_is_written(tmp_path: Path) -> None:
    result = cycle(tmp_path, sys.executable, ROOT / "scripts" / "start_agent.py", "--goal", "plan")
    assert result.returncode == 2
    assert result.stderr == "start_agent: there is no terminal to ask for consent on: add --assume-yes\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
def test_on_a_terminal_it_asks(tmp_path: Path, answer: str, code: int) -> None:
    ours, theirs = os.openpty()
    os.write(ours, answer.encode())
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "start_agent.py", "--state-dir", "state", "--sandbox", "sandbox"],
        cwd=tmp_path,
        env=environment(),
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(ours)
    os.close(theirs)
    assert result.returncode == code
    assert "Write at most 3 files in sandbox and records in state? [y/N]" in result.stderr
    assert (tmp_path / "state").exists() is (code == 0)


def test_a_cap_that_is_no_count_is_a_usage_error(tmp_path: Path) -> None:
    result = cycle(tmp_path, sys.executable, ROOT / "scripts" / "start_agent.py", "--cap-writes", "-1", "--assume-yes")
    assert result.returncode == 2
    assert "'-1' is no whole number from 0 up" in result.stderr


def check(root: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return cycle(root, sys.executable, ROOT / "scripts" / "check_run_cycle_prereqs.py", *args, **variables)


def test_the_prerequisites_of_this_checkout_hold_and_checking_writes_nothing(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result.returncode == 0, result.stdout
    assert all(line.startswith("ok") for line in result.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_module_fails_only_where_it_is_required(tmp_path: Path) -> None:
    assert "missing module no_such_module: " in check(tmp_path, "--optional", "no_such_module").stdout
    assert check(tmp_path, "--optional", "no_such_module").returncode == 0
    required = check(tmp_path, "--require", "no_such_module.inside", "--json")
    assert required.returncode == 1
    assert [item["name"] for item in json.loads(required.stdout) if not item["ok"]] == ["module no_such_module.inside"]


def test_a_file_in_place_of_the_state_directory_fails(tmp_path: Path) -> None:
    (tmp_path / "in the way").touch()
    result = check(tmp_path, RUN_CYCLE_STATE_DIR=str(tmp_path / "in the way" / "state"))
    assert result.returncode == 1
    assert f"FAILED  state: {tmp_path / 'in the way'} is no folder; move it away" in result.stdout


def test_a_cycle_script_that_cannot_be_run_fails(checkout: Checkout) -> None:
    (checkout.root / "scripts" / "run_cycle.sh").chmod(0o644)
    script = checkout.root / "scripts" / "check_run_cycle_prereqs.py"
    result = cycle(checkout.root, sys.executable, script)
    assert result.returncode == 1
    assert "run_cycle.sh is not executable; chmod +x it" in result.stdout


def crontab_entry(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return call([sys.executable, ROOT / "scripts" / "run_cycle_loop.py", *args], cwd=folder, **variables)


def test_the_crontabs_script_takes_the_flags_of_run_and_works_in_its_checkout(tmp_path: Path) -> None:
    mine: Mapping[str, str] = {
        "RUN_CYCLE_STATE_DIR": str(tmp_path / "state"),
        "RUN_CYCLE_LOG_DIR": str(tmp_path / "logs"),
    }
    result = crontab_entry(tmp_path, "--iterations", "1", "--sleep", "0", "--", "pwd", **mine)
    assert result.returncode == 0, result.stderr
    (log,) = (tmp_path / "logs").glob("*.log")
    assert str(ROOT) in log.read_text().splitlines()


def test_the_crontabs_script_says_which_interpreter_lacks_the_package(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(ROOT / "scripts" / "run_cycle_loop.py", scripts)
    result = call([sys.executable, "-I", "-S", scripts / "run_cycle_loop.py"], cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        f"run_cycle_loop.py: {sys.executable} has no module run_cycle_loop: run {scripts}/run-cycle-loop once, "
        f"then this with {tmp_path}/.venv/bin/python\n"
    )
