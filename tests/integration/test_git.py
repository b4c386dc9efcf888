"""Real git on hostile repositories: whatever they name, none of it is run by us. Each trap is sprung by plain git
first, so that a test whose trap is broken fails.
"""

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from run_cycle_loop.clients.git import Freshness, GitError, Update, fetch_and_ff, freshness

pytestmark = [
    pytest.mark.usefixtures("adopting"),
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]

PATIENCE = 30.0


class Place:
    """A bare origin, a clone of it, and a script that leaves a mark when it is run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.origin, self.work, self.mark = root / "origin.git", root / "work", root / "was-run"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **{
                f"GIT_{who}_{what}": "a@example.invalid"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }
        root.mkdir()
        self.canary = self.script("canary", f"touch {self.mark}")
        self.sieve = self.script("sieve", f"touch {self.mark}; exec cat")
        self.git("init", "-q", "--bare", "-b", "main", str(self.origin), at=root)
        self.git("clone", "-q", str(self.origin), str(self.work), at=root)
        self.git("checkout", "-q", "-b", "main")
        self.commit("one")
        self.git("push", "-q", "-u", "origin", "main")

    def script(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def git(self, *arguments: str, at: Path | None = None, fine: bool = True) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=at or self.work, env=self.env, capture_output=True, text=True, timeout=PATIENCE,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0 or not fine, done.stderr
        return done.stdout.strip()

    def config(self, key: str, value: str | Path) -> None:
        self.git("config", key, str(value))

    def commit(self, text: str, at: Path | None = None) -> None:
        where = at or self.work
        (where / "file").write_text(f"{text}\n")
        self.git("add", "-A", at=where)
        self.git("commit", "-q", "-m", text, at=where)

    def advance(self, *texts: str) -> str:
        """Let the origin get ahead; returns its commit."""
        other = self.root / "other"
        if not other.exists():
            self.git("clone", "-q", str(self.origin), str(other), at=self.root)
        for text in texts:
            self.commit(text, at=other)
        self.git("push", "-q", "origin", "HEAD", at=other)
        return self.git("rev-parse", "HEAD", at=other)

    def look(self, folder: Path | None = None, timeout: float = PATIENCE) -> Freshness:
        return freshness(folder or self.work, environ=self.env, now=time.time(), timeout=timeout)

    def update(self, timeout: float = PATIENCE) -> Update:
        return fetch_and_ff(self.work, environ=self.env, now=time.time(), timeout=timeout)

    def refused(self, timeout: float = PATIENCE) -> str:
        with pytest.raises(GitError) as caught:
            self.update(timeout)
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


# --- traps -------------------------------------------------------------------------------------------------------


def _fsmonitor(place: Place) -> None:
    place.config("core.fsmonitor", place.canary)


def _included(place: Place) -> None:
    (place.root / "included").write_text(f"[core]\nfsmonitor = {place.canary}\n")
    place.config("include.path", place.root / "included")


def _hooks(folder: Path, canary: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("post-merge", "post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        shutil.copy(canary, folder / name)


def _hooks_path(place: Place) -> None:
    _hooks(place.root / "hooks", place.canary)
    place.config("core.hooksPath", place.root / "hooks")


def _own_hooks(place: Place) -> None:
    _hooks(place.work / ".git" / "hooks", place.canary)


def _filter(kind: str, attributes: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        other = place.root / "other"
        if attributes == ".gitattributes":
            (place.work / attributes).write_text("* filter=evil\n")
            place.commit("attributes")
            place.git("push", "-q")
        else:
            (place.work / attributes).parent.mkdir(exist_ok=True)
            (place.work / attributes).write_text("* filter=evil\n")
        assert not other.exists()
        place.advance("two")
        place.config(f"filter.evil.{kind}", place.sieve)
        place.config("filter.evil.required", "false")
        if kind != "smudge":
            # As long as it was, so that only its content can tell.
            (place.work / "file").write_text((place.work / "file").read_text().upper())
            os.utime(place.work / "file", (1, 1))

    return plant


def _external_diff(place: Place) -> None:
    place.config("diff.external", place.canary)
    (place.work / "file").write_text("changed\n")


def _textconv(place: Place) -> None:
    place.config("diff.evil.textconv", place.canary)
    (place.work / ".git" / "info").mkdir(exist_ok=True)
    (place.work / ".git" / "info" / "attributes").write_text("* diff=evil\n")
    (place.work / "file").write_text("changed\n")


def _pager(place: Place) -> None:
    place.config("core.pager", place.sieve)


def _alias(place: Place) -> None:
    for name in ("st", "status", "fetch", "rev-list"):
        place.config(f"alias.{name}", f"!{place.canary}")


def _ssh_command(place: Place) -> None:
    place.config("core.sshCommand", place.canary)
    place.config("remote.origin.url", "ssh://127.0.0.1:1/nowhere")


def _upload_pack(place: Place) -> None:
    place.advance("two")
    place.config("remote.origin.uploadpack", place.canary)


def _helper_url(place: Place) -> None:
    place.config("protocol.ext.allow", "always")
    place.config("remote.origin.url", f"ext::{place.canary}")


def _instead_of(place: Place) -> None:
    place.config("protocol.ext.allow", "always")
    place.config(f"url.ext::{place.canary} .insteadOf", str(place.root))


def _vcs(place: Place) -> None:
    shutil.copy(place.canary, place.root / "git-remote-evil")
    place.env["PATH"] = f"{place.root}:{place.env['PATH']}"
    place.config("remote.origin.vcs", "evil")


def _alternate_refs(place: Place) -> None:
    place.advance("two")
    alternates = place.work / ".git" / "objects" / "info" / "alternates"
    alternates.write_text(f"{place.origin}/objects\n")
    place.config("core.alternateRefsCommand", place.canary)


def _submodule(place: Place) -> None:
    place.git("init", "-q", "-b", "main", str(place.root / "inner"), at=place.root)
    place.commit("inner", at=place.root / "inner")
    allow = ("-c", "protocol.file.allow=always")
    place.git(*allow, "submodule", "add", "-q", str(place.root / "inner"), "inner")
    place.git("commit", "-q", "-m", "submodule")
    place.git("push", "-q")
    place.git("config", "core.fsmonitor", str(place.canary), at=place.work / "inner")
    place.config("submodule.recurse", "true")


def _submodule_update(place: Place) -> None:
    _submodule(place)
    place.git("config", "--unset", "core.fsmonitor", at=place.work / "inner")
    place.commit("moved", at=place.work / "inner")
    place.config("submodule.inner.update", f"!{place.canary}")
    place.advance("two")


def _pointed_away(place: Place) -> None:
    evil = place.root / "evil"
    place.git("init", "-q", "-b", "main", str(evil), at=place.root)
    place.commit("evil", at=evil)
    place.git("config", "core.fsmonitor", str(place.canary), at=evil)
    shutil.rmtree(place.work / ".git")
    (place.work / ".git").write_text(f"gitdir: {evil}/.git\n")


@dataclass(frozen=True)
class Trap:
    name: str
    plant: Callable[[Place], None]
    spring: tuple[str, ...]


TRAPS = (
    Trap("fsmonitor", _fsmonitor, ("status",)),
    Trap("an included file", _included, ("status",)),
    Trap("core.hooksPath", _hooks_path, ("checkout", "-q", "-b", "x")),
    Trap("hooks", _own_hooks, ("checkout", "-q", "-b", "x")),
    Trap("filter.clean", _filter("clean", ".gitattributes"), ("status",)),
    Trap("filter.process", _filter("process", ".gitattributes"), ("status",)),
    Trap("filter.smudge", _filter("smudge", ".gitattributes"), ("pull", "-q")),
    Trap("filter.clean by info/attributes", _filter("clean", ".git/info/attributes"), ("status",)),
    Trap("filter.smudge by info/attributes", _filter("smudge", ".git/info/attributes"), ("pull", "-q")),
    Trap("diff.external", _external_diff, ("diff",)),
    Trap("textconv", _textconv, ("diff",)),
    Trap("alias", _alias, ("st",)),
    Trap("core.sshCommand", _ssh_command, ("fetch",)),
    Trap("uploadpack", _upload_pack, ("fetch",)),
    Trap("ext::", _helper_url, ("fetch",)),
    Trap("insteadOf ext::", _instead_of, ("fetch",)),
    Trap("remote.vcs", _vcs, ("fetch",)),
    Trap("alternateRefsCommand", _alternate_refs, ("fetch",)),
    Trap("a submodule's fsmonitor", _submodule, ("status",)),
    Trap("submodule.update", _submodule_update, ("submodule", "update")),
    Trap("a .git file that points away", _pointed_away, ("status",)),
)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_what_a_repository_names_is_never_run(trap: Trap, tmp_path: Path) -> None:
    plain = Place(tmp_path / "plain")
    trap.plant(plain)
    plain.mark.unlink(missing_ok=True)
    plain.git(*trap.spring, fine=False)
    assert plain.mark.exists(), "the trap is broken: plain git does not spring it"

    ours = Place(tmp_path / "ours")
    trap.plant(ours)
    ours.mark.unlink(missing_ok=True)
    before = ours.look()
    with contextlib.suppress(GitError):
        ours.update()
    after = ours.look()
    assert not ours.mark.exists()
    assert before.commit or before.unknown
    assert after.commit or after.unknown


def test_a_pager_is_never_started(place: Place) -> None:
    _pager(place)
    script = shutil.which("script")
    if script is None:
        pytest.skip("needs script(1)")
    command = [script, "-qec", "git --paginate log", "/dev/null"]
    subprocess.run(
        command, cwd=place.work, env=place.env, capture_output=True, timeout=PATIENCE, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert place.mark.exists(), "the trap is broken: plain git does not spring it"
    place.mark.unlink()
    place.advance("two")
    assert place.update().moved
    assert place.look().behind == 0
    assert not place.mark.exists()


@pytest.mark.parametrize("plant", [_fsmonitor, _included, _hooks_path, _own_hooks, _alias, _upload_pack])
def test_a_trap_does_not_keep_a_fast_forward_back(place: Place, plant: Callable[[Place], None]) -> None:
    plant(place)
    tip = place.advance("three")
    assert place.update().new == tip
    place.git("config", "--unset", "core.fsmonitor", fine=False)
    assert (place.work / "file").read_text() == "three\n"
    assert not place.mark.exists() or plant is _own_hooks


def test_the_callers_environment_names_nothing_that_is_run(place: Place) -> None:
    (place.work / "file").write_text("changed\n")
    count = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": str(place.canary)}
    place.env |= count
    place.git("status")
    assert place.mark.exists(), "the trap is broken: plain git does not spring it"
    place.mark.unlink()
    place.env |= {"GIT_DIR": "/nowhere", "GIT_SSH_COMMAND": str(place.canary), "GIT_ASKPASS": str(place.canary)}
    assert place.look().dirty == 1
    assert not place.mark.exists()


@pytest.mark.parametrize("attributes", [".gitattributes", ".git/info/attributes"])
def test_files_that_pass_through_filters_are_not_updated_wrongly(place: Place, attributes: str) -> None:
    _filter("smudge", attributes)(place)
    assert "filters" in place.refused()
    assert (place.work / "file").read_text() == ("one\n" if attributes != ".gitattributes" else "attributes\n")


# --- facts -------------------------------------------------------------------------------------------------------


def test_a_checkout_is_described_by_its_facts(place: Place) -> None:
    place.advance("two", "three")
    place.git("fetch", "-q")
    place.commit("mine")
    (place.work / "file").write_text("changed\n")
    (place.work / "untracked").touch()
    found = place.look()
    assert (found.branch, found.upstream) == ("main", "origin/main")
    assert found.commit == place.git("rev-parse", "HEAD")
    assert (found.ahead, found.behind, found.dirty) == (1, 2, 1)
    assert found.fetch_age is not None
    assert 0 <= found.fetch_age < PATIENCE
    assert (found.lock_age, found.shallow, found.unknown) == (None, False, {})


def test_to_look_writes_nothing(place: Place) -> None:
    os.utime(place.work / "file", (1, 1))

    def shape() -> list[tuple[str, int, int]]:
        files = sorted(place.work.rglob("*"))
        return [(str(path), path.lstat().st_mtime_ns, path.lstat().st_size) for path in files]

    before = shape()
    assert place.look().dirty == 0
    assert shape() == before


def test_packed_references_and_a_folder_below_are_understood(place: Place) -> None:
    place.git("pack-refs", "--all")
    (place.work / "below").mkdir()
    assert (place.look(place.work / "below").ahead, place.look().behind) == (0, 0)


def test_a_linked_work_tree_is_a_checkout_of_its_own(place: Place) -> None:
    place.git("worktree", "add", "-q", "-b", "side", str(place.root / "side"))
    found = place.look(place.root / "side")
    assert (found.branch, found.dirty) == ("side", 0)
    assert "no upstream" in found.unknown["ahead"]


def test_a_moved_branch_is_compared_with_where_its_fetch_rule_keeps_it(place: Place) -> None:
    place.config("remote.origin.fetch", "+refs/heads/*:refs/kept/*")
    place.git("fetch", "-q")
    assert place.look().upstream == "refs/kept/main"
    assert place.look().behind == 0


@pytest.mark.parametrize(
    ("arrange", "fact", "reason"),
    [
        (("checkout", "-q", "--detach"), "behind", "detached"),
        (("branch", "--unset-upstream"), "behind", "no upstream"),
        (("update-ref", "-d", "refs/remotes/origin/main"), "behind", "never fetched"),
        (("config", "core.worktree", "/"), "dirty", "work tree is elsewhere"),
        (("config", "core.bare", "true"), "dirty", "work tree is elsewhere"),
        (("config", "core.repositoryformatversion", "7"), "behind", "format of its own"),
    ],
)
def test_what_cannot_be_told_is_unknown_with_a_reason(
    place: Place, arrange: tuple[str, ...], fact: str, reason: str
) -> None:
    place.git(*arrange)
    found = place.look()
    assert getattr(found, fact) is None
    assert reason in found.unknown[fact]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".git/HEAD", b""),
        (".git/HEAD", b"ref: ../../etc/passwd\n"),
        (".git/HEAD", b"\xff" * 5000),
        (".git/refs/heads/main", b""),
        (".git/refs/heads/main", b"\0" * 41),
        (".git/refs/heads/main", b"ref: refs/heads/main\n"),
        (".git/refs/heads/main", b"1" * 40 + b"\n"),
        (".git/refs/remotes/origin/main", b"nonsense\n"),
        (".git/config", b"[core\n"),
        (".git/config", b"x" * (2 << 20)),
        (".git/index", b"nonsense"),
        (".git/shallow", b"nonsense\n"),
    ],
)
def test_damage_of_any_kind_is_unknown_and_never_a_crash(place: Place, name: str, content: bytes) -> None:
    place.advance("two")
    (place.work / name).write_bytes(content)
    found = place.look()
    assert found.unknown.keys() & {"commit", "behind", "dirty"}
    assert place.refused()


@pytest.mark.parametrize("name", ["HEAD", "config", "refs/heads/main", "packed-refs", "shallow", "index"])
def test_a_pipe_in_place_of_a_file_holds_nobody(place: Place, name: str) -> None:
    path = place.work / ".git" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    began = time.monotonic()
    found = place.look(timeout=1.0)
    assert time.monotonic() - began < PATIENCE
    assert found.unknown or name == "packed-refs"


def test_an_empty_repository_has_no_commit(place: Place) -> None:
    empty = place.root / "empty"
    place.git("init", "-q", "-b", "main", str(empty), at=place.root)
    found = place.look(empty)
    assert (found.branch, found.commit) == ("main", None)
    assert found.unknown["ahead"] == "there is no commit yet"


def test_a_bare_repository_and_no_repository_are_no_checkout(place: Place) -> None:
    assert "bare" in place.look(place.origin).unknown["checkout"]
    assert "in no git checkout" in place.look(place.root).unknown["checkout"]
    assert "cannot be read" in place.look(place.root / "nowhere").unknown["checkout"]


def test_a_shallow_clone_is_told_and_can_be_updated(place: Place) -> None:
    place.advance("two")
    shallow = place.root / "shallow"
    place.git("clone", "-q", "--depth", "1", f"file://{place.origin}", str(shallow), at=place.root)
    place.work = shallow
    assert place.look().shallow
    tip = place.advance("three")
    assert place.update().new == tip
    assert (place.look().behind, place.look().dirty) == (0, 0)
    place.git("fsck", "--connectivity-only")


@pytest.mark.root
def test_a_repository_of_somebody_else_is_unknown(place: Place) -> None:
    _fsmonitor(place)
    for path in (place.work, *place.work.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    assert "belongs to uid 65534" in place.look().unknown["checkout"]
    assert "belongs to uid 65534" in place.refused()
    assert not place.mark.exists()


def test_a_lock_of_the_index_is_told_with_its_age_and_stops_an_update(place: Place) -> None:
    place.advance("two")
    lock = place.work / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (time.time() - 3600,) * 2)
    found = place.look()
    assert found.lock_age is not None
    assert 3500 < found.lock_age < 3700
    assert found.dirty == 0
    assert "index.lock" in place.refused()
    assert (place.work / "file").read_text() == "one\n"
    assert lock.exists()


# --- updates -----------------------------------------------------------------------------------------------------


def test_a_branch_that_is_strictly_behind_is_moved(place: Place) -> None:
    tip = place.advance("two", "three")
    (place.work / "untracked").write_text("mine")
    moved = place.update()
    assert moved.new == tip
    assert moved.detail == f"main moved 2 commits on, to {tip[:7]}"
    assert place.git("status", "--porcelain=v2", "--branch").splitlines()[1:] == [
        "# branch.head main", "# branch.upstream origin/main", "# branch.ab +0 -0", "? untracked",
    ]  # fmt: skip
    assert place.git("rev-parse", "HEAD", "main", "origin/main").split() == [tip] * 3
    assert place.git("reflog", "-1", "--format=%gs") == "fast-forward"
    place.git("fsck", "--strict")
    assert not place.update().moved


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda place: place.commit("mine"), "gone apart"),
        (lambda place: (place.work / "file").write_text("mine\n"), "changed files stand in the way"),
        (lambda place: place.git("checkout", "-q", "--detach"), "detached"),
        (lambda place: place.config("core.sparseCheckout", "true"), "sparse"),
        (lambda place: place.config("remote.origin.promisor", "true"), "partial clone"),
    ],
)
def test_what_stands_in_the_way_of_an_update_is_left_as_it_is(
    place: Place, prepare: Callable[[Place], None], reason: str
) -> None:
    place.advance("two")
    prepare(place)
    head, text = place.git("rev-parse", "HEAD"), (place.work / "file").read_text()
    assert reason in place.refused()
    assert (place.git("rev-parse", "HEAD"), (place.work / "file").read_text()) == (head, text)


def test_an_untracked_file_is_not_overwritten(place: Place) -> None:
    place.advance("two")
    (place.root / "other" / "new").write_text("theirs")
    place.advance("three")
    (place.work / "new").write_text("mine")
    assert "new" in place.refused()
    assert (place.work / "new").read_text() == "mine"
    assert place.look().dirty == 0


def test_a_branch_moved_back_at_the_remote_is_not_followed(place: Place) -> None:
    place.advance("two")
    place.update()
    place.git("reset", "-q", "--hard", "HEAD~1", at=place.root / "other")
    place.git("push", "-q", "-f", "origin", "HEAD", at=place.root / "other")
    assert not place.update().moved
    assert (place.look().ahead, place.look().behind) == (1, 0)


def test_an_index_that_is_a_link_is_not_written_through(place: Place) -> None:
    place.advance("two")
    index, victim = place.work / ".git" / "index", place.root / "victim"
    index.rename(victim)
    index.symlink_to(victim)
    before = victim.read_bytes()
    assert place.refused()
    assert victim.read_bytes() == before


@pytest.mark.parametrize("url", ["--upload-pack=touch x", "fd::3", "git://127.0.0.1:1/x", "http::x", "a\nb", ""])
def test_an_address_that_is_no_plain_address_is_refused(place: Place, url: str) -> None:
    place.git("config", "remote.origin.url", url)
    assert "address" in place.refused()


# --- remotes that do not answer ----------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def asking() -> Iterator[int]:
    """A port that asks for a password."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["http", "ssh"])
def test_a_remote_that_hangs_is_given_up(place: Place, silent: int, scheme: str) -> None:
    place.config("remote.origin.url", f"{scheme}://127.0.0.1:{silent}/x")
    began = time.monotonic()
    assert "git fetch was not done after 1 s" in place.refused(timeout=1.0)
    assert time.monotonic() - began < PATIENCE
    assert place.look().behind == 0


@pytest.mark.parametrize("key", ["credential.helper", "core.askPass"])
def test_nobody_is_asked_for_a_password(place: Place, asking: int, key: str) -> None:
    place.config("remote.origin.url", f"http://127.0.0.1:{asking}/x")
    place.config(key, f"!{place.canary}" if key == "credential.helper" else place.canary)
    place.git("fetch", fine=False)
    assert place.mark.exists(), "the trap is broken: plain git does not spring it"
    place.mark.unlink()
    said = place.refused()
    assert said.startswith("git fetch: ")
    assert not place.mark.exists()


def test_a_password_in_an_address_is_not_shown(place: Place, asking: int) -> None:
    place.config("remote.origin.url", f"http://ada:hunter2@127.0.0.1:{asking}/x")
    assert "hunter2" not in place.refused()
