"""What an agent in bubblewrap can reach, tried from inside by one that means harm."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents.isolation import Isolation, choose
from run_cycle_loop.kit import process_table
from run_cycle_loop.kit.processes import Exit, Limits, supervise
from run_cycle_loop.model.enums import Role
from run_cycle_loop.model.errors import ConfigError

pytestmark = pytest.mark.usefixtures("adopting")

real = pytest.mark.root  # the package bubblewrap, and rights that are worth taking away


class Cell:
    """A tree with a workdir and the loop's own records, and commands that run in isolation there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = root / "work"
        self.state = root / "state"
        self.hidden: list[Path] = [self.state]
        self.workdir.mkdir()
        self.state.mkdir()
        (self.state / "history").write_text("kept")
        self.output = ""
        self.exit: Exit | None = None

    def run(self, code: str, *, role: Role = Role.WRITE, argv: Sequence[str] = (), **more: Any) -> str:
        isolation = choose("bwrap", os.environ, hidden=self.hidden)
        wrapped = isolation.wrap(
            argv or ("sh", "-c", code),
            workdir=more.get("workdir", self.workdir),
            role=role,
            writes=more.get("writes", ()),
            reads=more.get("reads", ()),
        )
        self.output = ""
        limits = Limits(timeout=more.get("timeout", 30.0), grace=0.3)
        self.exit = supervise(wrapped, os.environ, limits=limits, output=self._take)
        return self.output

    def _take(self, _stream: str, chunk: memoryview) -> None:
        self.output += bytes(chunk).decode()

    @property
    def kept(self) -> list[tuple[str, str]]:
        return [(path.name, path.read_text()) for path in self.state.iterdir()]


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[Cell]:
    """In a private place: what is not shown is not there."""
    root = tmp_path / "a tree"
    root.mkdir()
    before = process_table.children(os.getpid())
    yield Cell(root)
    assert process_table.children(os.getpid()) == before


@pytest.fixture(params=["in a private place", "elsewhere"])
def any_cell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cell]:
    """In a private place, or where everything can be read that is not hidden."""
    home = tmp_path if request.param == "in a private place" else Path.home()
    with tempfile.TemporaryDirectory(prefix="a tree ", dir=home) as root:
        yield Cell(Path(root))
    assert process_table.children(os.getpid()) == []


# What is there


@real
def test_it_works_in_its_workdir_and_nowhere_else(any_cell: Cell) -> None:
    told = any_cell.run("pwd; echo x > made; for f in ../beside /etc/x /usr/x; do (echo x > $f); done")
    assert told.splitlines()[0] == str(any_cell.workdir)
    assert told.count("Read-only file system") >= 2
    assert (any_cell.workdir / "made").read_text() == "x\n"
    assert {path.name for path in any_cell.root.iterdir()} == {"state", "work"}
    assert not any(Path(folder, "x").exists() for folder in ("/etc", "/usr"))


@real
def test_a_reader_changes_nothing(any_cell: Cell) -> None:
    (any_cell.workdir / "kept").write_text("kept")
    assert "Read-only file system" in any_cell.run("cat kept; echo x > kept; rm -f kept", role=Role.READ_ONLY)
    assert (any_cell.workdir / "kept").read_text() == "kept"


@real
def test_its_own_folders_are_writable_and_made_where_they_are_missing(cell: Cell) -> None:
    own = (cell.root / "home of it", cell.root / "file")
    own[1].write_text("old")
    cell.run('echo x > "../home of it/a"; echo new > ../file', writes=own)
    assert (own[0] / "a").read_text() == "x\n"
    assert own[1].read_text() == "new\n"


@real
def test_what_its_command_line_names_is_there_even_in_a_private_place(cell: Cell) -> None:
    tools = cell.root / "tools"
    tools.mkdir()
    (tools / "agent").write_text('#!/bin/sh\necho "agent says $(cat "$(dirname "$0")/words")"; echo x > "$0"\n')
    (tools / "agent").chmod(0o755)
    (tools / "words").write_text("hello")
    assert "agent says hello" in cell.run("", argv=(str(tools / "agent"),), reads=(tools,))
    assert (tools / "agent").read_text().startswith("#!/bin/sh")


@real
def test_scratch_space_is_its_own(cell: Cell) -> None:
    name = f"{cell.root.parent.name}-{os.getpid()}"
    told = cell.run(
        f'echo x > /tmp/{name}; echo x > /var/tmp/{name}; ls /tmp /var/tmp; echo "$TMPDIR"; stat -c %a /tmp'
    )
    assert told.splitlines().count(name) == 2
    assert told.splitlines()[-2:] == ["/tmp", "1777"]
    assert not any(Path(folder, name).exists() for folder in ("/tmp", "/var/tmp"))


@real
def test_the_network_stays(cell: Cell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port})); print('reached')"
        assert cell.run("", argv=(sys.executable, "-S", "-c", code)) == "reached\n"


@real
def test_a_workdir_behind_a_link_is_the_one_it_leads_to(cell: Cell) -> None:
    (cell.root / "link").symlink_to(cell.workdir)
    cell.run("echo x > made", workdir=cell.root / "link")
    assert (cell.workdir / "made").exists()


# What is hidden


@real
def test_records_beside_the_workdir_are_out_of_sight(any_cell: Cell) -> None:
    told = any_cell.run(
        "ls ../state; cat ../state/history; mkdir -p ../state; echo x > ../state/history; rm -rf ../state"
    )
    assert "kept" not in told
    assert any_cell.kept == [("history", "kept")]


@real
def test_records_inside_the_workdir_are_out_of_sight(any_cell: Cell) -> None:
    told = any_cell.run("ls -a state; echo x > state/history; rm -rf state; mv state elsewhere", workdir=any_cell.root)
    assert "history" not in told.splitlines()
    assert "Read-only file system" in told
    assert any_cell.kept == [("history", "kept")]


@real
def test_records_cannot_be_moved_away_with_the_folder_around_them(any_cell: Cell) -> None:
    deep = any_cell.workdir / "var" / "lib" / "state"
    deep.mkdir(parents=True)
    (deep / "history").write_text("kept")
    any_cell.hidden = [deep]
    told = any_cell.run("mv var away; mv var/lib away; mv var/lib/state away; rm -rf var; echo x > var/lib/beside; ls")
    assert told.count("busy") >= 3
    assert (deep / "history").read_text() == "kept"
    assert (any_cell.workdir / "var/lib/beside").exists()


@real
def test_a_workdir_inside_the_records_is_all_that_is_seen_of_them(any_cell: Cell) -> None:
    inner = any_cell.state / "work"
    inner.mkdir()
    told = any_cell.run("ls ..; echo x > made; echo x > ../history", workdir=inner)
    assert told.splitlines()[0] == "work"
    assert (inner / "made").exists()
    assert (any_cell.state / "history").read_text() == "kept"


@real
def test_a_single_file_is_masked_where_its_folder_is_the_agents(any_cell: Cell) -> None:
    stop = any_cell.workdir / "stop"
    stop.write_text("now")
    any_cell.hidden = [any_cell.state, stop, any_cell.workdir / "missing"]
    told = any_cell.run("cat stop; rm -f stop; mv stop away; echo never > stop; ls")
    assert "now" not in told
    assert stop.read_text() == "now"
    assert not (any_cell.workdir / "missing").exists()


@real
def test_nothing_of_the_processes_outside_is_seen(cell: Cell) -> None:
    told = cell.run(f"ls -d /proc/[0-9]*; kill -0 {os.getpid()}; grep -l PYTEST_CURRENT_TEST /proc/*/environ; true")
    assert len([line for line in told.splitlines() if line.startswith("/proc/")]) < 12
    assert f"/proc/{os.getpid()}" not in told.splitlines()


@real
def test_neither_the_kernel_nor_a_daemon_does_anything_for_it(cell: Cell) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    told = cell.run(
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger; do test -w $f && echo can write $f; done;"
        "ls /run/dbus /run/docker.sock 2>/dev/null; grep CapEff /proc/self/status; mount -t tmpfs x /mnt; umount /tmp"
    )
    assert "can write" not in told
    assert "CapEff:\t0000000000000000" in told
    assert "bus_socket" not in told
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


# How it ends


@real
@pytest.mark.parametrize(
    "code",
    [
        "setsid sleep 600 >/dev/null 2>&1 &",
        "(setsid sh -c 'setsid sleep 600 & exec sleep 600' >/dev/null 2>&1 &)",
        "trap '' TERM; sleep 600 & sleep 600 &",
    ],
)
def test_all_of_it_dies_with_it(cell: Cell, code: str) -> None:
    cell.run(code)
    assert cell.exit is not None
    assert (cell.exit.exit_code, cell.exit.survivors) == (0, ())


@real
def test_one_that_does_not_listen_is_killed(cell: Cell) -> None:
    cell.run("trap '' TERM; while :; do sleep 1; done", timeout=0.5)
    assert cell.exit is not None
    assert (cell.exit.exit_code, cell.exit.survivors) == (None, ())


@real
@pytest.mark.parametrize("code", [0, 1, 3, 77])
def test_its_exit_code_comes_out(cell: Cell, code: int) -> None:
    cell.run(f"exit {code}")
    assert cell.exit is not None
    assert cell.exit.exit_code == code


# What is refused


def wrapped(hidden: Path, workdir: Path) -> tuple[str, ...]:
    isolation = Isolation(wanted="bwrap", program="bwrap", detail="", hidden=(hidden,))
    return isolation.wrap(("true",), workdir=workdir, role=Role.WRITE, writes=(), reads=())


def test_a_workdir_that_holds_the_records_themselves_is_refused(cell: Cell) -> None:
    with pytest.raises(ConfigError, match="is where the loop keeps its own records: name another --workdir"):
        wrapped(cell.state, cell.state)


@pytest.mark.parametrize("way", ["link", "link/deep", "first"])
def test_records_behind_a_link_that_the_agent_could_replace_are_refused(cell: Cell, way: str) -> None:
    (cell.state / "deep").mkdir()
    (cell.workdir / "link").symlink_to("../state")
    (cell.workdir / "first").symlink_to(cell.workdir / "link")
    with pytest.raises(
        ConfigError, match=r"is reached by the link .*/work/(link|first), which the agent could replace"
    ):
        wrapped(cell.workdir / way, cell.workdir)


def test_records_behind_a_link_elsewhere_are_found(cell: Cell) -> None:
    (cell.root / "link").symlink_to(cell.workdir)
    (cell.workdir / "state").mkdir()
    argv = wrapped(cell.root / "link" / "state", cell.workdir)
    assert ("--tmpfs", str(cell.workdir / "state")) in pairwise(argv)


# What is chosen


def bubblewrap(folder: Path, code: str) -> dict[str, str]:
    """An environment in which bubblewrap is this script."""
    (folder / "bwrap").write_text(f"#!/bin/sh\n{code}\n")
    (folder / "bwrap").chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_without_bubblewrap_auto_says_so_and_bwrap_refuses(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path)}
    chosen = choose("auto", env, hidden=())
    assert (chosen.used, chosen.ok) == ("none", False)
    assert chosen.detail == (
        "the agent is not isolated, since bubblewrap (bwrap) is not installed: it can change whatever this user can"
    )
    with pytest.raises(ConfigError, match=r"--isolate bwrap cannot be met: bubblewrap .* is not installed"):
        choose("bwrap", env, hidden=())


def test_a_bubblewrap_that_does_not_work_says_why(tmp_path: Path) -> None:
    env = bubblewrap(tmp_path, "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    assert "(bwrap: No permissions to create new namespace)" in choose("auto", env, hidden=()).detail
    with pytest.raises(ConfigError, match="No permissions to create new namespace"):
        choose("bwrap", env, hidden=())


def test_a_bubblewrap_that_works_is_used(tmp_path: Path) -> None:
    chosen = choose("auto", bubblewrap(tmp_path, "exit 0"), hidden=(tmp_path,))
    assert (chosen.used, chosen.ok, chosen.hidden) == ("bwrap", True, (tmp_path,))


def test_none_is_what_was_asked_for(tmp_path: Path) -> None:
    chosen = choose("none", bubblewrap(tmp_path, "exit 0"), hidden=())
    assert (chosen.used, chosen.ok) == ("none", True)


@pytest.mark.parametrize("name", ["plain", "a folder with blanks", "-dash", "quote'"])
def test_without_isolation_it_still_starts_in_its_workdir(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    argv = choose("none", {}, hidden=()).wrap(
        ("sh", "-c", 'pwd; echo "$1"', "sh", "two words"), workdir=folder, role=Role.WRITE, writes=(), reads=()
    )
    told = bytearray()
    supervise(argv, os.environ, limits=Limits(timeout=30.0), output=lambda _stream, chunk: told.extend(chunk))
    assert told.decode() == f"{folder}\ntwo words\n"
