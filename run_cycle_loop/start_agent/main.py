"""From the command line to an exit code: consent, the planner or one session, and what is left of it."""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.agents import digests, isolation, registry, session_report
from run_cycle_loop.agents.adapter import Adapter, Request
from run_cycle_loop.agents.planner import Planned, plan_cycle
from run_cycle_loop.agents.planner import Request as PlanRequest
from run_cycle_loop.agents.session import Session, SessionLimits, run_session, scratch_folder
from run_cycle_loop.agents.session_report import Asked
from run_cycle_loop.config.files import read_goal, read_text
from run_cycle_loop.controls.signals import HANDLED, SignalInbox
from run_cycle_loop.kit import files, process_tree
from run_cycle_loop.kit.processes import Demand
from run_cycle_loop.kit.redact import Redactor
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.errors import ConfigError, RunCycleLoopError, StateError
from run_cycle_loop.model.sessions import Usage
from run_cycle_loop.runners import sandbox
from run_cycle_loop.start_agent import permission, workdir
from run_cycle_loop.start_agent.options import parse

_ENDS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Surroundings:
    """Where this runs."""

    environ: Mapping[str, str]
    redactor: Redactor
    control_file: Path | None
    cycle_id: str
    number: int | None  #: of the cycle; None outside the loop

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "_Surroundings":
        number = environ.get("RUN_CYCLE_NUMBER", "")
        control = environ.get("RUN_CYCLE_CONTROL_FILE")
        listing = "RUN_CYCLE_SECRET_ENV"  # a telling name, and no secret in it
        secrets = {name: value for name, value in environ.items() if name != listing}
        return cls(
            environ=environ,
            redactor=Redactor.from_environment(secrets, environ.get(listing, "").replace(",", " ").split()),
            control_file=Path(control) if control else None,
            cycle_id=environ.get("RUN_CYCLE_ID", ""),
            number=int(number) if number.isascii() and number.isdigit() else None,
        )

    def leave_control(self, payload: Mapping[str, Any]) -> None:
        """Leave the payload where the loop looks for it."""
        if self.control_file is not None:
            digests.write_control(self.control_file, self.redactor.value(payload))


def main(argv: Sequence[str], *, root: Path | None = None) -> int:
    """The exit code: 0 done, 2 not asked rightly or not allowed, else how the agent's session ended."""
    environ = dict(os.environ)
    options = parse(list(argv), environ, root or Path.cwd())
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    around = _Surroundings.of(environ)
    try:
        agent = options.agent if options.agent != "auto" else registry.default_agent(environ.get("PATH", os.defpath))
        options.goal = read_goal(options.goal_file) if options.goal_file else options.goal
        if agent == registry.PLANNER:
            return _plan(options, around)
        return _Sitting(options, agent, around).hold()
    except RunCycleLoopError as error:
        print(f"start_agent: {error}", file=sys.stderr)
        if not isinstance(error, StateError):  # that one comes last, after the payload of a session
            with contextlib.suppress(OSError):
                around.leave_control(_refusal(options.agent, error))
        return error.exit_code
    except KeyboardInterrupt:
        return session_report.EXIT_CODES[AgentClass.INTERRUPTED]


def _now() -> datetime:
    return datetime.now(UTC)


def _refusal(agent: str, error: RunCycleLoopError) -> Mapping[str, Any]:
    """What the loop is told where no session came about: a wrong setting stays wrong until somebody changes it."""
    refused = isinstance(error, permission.Refused)
    return {
        "class": AgentClass.PERMISSION_DENIED if refused else AgentClass.TOOL_ERROR,
        "agent": agent,
        "reason": str(error),
        # Consent may be taken back in this instant and be given again in the next; the loop asks before each cycle.
        "permanent": isinstance(error, ConfigError) and not refused,
        "usage": Usage(source="no session came about").as_dict(),
        "continue": True,
    }


# --- the planner ---------------------------------------------------------------------------------------------------


def _plan(options: argparse.Namespace, around: _Surroundings) -> int:
    permission.require(options, registry.PLANNER, is_real=False, cycle_id=around.cycle_id, now=_now)
    if options.sandbox_reset:
        sandbox.reset(options.sandbox)
    request = PlanRequest(
        mode=options.mode,
        goal=options.goal,
        sandbox=options.sandbox,
        state_dir=options.state_dir,
        history_path=options.history_path,
        cap_writes=options.cap_writes,
        cycle_id=around.cycle_id,
        number=around.number,
        control_file=around.control_file,
    )
    _tell(plan_cycle(request, _now()))
    return 0


def _tell(planned: Planned) -> None:
    """The planner's summary for people."""
    for bullet in planned.recap:
        print(f"- {bullet}")
    print(f"Experiment {planned.experiment.number}: {planned.experiment.change}")
    print(f"Success: {planned.experiment.criterion}, after {planned.experiment.window} cycles")
    print(f"Note: {planned.note}")
    print(f"Plan: {planned.plan_path or 'not written'}")
    print(f"Archive: {planned.archive_path}")


# --- a session -----------------------------------------------------------------------------------------------------


class _Sitting:
    """One session with all that comes before and after it."""

    def __init__(self, options: argparse.Namespace, agent: str, around: _Surroundings) -> None:
        self._options = options
        self._around = around
        self._adapter: Adapter = registry.find(agent)
        self._asked = Asked(
            agent=agent,
            mode=options.mode,
            goal=options.goal,
            cycle_id=around.cycle_id,
            number=around.number,
            until_done=options.until_done,
        )

    def hold(self) -> int:
        """Ask, run, record; the exit code."""
        options, agent = self._options, self._asked.agent
        is_real = self._adapter.capabilities.is_real
        warnings = permission.require(options, agent, is_real=is_real, cycle_id=self._around.cycle_id, now=_now)
        schema = _schema(options.schema)
        if options.sandbox_reset:
            sandbox.reset(options.sandbox)
        try:
            folder = workdir.find(options.workdir, options.sandbox)
            files.make_folder(options.state_dir)  # before the agent could put something else in its place
        except OSError as error:
            raise StateError(f"{error.filename} cannot be made: {error.strerror}; free it") from error
        process_tree.adopt_orphans()
        heeded = _ENDS - {number for number in HANDLED if signal.getsignal(number) is signal.SIG_IGN}
        with SignalInbox() as inbox:
            isolated = isolation.choose(options.isolate, self._around.environ, hidden=self._hidden())
            warnings += () if isolated.ok else (isolated.detail,)
            session = self._run(folder, schema, isolated, _Signals(inbox, heeded))
        return self._record(session, folder, isolated.used, warnings)

    def _hidden(self) -> list[Path]:
        options = self._options
        places = (options.state_dir, options.log_dir, options.stop_file, options.history_path)
        return [place for place in (*places, self._around.control_file) if place is not None]

    def _run(
        self, folder: Path, schema: Mapping[str, Any] | None, isolated: isolation.Isolation, signals: "_Signals"
    ) -> Session:
        options = self._options
        reads_only = options.role == Role.READ_ONLY
        with scratch_folder(folder, self._around.environ) as scratch:
            request = Request(
                prompt=session_report.prompt(self._asked, cap_writes=options.cap_writes, reads_only=reads_only),
                workdir=folder,
                scratch=scratch,
                role=Role(options.role),
                model=options.model,
                output_schema=schema,
                max_usd=options.max_usd,
                extra_args=tuple(options.agent_arg),
                template=options.agent_script if self._asked.agent == "scripted" else options.agent_command,
            )
            return run_session(
                self._adapter,
                request,
                env=self._around.environ,
                isolation=isolated,
                limits=SessionLimits(
                    timeout=options.timeout,
                    idle_timeout=options.idle_timeout,
                    max_usd=options.max_usd,
                    max_tokens=options.max_tokens,
                    prices=options.prices,
                ),
                pulse=signals,
                output=_Forward().take,
                now=_now,
            )

    def _record(self, session: Session, folder: Path, used: str, warnings: tuple[str, ...]) -> int:
        """Leave digest, archive and control payload, and tell people."""
        trouble = None
        now = _now()
        outputs: dict[str, Any] = {"workdir": str(folder)}
        try:
            digest = self._around.redactor.value(session_report.digest(self._asked, session, now))
            outputs["archive"] = str(digests.record(self._options.state_dir, digest, now))
        except OSError as error:
            where = error.filename or self._options.state_dir
            trouble = f"{where} cannot be written: {error.strerror or error}; free it and run the cycle again"
            warnings += (trouble,)
        payload = session_report.control(self._asked, session, isolation=used, outputs=outputs, warnings=warnings)
        try:
            self._around.leave_control(payload)
        except OSError as error:
            where = error.filename or self._around.control_file
            trouble = f"{where} cannot be written: {error.strerror or error}; free it and run the cycle again"
        for line in session_report.lines(self._asked, session, warnings):
            print(self._around.redactor.text(line))
        if "archive" in outputs:
            print(f"Archive: {outputs['archive']}")
        if trouble is not None:
            raise StateError(trouble)
        return session_report.EXIT_CODES[session.result.ended]


def _schema(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        schema = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the schema {path} cannot be used: {error}; name a file that holds a JSON Schema") from error
    if not isinstance(schema, dict):
        raise ConfigError(f"the schema {path} holds no JSON object; name a file that holds a JSON Schema")
    return schema


class _Signals:
    """Implements ``kit.processes.Pulse``: a first signal asks the agent to end, a second one does not ask."""

    def __init__(self, inbox: SignalInbox, heeded: frozenset[signal.Signals]) -> None:
        self._inbox = inbox
        self._heeded = heeded
        self._seen = 0

    def fileno(self) -> int:
        """Readable when a signal has arrived."""
        return self._inbox.fileno()

    def beat(self) -> Demand:
        """What the signals so far come to."""
        self._seen += sum(number in self._heeded for number in self._inbox.drain())
        return Demand(min(self._seen, Demand.KILL))


class _Forward:
    """Passes the agent's output on as it comes; where nobody listens any more, the agent works on."""

    def __init__(self) -> None:
        self._open = {"stdout": sys.stdout.fileno(), "stderr": sys.stderr.fileno()}
        sys.stdout.flush()

    def take(self, stream: str, chunk: bytes | memoryview) -> None:
        descriptor = self._open.get(stream)
        if descriptor is None:
            return
        try:
            files.write_all(descriptor, chunk)
        except OSError:
            del self._open[stream]
