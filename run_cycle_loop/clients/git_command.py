"""git as a child that obeys nobody but us: it is given a repository of our own making beside the objects, the index and
the work tree of the real one, so that no configuration, hook or attribute file of the real one is ever in force.

What programs a configuration can name (fsmonitor, filters, diff drivers, ssh, helpers, upload-pack, ...) need not be
listed for this: none of them is read. ``.gitattributes`` in the tree may still name drivers; nothing defines them.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from run_cycle_loop.clients.git_repository import GitError, Repository
from run_cycle_loop.kit import files, processes
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.kit.processes import EndedBy, Limits, Pulse

_OUTPUT = 4 << 20  #: bytes
_SAID = 4096  #: bytes of standard error that are kept
_CONFIG = 1 << 20
_SHALLOW = 4 << 20
_GRACE = 0.5  #: seconds between TERM and KILL
PROTOCOLS = ("http", "https", "ssh", "file")

#: Handed on from the caller; everything else, every GIT_* variable above all, is not.
_KEPT = (
    *("HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "RUN_CYCLE_ID"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)
_SSH = "ssh -oBatchMode=yes -oConnectTimeout=10 -oPermitLocalCommand=no -oControlMaster=no -oControlPath=none"
_FIXED = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS": "true",
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
    "GIT_SSH_COMMAND": _SSH,
    "GIT_SSH_VARIANT": "ssh",
    "GIT_PAGER": "cat",
}
_OWN_CONFIG = f"""
[core]
bare = false
fsmonitor = false
untrackedCache = false
hooksPath = {os.devnull}
attributesFile = {os.devnull}
excludesFile = {os.devnull}
alternateRefsCommand = true
askPass = true
pager = cat
[credential]
helper =
[gc]
auto = 0
[maintenance]
auto = false
[fetch]
recurseSubmodules = false
writeCommitGraph = false
[submodule]
recurse = false
"""
#: How files look on the disk; a word each, and harmless. Without them a clean tree could look dirty.
_CARRIED = frozenset(
    f"core.{name}"
    for name in (
        "filemode",
        "symlinks",
        "ignorecase",
        "autocrlf",
        "eol",
        "trustctime",
        "checkstat",
        "precomposeunicode",
    )
)
_EXTENSIONS = frozenset({"objectformat", "worktreeconfig", "partialclone", "preciousobjects", "noop"})
_WORD = re.compile(r"[A-Za-z0-9]{1,16}")
_USER_IN_URL = re.compile(r"//[^/\s@]+@")

Config = Mapping[str, Collection[str]]  #: every value of each key, as git writes keys


class Git:
    """Runs git on one repository, for a limited time in all."""

    def __init__(
        self, repository: Repository, folder: Path, environ: Mapping[str, str], timeout: float, pulse: Pulse | None
    ) -> None:
        self.repository = repository
        self.folder = folder  #: what git takes for the repository
        self.config: Config = {}
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._pulse = pulse
        path = environ.get("PATH", os.defpath).split(os.pathsep)
        self._environ = (
            {name: environ[name] for name in _KEPT if name in environ}
            | _FIXED
            | {
                # A relative folder on PATH would be looked up in the work tree.
                "PATH": os.pathsep.join(part for part in path if part.startswith("/")),
                "GIT_DIR": str(folder),
                "GIT_WORK_TREE": str(repository.worktree),
                "GIT_INDEX_FILE": str(repository.index),
                "GIT_OBJECT_DIRECTORY": str(repository.objects),
            }
        )

    def run(self, *arguments: str, fine: Collection[int] = (0,)) -> bytes:
        """What git prints.

        Args:
            arguments: the command and its arguments.
            fine: exit codes that are no failure.

        Raises:
            GitError: it failed, took too long or printed too much.
        """
        out, said = bytearray(), bytearray()

        def take(stream: str, chunk: memoryview) -> None:
            kept, most = (out, _OUTPUT + 1) if stream == "stdout" else (said, _SAID)
            kept += chunk[: most - len(kept)]

        left = max(self._deadline - time.monotonic(), 0.0)
        try:
            ended = processes.supervise(
                ["git", "-C", str(self.repository.worktree), *arguments],
                self._environ,
                limits=Limits(timeout=left, grace=_GRACE),
                output=take,
                pulse=self._pulse,
            )
        except (processes.LaunchError, OSError) as error:
            raise GitError(f"git cannot be started: {error}") from error
        if ended.ended_by is EndedBy.DEADLINE:
            raise GitError(f"git {arguments[0]} was not done after {self._timeout:g} s")
        if ended.ended_by is not EndedBy.ITSELF:
            raise GitError(f"git {arguments[0]} was ended on the operator's word")
        if ended.exit_code not in fine:
            raise GitError(f"git {arguments[0]}: {_last_words(bytes(said)) or f'exit code {ended.exit_code}'}")
        if len(out) > _OUTPUT:
            raise GitError(f"git {arguments[0]} printed more than {_OUTPUT >> 20} MiB")
        return bytes(out)


@contextmanager
def opened(repository: Repository, *, environ: Mapping[str, str], timeout: float, pulse: Pulse | None) -> Iterator[Git]:
    """git, ready for a repository; its stand-in is removed afterwards.

    Raises:
        GitError: the repository's configuration cannot be read, or asks for what we do not know.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix="run-cycle-git-"))
    except OSError as error:
        raise GitError(f"no folder for git can be made: {error}") from error
    try:
        git = Git(repository, scratch, environ, timeout, pulse)
        _furnish(git)
        yield git
    except (OSError, ValueError) as error:
        raise GitError(f"{repository.worktree} cannot be read or written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _furnish(git: Git) -> None:
    """Make the stand-in: folders, a HEAD, our own configuration, and where the history is cut off."""
    for name in ("refs", "objects"):
        (git.folder / name).mkdir()
    (git.folder / "HEAD").write_text("ref: refs/heads/none\n")
    (git.folder / "config").write_text(_OWN_CONFIG)
    git.config = _foreign_config(git)
    version = _last(git.config, "core.repositoryformatversion") or "0"
    extensions = {key.partition(".")[2] for key in git.config if key.startswith("extensions.")}
    if version not in {"0", "1"} or (version == "1" and not extensions <= _EXTENSIONS):
        raise GitError(f"the repository has a format of its own ({version}, {', '.join(sorted(extensions))})")
    (git.folder / "config").write_text(_OWN_CONFIG + _carried(git.config, version))
    try:
        shallow = files.read_bounded(git.repository.common / "shallow", _SHALLOW)
        (git.folder / "shallow").write_bytes(shallow)
    except FileNotFoundError:
        pass


def _foreign_config(git: Git) -> Config:
    """The repository's own configuration as plain data; what it includes is not read."""
    copy = git.folder / "foreign"
    copy.write_bytes(files.read_bounded(git.repository.common / "config", _CONFIG))
    found: dict[str, list[str]] = {}
    for item in git.run("config", "--file", str(copy), "--no-includes", "-z", "--list").decode("utf-8").split("\0"):
        key, _, value = item.partition("\n")
        found.setdefault(key, []).append(value)
    return found


def _last(config: Config, key: str) -> str | None:
    return tuple(config.get(key, ()))[-1] if config.get(key) else None


def _carried(config: Config, version: str) -> str:
    lines = [f"[core]\nrepositoryformatversion = {version}"]
    for key in sorted(_CARRIED & config.keys()):
        value = _last(config, key) or ""
        if _WORD.fullmatch(value):
            lines.append(f"{key.partition('.')[2]} = {value}")
    if _last(config, "extensions.objectformat") == "sha256":
        lines.append("[extensions]\nobjectFormat = sha256")
    return "\n".join(lines) + "\n"


def value_of(git: Git, key: str) -> str | None:
    """The value that counts, the last one; None where the repository's own file does not set it."""
    return _last(git.config, key)


def is_on(git: Git, key: str) -> bool:
    """Whether a switch is on; a key without a value is."""
    value = _last(git.config, key)
    return value is not None and value.lower() not in {"false", "no", "off", "0"}


def without_user(text: str) -> str:
    """A text in which no address tells a user or a password."""
    return _USER_IN_URL.sub("//", text)


def _last_words(said: bytes) -> str:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    return without_user(printable(telling[0]))[:200] if telling else ""
