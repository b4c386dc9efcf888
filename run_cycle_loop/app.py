"""The composition root: settings in, objects out. The only module that knows every class."""

import os
import random
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from run_cycle_loop import __version__
from run_cycle_loop.config.files import read_goal
from run_cycle_loop.config.reload import reloaded
from run_cycle_loop.config.settings import OPTIONS, Settings
from run_cycle_loop.controls.lock import InstanceLock
from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.controls.stop import StopControl
from run_cycle_loop.controls.stop_file import StopFile
from run_cycle_loop.kit import process_table, process_tree
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.kit.processes import Pulse
from run_cycle_loop.kit.redact import Redactor
from run_cycle_loop.model.enums import LoopState
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError
from run_cycle_loop.model.ports import Observer, Prerequisite
from run_cycle_loop.model.records import (
    CycleRecord,
    CycleSpec,
    LoopSnapshot,
    PrerequisiteReport,
    SupervisorIdentity,
    timestamp,
)
from run_cycle_loop.policies.backoff import Backoff
from run_cycle_loop.policies.conditions import Condition
from run_cycle_loop.policies.continuation import Rules
from run_cycle_loop.prerequisites.available import CommandCheck, ModuleCheck
from run_cycle_loop.prerequisites.resources import DiskCheck, MemoryCheck, WritableCheck
from run_cycle_loop.prerequisites.script import ScriptCheck
from run_cycle_loop.runners.environment import Places
from run_cycle_loop.runners.script import ScriptRunner
from run_cycle_loop.stores import cycle_logs, folders
from run_cycle_loop.stores.archives import PlannerArchives
from run_cycle_loop.stores.cycle_logs import CycleLogFile, CycleLogFolder
from run_cycle_loop.stores.history import JsonlHistory
from run_cycle_loop.stores.in_flight import InFlightSlot
from run_cycle_loop.stores.snapshot import LatestJson
from run_cycle_loop.supervisor.board import Board
from run_cycle_loop.supervisor.controller import Finish, Supervisor, World
from run_cycle_loop.supervisor.plan import Plan

if TYPE_CHECKING:
    from run_cycle_loop.observers.logs import LoggerFactory

Reread = Callable[[], Settings]  #: the settings, read again from the same flags, variables and file


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """Where everything is that the loop keeps."""

    lock: Path
    in_flight: Path
    control_dir: Path
    latest: Path

    @classmethod
    def of(cls, settings: Settings) -> "Paths":
        """The places below the state and log directories."""
        state = settings.state_dir
        return cls(
            lock=state / "run_cycle.lock",
            in_flight=state / "run_cycle_in_flight.json",
            control_dir=state.absolute() / "control",  # the cycle is told this one
            latest=settings.log_dir / "latest.json",
        )


def redactor_for(settings: Settings, environ: Mapping[str, str]) -> Redactor:
    """What takes the values of secret-looking variables out of everything we write or show."""
    # The name of the setting that lists patterns looks like a secret itself; what it lists are words of everyday.
    listing = OPTIONS["secret_env"].variable
    secrets = {name: value for name, value in environ.items() if name != listing}
    return Redactor.from_environment(secrets, settings.secret_env)


def plan_for(settings: Settings, environ: Mapping[str, str], pulse: Pulse | None) -> Plan:
    """One reading of the settings in the loop's own terms.

    Raises:
        ConfigError: a value cannot be used.
    """
    runner = ScriptRunner(
        settings.command or settings.cycle_script,
        caller=environ,
        allow=settings.env_allow,
        cap_writes=settings.cap_writes,
        places=Places(
            state_dir=settings.state_dir, history_path=settings.history_path, sandbox_dir=settings.sandbox_dir
        ),
        sandbox_reset=settings.sandbox_reset,
        pulse=pulse,
    )
    return Plan(
        mode=settings.mode,
        goal=_goal_source(settings),
        rules=_rules(settings),
        timeout=settings.timeout,
        idle_timeout=settings.idle_timeout,
        grace=settings.grace,
        prerequisites=_prerequisites(settings, runner, pulse),
        checks_take_time=settings.prereq_script is not None,
        runner=runner,
        artifacts=PlannerArchives(settings.archive_glob) if settings.archive_glob else None,
        control_dir=Paths.of(settings).control_dir,
    )


def _goal_source(settings: Settings) -> Callable[[], str]:
    path = settings.goal_file
    return (lambda: settings.goal) if path is None else (lambda: read_goal(path))


def _rules(settings: Settings) -> Rules:
    return Rules(
        iterations=settings.iterations,
        sleep=settings.sleep,
        max_failures=settings.max_failures,
        backoff=Backoff(
            initial=settings.backoff_initial,
            factor=settings.backoff_factor,
            longest=settings.max_backoff,
            jitter=settings.backoff_jitter,
        ),
        condition=Condition(settings.while_) if settings.while_ else None,
    )


def _prerequisites(settings: Settings, runner: ScriptRunner, pulse: Pulse | None) -> tuple[Prerequisite, ...]:
    def path_of(spec: CycleSpec) -> str:
        return runner.environment(spec).get("PATH", os.defpath)

    modules = [(name, True) for name in settings.require_module] + [(name, False) for name in settings.optional_module]
    commands = [(name, True) for name in settings.require_command] + [
        (name, False) for name in settings.optional_command
    ]
    writable = dict.fromkeys([settings.state_dir, settings.log_dir, *map(Path, settings.require_writable)])
    checks: list[Prerequisite] = [ModuleCheck(module=name, required=required) for name, required in modules]
    checks += [CommandCheck(command=name, required=required, path=path_of) for name, required in commands]
    checks += [WritableCheck(path=path) for path in writable]
    if settings.min_free_disk:
        checks.append(DiskCheck(path=settings.state_dir, least=settings.min_free_disk))
    if settings.min_free_memory:
        checks.append(MemoryCheck(least=settings.min_free_memory))
    if settings.prereq_script is not None:
        checks.append(
            ScriptCheck(
                path=settings.prereq_script,
                timeout=settings.prereq_timeout,
                grace=settings.grace,
                environment=runner.environment,
                pulse=pulse,
            )
        )
    return tuple(checks)


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
        plan = plan_for(settings, environ, stop)

        def warn(sentence: str) -> None:
            log.warning("state.mended", detail=sentence)

        def reload() -> Plan | None:
            return _reload(settings, reread, environ, stop, loggers)

        history = JsonlHistory(settings.history_path, warn)
        stack.callback(history.close)
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


def _reload(
    settings: Settings, reread: Reread, environ: Mapping[str, str], stop: StopControl, loggers: "LoggerFactory"
) -> Plan | None:
    """A plan from the configuration as it stands now; an unusable one is refused and the old plan goes on."""
    log = loggers("run")
    try:
        fresh, kept = reloaded(settings, reread())
        plan = plan_for(fresh, environ, stop)
    except ConfigError as error:
        log.warning("config.refused", detail=str(error))
        return None
    log.info("config.reloaded", needs_restart=kept or None)
    return plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a dry run shows."""

    report: PrerequisiteReport
    argv: Sequence[str]
    environment: Mapping[str, str]  #: only what is added to the caller's


def preview(settings: Settings, environ: Mapping[str, str]) -> Preview:
    """Check the prerequisites, and tell what a cycle would start; nothing is written, nothing else is launched.

    Raises:
        ConfigError: a value cannot be used.
    """
    process_tree.adopt_orphans()
    redactor = redactor_for(settings, environ)
    plan = plan_for(settings, environ, pulse=None)
    spec = CycleSpec(
        cycle_id="dry-run",
        number=0,
        index=1,
        mode=plan.mode,
        goal=plan.goal(),
        started_at=SystemClock().now(),
        timeout=plan.timeout,
        idle_timeout=plan.idle_timeout,
        grace=plan.grace,
        control_file=f"{plan.control_dir}/dry-run.json",
        log_path=None,
    )
    log = CycleLogFile(None, None, redactor)
    checks = tuple(check.check(spec, log) for check in plan.prerequisites)
    runner = plan.runner
    added = runner.environment(spec) if isinstance(runner, ScriptRunner) else {}
    return Preview(
        report=PrerequisiteReport(checks=checks),
        argv=redactor.value(runner.preview(spec)),
        environment={name: redactor.text(value) for name, value in added.items() if name.startswith("RUN_CYCLE_")},
    )
