"""Planted links, leaking secrets, open folders. A repository's own hostile configuration is not this loop's to read;
what the unit confines is tested under systemd; artefacts that an agent forges in its own name are a known weakness.
"""

import base64
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.faults.lab import Lab

BEGUN = 'echo "$RUN_CYCLE_ID" >> "$S/begun"'
PLACES = {
    "history": "state/run_cycle_history.jsonl",
    "slot": "state/run_cycle_in_flight.json",
    "lock": "state/run_cycle.lock",
    "latest": "logs/run_cycle/latest.json",
    "draft of latest": "logs/run_cycle/.latest.json.tmp",
    "control folder": "state/control",
    "metrics": "logs/run_cycle/metrics.prom",
    "draft of metrics": "logs/run_cycle/.metrics.prom.tmp",
}


def _plant(kind: str, path: Path, victim: Path) -> None:
    match kind:
        case "link":
            path.symlink_to(victim)
        case "hard link":
            os.link(victim, path)
        case "FIFO":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
            (path / "content").touch()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["link", "hard link", "FIFO", "folder"])
def test_what_is_planted_where_we_write_harms_no_victim(lab: Lab, place: str, kind: str) -> None:
    lab.allowed.add("I10")  # what was planted is set aside as it is
    victim = lab.scratch / "victim"
    victim.write_text("precious\n")
    victim.chmod(0o640)
    before = victim.stat()
    for folder in (lab.state, lab.logs):
        folder.mkdir(mode=0o700, parents=True)
    path = lab.root / PLACES[place]
    _plant(kind, path, victim)
    loop = lab.run("--metrics-textfile", "logs/run_cycle/metrics.prom", cycle=(lab.script(BEGUN),))
    assert loop.code in {0, 1, 2, 74}
    assert victim.read_text() == "precious\n"
    after = victim.stat()
    assert (after.st_mode, after.st_ino, after.st_size) == (before.st_mode, before.st_ino, before.st_size)
    for name in ("latest.json", "metrics.prom", ".latest.json.tmp", ".metrics.prom.tmp"):
        lab.planted.add(lab.logs / name)
    if os.path.lexists(path) and not (path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1):
        if path.is_dir() and not path.is_symlink():
            for child in path.iterdir():
                child.unlink()
            path.rmdir()
        else:
            path.unlink()


def test_links_flipped_as_fast_as_they_can_be_never_lead_to_the_victim(lab: Lab) -> None:
    victim = lab.scratch / "victim"
    victim.write_text("precious\n")
    loop = lab.start("--continuous", "--metrics-textfile", "logs/run_cycle/metrics.prom")
    lab.await_records(1)
    done = threading.Event()

    def flip() -> None:
        targets = [lab.logs / name for name in ("latest.json", ".latest.json.tmp", "metrics.prom", ".metrics.prom.tmp")]
        while not done.is_set():
            for target in targets:
                try:
                    os.symlink(victim, f"{target}.x")  # noqa: PTH211 - the race is the point
                    os.replace(f"{target}.x", target)  # noqa: PTH105
                except OSError:
                    continue

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        lab.await_records(60)
    finally:
        done.set()
        flipper.join()
    loop.send(15)
    assert loop.ended() == 0
    assert victim.read_text() == "precious\n"
    for path in list(lab.logs.iterdir()):
        if path.is_symlink() or path.suffix in {".prom", ".tmp", ".x"}:
            path.unlink()
    lab.planted |= set(lab.logs.iterdir())


def test_a_sandbox_that_is_a_link_is_not_emptied(lab: Lab) -> None:
    treasure = lab.scratch / "treasure"
    treasure.mkdir()
    (treasure / "gold").touch()
    (lab.root / "sandbox").symlink_to(treasure)
    assert lab.run("--sandbox-reset").code == 1
    assert (treasure / "gold").exists()
    assert lab.outcomes() == ["error"]


def test_links_inside_of_the_sandbox_are_removed_and_not_followed(lab: Lab) -> None:
    treasure = lab.scratch / "treasure"
    treasure.mkdir()
    (treasure / "gold").touch()
    plant = lab.script(
        f"{BEGUN}; cd $RUN_CYCLE_SANDBOX_DIR 2>/dev/null || exit 0; ln -s {treasure} link; mkdir -p a/b; "
        f"ln -s {treasure} a/b/c; chmod 0 a; mkfifo pipe; touch -- -rf '*' \"$(printf 'x\\ny')\""
    )
    (lab.root / "sandbox").mkdir()
    assert lab.run("--iterations", "3", "--sandbox-reset", cycle=(plant,)).code == 0
    assert (treasure / "gold").exists()
    assert (lab.root / "sandbox" / "link").is_symlink()


# --- secrets -----------------------------------------------------------------------------------------------------


def test_a_secret_reaches_no_file_record_metric_or_screen(lab: Lab) -> None:
    """The fixture searches everything that was written for it."""
    spill = lab.python(
        "import os, sys, json\n"
        "secret = os.environ['FAULTS_API_KEY']\n"
        "for size in (0, 65535 - len(secret) // 2, 65536, 131072 - 3, 1048576 - 7):\n"
        "    sys.stdout.write('x' * size + secret)\n"
        "    sys.stdout.flush()\n"
        "    sys.stderr.write(secret[:9]); sys.stderr.flush(); sys.stderr.write(secret[9:] + '\\n')\n"
        "json.dump({'reason': secret, 'outputs': {secret: [secret]}, 'usage': {'k': secret}, 'continue': True},"
        " open(os.environ['RUN_CYCLE_CONTROL_FILE'], 'w'))\n"
        "sys.exit(int(secret in sys.argv[1]))\n"
    )
    check = lab.script('echo "check $FAULTS_API_KEY" >&2; [ "$RUN_CYCLE_NUMBER" != 3 ]', "check")
    options = ("--prereq-script", str(check), "--metrics-stdout", "--metrics-textfile", "logs/run_cycle/m.prom")
    lab.planted.add(lab.logs / "m.prom")
    loop = lab.run("--iterations", "3", *options, "--goal", f"use {lab.canary} well", cycle=(*spill, lab.canary))
    assert loop.code == 1
    assert lab.outcomes() == ["failed", "failed", "prereq_failed"]
    log = Path(lab.root, lab.history()[0]["log_path"]).read_text()
    assert log.count("[redacted]") > 10
    for view in (("status",), ("status", "--json"), ("history", "--json"), ("logs",), ("config", "show")):
        assert lab.command(*view).code == 0
    assert lab.command("run", "--dry-run", "--goal", lab.canary, "--", "echo", lab.canary).code == 0


def test_a_secret_in_a_wrong_setting_is_not_repeated_in_the_error(lab: Lab) -> None:
    for argv in (
        ["run", "--sleep", lab.canary, "--", "true"],
        ["run", f"--{lab.canary}", "--", "true"],
        [lab.canary],
        ["run", "--config", lab.canary, "--", "true"],
        ["run", "--state-dir", f"/dev/null/{lab.canary}", "--", "true"],
        ["run", "--", f"/no/such/{lab.canary}"],
        ["run", "--cycle-script", lab.canary],
    ):
        assert lab.command(*argv).code in {1, 2, 74}


def test_an_encoded_secret_is_beyond_us(lab: Lab) -> None:
    """Documented: only the value itself is known, not what it may be turned into."""
    lab.canary = "another value that is in no variable"
    secret = lab.env["FAULTS_API_KEY"]
    cycle = ("sh", "-c", 'printf %s "$FAULTS_API_KEY" | base64 -w0; echo; printf %s "$FAULTS_API_KEY"')
    assert lab.run(cycle=cycle).code == 0
    log = Path(lab.root, lab.history()[0]["log_path"]).read_text()
    assert base64.b64encode(secret.encode()).decode() in log
    assert secret not in log


def test_only_allowed_variables_reach_the_cycle(lab: Lab) -> None:
    cycle = lab.script(f"{BEGUN}; env > $S/env")
    env = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "LISTEN_FDS": "3", "KEPT_A": "1", "DROPPED": "1"}
    assert lab.run("--env-allow", "PATH,KEPT_*", cycle=(cycle,), env=env).code == 0
    names = {line.partition("=")[0] for line in (lab.scratch / "env").read_text().splitlines()}
    assert {"PATH", "KEPT_A", "RUN_CYCLE_ID"} <= names
    assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "DROPPED", "FAULTS_API_KEY"}


# --- open folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o722])
def test_folders_of_ours_that_others_could_write_are_closed(lab: Lab, mode: int) -> None:
    lab.allowed.add("I10")  # what others may read stays readable to them
    for folder in (lab.state, lab.logs):
        folder.mkdir(parents=True)
        folder.chmod(mode)
    assert lab.run().code == 0
    for folder in (lab.state, lab.logs):
        assert not stat.S_IMODE(folder.stat().st_mode) & 0o022


@pytest.mark.root
def test_a_folder_of_somebody_else_that_everybody_can_write_is_refused(lab: Lab) -> None:
    lab.state.mkdir()
    os.chown(lab.state, 12345, 12345)
    lab.state.chmod(0o777)
    loop = lab.run()
    assert loop.code == 2
    assert "12345" in loop.stderr
    lab.state.rmdir()


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_whatever_the_umask_what_we_make_is_for_its_owner_alone(lab: Lab, umask: int) -> None:
    prefix = ("sh", "-c", f'umask {umask:o}; exec "$@"', "sh")
    assert lab.run("--iterations", "2", cycle=("true",), prefix=prefix).code == 0
    assert stat.S_IMODE(lab.logs.parent.stat().st_mode) & 0o022 == 0


@pytest.mark.root
def test_a_history_that_may_not_be_read_is_no_empty_history(lab: Lab) -> None:
    assert lab.run("--iterations", "2").code == 0
    lab.history_path.chmod(0o200)
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    assert lab.run(prefix=prefix).code == 74
    lab.history_path.chmod(0o600)
    assert len(lab.history()) == 2


def test_a_lock_of_somebody_else_is_respected(lab: Lab) -> None:
    import fcntl  # noqa: PLC0415

    lab.run()
    with lab.lock_path.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert lab.run().code == 75


def test_a_forged_record_is_taken_for_what_it_says_and_breaks_nothing(lab: Lab) -> None:
    """Documented: who may write the state directory may write its history; the loop stays alive and counts on."""
    lab.allowed |= {"I3", "I5"}
    lab.run()
    forged = json.loads(lab.history_path.read_text()) | {"cycle_id": "forged", "number": 50}
    with lab.history_path.open("a") as history:
        history.write(json.dumps(forged) + "\n")
    assert lab.run().code == 0
    assert lab.history()[-1]["number"] == 51
    assert lab.command("status").code == 0


def test_the_command_line_of_the_supervisor_holds_no_secret_of_the_environment(lab: Lab) -> None:
    loop = lab.start("--continuous", "--sleep", "1h")
    lab.await_state("waiting")
    assert lab.canary not in Path(f"/proc/{loop.pid}/cmdline").read_text()
    loop.send(15)
    assert loop.ended() == 0
