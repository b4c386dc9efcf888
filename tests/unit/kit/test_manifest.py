import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from run_cycle_loop.kit.fingerprint import Known, fingerprint, head_commit
from run_cycle_loop.kit.manifest import Manifest, Scan, compare
from tests.trees import clear

Act = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "tree"
    (root / "folder").mkdir(parents=True)
    (root / "file").write_text("content")
    (root / "folder" / "inner").write_text("inner")
    yield root
    clear(tmp_path)


def taken(root: Path, **how: object) -> Manifest:
    scan = Scan(root, **how)  # type: ignore[arg-type]
    assert scan.step()
    return scan.manifest()


# --- the walk


def test_every_kind_of_entry_is_listed_and_no_link_followed(root: Path) -> None:
    (root / "link").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    manifest = taken(root)
    assert set(manifest.entries) == {"file", "folder", "folder/inner", "link", "fifo"}
    assert manifest.entries["link"].link == "/etc"
    assert manifest.entries["file"].size == len("content")
    assert (manifest.overflow, manifest.faults, manifest.mounts) == (None, (), ())


@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe", "\u202eevil".encode(), b"x" * 255])
def test_names_are_kept_byte_by_byte(root: Path, name: bytes) -> None:
    (root / os.fsdecode(name)).touch()
    assert name in {os.fsencode(path) for path in taken(root).entries}


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_what_is_no_folder_has_no_entries(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tree"
    if kind == "file":
        path.touch()
    elif kind == "link":
        path.symlink_to("/etc")
    manifest = taken(path)
    assert manifest == Manifest(root=None, taken_ns=manifest.taken_ns)


def test_a_tree_deeper_than_stack_and_descriptors_is_walked(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        os.mkdir("e", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    manifest = taken(root)
    assert len(manifest.entries) == 3 + 2 * 1500
    assert manifest.overflow is None


def test_a_path_without_end_is_said(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 255, dir_fd=descriptor)
        inner = os.open("d" * 255, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    assert "characters" in (taken(root).overflow or "")


def test_more_entries_than_allowed_are_said(root: Path) -> None:
    assert taken(root, max_entries=3).overflow is None
    assert taken(root, max_entries=2).overflow == "it has more than 2 entries"


def test_what_is_excluded_is_not_walked(root: Path) -> None:
    assert set(taken(root, exclude=[root / "folder", "/elsewhere"]).entries) == {"file"}


def test_a_walk_in_steps_finds_what_a_walk_at_once_finds(root: Path) -> None:
    for number in range(500):
        (root / "folder" / f"{number}").touch()
    scan = Scan(root)
    steps = 1
    while not scan.step(0):
        steps += 1
    assert steps > 10
    assert scan.manifest().entries == taken(root).entries


def replace_by_link(root: Path) -> None:
    shutil.rmtree(root / "folder")
    (root / "folder").symlink_to("/etc")


def replace_by_another(root: Path) -> None:
    (root / "folder").rename(root / "aside")
    (root / "folder").mkdir()


@pytest.mark.parametrize("act", [replace_by_link, replace_by_another, shutil.rmtree])
def test_what_is_swapped_in_mid_walk_leads_nowhere(root: Path, act: Act) -> None:
    for number in range(100):
        (root / f"{number}").mkdir()
    scan = Scan(root)
    scan.step(0)
    act(root)
    assert scan.step()
    manifest = scan.manifest()
    assert not any(path.startswith("folder/pass") for path in manifest.entries)
    assert manifest.faults == ()


def test_a_walk_that_is_given_up_leaves_no_descriptor(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    for number in range(100):
        (root / f"{number}").mkdir()
    scan = Scan(root)
    scan.step(0)
    scan.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_counting_alone_keeps_nothing(root: Path) -> None:
    before = taken(root)
    (root / "new").touch()
    (root / "file").unlink()
    scan = Scan(root, before=before, keep=False)
    scan.step()
    assert scan.manifest().entries == {}
    assert (scan.created, scan.least_changed(2, done=True)) == (1, 1)


# --- the difference


@pytest.mark.parametrize(
    ("act", "created", "changed", "deleted", "files"),
    [
        (lambda root: (root / "new").touch(), ["new"], [], [], 1),
        (lambda root: (root / "file").unlink(), [], [], ["file"], 1),
        (lambda root: (root / "file").write_text("other"), [], ["file"], [], 1),
        (lambda root: (root / "file").chmod(0o600), [], ["file"], [], 1),
        (lambda root: (root / "file").rename(root / "moved"), ["moved"], [], ["file"], 1),
        (lambda root: (root / "folder").rename(root / "moved"), ["moved/inner"], [], ["folder/inner"], 1),
        (lambda root: (root / "empty").mkdir(), [], [], [], 0),
        (replace_by_link, ["folder"], [], ["folder/inner"], 2),
    ],
)
def test_a_difference(
    root: Path, act: Act, created: list[str], changed: list[str], deleted: list[str], files: int
) -> None:
    before = taken(root)
    act(root)
    changes = compare(before, taken(root))
    assert (list(changes.created), list(changes.changed), list(changes.deleted)) == (created, changed, deleted)
    assert changes.files == files


def test_a_file_counts_by_what_it_claims_or_takes(root: Path) -> None:
    before = taken(root)
    os.truncate(root / "file", 1 << 40)
    descriptor = os.open(root / "new", os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(descriptor, 0, 1 << 20)
    os.ftruncate(descriptor, 0)
    os.close(descriptor)
    changes = compare(before, taken(root))
    assert changes.bytes >= 1 << 40
    assert taken(root).entries["new"].weight == taken(root).entries["new"].blocks * 512


# --- the fingerprint


def printed(root: Path, known: Known | None = None) -> str | None:
    return fingerprint(root, taken(root), {} if known is None else known)


@pytest.mark.parametrize(
    "act",
    [
        lambda root: (root / "new").touch(),
        lambda root: (root / "file").write_text("CONTENT"),
        lambda root: (root / "file").chmod(0o755),
        lambda root: (root / "file").rename(root / "other"),
        lambda root: (root / "link").symlink_to("file"),
    ],
)
def test_a_fingerprint_tells_trees_apart(root: Path, act: Act) -> None:
    before = printed(root)
    act(root)
    assert printed(root) not in {None, before}


def test_a_fingerprint_does_not_tell_times_and_copies_apart(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy")
    os.utime(root / "file", (5, 5))
    assert printed(root) == printed(tmp_path / "copy")


def test_only_what_changed_is_read_again(root: Path) -> None:
    known: Known = {}
    before = printed(root, known)
    entry = taken(root).entries["file"]
    known[entry.signature] = b"as it was read before"
    assert printed(root, known) not in {None, before}
    (root / "file").unlink()
    printed(root, known)
    assert len(known) == 1


def test_what_takes_too_long_is_taken_up_by_the_next(root: Path) -> None:
    known: Known = {}
    assert fingerprint(root, taken(root), known, seconds=-1) is None
    for _ in range(3):
        last = fingerprint(root, taken(root), known)
    assert last == printed(root)


def test_a_tree_that_is_not_whole_has_none(root: Path) -> None:
    assert fingerprint(root, taken(root, max_entries=1), {}) is None


# --- git, without git

ONE, TWO = "1" * 40, "2" * 40


@pytest.mark.parametrize(
    ("names", "commit"),
    [
        ({"HEAD": ONE}, ONE),
        ({"HEAD": "ref: refs/heads/main", "refs/heads/main": ONE}, ONE),
        (
            {"HEAD": "ref: refs/heads/main", "packed-refs": f"# pack-refs\n{TWO} refs/heads/x\n{ONE} refs/heads/main"},
            ONE,
        ),
        ({"HEAD": "ref: refs/heads/main", "packed-refs": f"{TWO} refs/heads/main", "refs/heads/main": ONE}, ONE),
        ({"HEAD": "ref: refs/heads/main"}, None),
        ({"HEAD": "ref: ../../victim"}, None),
        ({"HEAD": "ref: refs/../../victim", "../victim": ONE}, None),
        ({"HEAD": "x" * 10_000}, None),
        ({}, None),
    ],
)
def test_the_commit_that_head_names(root: Path, names: dict[str, str], commit: str | None) -> None:
    for name, text in names.items():
        path = root / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    found = head_commit(root)
    assert found == (commit.encode() if commit else None)


def test_the_commit_of_a_real_repository_and_its_worktree(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git here")
    root, worktree = tmp_path / "repository", tmp_path / "worktree"

    def git(*arguments: str, cwd: Path = root) -> str:
        named = ["-c", "user.name=n", "-c", "user.email=e@localhost"]
        done = subprocess.run(["git", *named, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    root.mkdir()
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    git("worktree", "add", "-q", str(worktree))
    assert head_commit(root) == git("rev-parse", "HEAD").encode()
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=worktree)
    git("pack-refs", "--all")
    assert head_commit(worktree) == git("rev-parse", "HEAD", cwd=worktree).encode()
    assert head_commit(root) != head_commit(worktree)


def test_a_commit_changes_the_fingerprint_and_other_files_of_git_do_not(root: Path) -> None:
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text(ONE)
    before = printed(root)
    (root / ".git" / "index").touch()
    assert printed(root) == before
    (root / ".git" / "HEAD").write_text(TWO)
    assert printed(root) not in {None, before}
