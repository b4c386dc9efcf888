"""The port RunStore: every implementation, and what only the SQLite file promises."""

import multiprocessing
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, StateError
from run_cycle_loop.model.ports import RunStore
from run_cycle_loop.model.runs import AttemptRecord, ProcessMark, RunEvent, RunKind
from run_cycle_loop.stores.runs import FILE_NAME, SqliteRunStore
from run_cycle_loop.testing import InMemoryRuns, make_run

STORES: dict[str, Callable[[Path], RunStore]] = {
    "sqlite": lambda folder: SqliteRunStore(folder / "state" / FILE_NAME),
    "memory": lambda _folder: InMemoryRuns(),
}
ME = ProcessMark(pid=1234, start_ticks=5678, boot_id="boot-1")
ATTEMPT = AttemptRecord(name="demo-step-1-attempt-1", step=1, iteration=None, attempt=1, folder="/state/a")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunStore]:
    opened = STORES[request.param](tmp_path)
    yield opened
    if isinstance(opened, SqliteRunStore):
        opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE_NAME


def event(kind: str = "run.created", **facts: object) -> RunEvent:
    return RunEvent(at="2026-01-02T12:00:00.000Z", kind=kind, facts=facts)


def test_an_unknown_run_is_none(store: RunStore) -> None:
    assert store.find(RunKind.AGENTRUN, "agents", name="demo") is None
    assert store.find(RunKind.AGENTRUN, "agents", key="") is None
    assert list(store.runs(RunKind.AGENTRUN)) == []
    assert store.attempts(make_run()) == ()
    assert store.events(make_run()) == ()


def test_a_run_is_found_as_it_was_created(store: RunStore) -> None:
    run = make_run(
        documents=({"kind": "Agent", "text": "ünïcode \ud800"},),
        options={"strict": True},
        idempotency_key="k",
        owner=ME,
        status={"phase": "Pending"},
    )
    created = store.create(run, (event(),))
    assert created == replace(run, version=1)
    assert store.find(RunKind.AGENTRUN, "agents", name="demo") == created
    assert store.find(RunKind.AGENTRUN, "agents", key="k") == created
    assert store.events(created) == (replace(event(), seq=1),)


@pytest.mark.parametrize(
    ("phase", "is_final", "told"), [("Running", False, "resume it"), ("Failed", True, "final; use another name")]
)
def test_a_name_is_taken_for_ever(store: RunStore, phase: str, is_final: bool, told: str) -> None:
    store.create(make_run(phase=phase, is_final=is_final))
    with pytest.raises(ConfigError, match=told):
        store.create(make_run(uid="other"))
    store.create(make_run(namespace="elsewhere", uid="third"))
    store.create(make_run(kind=RunKind.PRD, uid="fourth"))


def test_an_idempotency_key_is_taken_for_ever(store: RunStore) -> None:
    store.create(make_run("one", idempotency_key="k"))
    with pytest.raises(ConfigError, match="idempotency key 'k' is that of run agents/one"):
        store.create(make_run("two", idempotency_key="k"))
    store.create(make_run("three"))
    store.create(make_run("four"))
    store.create(make_run("five", idempotency_key="k", namespace="elsewhere"))


def test_a_change_is_of_the_version_that_its_writer_knows(store: RunStore) -> None:
    first = store.create(make_run())
    second = store.change(replace(first, phase="Running", status={"phase": "Running"}, owner=ME))
    assert (second.phase, second.status, second.owner, second.version) == ("Running", {"phase": "Running"}, ME, 2)
    with pytest.raises(AlreadyRunning, match="since version 1"):
        store.change(replace(first, phase="Failed"), attempts=(ATTEMPT,), events=(event(),))
    assert store.find(RunKind.AGENTRUN, "agents", name="demo") == second
    assert store.attempts(second) == ()
    assert store.events(second) == ()


def test_an_attempt_is_added_and_then_changed_in_its_place(store: RunStore) -> None:
    run = store.create(make_run())
    other = replace(ATTEMPT, name="demo-step-1-attempt-2", attempt=2, iteration=3)
    run = store.change(run, attempts=(ATTEMPT, other))
    over = replace(ATTEMPT, process=ME, launches=2, finished_at="t", exit_code=3, reason="R", message="M")
    run = store.change(run, attempts=(over,))
    assert store.attempts(run) == (over, other)


def test_events_are_numbered_within_their_run(store: RunStore) -> None:
    one, two = store.create(make_run("one"), (event("a"),)), store.create(make_run("two"))
    one = store.change(one, events=(event("b", n=1), event("c")))
    two = store.change(two, events=(event("d"),))
    assert [(found.seq, found.kind) for found in store.events(one)] == [(1, "a"), (2, "b"), (3, "c")]
    assert [found.kind for found in store.events(one, after=2)] == ["c"]
    assert [found.seq for found in store.events(two)] == [1]


def test_a_request_to_cancel_stands_beside_changes(store: RunStore) -> None:
    run = store.create(make_run())
    asked = store.ask_cancel(run, "by hand", event("run.cancel_asked"))
    assert store.ask_cancel(run, "again", event("run.cancel_asked")).cancel_reason == "by hand"
    assert asked.version == run.version
    changed = store.change(replace(run, phase="Running"))
    assert (changed.cancel_reason, changed.phase) == ("by hand", "Running")
    assert len(store.events(run)) == 1


def test_a_run_that_is_over_is_not_cancelled(store: RunStore) -> None:
    run = store.change(replace(store.create(make_run()), phase="Succeeded", is_final=True))
    assert store.ask_cancel(run, "late", event()).cancel_reason == ""
    assert store.events(run) == ()


def test_runs_are_listed_newest_first(store: RunStore) -> None:
    for name in ("one", "two", "three"):
        store.create(make_run(name, is_final=name == "two"))
    store.create(make_run("other", kind=RunKind.WORKFLOW))
    assert [run.name for run in store.runs(RunKind.AGENTRUN)] == ["three", "two", "one"]
    assert [run.name for run in store.runs(RunKind.AGENTRUN, unfinished=True)] == ["three", "one"]


# What only the file promises.


def test_the_file_is_for_this_user_alone_and_survives_its_writer(path: Path) -> None:
    with SqliteRunStore(path) as store:
        store.create(make_run())
        names = (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", f"{FILE_NAME}.lock")
        modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
        assert modes == dict.fromkeys(names, 0o600)
    with SqliteRunStore(path) as store:
        assert store.find(RunKind.AGENTRUN, "agents", name="demo") is not None


def _one_of_many(path: Path, number: int) -> None:
    with SqliteRunStore(path) as store:
        run = store.create(make_run(f"run-{number}"))
        for _ in range(20):
            run = store.change(run, events=(event(),))


def test_many_processes_write_at_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_one_of_many, args=(path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    with SqliteRunStore(path) as store:
        assert [len(store.events(run)) for run in store.runs(RunKind.AGENTRUN)] == [20, 20, 20, 20]


def _die_in_a_transaction(path: Path) -> None:
    store = SqliteRunStore(path)
    run = store.create(make_run())
    with store._database.transaction() as connection:
        connection.execute("UPDATE run SET phase = 'Half'")
        os.kill(os.getpid(), signal.SIGKILL)
    store.change(run)


def test_a_killed_writer_leaves_nothing_half_done(path: Path) -> None:
    writer = multiprocessing.get_context("spawn").Process(target=_die_in_a_transaction, args=(path,))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    with SqliteRunStore(path) as store:
        found = store.find(RunKind.AGENTRUN, "agents", name="demo")
        assert found is not None
        assert (found.phase, found.version) == ("", 1)


@pytest.mark.parametrize("damage", ["header", "middle"])
def test_a_damaged_file_is_set_aside_and_named(path: Path, damage: str) -> None:
    with SqliteRunStore(path) as store:
        for number in range(50):
            store.create(make_run(f"run-{number}", manifest={"text": "x" * 2000}))
    data = bytearray(path.read_bytes())
    start = 0 if damage == "header" else 4096
    data[start : start + 4096 * (1 if damage == "header" else 8)] = b"\xa5" * (4096 * (1 if damage == "header" else 8))
    path.write_bytes(data)
    warnings: list[str] = []
    with SqliteRunStore(path, warnings.append) as store:
        assert list(store.runs(RunKind.AGENTRUN)) == []
        store.create(make_run())
    assert "was set aside as runs.sqlite.corrupt" in warnings[0]
    assert path.with_name("runs.sqlite.corrupt").read_bytes() == bytes(data)


def test_a_damaged_file_that_others_have_open_stays(path: Path) -> None:
    with SqliteRunStore(path) as store:
        store._database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.write_bytes(b"no database at all" * 300)
        with pytest.raises(StateError, match="in use by another process"):
            SqliteRunStore(path)
        assert not path.with_name("runs.sqlite.corrupt").exists()


def test_a_file_of_a_newer_version_is_not_touched(path: Path) -> None:
    SqliteRunStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match="has version 99 and this program knows 1; update it"):
        SqliteRunStore(path)


@pytest.mark.parametrize("plant", ["symlink", "fifo", "folder", "hard link"])
def test_what_is_no_file_of_ours_is_refused(path: Path, plant: str) -> None:
    path.parent.mkdir()
    target = path.with_name("elsewhere")
    target.write_bytes(b"")
    plants: dict[str, Callable[[], None]] = {
        "symlink": lambda: path.symlink_to(target),
        "fifo": lambda: os.mkfifo(path),
        "folder": lambda: path.mkdir(),  # noqa: PLW0108 - its own signature is another
        "hard link": lambda: path.hardlink_to(target),
    }
    plants[plant]()
    with pytest.raises(StateError, match="cannot be opened"):
        SqliteRunStore(path)
    assert target.read_bytes() == b""


def test_who_waits_too_long_for_another_writer_says_so(path: Path) -> None:
    with SqliteRunStore(path) as first, SqliteRunStore(path, patience=0.05) as second:
        run = first.create(make_run())
        with first._database.transaction(), pytest.raises(StateError, match=r"another process has held it for 0\.05 s"):
            second.change(run)
        assert second.change(run).version == 2


def test_a_locked_database_is_waited_for(path: Path) -> None:
    with SqliteRunStore(path) as first, SqliteRunStore(path) as second:
        run = first.create(make_run())
        holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.1, lambda: holder.execute("COMMIT"))
        release.start()
        assert second.change(run).version == 2
        release.join()
        holder.close()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writes past a size fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_what_was_stored_stays(path: Path) -> None:
    with SqliteRunStore(path) as store:
        run = store.create(make_run())
        wal = path.with_name(f"{FILE_NAME}-wal").stat().st_size
        with files_of_at_most(wal), pytest.raises(StateError, match=r"cannot be written: .*; free space there"):
            store.change(replace(run, phase="Running"), events=(event(),))
        assert store.find(RunKind.AGENTRUN, "agents", name="demo") == run
        assert store.change(replace(run, phase="Running")).phase == "Running"
