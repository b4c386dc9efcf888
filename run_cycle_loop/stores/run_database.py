"""The SQLite file of the run store: made for this user alone, brought to its present shape, set aside where damaged.

A lock file beside it says who has it open: only where nobody else has is a damaged database moved away.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import StateError

if TYPE_CHECKING:  # opened only where there are runs
    from sqlite3 import Connection, Error

_CHECKED_UP_TO = 16 << 20  #: bytes of a database that is looked through whole when it is opened: 16 MiB take 50 ms
_BESIDE = ("-wal", "-shm")  #: what SQLite keeps beside it, by the ends of their names
_CORRUPT, _NOT_A_DATABASE, _FULL, _BUSY = 11, 26, 13, 5  #: primary result codes of SQLite

#: Each brings the database from the version of its place (from 0) to the next one; none is ever changed.
MIGRATIONS = (
    """
    CREATE TABLE run (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL UNIQUE,
        manifest TEXT NOT NULL, documents TEXT NOT NULL, profile TEXT NOT NULL, options TEXT NOT NULL,
        idempotency_key TEXT, phase TEXT NOT NULL, is_final INTEGER NOT NULL, status TEXT NOT NULL,
        owner_pid INTEGER, owner_start_ticks INTEGER, owner_boot_id TEXT,
        cancel_reason TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, version INTEGER NOT NULL,
        UNIQUE (kind, namespace, name), UNIQUE (kind, namespace, idempotency_key)
    );
    CREATE INDEX run_unfinished ON run (kind) WHERE is_final = 0;
    CREATE TABLE attempt (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES run (id), name TEXT NOT NULL,
        step INTEGER NOT NULL, iteration INTEGER, attempt INTEGER NOT NULL, folder TEXT NOT NULL,
        launches INTEGER NOT NULL, pid INTEGER, start_ticks INTEGER, boot_id TEXT,
        started_at TEXT NOT NULL, finished_at TEXT NOT NULL, exit_code INTEGER,
        reason TEXT NOT NULL, message TEXT NOT NULL,
        UNIQUE (run, name)
    );
    CREATE TABLE event (
        run INTEGER NOT NULL REFERENCES run (id), seq INTEGER NOT NULL,
        at TEXT NOT NULL, kind TEXT NOT NULL, facts TEXT NOT NULL,
        PRIMARY KEY (run, seq)
    ) WITHOUT ROWID;
    """,
)


class RunDatabase:
    """One open connection; its errors come out as sentences.

    Args:
        path: the file; made where it is missing.
        warn: told, in one sentence, what was set aside.
        patience: seconds to wait for another writer.

    Raises:
        StateError: it cannot be opened, or is of a newer version.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], patience: float) -> None:
        self.path = path
        self._warn = warn
        self._patience = patience
        with contextlib.ExitStack() as stack, self.told("opened"):
            files.make_folder(path.parent)
            lock = path.with_name(f"{path.name}.lock")
            self._lock = files.open_regular(lock, os.O_RDWR | os.O_CREAT)
            stack.callback(os.close, self._lock)
            self._is_alone = _try_lock(self._lock)
            if not self._is_alone:
                fcntl.flock(self._lock, fcntl.LOCK_SH)  # held by whoever opens it at this moment, and not for long
            self.connection = self._opened()
            stack.callback(self.connection.close)
            self._migrate()
            if self._is_alone:
                fcntl.flock(self._lock, fcntl.LOCK_SH)
            stack.pop_all()

    def close(self) -> None:
        """Let go of it; a second time does nothing."""
        if self._lock >= 0:
            self.connection.close()
            os.close(self._lock)
            self._lock = -1

    def _opened(self) -> "Connection":
        try:
            return self._connected()
        except Exception as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
        return self._connected()

    def _connected(self) -> "Connection":
        import sqlite3  # noqa: PLC0415 - a loop without runs does not pay for it

        _prepare(self.path)
        connection = sqlite3.connect(self.path, timeout=self._patience, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if self.path.stat().st_size <= _CHECKED_UP_TO:
                _check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, damage: Exception) -> None:
        """Keep a damaged database under another name, with what SQLite had beside it: that may hold the newest rows."""
        if not self._is_alone:
            raise StateError(
                f"run store {self.path} is damaged ({damage}) and in use by another process; stop that one first"
            ) from damage
        kept = files.set_aside(self.path, "corrupt")
        for end in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + end).rename(kept.with_name(kept.name + end))
        files.sync_folder(self.path.parent)
        self._warn(
            f"damaged run store {self.path} ({damage}) was set aside as {kept.name}; its runs are not known any more"
        )

    def _migrate(self) -> None:
        with self.transaction() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise StateError(
                    f"run store {self.path} has version {version} and this program knows {len(MIGRATIONS)}; update it"
                )
            for migration in MIGRATIONS[version:]:
                for statement in filter(str.strip, migration.split(";")):
                    connection.execute(statement)
            if version < len(MIGRATIONS):
                connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextlib.contextmanager
    def transaction(self) -> "Iterator[Connection]":
        """All of it or nothing; durable when it is left."""
        with self.told("written"):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk has ended it already
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Errors of the database and of its files as one sentence.

        Raises:
            StateError: there was one.
        """
        import sqlite3  # noqa: PLC0415 - loaded already

        try:
            yield
        except sqlite3.Error as error:
            raise StateError(self._sentence(what, error)) from error
        except OSError as error:
            why = error.strerror or error
            raise StateError(
                f"run store {self.path} cannot be {what}: {why}; free space there, or mend its folder"
            ) from error

    def _sentence(self, what: str, error: "Error") -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == _BUSY:
            return (
                f"run store {self.path} cannot be {what}: another process has held it for {self._patience:g} s; "
                "see what that one does"
            )
        if code in (_CORRUPT, _NOT_A_DATABASE):
            return f"run store {self.path} is damaged ({error}): start again, and it is set aside"
        cure = "free space there" if code == _FULL else "free space there, or mend its folder"
        return f"run store {self.path} cannot be {what}: {error}; {cure}"


class _Damaged(Exception):  # noqa: N818 - what the check found
    """The database is not what it should be."""


def _check(connection: "Connection") -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _Damaged(str(verdict))


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, _Damaged) or code in (_CORRUPT, _NOT_A_DATABASE)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepare(path: Path) -> None:
    """See that the file is a plain one of ours, for this user alone, without opening one that is there.

    To open and close it here would drop the locks of every other connection of this process (POSIX).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        files.sync_folder(path.parent)
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(None, "not a regular file", str(path))
    if found.st_nlink > 1:
        raise OSError(None, "it has a second name (a hard link), remove one", str(path))
    if found.st_mode & 0o077:
        path.chmod(0o600)
