"""The loop put together and run in this process."""

import os
import random
import socket
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from run_cycle_loop import __version__
from run_cycle_loop.app.paths import Paths
from run_cycle_loop.app.plan import plan_for
from run_cycle_loop.app.redaction import redactor_for
from run_cycle_loop.app.surroundings import Surroundings
from run_cycle_loop.config.reload import reloaded
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.controls.lock import InstanceLock
from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.controls.stop import StopControl
from run_cycle_loop.controls.stop_file import StopFile
from run_cycle_loop.kit import process_table, process_tree
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.model.enums import LoopState
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError
from run_cycle_loop.model.ports import Observer
from run_cycle_loop.model.records import CycleRecord, SupervisorIdentity, timestamp
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.stores import cycle_logs, folders
from run_cycle_loop.stores.cycle_logs import CycleLogFolder
from run_cycle_loop.stores.history import JsonlHistory
from run_cycle_loop.stores.in_flight import InFlightSlot
from run_cycle_loop.stores.snapshot import LatestJson
from run_cycle_loop.supervisor.board import Board
from run_cycle_loop.supervisor.controller import Finish, Supervisor, World
from run_cycle_loop.supervisor.plan import Plan

if TYPE_CHECKING:
    from run_cycle_loop.observers.logs import LoggerFactory

Reread = Callable[[], Settings]  #: the settings, read again from the same flags, variables and file


def _observers(
    settings: Settings, environ: Mapping[str, str], loggers: "LoggerFactory", clock: SystemClock
) -> list[Observer]:
    """Those who watch; each one is imported only where it is wanted."""
    from run_cycle_loop.observers.lines import LineWriter  # noqa: PLC0415
    from run_cycle_loop.observers.logs import LogObserver  # noqa: PLC0415

    observers: list[Observer] = [LogObserver(loggers("run"), stale_after=settings.stale_after)]
    screen = LineWriter(sys.stderr)
    if screen.isatty() and settings.log_format != "json" and environ.get("TERM", "dumb") != "dumb":
        from run_cycle_loop.observers.progress import ProgressLine  # noqa: PLC0415

        observers.append(ProgressLine(screen, now=clock.now, monotonic=clock.monotonic))
    if environ.get("NOTIFY_SOCKET"):
        from run_cycle_loop.observers.systemd import SystemdNotifier  # noqa: PLC0415

        observers.append(SystemdNotifier(environ, monotonic=clock.monotonic))
    if settings.metrics_stdout:
        from run_cycle_loop.observers.stdout import JsonLines  # noqa: PLC0415

        observers.append(JsonLines(LineWriter(sys.stdout)))
    if settings.metrics_port or settings.metrics_textfile:
        from run_cycle_loop.observers import metrics  # noqa: PLC0415

        collector = metrics.LoopCollector(__version__)
        if settings.metrics_port:
            observers.append(metrics.HttpMetrics(settings.metrics_port, collector))
        if settings.metrics_textfile:
            observers.append(metrics.TextfileMetrics(settings.metrics_textfile, collector))
    return observers


def identity_of_this_process(clock: SystemClock) -> SupervisorIdentity:
    """Who we are, in words that never name a stranger."""
    own = process_table.identify(os.getpid())
    return SupervisorIdentity(
        pid=os.getpid(),
        start_ticks=own.start_ticks if own else 0,
        boot_id=process_table.boot_id(),
        host=socket.gethostname(),
        version=__version__,
        started_at=timestamp(clock.now()),
    )


def run_loop(settings: Settings, environ: Mapping[str, str], reread: Reread) -> Finish:
    """Run the loop in this process until it ends.

    Raises:
        AlreadyRunning: another instance holds the state directory.
        ConfigError: a value cannot be used.
        StateError: what happened cannot be recorded.
    """
    from run_cycle_loop.observers.logs import configure  # noqa: PLC0415

    process_tree.adopt_orphans()
    environ = dict(environ)  # as it is now: os.environ would be decoded anew for every cycle
    clock = SystemClock()
    redactor = redactor_for(settings, environ)
    loggers = configure(level=settings.log_level, format=settings.log_format, redact=redactor.value)
    log = loggers("run")
    with ExitStack() as stack:
        inbox = stack.enter_context(SignalInbox())
        for folder in (settings.state_dir, settings.log_dir):
            folders.secure(folder)
        paths = Paths.of(settings)
        identity = identity_of_this_process(clock)
        lock = InstanceLock(paths.lock, identity)
        lock.acquire()
        stack.callback(lock.release)
        stack.callback(os.close, folders.claim(settings.log_dir))
        stop = StopControl(inbox, StopFile(settings.stop_file), clock, watch=settings.iterations != 1)
        stack.callback(stop.close)

        def warn(sentence: str) -> None:
            log.warning("state.mended", detail=sentence)

        def reload() -> Plan | None:
            return _reload(settings, reread, around, loggers)

        history = JsonlHistory(settings.history_path, warn)
        stack.callback(history.close)
        around = Surroundings(
            environ=environ, clock=clock, history=history, run_id=uuid.uuid4().hex, pulse=stop, warn=warn
        )
        plan = plan_for(settings, around)
        history.prepare()
        cycle_logs.recover(settings.log_dir)
        latest = LatestJson(paths.latest)
        snapshot = latest.load(history)
        _refuse_second(snapshot, identity, paths.lock)
        if snapshot.note:
            warn(snapshot.note)
        observers = _observers(settings, environ, loggers, clock)
        board = Board(snapshot, latest, observers, clock, lambda said: log.warning("observer.failed", detail=said))
        world = World(
            clock=clock,
            stop=stop,
            history=history,
            flight=InFlightSlot(paths.in_flight, warn),
            logs=CycleLogFolder(
                settings.log_dir, max_bytes=settings.max_log_bytes, keep=settings.keep_logs, redactor=redactor
            ),
            board=board,
            identity=identity,
            boot_id=identity.boot_id,
            chance=random.random,
            redact=redactor.text,
            redact_value=redactor.value,
            hold_instance=lock.acquire,
            last_words=lambda record: _last_words(loggers, record),
        )
        supervisor = Supervisor(world, plan, reload)
        stop.listen(beat=board.beat, request=supervisor.hear)
        finish = supervisor.run()
        log.info("loop.stopped", reason=str(finish.reason), why=finish.why, exit_code=finish.exit_code)
        return finish


def _refuse_second(snapshot: LoopSnapshot, identity: SupervisorIdentity, lock: Path) -> None:
    """Doubt means stop: a loop that lost its lock file may still run, and its cycle would be taken for a lost one."""
    other = snapshot.supervisor
    if other is None or other.boot_id != identity.boot_id or snapshot.state is LoopState.STOPPED:
        return
    if other.pid != identity.pid and process_table.is_alive(ProcessId(other.pid, other.start_ticks)):
        raise AlreadyRunning(
            f"another instance (pid {other.pid}, since {other.started_at}) still runs here, though {lock} was removed; "
            "stop it first"
        )


def _last_words(loggers: "LoggerFactory", record: CycleRecord) -> None:
    """A record that no disk would take goes where somebody may still read it."""
    loggers("cycle").error("cycle.unrecorded", record=record.as_dict())


def _reload(settings: Settings, reread: Reread, around: Surroundings, loggers: "LoggerFactory") -> Plan | None:
    """A plan from the configuration as it stands now; an unusable one is refused and the old plan goes on."""
    log = loggers("run")
    try:
        fresh, kept = reloaded(settings, reread())
        plan = plan_for(fresh, around)
    except ConfigError as error:
        log.warning("config.refused", detail=str(error))
        return None
    log.info("config.reloaded", needs_restart=kept or None)
    return plan
