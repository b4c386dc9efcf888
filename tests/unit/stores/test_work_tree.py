"""The tree under its caps: what counts, and that whatever a cycle does to it is parked and undone."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from run_cycle_loop.model.enums import GuardMode
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.findings import TreeVerdict
from run_cycle_loop.stores.work_tree import Caps, MeasuredTree
from run_cycle_loop.testing import FakeClock, make_spec
from tests.trees import clear, seen

NONE = Caps(files=0, bytes=0)
Act = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A tree with something of everything."""
    root = tmp_path / "tree"
    (root / "docs" / "deep").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o750)
    (root / "readme").write_text("read me")
    (root / "docs" / "page").write_text("page one")
    (root / "docs" / "deep" / "tool").write_text("#!/bin/sh\n")
    (root / "docs" / "deep" / "tool").chmod(0o755)
    (root / "link").symlink_to("docs/page")
    (root / "hard-1").write_text("twice")
    os.link(root / "hard-1", root / "hard-2")
    os.mkfifo(root / "fifo")
    git = root / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs" / "heads" / "main").write_text("1" * 40 + "\n")
    for folder in (root / "docs" / "deep", root / "docs", git, root):
        os.utime(folder, (1_000_000_000, 1_000_000_000))
    yield root
    clear(tmp_path)


def guarded(root: Path, *, mode: GuardMode = GuardMode.ENFORCE, caps: Caps = NONE, **how: object) -> MeasuredTree:
    clock = FakeClock()
    return MeasuredTree(root, root.parent / "state", mode=mode, caps=caps, clock=clock, **how)  # type: ignore[arg-type]


def after(root: Path, act: Act, tree: MeasuredTree | None = None) -> TreeVerdict:
    tree = tree or guarded(root)
    tree.mark(make_spec())
    act(root)
    return tree.settle(make_spec())


def parked(verdict: TreeVerdict) -> Path:
    assert verdict.quarantine is not None
    return verdict.quarantine / "tree"


# --- whatever a cycle does is undone


def many_files(root: Path) -> None:
    for number in range(2000):
        (root / "docs" / f"file-{number}").write_text(str(number))


def a_sparse_giant(root: Path) -> None:
    with (root / "giant").open("wb") as file:
        file.truncate(1 << 40)


def deep_folders(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def a_folder_replaced_by_a_link(root: Path) -> None:
    shutil.rmtree(root / "docs")
    (root / "docs").symlink_to("/etc")


def a_file_replaced_by_a_folder(root: Path) -> None:
    (root / "readme").unlink()
    (root / "readme").mkdir()
    (root / "readme" / "inside").touch()


def a_hard_link_to_the_outside(root: Path) -> None:
    os.link(root / "readme", root.parent / "outside")
    (root.parent / "outside").write_text("READ ME")


def barred_folders(root: Path) -> None:
    (root / "docs" / "deep" / "tool").write_text("changed")
    (root / "docs" / "deep").chmod(0)
    (root / "docs").chmod(0)
    (root / "new").mkdir()
    (root / "new" / "file").touch()
    (root / "new").chmod(0)


def everything_deleted(root: Path) -> None:
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def git_rewritten(root: Path) -> None:
    (root / ".git" / "refs" / "heads" / "main").write_text("2" * 40 + "\n")
    (root / ".git" / "config").write_text("[core]\n\tfsmonitor = touch /tmp/x\n")
    (root / "one").touch()


def strange_names(root: Path) -> None:
    for name in (b"new\nline", b"\xff\xfe", "\u202eevil".encode(), b"-rf", b"x" * 255, b" "):
        (root / os.fsdecode(name)).write_text("strange")


def in_place_with_size_and_time_kept(root: Path) -> None:
    before = (root / "readme").stat()
    (root / "readme").write_text("RATHER!")
    os.utime(root / "readme", ns=(before.st_atime_ns, before.st_mtime_ns))


def attributes(root: Path) -> None:
    (root / "readme").chmod(0o777)
    (root / "docs").chmod(0o777)
    os.utime(root / "docs" / "page", (1, 1))


def special_files(root: Path) -> None:
    (root / "fifo").unlink()
    os.mkfifo(root / "docs" / "pipe")
    (root / "to-etc").symlink_to("/etc")
    (root / "loop").symlink_to("loop")


def the_root_is_gone(root: Path) -> None:
    shutil.rmtree(root)


def the_root_is_a_link(root: Path) -> None:
    shutil.rmtree(root)
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "victim").touch()
    root.symlink_to("elsewhere")


def a_rename_of_a_folder(root: Path) -> None:
    (root / "docs").rename(root / "papers")


HOSTILE = [
    many_files, a_sparse_giant, deep_folders, a_folder_replaced_by_a_link, a_file_replaced_by_a_folder,
    a_hard_link_to_the_outside, barred_folders, everything_deleted, git_rewritten, strange_names,
    in_place_with_size_and_time_kept, attributes, special_files, the_root_is_gone, the_root_is_a_link,
    a_rename_of_a_folder,
]  # fmt: skip


@pytest.mark.parametrize("act", HOSTILE, ids=lambda act: act.__name__)
def test_over_a_cap_the_tree_is_as_it_was(root: Path, act: Act) -> None:
    before = seen(root)
    verdict = after(root, act)
    assert verdict.finding is not None
    assert (verdict.finding.guard, verdict.finding.ok) == ("write_cap", False)
    assert "the tree is as it was" in verdict.finding.detail
    assert seen(root) == before
    assert (root / "hard-1").samefile(root / "hard-2")
    assert not (root.parent / "state" / "baseline" / "pending.json").exists()
    again = after(root, lambda _: None)
    assert (again.finding, again.files) == (None, 0)


@pytest.mark.parametrize("act", HOSTILE, ids=lambda act: act.__name__)
def test_a_second_time_it_is_put_back_as_well(root: Path, act: Act) -> None:
    before, tree = seen(root), guarded(root)
    for _ in range(2):
        for path in root.parent.glob("[eo]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        after(root, act, tree)
        assert seen(root) == before


def test_what_was_written_is_parked(root: Path) -> None:
    def act(root: Path) -> None:
        (root / "readme").write_text("new text")
        (root / "docs" / "more").mkdir()
        (root / "docs" / "more" / "file").write_text("more")
        (root / "link").unlink()

    verdict = after(root, act)
    assert (parked(verdict) / "readme").read_text() == "new text"
    assert (parked(verdict) / "docs" / "more" / "file").read_text() == "more"
    listed = json.loads((parked(verdict).parent / "manifest.json").read_text())
    assert (listed["created"], listed["changed"]) == ({"docs/more/file": 4}, {"readme": 8})
    assert list(listed["deleted"]) == ["link"]
    assert "3 files are created, changed or deleted" in listed["reason"]


def test_the_target_of_a_planted_link_is_not_touched(root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    (victim / "page").write_text("theirs")
    before = seen(victim)

    def act(root: Path) -> None:
        shutil.rmtree(root / "docs")
        (root / "docs").symlink_to(victim)

    after(root, act)
    assert seen(victim) == before
    assert (root / "docs" / "page").read_text() == "page one"


def test_a_sparse_file_stays_sparse(root: Path) -> None:
    with (root / "holes").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 20)
        file.write(b"island")
    after(root, lambda root: (root / "holes").unlink())
    assert ((root / "holes").stat().st_size, (root / "holes").stat().st_blocks < 1000) == (1 << 30, True)
    with (root / "holes").open("rb") as file:
        file.seek(1 << 20)
        assert file.read(6) == b"island"


def test_extended_attributes_come_back(root: Path) -> None:
    try:
        os.setxattr(root / "readme", "user.note", b"kept")
    except OSError:
        pytest.skip("this file system has none")
    after(root, lambda root: (root / "readme").unlink())
    assert os.getxattr(root / "readme", "user.note") == b"kept"


# --- what counts


@pytest.mark.parametrize(
    ("act", "files"),
    [
        (lambda root: (root / "new").touch(), 1),
        (lambda root: (root / "new").mkdir(), 0),
        (lambda root: (root / "empty").rmdir(), 0),
        (lambda root: (root / "readme").unlink(), 1),
        (lambda root: (root / "readme").rename(root / "docs" / "renamed"), 1),
        (lambda root: os.link(root / "docs" / "page", root / "third"), 2),
        (lambda root: os.mkfifo(root / "pipe"), 1),
        (lambda root: (root / "l").symlink_to("/etc"), 1),
        (lambda root: (root / ".git" / "new").touch(), 1),
        (lambda root: [(root / ".git" / str(number)).touch() for number in range(9)], 1),
        (lambda root: shutil.rmtree(root / ".git"), 1),
        (lambda _: None, 0),
    ],
)
def test_the_files_that_count(root: Path, act: Act, files: int) -> None:
    verdict = after(root, act, guarded(root, caps=Caps(files=10)))
    assert (verdict.files, verdict.finding) == (files, None)


def test_bytes_count_below_git_too_and_by_what_they_claim(root: Path) -> None:
    def act(root: Path) -> None:
        os.truncate(root / "readme", 1 << 30)
        with (root / ".git" / "pack").open("wb") as file:
            file.truncate(1 << 20)

    verdict = after(root, act, guarded(root, caps=Caps(bytes=1 << 31)))
    assert (verdict.files, verdict.bytes) == (2, (1 << 30) + (1 << 20))


def test_what_is_excluded_is_no_part_of_the_tree(root: Path) -> None:
    (root / "venv").mkdir()
    tree = guarded(root, exclude=[root / "venv", root / "later" / "logs"])

    def act(root: Path) -> None:
        (root / "venv" / "x").touch()
        (root / "later" / "logs").mkdir(parents=True)
        (root / "later" / "logs" / "y").touch()
        (root / "later" / "z").touch()

    verdict = after(root, act, tree)
    assert (verdict.files, (parked(verdict) / "later" / "z").exists()) == (1, True)
    assert (root / "venv" / "x").exists()
    assert (root / "later" / "logs" / "y").exists()
    assert not (root / "later" / "z").exists()


def test_within_the_caps_nothing_is_moved(root: Path) -> None:
    verdict = after(root, lambda root: (root / "new").write_text("x"), guarded(root, caps=Caps(files=1, bytes=8192)))
    assert (verdict.files, verdict.finding, verdict.quarantine) == (1, None, None)
    assert (root / "new").exists()


def test_warn_says_so_and_leaves_it(root: Path) -> None:
    verdict = after(root, lambda root: (root / "new").touch(), guarded(root, mode=GuardMode.WARN))
    assert verdict.finding is not None
    assert (verdict.finding.mode, verdict.quarantine) == (GuardMode.WARN, None)
    assert (root / "new").exists()
    assert not (root.parent / "state").exists()


def test_off_measures_nothing(root: Path) -> None:
    assert after(root, many_files, guarded(root, mode=GuardMode.OFF)) == TreeVerdict()


def test_off_takes_a_fingerprint_where_it_is_asked_for(root: Path) -> None:
    tree = guarded(root, mode=GuardMode.OFF, fingerprint=True)
    one, other = (after(root, act, tree).fingerprint for act in (lambda _: None, git_rewritten))
    assert one is not None
    assert other not in {None, one}


# --- a folder that is not there


def test_a_missing_folder_is_an_empty_tree(tmp_path: Path) -> None:
    verdict = after(tmp_path / "missing", lambda _: None)
    assert (verdict.files, verdict.finding) == (0, None)
    assert not (tmp_path / "state").exists()


def test_a_folder_that_was_missing_is_parked_whole(tmp_path: Path) -> None:
    def act(root: Path) -> None:
        root.mkdir()
        (root / "new").write_text("x")

    verdict = after(tmp_path / "missing", act)
    assert verdict.finding is not None
    assert not (tmp_path / "missing").exists()
    assert (parked(verdict) / "new").read_text() == "x"


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunnerError, match="is no folder"):
        guarded(tmp_path / "file").mark(make_spec())


# --- limits of the guard itself


def test_a_tree_too_large_to_copy_is_refused(root: Path) -> None:
    with pytest.raises(RunnerError, match="bytes, more than the 10 that are copied"):
        guarded(root, max_copy_bytes=10).mark(make_spec())


def test_a_tree_with_too_many_entries_is_refused(root: Path) -> None:
    with pytest.raises(RunnerError, match="more than 3 entries"):
        guarded(root, max_entries=3).mark(make_spec())


def test_a_tree_that_grows_beyond_what_can_be_measured_is_put_back(root: Path) -> None:
    before = seen(root)
    verdict = after(root, many_files, guarded(root, caps=Caps(), max_entries=200))
    assert verdict.finding is not None
    assert "can no longer be measured" in verdict.finding.detail
    assert seen(root) == before


def test_only_what_changed_is_copied_again(root: Path) -> None:
    contents = root.parent / "state" / "baseline" / "contents"
    tree = guarded(root, caps=Caps())
    tree.mark(make_spec())
    tree.settle(make_spec())
    os.utime(root / "readme", (5, 5))
    tree.mark(make_spec())  # what changed just before a mark is copied again by the next
    first = {path.name: path.stat().st_ino for path in contents.iterdir()}
    (root / "docs" / "page").write_text("page two")
    tree.mark(make_spec())
    second = {path.name: path.stat().st_ino for path in contents.iterdir()}
    assert len(second) == len(first) == 6
    assert len(first.items() & second.items()) >= 1


# --- looks


def looking(root: Path, caps: Caps) -> tuple[MeasuredTree, FakeClock]:
    clock = FakeClock()
    return MeasuredTree(root, root.parent / "state", mode=GuardMode.ENFORCE, caps=caps, clock=clock), clock


def look_until_said(tree: MeasuredTree, clock: FakeClock) -> str | None:
    for _ in range(40):
        clock.move(0.25)
        if said := tree.look():
            return said
    return None


def test_a_look_says_what_is_over_a_cap(root: Path) -> None:
    tree, clock = looking(root, Caps(files=2))
    tree.mark(make_spec())
    assert look_until_said(tree, clock) is None
    many_files(root)
    said = look_until_said(tree, clock)
    assert said is not None
    assert "more than the 2 that a cycle may" in said
    assert tree.look() == said


def test_a_look_sees_files_vanish(root: Path) -> None:
    tree, clock = looking(root, Caps(files=2))
    tree.mark(make_spec())
    everything_deleted(root)
    assert look_until_said(tree, clock) is not None


def test_between_two_looks_time_passes(root: Path) -> None:
    tree, clock = looking(root, Caps(files=0))
    tree.mark(make_spec())
    (root / "new").touch()
    assert tree.look() is None
    clock.move(0.51)
    assert tree.look() is not None


def test_what_was_over_a_cap_while_it_ran_is_put_back_though_it_was_removed(root: Path) -> None:
    tree, clock = looking(root, Caps(files=2))
    before = seen(root)
    tree.mark(make_spec())
    many_files(root)
    assert look_until_said(tree, clock) is not None
    for path in (root / "docs").glob("file-*"):
        path.unlink()
    (root / "left").touch()
    verdict = tree.settle(make_spec())
    assert verdict.finding is not None
    assert "while the cycle ran" in verdict.finding.detail
    assert seen(root) == before


# --- the supervisor dies


def test_a_lost_cycle_is_settled_by_the_next_supervisor(root: Path) -> None:
    before = seen(root)
    guarded(root).mark(make_spec())
    everything_deleted(root)
    verdict = guarded(root).recover()
    assert verdict is not None
    assert verdict.finding is not None
    assert seen(root) == before
    assert guarded(root).recover() is None


def test_a_lost_cycle_within_its_caps_keeps_what_it_wrote(root: Path) -> None:
    guarded(root).mark(make_spec())
    (root / "new").touch()
    verdict = guarded(root, caps=Caps(files=1)).recover()
    assert verdict is not None
    assert (verdict.files, verdict.finding) == (1, None)
    assert (root / "new").exists()


def test_a_folder_that_a_lost_cycle_made_is_known_once_a_look_saw_it(tmp_path: Path) -> None:
    root = tmp_path / "missing"
    tree, clock = looking(root, NONE)
    tree.mark(make_spec())
    root.mkdir()
    (root / "new").touch()
    clock.move(1)
    tree.look()
    verdict = guarded(root).recover()
    assert verdict is not None
    assert verdict.finding is not None
    assert not root.exists()


@pytest.mark.parametrize("note", [b"", b"[]", b'{"cycle_id": "../../etc", "root": "/", "existed": true}', b"\xff"])
def test_a_damaged_note_is_said_and_nothing_is_moved(root: Path, note: bytes) -> None:
    guarded(root).mark(make_spec())
    (root / "new").touch()
    (root.parent / "state" / "baseline" / "pending.json").write_bytes(note)
    verdict = guarded(root).recover()
    assert verdict is not None
    assert verdict.finding is not None
    assert "could not be judged" in verdict.finding.detail
    assert (root / "new").exists()


def test_a_damaged_copy_is_said(root: Path) -> None:
    tree = guarded(root)
    tree.mark(make_spec())
    for path in (root.parent / "state" / "baseline" / "contents").iterdir():
        path.write_bytes(b"")
    (root / "readme").unlink()
    verdict = tree.settle(make_spec())
    assert verdict.finding is not None
    assert "the copy of it is not whole" in verdict.finding.detail
    assert "put that right by hand" in verdict.finding.detail


def test_what_is_kept_is_for_this_user_alone(root: Path) -> None:
    verdict = after(root, many_files)
    for folder in ("baseline", "baseline/contents", "quarantine", f"quarantine/{parked(verdict).parent.name}"):
        assert stat.S_IMODE((root.parent / "state" / folder).stat().st_mode) == 0o700


def test_an_empty_folder_that_became_a_link_comes_back(tmp_path: Path) -> None:
    def act(root: Path) -> None:
        root.rmdir()
        root.symlink_to("/etc")

    (tmp_path / "tree").mkdir()
    verdict = after(tmp_path / "tree", act, guarded(tmp_path / "tree", caps=Caps(files=100)))
    assert verdict.finding is not None
    assert "something else has the name" in verdict.finding.detail
    assert (tmp_path / "tree").is_dir()
    assert not (tmp_path / "tree").is_symlink()


def test_a_mark_gives_up_where_the_cycle_is_not_wanted_any_more_and_the_next_one_is_whole(root: Path) -> None:
    before = seen(root)
    signs = [False, False, True]
    tree = guarded(root, beat=lambda: signs.pop(0) if signs else False)
    with pytest.raises(RunnerError, match="is not wanted any more"):
        tree.mark(make_spec())
    assert not (root.parent / "state" / "baseline" / "pending.json").exists()
    assert after(root, lambda root: (root / "readme").write_text("other"), tree).quarantine is not None
    assert seen(root) == before


def test_what_is_put_back_is_put_back_to_its_end_whatever_is_wanted(root: Path) -> None:
    before, wanted = seen(root), [False]
    tree = guarded(root, beat=lambda: wanted[0])

    def disturb(root: Path) -> None:
        shutil.rmtree(root / "docs")
        wanted[0] = True

    assert after(root, disturb, tree).quarantine is not None
    assert seen(root) == before
