"""The adapter ``codex-app-server``: a session of a coding agent of this machine, through the house's own adapters."""

import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.local import mounts as places
from run_cycle_loop.agents import isolation, registry, session_report
from run_cycle_loop.agents.adapter import Adapter, Invocation, Login, Reader, Request
from run_cycle_loop.agents.session import Session, SessionLimits, run_session, scratch_folder
from run_cycle_loop.kit import files
from run_cycle_loop.kit.processes import Pulse
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.policies.prices import parse_prices
from run_cycle_loop.start_attempt import outcome, permission, system_prompt, view
from run_cycle_loop.start_attempt.filling import fill, names_environment
from run_cycle_loop.start_attempt.outcome import Outcome
from run_cycle_loop.start_attempt.spec import Spec
from run_cycle_loop.stores.cycle_logs import CycleLogFile

#: Facts about the run that an agent is told beside what the loop tells it.
TOLD = ("ITERATION", "MAX_ITERATIONS", "CONTROL_FILE", "STEP", "ATTEMPT")


def run(spec: Spec, environ: Mapping[str, str], log: CycleLogFile, pulse: Pulse, *, grace: float) -> Outcome:
    """Hold the session to its end.

    Raises:
        ConfigError: the spec cannot be carried out: no prompt, the wrong system prompt, an unknown agent.
        RunnerError: the session could not be prepared.
    """
    _check_approval(spec)
    system = system_prompt.load(spec, environ)
    prompt = _prompt(spec, log)
    name = environ.get("RUN_CYCLE_AGENT") or "codex"
    found = registry.find(name)
    if warning := permission.require(name, environ, is_real=found.capabilities.is_real):
        log.note(warning)
    adapter = _Informed(
        found,
        {f"RUN_CYCLE_{key}": environ[f"RUN_CYCLE_{key}"] for key in TOLD if f"RUN_CYCLE_{key}" in environ},
    )
    folder = _text(spec.settings.get("cwd")) or places.WORKSPACE
    workdir = _workdir(spec.here(folder))
    isolated = _isolation(spec, environ, folder)
    if repository := _text(spec.run.get("repository")):
        log.note(f"the repository {repository} is not fetched here: the agent works in {folder} as it finds it")
    with scratch_folder(workdir, environ) as scratch:
        request = Request(
            prompt=_with_system(system, prompt),
            workdir=workdir,
            scratch=scratch,
            model=_model(spec, environ, name),
            max_usd=_number(environ, "ALLOWED_USD"),
            extra_args=_words(environ),
            template=_template(environ, name),
        )
        held = run_session(
            adapter,
            request,
            env=view.workload_environment(environ),
            isolation=isolated,
            limits=_limits(environ, grace),
            pulse=pulse,
            output=log.write,
            now=lambda: datetime.now(UTC),
        )
    return _outcome(held, name, spec, folder, log)


def _words(environ: Mapping[str, str]) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(environ.get("RUN_CYCLE_AGENT_ARGS", "")))
    except ValueError as error:
        raise ConfigError(f"RUN_CYCLE_AGENT_ARGS is no list of arguments: {error}; quote it as for a shell") from None


def _check_approval(spec: Spec) -> None:
    approval = _text(spec.settings.get("approval")) or "never"
    if approval != "never":
        raise ConfigError(f"adapter.codex.approval {approval!r} waits for a person; set it to never")


def _prompt(spec: Spec, log: CycleLogFile) -> str:
    """What the agent is asked: the adapter's own prompt, or run.json's where controllers write it there alone."""
    written = _text(spec.settings.get("prompt")) or _text(spec.run.get("prompt"))
    if names_environment(written):
        log.note("the prompt names {{env...}}, which is not filled in here: it stays as it is")
    prompt = fill(written, spec.context)
    if not prompt.strip():
        raise ConfigError("adapter.codex.prompt is required and is blank; give the ImplementationSpec a text")
    return prompt


def _with_system(system: str | None, prompt: str) -> str:
    """No command line takes a system prompt in a file alike, so that it stands before the prompt, under a heading."""
    if system is None:
        return prompt
    return f"# System prompt\n\n{system.rstrip()}\n\n# Task\n\n{prompt}"


def _workdir(path: str) -> Path:
    try:
        files.make_folder(Path(path))
    except OSError as error:
        raise ConfigError(
            f"the working directory {path} cannot be made: {error.strerror or error}; mount a volume there"
        ) from error
    return Path(os.path.realpath(path))


def _isolation(spec: Spec, environ: Mapping[str, str], folder: str) -> isolation.Isolation:
    program = environ.get(view.BUBBLEWRAP)
    if not program:
        return isolation.choose("none", environ, hidden=())
    hidden = environ.get(view.HIDDEN)
    plain = isolation.Isolation(
        wanted="auto",
        program=program,
        detail="the agent is isolated with bubblewrap: it can write to its mounts and to its own folders alone",
        hidden=(Path(hidden),) if hidden else (),
    )
    return view.ContainerView.around(plain, spec.mounts, folder)


def _model(spec: Spec, environ: Mapping[str, str], agent: str) -> str | None:
    """The operator's, else the provider's where its agent is the one that runs."""
    return environ.get("RUN_CYCLE_MODEL") or (_text(spec.settings.get("model")) if agent == "codex" else "") or None


def _template(environ: Mapping[str, str], agent: str) -> str:
    return environ.get("RUN_CYCLE_AGENT_SCRIPT" if agent == "scripted" else "RUN_CYCLE_AGENT_COMMAND", "")


def _limits(environ: Mapping[str, str], grace: float) -> SessionLimits:
    tokens = _number(environ, "ALLOWED_TOKENS")
    prices = environ.get("RUN_CYCLE_PRICES")
    try:
        known = parse_prices(prices) if prices else None
    except ValueError as error:
        raise ConfigError(f"RUN_CYCLE_PRICES {prices!r:.80} {error}; write input=1.25,output=10") from error
    return SessionLimits(
        grace=grace,
        final_grace=grace,
        max_usd=_number(environ, "ALLOWED_USD"),
        max_tokens=None if tokens is None else int(tokens),
        prices=known,
    )


def _number(environ: Mapping[str, str], name: str) -> float | None:
    text = environ.get(f"RUN_CYCLE_{name}", "")
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"RUN_CYCLE_{name} {text!r:.40} is no amount from 0 up; mend it, or leave it out")
    return value


def _outcome(held: Session, agent: str, spec: Spec, folder: str, log: CycleLogFile) -> Outcome:
    result = held.result
    for warning in held.warnings:
        log.note(warning)
    for line in (f"{agent}: {result.ended}: {result.reason}", f"To do: {result.advice}" if result.advice else ""):
        if line:
            log.note(line)
    facts: dict[str, Any] = {"agent": agent, "model": result.model, "threadId": result.session_id, "cwd": folder}
    facts |= {"effort": _text(spec.settings.get("effort")) or None, "turnStatus": str(result.ended)}
    facts |= {"advice": result.advice or None, "retryAt": timestamp(result.retry_at) if result.retry_at else None}
    facts |= {"usage": result.usage.as_dict() if result.usage else None}
    facts |= {"summary": session_report.summary(result.text) if result.text.strip() else None}
    facts = {name: value for name, value in facts.items() if value is not None}
    if result.ended is AgentClass.INTERRUPTED:
        return outcome.cancelled(result.reason, **facts)
    code = session_report.EXIT_CODES[result.ended]
    return outcome.ended(code, result.reason if code else "", **facts)


class _Informed:
    """An adapter whose agent is told more by its environment."""

    def __init__(self, adapter: Adapter, told: Mapping[str, str]) -> None:
        self.name = adapter.name
        self.command = adapter.command
        self.capabilities = adapter.capabilities
        self._adapter = adapter
        self._told = told

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        made = self._adapter.invoke(request, {**env, **self._told})
        return replace(made, env={**self._told, **made.env})

    def reader(self, request: Request) -> Reader:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return self._adapter.reader(request)

    def login(self, env: Mapping[str, str], home: Path) -> Login:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return self._adapter.login(env, home)


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
