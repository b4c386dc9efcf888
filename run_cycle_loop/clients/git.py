"""How fresh a checkout is, and a fast-forward where nothing stands in the way; nothing that a repository names is run.

What cannot be told is unknown, with a reason, and never an error: only an update raises.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_cycle_loop.clients import git_repository
from run_cycle_loop.clients.git_command import PROTOCOLS, Git, is_on, opened, value_of, without_user
from run_cycle_loop.clients.git_repository import GitError, Repository
from run_cycle_loop.kit import files
from run_cycle_loop.kit.processes import Pulse

__all__ = ["Freshness", "GitError", "Update", "fetch_and_ff", "freshness"]

_BRANCHES = "refs/heads/"
_TIP = "refs/fetched/tip"
_ATTRIBUTES = 1 << 20
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")


@dataclass(frozen=True, kw_only=True, slots=True)
class Freshness:
    """What is known of a checkout; None is unknown, and ``unknown`` says why."""

    branch: str | None = None  #: None beside a commit: detached
    commit: str | None = None
    upstream: str | None = None  #: such as ``origin/main``
    ahead: int | None = None  #: commits that the upstream does not have
    behind: int | None = None  #: commits of the upstream, as last fetched, that are not here
    dirty: int | None = None  #: tracked files that differ from the commit; submodules are not looked into
    fetch_age: float | None = None  #: seconds since the last fetch
    lock_age: float | None = None  #: seconds since ``index.lock`` was made; None: there is none
    shallow: bool = False
    unknown: Mapping[str, str] = field(default_factory=dict)  #: reasons, by the names of the fields; or ``checkout``


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """What a fetch and a fast-forward came to."""

    old: str
    new: str
    detail: str  #: one sentence

    @property
    def moved(self) -> bool:
        """Whether the branch stands elsewhere now."""
        return self.old != self.new


@dataclass(frozen=True, kw_only=True, slots=True)
class _Upstream:
    remote: str
    merge: str  #: the branch's full name there
    tracking: str  #: its full name here

    @property
    def shown(self) -> str:
        return self.tracking.removeprefix("refs/remotes/").removeprefix(_BRANCHES)


def freshness(
    folder: Path, *, environ: Mapping[str, str], now: float, timeout: float, pulse: Pulse | None = None
) -> Freshness:
    """What is known of the checkout that a folder lies in; nothing is written.

    Args:
        folder: in the checkout.
        environ: PATH, HOME and proxies are taken from it.
        now: the wall clock, in seconds since the epoch.
        timeout: seconds for all of git.
        pulse: what may end git early.
    """
    try:
        repository = git_repository.locate(folder)
    except GitError as error:
        return Freshness(unknown={"checkout": str(error)})
    facts: dict[str, Any] = {
        "fetch_age": git_repository.age(repository.folder / "FETCH_HEAD", now),
        "lock_age": _lock_age(repository, now),
        "shallow": (repository.common / "shallow").exists(),
    }
    unknown: dict[str, str] = {}
    if facts["fetch_age"] is None:
        unknown["fetch_age"] = "it was not fetched since it was cloned, or the clock was set back"
    try:
        facts["branch"], facts["commit"] = _position(repository)
    except GitError as error:
        return Freshness(**facts, unknown=unknown | dict.fromkeys(("branch", "commit", "ahead", "behind"), str(error)))
    try:
        with opened(repository, environ=environ, timeout=timeout, pulse=pulse) as git:
            _look(git, facts, unknown)
    except GitError as error:
        unknown |= {name: str(error) for name in ("upstream", "ahead", "behind", "dirty") if facts.get(name) is None}
    return Freshness(**facts, unknown=unknown)


def _lock_age(repository: Repository, now: float) -> float | None:
    with suppress(FileNotFoundError):
        return max(0.0, now - (repository.folder / "index.lock").lstat().st_mtime)
    return None


def _position(repository: Repository) -> tuple[str | None, str | None]:
    """The branch without its prefix, and the commit."""
    head = git_repository.head(repository)
    if git_repository.is_hash(head):
        return None, head
    return head.removeprefix(_BRANCHES), git_repository.commit_of(repository, head)


def _look(git: Git, facts: dict[str, Any], unknown: dict[str, str]) -> None:
    """Add what needs git: the upstream, the distance to it, and what was changed."""
    commit = facts["commit"]
    if commit is None:
        unknown |= dict.fromkeys(("commit", "ahead", "behind"), "there is no commit yet")
        return
    try:
        upstream = _upstream_of(git, facts["branch"])
        facts["upstream"] = upstream.shown
        facts["ahead"], facts["behind"] = _distance(git, commit, _tracked(git, upstream))
    except GitError as error:
        unknown |= {name: str(error) for name in ("upstream", "ahead", "behind") if facts.get(name) is None}
    try:
        facts["dirty"] = _changed(git, commit)
    except GitError as error:
        unknown["dirty"] = str(error)


def _upstream_of(git: Git, branch: str | None) -> _Upstream:
    if branch is None:
        raise GitError("HEAD is detached, so there is no upstream")
    remote, merge = value_of(git, f"branch.{branch}.remote"), value_of(git, f"branch.{branch}.merge")
    if not remote or not merge:
        raise GitError(f"branch {branch} has no upstream")
    specs = git.config.get(f"remote.{remote}.fetch", ()) if remote != "." else (f"{merge}:{merge}",)
    for spec in specs:
        tracking = _mapped(spec.removeprefix("+"), merge)
        if tracking and git_repository.is_name(tracking) and git_repository.is_name(merge):
            return _Upstream(remote=remote, merge=merge, tracking=tracking)
    raise GitError(f"no fetch rule of remote {remote!r:.80} says where its {merge!r:.80} is kept")


def _tracked(git: Git, upstream: _Upstream) -> str:
    """The upstream's commit, as last fetched."""
    tip = git_repository.commit_of(git.repository, upstream.tracking)
    if tip is None:
        raise GitError(f"{upstream.shown} was never fetched, or is gone")
    return tip


def _mapped(spec: str, name: str) -> str | None:
    """Where a fetch rule keeps a reference; None where it does not concern it."""
    source, _, target = spec.partition(":")
    before, star, after = source.partition("*")
    if not star:
        return target if name == source else None
    if not (name.startswith(before) and name.endswith(after) and len(name) >= len(before) + len(after)):
        return None
    return target.replace("*", name[len(before) : len(name) - len(after)], 1)


def _distance(git: Git, here: str, there: str) -> tuple[int, int]:
    """How many commits are only here, and only there."""
    words = git.run("rev-list", "--left-right", "--count", f"{here}...{there}", "--").split()
    try:
        ahead, behind = map(int, words)
    except ValueError:
        raise GitError(f"git rev-list said {bytes(b' '.join(words))!r:.80}") from None
    return ahead, behind


def _changed(git: Git, commit: str) -> int:
    """How many tracked files differ from the commit, in the index or in the work tree."""
    linked = git.repository.folder != git.repository.common
    if value_of(git, "core.worktree") is not None or (is_on(git, "core.bare") and not linked):
        raise GitError("the repository says that its work tree is elsewhere (core.worktree, core.bare)")
    (git.folder / "HEAD").write_text(f"{commit}\n")
    found = git.run("status", "--porcelain=v2", "-z", "-uno", "--no-renames", "--ignore-submodules=all")
    return found.count(b"\0")


def fetch_and_ff(
    folder: Path, *, environ: Mapping[str, str], now: float, timeout: float, pulse: Pulse | None = None
) -> Update:
    """Fetch the upstream branch, and move to it where the tree is clean and the branch has nothing of its own.

    Never a merge, a rebase, a stash or a reset; no tags, no submodules, no maintenance. The arguments are those of
    :func:`freshness`.

    Raises:
        GitError: it could not be fetched, or something stands in the way; the work tree is as it was.
    """
    repository = git_repository.locate(folder)
    branch, commit = _position(repository)
    if commit is None:
        raise GitError("there is no commit yet")
    with opened(repository, environ=environ, timeout=timeout, pulse=pulse) as git:
        upstream = _upstream_of(git, branch)
        tip = _fetch(git, upstream, commit) if upstream.remote != "." else _tracked(git, upstream)
        ahead, behind = _distance(git, commit, tip)
        if not behind:
            return Update(old=commit, new=commit, detail=f"{branch} has all of {upstream.shown}")
        if ahead:
            raise GitError(f"{branch} and {upstream.shown} have gone apart ({ahead} and {behind} commits)")
        if changed := _changed(git, commit):
            raise GitError(f"{changed} changed files stand in the way of {behind} commits from {upstream.shown}")
        _require_plain(git, tip)
        _move(git, f"{_BRANCHES}{branch}", commit, tip, now)
    return Update(old=commit, new=tip, detail=f"{branch} moved {behind} commits on, to {tip[:7]}")


def _fetch(git: Git, upstream: _Upstream, commit: str) -> str:
    """The commit that the upstream branch is at now, with all its objects here."""
    url = value_of(git, f"remote.{upstream.remote}.url")
    if not url:
        raise GitError(f"remote {upstream.remote!r:.80} has no address")
    _require_allowed(url)
    repository = git.repository
    old = git_repository.commit_of(repository, upstream.tracking)
    known = {"refs/known/head": commit} | ({"refs/known/tip": old} if old else {})
    (git.folder / "packed-refs").write_text("".join(f"{value} {name}\n" for name, value in sorted(known.items())))
    cut_off = _content(git.folder / "shallow")
    quiet = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance", "--no-write-fetch-head")
    git.run("fetch", *quiet, "--", url, f"+{upstream.merge}:{_TIP}")
    if _content(git.folder / "shallow") != cut_off:
        raise GitError("the remote cut its history elsewhere than before (shallow); fetch by hand")
    tip = (git.folder / _TIP).read_text().strip()
    if not git_repository.is_hash(tip):
        raise GitError(f"the remote gave no commit for {upstream.merge}")
    if tip != old:
        git_repository.replace_reference(repository, upstream.tracking, old, tip)
    note = f"{tip}\t\tbranch '{upstream.merge.removeprefix(_BRANCHES)}' of {without_user(url)}\n"
    files.replace_file(repository.folder / "FETCH_HEAD", note.encode(), mode=0o644)
    return tip


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _require_allowed(url: str) -> None:
    """Refuse an address that git would take for an option or for a program."""
    scheme = _SCHEME.match(url)
    if url.startswith("-") or not url.isprintable() or _HELPER.match(url) or (scheme and scheme[1] not in PROTOCOLS):
        raise GitError(f"the remote's address {without_user(url)!r:.120} is none of {', '.join(PROTOCOLS)}")


def _require_plain(git: Git, tip: str) -> None:
    """Refuse to write a tree that would come out wrong without the programs and settings that we leave out."""
    if any(key.startswith("extensions.partialclone") or key.endswith(".promisor") for key in git.config):
        raise GitError("it is a partial clone; update it by hand")
    if is_on(git, "core.sparsecheckout") or is_on(git, "core.splitindex"):
        raise GitError("its checkout is sparse, or its index split; update it by hand")
    where = ("--", ":(glob)**/.gitattributes")
    named = git.run("grep", "--no-textconv", "-l", "-I", "-F", "-e", "filter=", tip, *where, fine=(0, 1))
    try:
        own = files.read_bounded(git.repository.common / "info" / "attributes", _ATTRIBUTES)
    except FileNotFoundError:
        own = b""
    if named or b"filter=" in own:
        raise GitError("its files pass through filters (as with git-lfs), which are not run here; update it by hand")


def _move(git: Git, branch: str, old: str, new: str, now: float) -> None:
    """Bring work tree, index and branch from one commit to a later one."""
    repository = git.repository
    if os.path.lexists(repository.folder / "index.lock"):
        raise GitError("index.lock is there: another git is at work or has died; remove it where none is")
    os.close(files.open_regular(repository.index, os.O_RDWR))  # git would follow a link and replace what is there
    git.run("update-index", "-q", "--refresh", "--ignore-submodules")
    step = ("read-tree", "-m", "-u", "--no-recurse-submodules")
    git.run(*step, old, new)
    try:
        git_repository.replace_reference(repository, branch, old, new)
    except GitError:
        git.run(*step, new, old)
        raise
    line = f"{old} {new} run-cycle-loop <run-cycle-loop> {int(now)} +0000\tfast-forward\n"
    git_repository.note_in_log(repository, repository.common / "logs" / branch, line)
    git_repository.note_in_log(repository, repository.folder / "logs" / "HEAD", line)
