"""One session of an agent, from its launch to the last of its descendants: isolated, read as it goes, and ended early
where a limit or the operator wants it.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from run_cycle_loop.agents.adapter import Adapter, AgentResult, Ended, Invocation, Reader, Request
from run_cycle_loop.agents.isolation import Isolation
from run_cycle_loop.kit import beneath, processes
from run_cycle_loop.kit.processes import Demand, EndedBy, Exit, LaunchError, Pulse
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.sessions import Usage
from run_cycle_loop.policies.prices import Prices

Output = Callable[[str, bytes | memoryview], None]

_STDERR_TAIL = 8 << 10  #: bytes
_COUNT_EVERY = 0.2  #: seconds between two looks at what was consumed, which may be read from files
#: Of the loop's variables, what an agent is told. The rest names the loop's own files, and is none of its business.
_TOLD = frozenset(f"RUN_CYCLE_{name}" for name in ("ID", "NUMBER", "MODE", "GOAL", "CAP_WRITES"))
#: Between systemd and the loop alone.
_PRIVATE = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "MAINPID"}
    | {"STATE_DIRECTORY", "LOGS_DIRECTORY"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionLimits:
    """What a session may take; None is no limit. Times in seconds."""

    timeout: float | None = None
    idle_timeout: float | None = None  #: without any output
    grace: float = 5.0  #: between TERM and KILL; shorter than the supervisor's own, or nobody hears how it ended
    final_grace: float = 5.0  #: between the agent's final event and TERM
    max_usd: float | None = None
    max_tokens: int | None = None
    prices: Prices | None = None  #: of an agent that tells tokens and no cost


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What a session came to, and what was observed around it."""

    result: AgentResult
    duration: float = 0.0  #: seconds
    leftovers: int = 0  #: processes that outlived the agent and were ended by us
    survivors: int = 0  #: processes that could not be ended
    warnings: tuple[str, ...] = ()  #: one sentence each


def run_session(
    adapter: Adapter,
    request: Request,
    *,
    env: Mapping[str, str],
    isolation: Isolation,
    limits: SessionLimits,
    pulse: Pulse,
    output: Output,
    now: Callable[[], datetime],
) -> Session:
    """Run an agent to its end and to the end of everything it started.

    Args:
        adapter: the agent.
        request: what is asked of it; its scratch folder is there (:func:`scratch_folder`).
        env: the caller's environment; the agent gets :func:`agent_environment` of it.
        isolation: how it is kept to its workdir.
        limits: beyond them it is ended.
        pulse: what demands an end from outside.
        output: takes what the agent prints, as it comes; the chunk is valid during the call.
        now: the wall clock; reset times are counted from it.

    Raises:
        ConfigError: the request cannot be met by this agent, or not in this isolation.
        RunnerError: a file or folder for it cannot be written.
    """
    agent_env = agent_environment(env)
    request = replace(request, isolated=isolation.program is not None)
    if pulse.beat() is not Demand.NOTHING:
        return Session(result=AgentResult(ended=AgentClass.INTERRUPTED, reason="it was interrupted before it began"))
    try:
        invocation = adapter.invoke(request, agent_env)
        reader = adapter.reader(request)
        watch = _Watch(reader, limits, pulse, output)
        agent_env |= invocation.env
        argv = _command(request, invocation, agent_env, isolation)
        ended = processes.supervise(
            argv,
            agent_env,
            limits=processes.Limits(timeout=limits.timeout, idle_timeout=limits.idle_timeout, grace=limits.grace),
            output=watch.take,
            pulse=watch,
            stdin=invocation.stdin or os.devnull,
        )
    except LaunchError as error:
        return Session(result=_not_started(error))
    except OSError as error:
        where = error.filename or request.scratch
        raise RunnerError(f"{where} cannot be prepared for the agent: {error.strerror or error}; free it") from error
    if request.isolated:
        # The kernel ends what is in there with the first process; what was still about to die is no leftover.
        ended = replace(ended, leftovers=0)
    return _concluded(reader, watch, ended, limits, now())


def agent_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What an agent is started with: the caller's variables, without those by which it could speak for the loop."""
    return {
        name: value
        for name, value in env.items()
        if name not in _PRIVATE and (not name.startswith("RUN_CYCLE_") or name in _TOLD)
    }


def _command(request: Request, invocation: Invocation, env: Mapping[str, str], isolation: Isolation) -> tuple[str, ...]:
    """What is started in the end; the agent's program is looked for first, so that its absence is told as such.

    Raises:
        LaunchError: it is not there.
    """
    name, *rest = invocation.argv
    found = Path(processes.locate((name,), env))
    program = Path(os.path.realpath(request.workdir / found.parent)) / found.name
    if not program.exists():
        raise LaunchError(f"command {name[:120]!r} does not exist; name one that does", 127)
    return isolation.wrap(
        (os.fspath(program), *rest),
        workdir=request.workdir,
        role=request.role,
        writes=(request.scratch, *invocation.writes),
        reads=(*_named(program, rest), *invocation.reads),
    )


def _named(program: Path, arguments: Sequence[str]) -> tuple[Path, ...]:
    """What a command line names: the folders of its program, before and after links, and the files in its arguments."""
    files = (Path(argument) for argument in arguments if argument.startswith("/"))
    return (program.parent, Path(os.path.realpath(program)).parent, *(path for path in files if _is_file(path)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a prompt that begins with a slash is no path
        return False


class _Watch:
    """Implements ``kit.processes.Pulse`` around the caller's: what the agent tells can end it, too."""

    def __init__(self, reader: Reader, limits: SessionLimits, pulse: Pulse, output: Output) -> None:
        self.interrupted = False
        self.over = ""  #: which limit was passed, as a sentence
        self._reader = reader
        self._limits = limits
        self._pulse = pulse
        self._output = output
        self._final_at: float | None = None
        self._counted_at = -_COUNT_EVERY
        self._stderr = bytearray()

    def take(self, stream: str, chunk: memoryview) -> None:
        """What the agent printed: to be read, and to be passed on."""
        if stream == "stderr":
            self._stderr += chunk[-_STDERR_TAIL:]
            del self._stderr[:-_STDERR_TAIL]
        self._reader.feed(stream, chunk)
        self._output(stream, chunk)

    @property
    def stderr_tail(self) -> str:
        """The end of what was printed to standard error."""
        return self._stderr.decode(errors="replace")

    def fileno(self) -> int:
        """The caller's."""
        return self._pulse.fileno()

    def beat(self) -> Demand:
        """The operator comes first, then the agent's own end, then what it has consumed."""
        demand = self._pulse.beat()
        if demand is not Demand.NOTHING:
            self.interrupted = True
            return demand
        now = time.monotonic()
        if self._reader.is_final:
            self._final_at = now if self._final_at is None else self._final_at
            is_late = now - self._final_at >= self._limits.final_grace
            return Demand.TERMINATE if is_late else Demand.NOTHING
        self._final_at = None
        if not self.over and now - self._counted_at >= _COUNT_EVERY:
            self._counted_at = now
            self.over = _over(priced(self._reader.usage, self._limits.prices), self._limits)
        return Demand.TERMINATE if self.over else Demand.NOTHING


def _over(usage: Usage | None, limits: SessionLimits) -> str:
    """Which limit a usage has passed; empty within all."""
    if usage is None:
        return ""
    if limits.max_tokens is not None and usage.tokens > limits.max_tokens:
        return f"it was ended at {usage.tokens} tokens: {limits.max_tokens} were allowed"
    if limits.max_usd is not None and usage.cost_usd is not None and usage.cost_usd > limits.max_usd:
        return f"it was ended at {usage.cost_usd:.4g} USD: {limits.max_usd:g} were allowed"
    return ""


def priced(usage: Usage | None, prices: Prices | None) -> Usage | None:
    """A usage with its cost worked out, where the agent told none and prices are known."""
    if usage is None or usage.cost_usd is not None or prices is None:
        return usage
    source = ", ".join(filter(None, (usage.source, "cost by --prices")))
    return replace(usage, cost_usd=prices.cost(usage), source=source)


def _not_started(error: LaunchError) -> AgentResult:
    return AgentResult(
        ended=AgentClass.TOOL_ERROR,
        reason=f"the agent could not be started: {error}",
        advice="install the agent, or choose another one with --agent",
        usage=Usage(source="it was never started"),
        permanent=True,
    )


def _concluded(reader: Reader, watch: _Watch, ended: Exit, limits: SessionLimits, now: datetime) -> Session:
    stopped = _stopped(reader, watch, ended)
    # A finished result stands: how its process went after that was our doing.
    finished = stopped is None and ended.ended_by is not EndedBy.ITSELF
    result = reader.result(
        Ended(
            exit_code=0 if finished else ended.exit_code,
            signal=None if finished else ended.signal,
            stopped=stopped,
            stderr_tail=watch.stderr_tail,
            at=now,
        )
    )
    usage = priced(result.usage or reader.usage, limits.prices)
    if stopped is not None:
        usage = None if usage is None else replace(usage, complete=False)
        reason = watch.over if stopped is AgentClass.BUDGET else result.reason
        result = replace(result, ended=stopped, reason=reason, permanent=False, retry_at=None)
    return Session(
        result=replace(result, usage=usage),
        duration=ended.duration,
        leftovers=ended.leftovers,
        survivors=len(ended.survivors),
        warnings=tuple(_warnings(usage, ended, limits)),
    )


def _stopped(reader: Reader, watch: _Watch, ended: Exit) -> AgentClass | None:
    """Why *we* ended it; None where it ended by itself, or was done before we did."""
    # Whoever ends us ends our tree as well, so that the agent may be gone before we have looked.
    watch.beat()
    if reader.is_final:
        return None
    if watch.interrupted:
        return AgentClass.INTERRUPTED
    if ended.ended_by in {EndedBy.DEADLINE, EndedBy.SILENCE}:
        return AgentClass.TIMEOUT
    return AgentClass.BUDGET if ended.ended_by is EndedBy.DEMAND else None


def _warnings(usage: Usage | None, ended: Exit, limits: SessionLimits) -> Iterator[str]:
    if limits.max_usd is not None and usage is not None and usage.tokens and usage.cost_usd is None:
        yield f"the limit of {limits.max_usd:g} USD could not be kept, since the agent tells no cost: set --prices"
    if limits.max_tokens is not None and usage is None:
        yield f"the limit of {limits.max_tokens} tokens could not be kept, since the agent tells none"
    if ended.leftovers:
        yield f"the agent left {ended.leftovers} processes behind, which were ended"
    if ended.survivors:
        pids = ", ".join(str(process.pid) for process in ended.survivors)
        yield f"processes of the agent cannot be ended (pid {pids}): see what they wait for"


@contextlib.contextmanager
def scratch_folder(workdir: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """A folder for one session, for this user alone and outside of the workdir; it is gone afterwards.

    Raises:
        RunnerError: there is no place for it.
    """
    inside = Path(os.path.realpath(workdir))
    places = (tempfile.gettempdir(), "/var/tmp", env.get("XDG_RUNTIME_DIR"), env.get("HOME"))  # noqa: S108 - one of ours in it
    candidates = [Path(os.path.realpath(place)) for place in places if place]
    place = next((path for path in candidates if path.is_dir() and not path.is_relative_to(inside)), None)
    if place is None:
        raise RunnerError(f"there is no temporary folder outside of the workdir {workdir}: set TMPDIR to one")
    try:
        folder = Path(tempfile.mkdtemp(prefix="run-cycle-agent-", dir=place))
    except OSError as error:
        raise RunnerError(f"no folder can be made in {place}: {error.strerror}; free it, or set TMPDIR") from error
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder of ours, however deep and however locked what the agent has made there; nobody is left in it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, beneath.FOLDER)
        try:
            beneath.empty(descriptor)
        finally:
            os.close(descriptor)
        folder.rmdir()
