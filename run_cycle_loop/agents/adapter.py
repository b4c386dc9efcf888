"""What every agent's module offers, and the words it is described in.

An adapter has two halves. ``invoke`` turns a request into an argument vector, and ``reader`` turns what the process
prints into a result. Neither starts a process: that is ``agents.session``'s. Facts about each command line, and what
of it must not be trusted, stand in the modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.sessions import Usage


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One session that is asked of an agent."""

    prompt: str
    workdir: Path  #: absolute; the agent's working directory
    scratch: Path  #: absolute, outside the workdir, for this session alone: prompt, result and settings files
    role: Role = Role.WRITE
    model: str | None = None  #: None: the agent's own default
    output_schema: Mapping[str, Any] | None = None  #: JSON Schema of the final answer
    session_id: str | None = None  #: of an earlier session to go on with
    isolated: bool = False  #: the whole process runs in a sandbox of ours, so that the agent needs none of its own
    max_usd: float | None = None  #: handed on where the agent knows such a limit; the session enforces it anyway
    extra_args: tuple[str, ...] = ()  #: the operator's own, last on the command line
    template: str = ""  #: for ``command``: its command line; for ``scripted``: the file to replay


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation:
    """What to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)  #: beside the caller's
    stdin: Path | None = None  #: a file that is fed and closed; None: closed
    writes: tuple[Path, ...] = ()  #: what the agent must be able to write beside its workdir: its own folders
    reads: tuple[Path, ...] = ()  #: what it must see wherever it stands, beside its program and files it is called with


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How the process ended, as far as a reader needs to know."""

    exit_code: int | None  #: None where a signal ended it
    signal: int | None
    stopped: AgentClass | None = None  #: why *we* ended it (``timeout interrupted budget``); None: it ended by itself
    stderr_tail: str = ""  #: at most 8 KiB
    at: datetime  #: aware; what reset times are counted from


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentResult:
    """What a session came to."""

    ended: AgentClass
    reason: str  #: one sentence
    text: str = ""  #: the agent's final answer
    payload: Mapping[str, Any] | None = None  #: the final answer as an object, where a schema was asked for
    usage: Usage | None = None  #: None: the agent told nothing
    session_id: str | None = None
    model: str | None = None  #: as the agent names it
    tool_calls: int = 0  #: all of them approved by nobody: what unattended means
    tool_failures: int = 0
    advice: str = ""  #: what a person is to do, where only a person can help
    retry_at: datetime | None = None  #: aware; by the far end's own word
    permanent: bool = False


class Reader(Protocol):
    """Reads one run as it goes; memory does not grow with the output."""

    def feed(self, stream: str, chunk: bytes | memoryview) -> None:
        """Take raw output of ``stdout`` or ``stderr``; never raises for what an agent prints."""
        ...

    @property
    def usage(self) -> Usage | None:
        """What was consumed so far, as far as the agent has told."""
        ...

    @property
    def is_final(self) -> bool:
        """Whether the event was seen after which nothing more is to be waited for."""
        ...

    def result(self, ended: Ended) -> AgentResult:
        """What the session came to; called once, at the end of the process."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What an agent's command line can do."""

    usage: str  #: how it tells what it consumed: ``tokens``, ``tokens and usd``, or ``none``
    schema: bool = False  #: takes a JSON Schema for its answer
    resume: bool = False  #: can go on with an earlier session
    read_only: bool = False  #: can be kept from writing by itself
    is_real: bool = True  #: a model decides what it does: it needs consent


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """Whether an agent is logged in, as far as can be told without asking anybody."""

    state: str  #: ``yes no unknown``
    detail: str  #: one sentence; never a secret


class Adapter(Protocol):
    """One agent's command line."""

    name: str
    command: str | None  #: the program looked for on PATH; None: built in
    capabilities: Capabilities

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:
        """What to start for a request; files it needs are written below ``request.scratch``.

        Raises:
            ConfigError: the request cannot be met by this agent.
            OSError: a file cannot be written.
        """
        ...

    def reader(self, request: Request) -> Reader:
        """A reader for one run."""
        ...

    def login(self, env: Mapping[str, str], home: Path) -> Login:
        """Whether it is logged in, from its files and variables alone; their content is never shown."""
        ...
