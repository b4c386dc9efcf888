"""What the engine needs from outside, and what it tells of a run."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.lifecycle.status import RunStatus
from run_cycle_loop.model.enums import Urgency
from run_cycle_loop.model.ports import Clock, RunStore, StopToken


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptPlan:
    """An attempt that is about to be started."""

    name: str
    folder: Path
    spec: Path  #: ``agent-runner.json``
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Transition:
    """Something that happened to a run, as it is stored and as it is told."""

    at: datetime
    kind: str  #: a dotted word: ``run.started``, ``attempt.finished``, ``warning``
    facts: Mapping[str, Any]
    status: RunStatus


def _silent(_transition: Transition) -> None:
    """Nobody listens."""


def _new_uid() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where a run is carried out.

    ``launch`` gives the command line of an attempt's runner: ``python -m run_cycle_loop.start_attempt SPEC``. The
    caller's ``environ`` is handed on to attempts, but for what is between systemd and the caller.
    """

    store: RunStore
    state: Path  #: the state directory
    launch: Callable[[AttemptPlan], Sequence[str]]
    clock: Clock
    stop: StopToken
    environ: Mapping[str, str]
    report: Callable[[Transition], None] = _silent
    new_uid: Callable[[], str] = _new_uid
    grace: float = 10.0  #: seconds between TERM and KILL
    isolate: str = "auto"  #: ``auto``: the container's paths are made true where bubblewrap works; ``none``; ``bwrap``
    secret_folders: Mapping[str, Path] = field(default_factory=dict)  #: files by key, by the Secret's name
    heeds: Urgency = Urgency.AFTER_CYCLE  #: how urgent a stop must be to end the run


def in_utc(moment: datetime) -> datetime:
    """The same moment, in UTC."""
    return moment.astimezone(UTC)
