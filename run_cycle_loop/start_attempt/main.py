"""From the spec to an exit code: one attempt, and what is left of it."""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.local import mounts as places
from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.kit import files, process_tree
from run_cycle_loop.kit.processes import Demand
from run_cycle_loop.kit.redact import Redactor
from run_cycle_loop.model.errors import ConfigError, RunCycleLoopError, StateError
from run_cycle_loop.start_attempt import command, outcome, view
from run_cycle_loop.start_attempt.log import open_log, redactor_for
from run_cycle_loop.start_attempt.outcome import Outcome
from run_cycle_loop.start_attempt.spec import EXEC, STATUS_PATH, Spec, read_mounts, read_spec
from run_cycle_loop.stores.cycle_logs import CycleLogFile

_GRACE = 10.0  #: seconds that the engine gives, where it does not say
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
_OWN_SHARE = 0.7  #: of them for the workload; the rest is for what is written afterwards


def main(argv: Sequence[str]) -> int:
    """The exit code: the workload's own; 1 where it was ended from outside; 2 where the spec is wrong; 74, 126, 127."""
    environ = dict(os.environ)
    started = _now()
    process_tree.adopt_orphans()
    with SignalInbox() as inbox:
        try:
            spec = read_spec(argv, environ)
        except ConfigError as error:
            return _refused(error, environ, started)
        redactor = redactor_for(environ, spec.mounts)
        log = open_log(spec.log_path, redactor)
        done = _attempted(spec, environ, log, _Signals(inbox))
        log.close()
        if log.error:
            print(f"start_attempt: {log.error}", file=sys.stderr)
        return _left(done, _told(spec, started), spec.status_path, redactor)


def _attempted(spec: Spec, environ: Mapping[str, str], log: CycleLogFile, signals: "_Signals") -> Outcome:
    try:
        grace = _OWN_SHARE * float(environ.get(view.GRACE) or _GRACE)
        workspace = Path(spec.here(places.WORKSPACE))
        if workspace.is_dir():
            os.chdir(workspace)
        if spec.adapter == EXEC:
            scratch = spec.status_path.parent.parent
            return command.run(spec, environ, log, signals, grace=grace, scratch=scratch)
        # The agents' modules are not what a plain command waits for.
        from run_cycle_loop.start_attempt import session  # noqa: PLC0415

        return session.run(spec, environ, log, signals, grace=grace)
    except RunCycleLoopError as error:
        log.note(str(error))
        return outcome.ended(error.exit_code, str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours must not leave an attempt without its status
        log.note(f"the runner failed: {error!r}")
        return outcome.ended(1, f"the runner failed: {error!r}")


def _told(spec: Spec, started: str) -> dict[str, Any]:
    artifacts = {
        name: value for name, value in (spec.body.get("artifacts") or {}).items() if name in ("statusPath", "logPath")
    }
    known = spec.run.get("artifacts")
    if isinstance(known, list) and known:
        artifacts["outputArtifacts"] = known
    return {
        "provider": spec.provider,
        "adapter": spec.adapter,
        "startedAt": started,
        "finishedAt": _now(),
        "artifacts": artifacts,
    }


def _refused(error: ConfigError, environ: Mapping[str, str], started: str) -> int:
    """Nothing is known but that it cannot be begun; the status goes where it would have gone."""
    print(f"start_attempt: {error}", file=sys.stderr)
    try:
        place = places.translate(STATUS_PATH, read_mounts(environ))
    except ConfigError:
        place = None
    if place is None:
        return error.exit_code
    told = {"provider": "", "adapter": "", "startedAt": started, "finishedAt": _now()}
    return _left(outcome.ended(error.exit_code, str(error)), told, Path(place), redactor_for(environ, ()))


def _left(done: Outcome, told: Mapping[str, Any], path: Path, redactor: Redactor) -> int:
    """Write the status, durably; the exit code. One that cannot be written must not look like a success."""
    document = redactor.value(done.document(told))
    try:
        files.make_folder(path.parent)
        files.replace_file(path, json.dumps(document, indent=2).encode() + b"\n", durable=True)
    except OSError as error:
        print(f"start_attempt: {path} cannot be written: {error.strerror or error}; free its place", file=sys.stderr)
        return done.leaves_with or StateError.exit_code
    if done.error:
        print(f"start_attempt: {redactor.text(done.error)}", file=sys.stderr)
    return done.leaves_with


class _Signals:
    """Implements ``kit.processes.Pulse``: a first signal asks the workload to end, a second one does not ask."""

    def __init__(self, inbox: SignalInbox) -> None:
        self._inbox = inbox
        self._seen = 0

    def fileno(self) -> int:
        """Readable when a signal has arrived."""
        return self._inbox.fileno()

    def beat(self) -> Demand:
        """What the signals so far come to."""
        self._seen += sum(number in _ENDS for number in self._inbox.drain())
        return Demand(min(self._seen, Demand.KILL))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
