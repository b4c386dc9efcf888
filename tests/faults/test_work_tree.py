"""The work tree's guard and the sandbox's reset against crashes, mounts, other users' rights, and survivors."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trees import program, said, seen

TOUCHING = (
    "openat", "write", "pwrite64", "copy_file_range", "ioctl", "fsync", "syncfs", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "mkdir", "mkdirat", "symlinkat", "mknodat", "linkat", "utimensat", "fchmod", "chmod",
)  # fmt: skip
_CALL = re.compile(r"^(\w+)\((.*)$")
MARK = "tree.mark(spec)"
RECOVER = "say(tree.recover())"
PACKAGE = Path(__file__).resolve().parents[2] / "run_cycle_loop"


def as_nobody(home: Path) -> tuple[str, ...]:
    """What runs a command as a user without rights, who need not be able to read the checkout."""
    shutil.copytree(PACKAGE, home / "lib" / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    told = ("env", f"PYTHONPATH={home / 'lib'}")
    return (*told, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def make_tree(root: Path) -> None:
    (root / "docs" / "deep").mkdir(parents=True)
    (root / "docs" / "page").write_text("page one")
    (root / "docs" / "deep" / "tool").write_text("tool")
    (root / "hard-1").write_text("twice")
    os.link(root / "hard-1", root / "hard-2")
    (root / "link").symlink_to("docs/page")
    os.mkfifo(root / "fifo")


def disturb(root: Path) -> None:
    (root / "docs" / "page").write_text("changed")
    (root / "docs" / "deep" / "tool").unlink()
    (root / "docs" / "deep" / "new").write_text("new")
    (root / "more").mkdir()
    (root / "more" / "file").write_text("more")
    (root / "hard-1").unlink()
    (root / "link").unlink()
    (root / "fifo").unlink()
    (root / "fifo").write_text("no fifo")
    (root / "docs").chmod(0o700)


def texts(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"}


def points(command: Sequence[str], folder: Path, trace: Path) -> list[tuple[str, int]]:
    """The calls of a run that touch a folder, each with its count among those of its kind."""
    done = subprocess.run(
        ["strace", "-f", "-qq", "-y", "-o", str(trace), "-e", f"trace={','.join(TOUCHING)}", *command], check=False
    )
    assert done.returncode == 0
    counts: Counter[str] = Counter()
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        _, _, call = line.partition(" ")
        if match := _CALL.match(call.strip()):
            counts[match[1]] += 1
            if str(folder) in match[2] and (match[1] != "openat" or "O_CREAT" in match[2]):
                found.append((match[1], counts[match[1]]))
    return found


def killed_at(command: Sequence[str], call: str, nth: int) -> bool:
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}"]
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", *inject, *command], check=False, capture_output=True
    )
    return done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}


@pytest.mark.root
def test_a_kill_at_any_write_while_the_tree_is_put_back_is_made_up_for(tmp_path: Path) -> None:
    def prepared(name: str) -> tuple[Path, Path, dict[str, tuple[object, ...]]]:
        root, state = tmp_path / name / "tree", tmp_path / name / "state"
        make_tree(root)
        before = seen(root)
        said(program(root, state, MARK))
        disturb(root)
        return root, state, before

    root, state, before = prepared("traced")
    found = points(program(root, state, RECOVER), tmp_path / "traced", tmp_path / "trace")
    assert seen(root) == before
    assert {"fsync", "mkdir", "unlink"} <= {call for call, _ in found}
    assert len(found) > 40

    def attempt(point: tuple[str, int]) -> bool:
        root, state, before = prepared(f"{point[0]}-{point[1]}")
        died = killed_at(program(root, state, RECOVER), *point)
        sentence = said(program(root, state, RECOVER))
        assert seen(root) == before, f"killed at {point}: {sentence}"
        assert (root / "hard-1").samefile(root / "hard-2"), point
        assert {"changed", "new", "more", "no fifo"} <= texts(state / "quarantine"), point
        assert sentence == "None" or sentence.endswith("the tree is as it was"), (point, sentence)
        return died

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(attempt, found)) >= len(found) * 0.9


@pytest.mark.root
def test_a_kill_at_any_write_of_a_mark_moves_nothing(tmp_path: Path) -> None:
    def prepared(name: str) -> tuple[Path, Path, dict[str, tuple[object, ...]]]:
        root, state = tmp_path / name / "tree", tmp_path / name / "state"
        make_tree(root)
        said(program(root, state, f"{MARK}; tree.settle(spec)"))
        (root / "docs" / "page").write_text("page two")
        return root, state, seen(root)

    root, state, _ = prepared("traced")
    found = points(program(root, state, MARK), tmp_path / "traced", tmp_path / "trace")
    assert len(found) > 8

    def attempt(point: tuple[str, int]) -> None:
        root, state, before = prepared(f"{point[0]}-{point[1]}")
        killed_at(program(root, state, MARK), *point)
        assert said(program(root, state, RECOVER)) == "None", point
        assert seen(root) == before, point
        said(program(root, state, MARK))
        disturb(root)
        assert said(program(root, state, RECOVER)).endswith("the tree is as it was"), point
        assert seen(root) == before, point

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(attempt, found))


# --- another user's rights


def given_away(folder: Path) -> Path:
    """A folder that nobody's processes can reach and own."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o005)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    return folder


@pytest.mark.root
def test_who_is_not_root_puts_back_what_was_barred(tmp_path: Path) -> None:
    root = tmp_path / "home" / "tree"
    make_tree(root)
    (root / "docs" / "private").mkdir(mode=0)
    (root / "docs" / "page").chmod(0)
    nobody = as_nobody(tmp_path / "home")
    given_away(tmp_path / "home")
    before, state = seen(root), tmp_path / "home" / "state"
    bar = "os.chmod(root/'docs'/'deep'/'tool', 0o700); (root/'new').mkdir(); (root/'new'/'x').touch(); " + "; ".join(
        f"os.chmod(root/{name!r}, 0)" for name in ("new", "docs/deep", "docs", "")
    )
    text = f"{MARK}\n{bar}\nsay(tree.settle(spec))"
    assert said([*nobody, *program(root, state, text)]).endswith("the tree is as it was")
    assert seen(root) == before
    assert (state / "quarantine" / "cycle-1" / "tree" / "new" / "x").exists()


@pytest.mark.root
def test_who_is_not_root_leaves_within_the_caps_what_was_barred_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "home" / "tree"
    make_tree(root)
    nobody = as_nobody(tmp_path / "home")
    given_away(tmp_path / "home")
    text = f"tree._caps = Caps()\n{MARK}\nos.chmod(root/'docs', 0); os.chmod(root, 0)\nsay(tree.settle(spec))"
    assert said([*nobody, *program(root, tmp_path / "home" / "state", text)]) == "None"
    assert (root.stat().st_mode & 0o777, (root / "docs").stat().st_mode & 0o777) == (0, 0)


@pytest.mark.root
def test_who_is_not_root_empties_a_sandbox_that_was_barred(tmp_path: Path) -> None:
    sandbox = tmp_path / "home" / "sandbox"
    (sandbox / "a" / "b" / "c").mkdir(parents=True)
    (sandbox / "a" / "b" / "file").touch()
    nobody = as_nobody(tmp_path / "home")
    given_away(tmp_path / "home")
    for folder in ("a/b/c", "a/b", "a", "."):
        (sandbox / folder).chmod(0)
    assert said([*nobody, *program(sandbox, sandbox, "sandbox.reset(root)")]) == ""
    assert list(sandbox.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("flag", ["+i", "+a"])
def test_what_chattr_forbids_is_removed_and_put_back_all_the_same(tmp_path: Path, flag: str) -> None:
    root = tmp_path / "tree"
    make_tree(root)
    before = seen(root)

    def freeze() -> None:
        if subprocess.run(["chattr", flag, root / "new" / "file", root / "new"], check=False).returncode:
            pytest.skip("this file system has no such flags")

    said(program(root, tmp_path / "state", MARK))
    (root / "new").mkdir()
    (root / "new" / "file").touch()
    freeze()
    assert said(program(root, tmp_path / "state", RECOVER)).endswith("the tree is as it was")
    assert seen(root) == before
    (root / "new").mkdir()
    (root / "new" / "file").touch()
    freeze()
    assert said(program(root, root, "sandbox.reset(root)")) == ""
    assert list(root.iterdir()) == []
    subprocess.run(["chattr", "-R", "-i", "-a", tmp_path], check=False, capture_output=True)


# --- mounts


def mounted(setup: str, command: Sequence[str], folder: Path) -> str:
    """What a program says in a mount namespace of its own."""
    script = f'set -e; {setup}; exec "$@"'
    return said(["unshare", "-m", "sh", "-c", f"cd {folder}; {script}", "sh", *command])


MOUNTS = {
    "bind": "mkdir -p tree/docs/m; mount --bind victim tree/docs/m",
    "tmpfs": "mkdir -p tree/docs/m; mount -t tmpfs none tree/docs/m; touch tree/docs/m/page",
    "file": "touch tree/docs/m; mount --bind victim/page tree/docs/m",
    "blank": "mkdir -p 'tree/a b'; mount --bind victim 'tree/a b'",
}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "page").write_text("theirs")
    return folder


@pytest.mark.root
@pytest.mark.parametrize("kind", MOUNTS)
def test_a_sandbox_with_a_mount_in_it_is_not_emptied_through_it(tmp_path: Path, victim: Path, kind: str) -> None:
    root = tmp_path / "tree"
    make_tree(root)
    text = mounted(MOUNTS[kind], program(root, root, "sandbox.reset(root)"), tmp_path)
    assert "a mount point stands in it" in text
    assert (victim / "page").read_text() == "theirs"


@pytest.mark.root
def test_a_sandbox_that_is_a_bind_mount_is_not_emptied(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "tree").mkdir()
    root = tmp_path / "tree"
    text = mounted("mount --bind victim tree", program(root, root, "sandbox.reset(root)"), tmp_path)
    assert "is a mount point and is not emptied" in text
    assert (victim / "page").read_text() == "theirs"


@pytest.mark.root
@pytest.mark.parametrize("kind", MOUNTS)
def test_no_cycle_starts_on_a_tree_with_a_mount_in_it(tmp_path: Path, victim: Path, kind: str) -> None:
    make_tree(tmp_path / "tree")
    text = mounted(MOUNTS[kind], program(tmp_path / "tree", tmp_path / "state", MARK), tmp_path)
    assert "a mount point stands in it" in text
    assert (victim / "page").read_text() == "theirs"


@pytest.mark.root
@pytest.mark.parametrize("kind", MOUNTS)
def test_a_mount_that_came_with_the_cycle_is_said_and_not_entered(tmp_path: Path, victim: Path, kind: str) -> None:
    root = tmp_path / "tree"
    make_tree(root)
    text = f"{MARK}\nassert os.system({MOUNTS[kind]!r}) == 0; (root/'new').touch()\nsay(tree.settle(spec))"
    text = mounted("true", program(root, tmp_path / "state", text), tmp_path)
    assert "is a mount point and was left as it is" in text
    assert (victim / "page").read_text() == "theirs"
    assert not (root / "new").exists()


@pytest.mark.root
def test_parking_on_another_file_system_copies_before_it_removes(tmp_path: Path) -> None:
    root, state = tmp_path / "tree", tmp_path / "state"
    make_tree(root)
    before = seen(root)
    state.mkdir()
    (tmp_path / "out").mkdir()
    text = "\n".join(
        (
            MARK,
            "(root/'new'/'deep').mkdir(parents=True); (root/'new'/'deep'/'x').write_text('deep')",
            "f = open(root/'new'/'giant', 'wb'); f.truncate(1 << 40); f.close()",
            "os.symlink('/etc', root/'new'/'etc'); os.mkfifo(root/'new'/'pipe'); os.chmod(root/'new', 0)",
            "(root/'docs'/'page').write_text('changed')",
            "say(tree.settle(spec))",
            f"assert os.system('cp -a --sparse=always {state}/quarantine {tmp_path}/out') == 0",
        )
    )
    sentence = mounted(f"mount -t tmpfs none {state}", program(root, state, text), tmp_path)
    assert sentence.endswith("the tree is as it was")
    assert seen(root) == before
    parked = tmp_path / "out" / "quarantine" / "cycle-1" / "tree"
    assert (parked / "new" / "deep" / "x").read_text() == "deep"
    assert (parked / "docs" / "page").read_text() == "changed"
    assert (parked / "new" / "giant").stat().st_size == 1 << 40
    assert os.readlink(parked / "new" / "etc") == "/etc"  # noqa: PTH115 - as it stands


@pytest.mark.root
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    root, state = tmp_path / "tree", tmp_path / "state"
    make_tree(root)
    state.mkdir()
    text = f"{MARK}\n(root/'new').write_bytes(b'x' * (1 << 20))\nsay(tree.settle(spec))"
    sentence = mounted(f"mount -t tmpfs -o size=256k none {state}", program(root, state, text), tmp_path)
    assert "No space left" in sentence
    assert (root / "new").stat().st_size == 1 << 20


@pytest.mark.root
def test_a_tree_for_whose_copy_there_is_no_room_is_refused(tmp_path: Path) -> None:
    root, state = tmp_path / "tree", tmp_path / "state"
    make_tree(root)
    (root / "large").write_bytes(b"x" * (1 << 20))
    state.mkdir()
    sentence = mounted(f"mount -t tmpfs -o size=256k none {state}", program(root, state, MARK), tmp_path)
    assert "RunnerError" in sentence
    assert "has room for" in sentence


# --- survivors

_FLIP = """
import os, sys
os.chdir(sys.argv[1])
while True:
    for change in (lambda: os.rename("docs", "aside"), lambda: os.symlink(sys.argv[2], "docs"),
                   lambda: os.unlink("docs"), lambda: os.rename("aside", "docs"), lambda: os.mkdir("docs")):
        try:
            change()
        except OSError:
            pass
"""


@pytest.mark.parametrize("what", ["settle", "reset"])
def test_a_survivor_that_swaps_a_folder_for_a_link_leads_nowhere(tmp_path: Path, what: str) -> None:
    victim, root = tmp_path / "victim", tmp_path / "tree"
    make_tree(victim)
    before = seen(victim)
    make_tree(root)
    said(program(root, tmp_path / "state", MARK))
    disturb(root)
    flipper = subprocess.Popen([sys.executable, "-c", _FLIP, str(root), str(victim)])
    try:
        for _ in range(5):
            if what == "settle":
                said(program(root, tmp_path / "state", f"{MARK}; (root/'new').touch(); say(tree.settle(spec))"))
            else:
                said(program(root, root, "sandbox.reset(root)"))
    finally:
        flipper.kill()
        flipper.wait()
    assert seen(victim) == before


def test_a_survivor_that_goes_on_writing_is_said(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    make_tree(root)
    said(program(root, tmp_path / "state", MARK))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                (root / "docs" / "page").write_text("again")
                (root / "docs" / "more").write_text("again")

    disturb(root)
    survivor = threading.Thread(target=write)
    survivor.start()
    try:
        sentence = said(program(root, tmp_path / "state", RECOVER))
    finally:
        stop.set()
        survivor.join()
    assert "the tree is not as it was" in sentence
    shutil.rmtree(root)
