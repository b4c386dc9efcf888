"""A machine of its own with a real systemd and a real cron: a container over this machine's /usr, booted once.

The checkout is copied, its virtual environment is Debian's Python over the packages that run the tests, and everything
else in the machine is volatile. Tests talk to it with nsenter and read its files through /proc.
"""

import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).parents[2]
CHECKOUT = Path("/opt/run-cycle-loop")  #: inside of the machine
PACKAGES = Path("/opt/packages")
PROGRAMS = ("systemd-nspawn", "setpriv", "nsenter", "systemctl", "dbus-daemon", "cron", "promtool", "/usr/bin/python3")
BOOT_SECONDS = 60.0
_IN_ETC = {"config": "run-cycle-loop", "units": "systemd/system", "pam.d": "pam.d"}
_PAM = ("auth", "account", "session")
_T = TypeVar("_T")
_names = count(1)


def wait_for(look: Callable[[], _T | None], what: str | Callable[[], str], seconds: float = 20.0) -> _T:
    """The first true thing that ``look`` finds; systemd and cron act in their own time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    pytest.fail(f"waited {seconds} s in vain for {what if isinstance(what, str) else what()}")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The booted container."""

    leader: int  #: its systemd, as this machine numbers it
    work: Path  #: the folder here that holds what it mounts

    @property
    def units(self) -> Path:
        """Its /etc/systemd/system."""
        return self.work / "units"

    @property
    def config(self) -> Path:
        """Its /etc/run-cycle-loop."""
        return self.work / "config"

    @property
    def checkout(self) -> Path:
        """Its /opt/run-cycle-loop."""
        return self.work / "checkout"

    def file(self, path: str | Path) -> Path:
        """A file of the machine, as it is reached from here."""
        return Path(f"/proc/{self.leader}/root/{str(path).lstrip('/')}")

    def run(self, *argv: str, check: bool = True, cwd: Path = Path("/")) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as its root."""
        done = subprocess.run(self.command(*argv, cwd=cwd), capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode:
            pytest.fail(f"{' '.join(argv)} left with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def command(self, *argv: str, cwd: Path = Path("/")) -> list[str]:
        """The argument vector that runs a command in the machine."""
        settings = ("env", "-i", "-C", str(cwd), "PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8", "HOME=/root")
        return ["nsenter", "--target", str(self.leader), "--all", *settings, *argv]

    def wait_for(self, look: Callable[[], _T | None], what: str, seconds: float = 20.0) -> _T:
        """Wait until ``look`` finds something true."""
        return wait_for(look, what, seconds)

    def loop(self, *arguments: str, check: bool = True, checkout: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
        """Run our own command in a checkout of the machine."""
        python = str(checkout / ".venv/bin/python")
        return self.run(python, "-m", "run_cycle_loop", *arguments, check=check, cwd=checkout)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        wanted = f"root and {missing}" if missing else "root"
        pytest.fail(f"these tests need {wanted}: apt-get install systemd-container dbus cron prometheus")
    work = tmp_path_factory.mktemp("machine")
    _furnish(work)
    with _own_cgroup() as join, (work / "boot.log").open("wb") as log:
        nspawn = subprocess.Popen(_boot_command(join, work), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            booted = Machine(leader=_wait_for_leader(nspawn), work=work)
            _wait_for_boot(booted)
            yield booted
        finally:
            _power_off(nspawn)


def _furnish(work: Path) -> None:
    make_checkout(work / "checkout")
    # What cron asks before it runs a job; this machine's own answer may be to wait for a login manager.
    (work / "pam.d").mkdir()
    (work / "pam.d" / "other").write_text("".join(f"{kind} required pam_permit.so\n" for kind in _PAM))
    (work / "config").mkdir()
    (work / "units").mkdir()
    for unit in (ROOT / "systemd").glob("*.service"):
        shutil.copy(unit, work / "units")
    # The machine has no network that could come up.
    (work / "units" / "systemd-networkd-wait-online.service").symlink_to("/dev/null")
    (work / "units" / "tests.target").write_text("[Unit]\nRequires=basic.target dbus.socket\nAfter=basic.target\n")


def make_checkout(target: Path) -> None:
    """Copy what an operator would have checked out, and give it an environment that works inside of the machine."""
    target.mkdir(parents=True)
    for name in ("run_cycle_loop", "scripts"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("state", "logs"):
        (target / name).mkdir()
    binaries = target / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to("/usr/bin/python3")
    (target / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    packages = target / ".venv" / "lib" / f"python{version}"
    packages.mkdir(parents=True)
    (packages / "site-packages").symlink_to(PACKAGES)


def _boot_command(join: str, work: Path) -> list[str]:
    binds = {
        "checkout": CHECKOUT,
        "config": "/etc/run-cycle-loop",
        "units": "/etc/systemd/system",
        "pam.d": "/etc/pam.d",
    }
    return [
        # Should this process be killed, the container goes with it.
        *(
            "sh",
            "-c",
            f'{join} exec "$@"',
            "sh",
            "setpriv",
            "--pdeathsig=KILL",
            "systemd-nspawn",
            "--quiet",
            "--directory=/",
            "--volatile=yes",
        ),
        *("--register=no", "--private-network", f"--machine=run-cycle-loop-{os.getpid()}", "--resolv-conf=off"),
        *(["--keep-unit"] if join else []),
        *(f"--bind={work / name}:{target}" for name, target in binds.items()),
        f"--bind-ro={sysconfig.get_path('purelib')}:{PACKAGES}",
        *("--boot", "systemd.unit=tests.target", "systemd.firstboot=no", "systemd.show_status=no"),
    ]


class _own_cgroup:  # noqa: N801 - used like a function
    """Where no systemd runs this machine: control groups for the container, so that two of them never mix.

    Entering gives the shell commands that join them.
    """

    def __init__(self) -> None:
        self._folders: list[Path] = []

    def __enter__(self) -> str:
        # One name everywhere: nspawn mirrors the path from one hierarchy to the other.
        name = f"run-cycle-loop-{os.getpid()}-{next(_names)}"
        if not Path("/run/systemd/system").is_dir():
            for line in Path("/proc/self/mountinfo").read_text().splitlines():
                place, kind = line.split()[4], line.partition(" - ")[2].split()
                if kind[0] == "cgroup2" or "name=systemd" in kind[2]:
                    self._folders.append(Path(place, name))
        for folder in self._folders:
            folder.mkdir()
        return "".join(f"echo $$ > {folder}/cgroup.procs;" for folder in self._folders)

    def __exit__(self, *_: object) -> None:
        for folder in self._folders:
            for inner in sorted(folder.rglob("*/"), reverse=True):
                inner.rmdir()
            folder.rmdir()


def _wait_for_leader(nspawn: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")

    def look() -> int | None:
        if nspawn.poll() is not None:
            pytest.fail(f"systemd-nspawn left with {nspawn.returncode}")
        found = children.read_text().split()
        return int(found[-1]) if found and Path(f"/proc/{found[-1]}/comm").read_text() == "systemd\n" else None

    return wait_for(look, "the container's systemd", BOOT_SECONDS)


def _wait_for_boot(machine: Machine) -> None:
    def look() -> bool:
        return machine.run("systemctl", "is-active", "tests.target", check=False).stdout == "active\n"

    wait_for(look, "tests.target", BOOT_SECONDS)


def _power_off(nspawn: "subprocess.Popen[bytes]") -> None:
    """End the container at once: with its first process every other one in it goes."""
    for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
        os.kill(int(child), 9)
    try:
        nspawn.wait(20)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait(20)


@pytest.fixture(scope="session", autouse=True)
def cron_checkout(machine: Machine) -> Path:
    """A checkout that cron has been looking after since the machine was booted: the other tests fill its minute."""
    checkout = machine.checkout / "by-cron"
    make_checkout(checkout)
    inside = CHECKOUT / "by-cron"
    machine.run("mkdir", "-p", "/var/spool/cron/crontabs")
    machine.loop("install", "cron", "--prefix", str(inside), "--schedule", "* * * * *", checkout=inside)
    machine.run("systemctl", "start", "cron.service")
    return checkout


@dataclass(frozen=True, kw_only=True)
class Service:
    """One loop under systemd: its unit, its settings, and what it wrote."""

    machine: Machine
    unit: str
    folder: str  #: the name of its folders below /var/lib and /var/log

    @property
    def inside(self) -> str:
        """Its state folder, as the machine names it."""
        return f"/var/lib/private/{self.folder}"

    @property
    def state_dir(self) -> Path:
        """Its state folder, as it is reached from here."""
        return self.machine.file(self.inside)

    def script(self, text: str) -> str:
        """Make a cycle script; returns its path in the machine."""
        name = f"cycle-{next(_names)}.sh"
        path = self.machine.checkout / name
        path.write_text(f"#!/bin/sh\ncd $RUN_CYCLE_STATE_DIR\n{text}\n")
        path.chmod(0o755)
        return str(CHECKOUT / name)

    def settings(self, **variables: str | float) -> None:
        """Write its environment file; the names are those of the variables, without their common beginning."""
        name = self.unit.removesuffix(".service").partition("@")[2] or "run-cycle-loop"
        lines = [f"RUN_CYCLE_{key.upper()}={value}\n" for key, value in variables.items()]
        (self.machine.config / f"{name}.env").write_text("".join(lines))

    def cycle(self, text: str, **variables: str | float) -> None:
        """Have it run a script of ours, from which no archive is expected."""
        self.settings(cycle_script=self.script(text), archive_glob="off", **variables)

    def override(self, **directives: str | int) -> None:
        """Change what tests cannot wait for, by a drop-in as an operator would."""
        folder = self.machine.units / f"{self.unit}.d"
        folder.mkdir(exist_ok=True)
        lines = [f"{key}={value}\n" for key, value in directives.items()]
        (folder / "test.conf").write_text("".join(["[Service]\n", *lines]))
        self.machine.run("systemctl", "daemon-reload")

    def start(self) -> None:
        """Start it and wait until it says READY."""
        self.machine.run("systemctl", "start", "--no-block", self.unit)
        wait_for(lambda: self.show("Job") == "", lambda: f"{self.unit} to be started: {self.journal()}")
        if self.show("SubState") in {"failed", "auto-restart"}:
            pytest.fail(f"{self.unit} did not start: {self.journal()}")

    def stop(self, *options: str) -> None:
        """Stop it; waits for the end unless the options say otherwise."""
        self.machine.run("systemctl", "stop", *options, self.unit)

    def show(self, name: str) -> str:
        """One of its properties."""
        return self.machine.run("systemctl", "show", "--value", f"--property={name}", self.unit).stdout.strip()

    def state(self) -> str:
        """How systemd calls its state: ``active inactive failed activating deactivating``."""
        return self.show("ActiveState")

    def facts(self, *names: str) -> dict[str, str]:
        """Several of its properties."""
        return {name: self.show(name) for name in names}

    def journal(self) -> str:
        """What it and systemd said about it."""
        return self.machine.run("journalctl", "--no-pager", "--unit", self.unit, check=False).stdout

    def history(self) -> list[dict[str, Any]]:
        """The records so far."""
        try:
            lines = (self.state_dir / "run_cycle_history.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def outcomes(self) -> list[str]:
        """What its cycles came to so far."""
        return [record["status"] for record in self.history()]

    def wait_for(self, look: Callable[[], _T | None], what: str, seconds: float = 20.0) -> _T:
        """Wait until ``look`` finds something true."""
        return wait_for(look, f"{what} of {self.unit}", seconds)

    def wait_for_outcomes(self, count: int = 1) -> list[str]:
        """Wait until so many cycles are recorded."""
        return wait_for(
            lambda: found if len(found := self.outcomes()) >= count else None,
            lambda: f"{count} records: {self.journal()}",
        )

    def wait_for_state(self, state: str, seconds: float = 20.0) -> None:
        """Wait until systemd calls its state so."""
        wait_for(lambda: self.state() == state, lambda: f"{self.unit} to be {state}: {self.journal()}", seconds)

    def wait_for_file(self, name: str) -> None:
        """Wait until the cycle has made a file in the state folder."""
        wait_for((self.state_dir / name).exists, name)

    def wait_for_status(self, part: str) -> None:
        """Wait until ``systemctl status`` would show this."""
        wait_for(lambda: part in self.show("StatusText"), f"{part!r} in the status")

    def wait_for_restart(self, after: int) -> None:
        """Wait until it is up again with another process."""
        wait_for(lambda: self.main_pid() not in {0, after} and self.state() == "active", f"a restart after {after}", 30)

    def stays(self, state: str, seconds: float) -> None:
        """See that it is in a state, and does not leave it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.state() == state, self.journal()
            time.sleep(0.1)

    def touch(self, name: str) -> None:
        """Make a file in its state folder, for the cycle to see."""
        (self.state_dir / name).touch()

    def pid_in(self, name: str) -> int:
        """The process that a cycle left in a file of the state folder."""
        return int((self.state_dir / name).read_text())

    def main_pid(self) -> int:
        """Its main process, as the machine numbers it."""
        return int(self.show("MainPID"))

    def clear(self) -> None:
        """Leave nothing of it."""
        self.machine.run("systemctl", "kill", "--signal=KILL", self.unit, check=False)
        self.stop()
        self.machine.run("systemctl", "reset-failed", self.unit, check=False)
        for kind in ("lib", "log"):
            self.machine.run("rm", "-rf", f"/var/{kind}/{self.folder}", f"/var/{kind}/private/{self.folder}")
        shutil.rmtree(self.machine.units / f"{self.unit}.d", ignore_errors=True)
        for file in self.machine.config.iterdir():
            file.unlink()
        self.machine.run("systemctl", "daemon-reload")


@pytest.fixture
def make_service(machine: Machine) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(unit: str, folder: str = "") -> Service:
        folder = folder or unit.removesuffix(".service").replace("@", "-")
        made.append(Service(machine=machine, unit=unit, folder=folder))
        return made[-1]

    yield make
    for service in made:
        service.clear()


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """The shipped unit, with a restart that tests can wait for."""
    shipped = make_service("run-cycle-loop.service")
    shipped.override(RestartSec="200ms")
    return shipped
