"""The run store: one SQLite file in the state directory, where each change of a run is one transaction."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, StateError
from run_cycle_loop.model.runs import AttemptRecord, ProcessMark, RunEvent, RunKind, RunRecord
from run_cycle_loop.stores.run_database import RunDatabase

if TYPE_CHECKING:
    from sqlite3 import Connection

FILE_NAME = "runs.sqlite"

_RUN = (
    "kind, namespace, name, uid, manifest, documents, profile, options, idempotency_key, phase, is_final, status, "
    "owner_pid, owner_start_ticks, owner_boot_id, cancel_reason, created_at, updated_at, version"
)
_ATTEMPT = (
    "name, step, iteration, attempt, folder, launches, pid, start_ticks, boot_id, "
    "started_at, finished_at, exit_code, reason, message"
)
# Names of columns alone are put into these texts; every value goes the way of a parameter.
_INSERT_RUN = f"INSERT INTO run ({_RUN}) VALUES ({', '.join('?' * 19)})"  # noqa: S608
_SELECT_RUN = f"SELECT {_RUN} FROM run WHERE "  # noqa: S608
_THIS_RUN = "(SELECT id FROM run WHERE uid = ?)"
_SELECT_ATTEMPTS = f"SELECT {_ATTEMPT} FROM attempt WHERE run = {_THIS_RUN} ORDER BY id"  # noqa: S608
_PUT_ATTEMPT = (
    f"INSERT INTO attempt (run, {_ATTEMPT}) VALUES ({_THIS_RUN}, {', '.join('?' * 14)}) "  # noqa: S608
    "ON CONFLICT (run, name) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in _ATTEMPT.split(", ")[4:])
)
_SELECT_EVENTS = f"SELECT seq, at, kind, facts FROM event WHERE run = {_THIS_RUN} AND seq > ? ORDER BY seq"  # noqa: S608


class SqliteRunStore:
    """Implements the port ``RunStore``. Any number of processes may have it open.

    Args:
        path: the file, :data:`FILE_NAME` in the state directory.
        warn: told, in one sentence, what was set aside.
        patience: seconds to wait for another writer.

    Raises:
        StateError: it cannot be opened.
    """

    def __init__(
        self, path: Path, warn: Callable[[str], None] = lambda _sentence: None, *, patience: float = 10.0
    ) -> None:
        self.path = path
        self._database = RunDatabase(path, warn, patience)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self, run: RunRecord, events: Sequence[RunEvent] = ()) -> RunRecord:
        """Add a run.

        Raises:
            ConfigError: a run of that name or with that idempotency key is there.
            StateError: it is not known to be durable.
        """
        with self._database.transaction() as connection:
            refuse_taken(run, self._find(connection, run.kind, run.namespace, "name", run.name))
            if run.idempotency_key:
                known = self._find(connection, run.kind, run.namespace, "idempotency_key", run.idempotency_key)
                refuse_taken(run, known)
            connection.execute(_INSERT_RUN, (*_row(run), 1))
            self._add_events(connection, run.uid, events)
            return self._stored(connection, run)

    def find(self, kind: RunKind, namespace: str, *, name: str = "", key: str = "") -> RunRecord | None:
        """The run of that name, or with that idempotency key."""
        column, value = ("name", name) if name else ("idempotency_key", key)
        with self._database.told("read"):
            return self._find(self._database.connection, kind, namespace, column, value)

    def runs(self, kind: RunKind, *, unfinished: bool = False) -> Iterator[RunRecord]:
        """All runs of a kind, newest first; or only those that are not over."""
        where = "kind = ? AND is_final = 0" if unfinished else "kind = ?"
        with self._database.told("read"):
            rows = self._database.connection.execute(_SELECT_RUN + where + " ORDER BY id DESC", (kind,))
            for row in rows:
                yield self._run(row)

    def change(
        self, run: RunRecord, *, attempts: Sequence[AttemptRecord] = (), events: Sequence[RunEvent] = ()
    ) -> RunRecord:
        """Store what changed of a run, with these attempts and events, all or nothing.

        Raises:
            AlreadyRunning: somebody else has changed it since.
            StateError: it is not known to be durable.
        """
        owner = run.owner
        with self._database.transaction() as connection:
            done = connection.execute(
                "UPDATE run SET phase = ?, is_final = ?, status = ?, owner_pid = ?, owner_start_ticks = ?, "
                "owner_boot_id = ?, updated_at = ?, version = version + 1 WHERE uid = ? AND version = ?",
                (
                    run.phase,
                    run.is_final,
                    json.dumps(run.status),
                    *_process(owner),
                    run.updated_at,
                    run.uid,
                    run.version,
                ),
            )
            if done.rowcount == 0:
                raise AlreadyRunning(changed_meanwhile(run))
            for attempt in attempts:
                self._put_attempt(connection, run.uid, attempt)
            self._add_events(connection, run.uid, events)
            return self._stored(connection, run)

    def ask_cancel(self, run: RunRecord, reason: str, event: RunEvent) -> RunRecord:
        """Note that a run is to be cancelled; the first reason stands.

        Raises:
            StateError: it is not known to be durable.
        """
        with self._database.transaction() as connection:
            done = connection.execute(
                "UPDATE run SET cancel_reason = ? WHERE uid = ? AND cancel_reason = '' AND is_final = 0",
                (reason, run.uid),
            )
            if done.rowcount:
                self._add_events(connection, run.uid, (event,))
            return self._stored(connection, run)

    def attempts(self, run: RunRecord) -> tuple[AttemptRecord, ...]:
        """Its attempts, in the order in which they were added."""
        with self._database.told("read"):
            rows = self._database.connection.execute(_SELECT_ATTEMPTS, (run.uid,))
            return tuple(_attempt(row) for row in rows)

    def events(self, run: RunRecord, *, after: int = 0) -> tuple[RunEvent, ...]:
        """Its events, oldest first, from the one behind number ``after`` on."""
        with self._database.told("read"):
            rows = self._database.connection.execute(_SELECT_EVENTS, (run.uid, after))
            return tuple(RunEvent(seq=seq, at=at, kind=kind, facts=self._json(facts)) for seq, at, kind, facts in rows)

    def _find(
        self, connection: "Connection", kind: RunKind, namespace: str, column: str, value: str
    ) -> RunRecord | None:
        row = connection.execute(
            _SELECT_RUN + f"kind = ? AND namespace = ? AND {column} = ?", (kind, namespace, value)
        ).fetchone()
        return None if row is None else self._run(row)

    def _stored(self, connection: "Connection", run: RunRecord) -> RunRecord:
        row = connection.execute(_SELECT_RUN + "uid = ?", (run.uid,)).fetchone()
        if row is None:
            raise StateError(f"run store {self.path} does not know the run {run.namespace}/{run.name}; start it anew")
        return self._run(row)

    def _put_attempt(self, connection: "Connection", uid: str, one: AttemptRecord) -> None:
        values = (
            *(one.name, one.step, one.iteration, one.attempt, one.folder, one.launches),
            *(*_process(one.process), one.started_at, one.finished_at, one.exit_code, one.reason, one.message),
        )
        connection.execute(_PUT_ATTEMPT, (uid, *values))

    def _add_events(self, connection: "Connection", uid: str, events: Sequence[RunEvent]) -> None:
        for event in events:
            connection.execute(
                "INSERT INTO event (run, seq, at, kind, facts) SELECT id, "
                "(SELECT coalesce(max(seq), 0) + 1 FROM event WHERE run = run.id), ?, ?, ? FROM run WHERE uid = ?",
                (event.at, event.kind, json.dumps(event.facts), uid),
            )

    def _run(self, row: Sequence[Any]) -> RunRecord:
        kind, namespace, name, uid, manifest, documents, profile, options, key, phase, final, status = row[:12]
        return RunRecord(
            kind=RunKind(kind),
            namespace=namespace,
            name=name,
            uid=uid,
            manifest=self._json(manifest),
            documents=tuple(self._json(documents)),
            profile=profile,
            options=self._json(options),
            idempotency_key=key or "",
            phase=phase,
            is_final=bool(final),
            status=self._json(status),
            owner=_mark(*row[12:15]),
            cancel_reason=row[15],
            created_at=row[16],
            updated_at=row[17],
            version=row[18],
        )

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StateError(f"run store {self.path} holds what is no JSON ({error}); move the file aside") from error


def refuse_taken(run: RunRecord, known: RunRecord | None) -> None:
    """Nothing where nobody has the name or the key.

    Raises:
        ConfigError: ``known`` has it.
    """
    if known is None:
        return
    what = f"run {known.namespace}/{known.name}"
    if known.name != run.name:
        raise ConfigError(
            f"the idempotency key {run.idempotency_key!r} is that of {what}; look at that one, or change the key"
        )
    if known.is_final:
        raise ConfigError(f"{what} is there already and is over ({known.phase}), which is final; use another name")
    raise ConfigError(
        f"{what} is there already and is not over ({known.phase or 'Pending'}); resume it, or use another name"
    )


def changed_meanwhile(run: RunRecord) -> str:
    """The sentence for who comes too late with a change."""
    what = f"run {run.namespace}/{run.name}"
    return f"{what} was changed by another process since version {run.version}; leave it to that one"


def _row(run: RunRecord) -> tuple[Any, ...]:
    return (
        *(run.kind, run.namespace, run.name, run.uid, json.dumps(run.manifest), json.dumps(run.documents), run.profile),
        *(json.dumps(run.options), run.idempotency_key or None, run.phase, run.is_final, json.dumps(run.status)),
        *(*_process(run.owner), run.cancel_reason, run.created_at, run.updated_at),
    )


def _attempt(row: Sequence[Any]) -> AttemptRecord:
    name, step, iteration, attempt, folder, launches, pid, ticks, boot, started, finished, code, reason, message = row
    return AttemptRecord(
        name=name,
        step=step,
        iteration=iteration,
        attempt=attempt,
        folder=folder,
        launches=launches,
        process=_mark(pid, ticks, boot),
        started_at=started,
        finished_at=finished,
        exit_code=code,
        reason=reason,
        message=message,
    )


def _process(mark: ProcessMark | None) -> tuple[int | None, int | None, str | None]:
    return (None, None, None) if mark is None else (mark.pid, mark.start_ticks, mark.boot_id)


def _mark(pid: int | None, start_ticks: int | None, boot_id: str | None) -> ProcessMark | None:
    return None if pid is None else ProcessMark(pid=pid, start_ticks=start_ticks or 0, boot_id=boot_id or "")
