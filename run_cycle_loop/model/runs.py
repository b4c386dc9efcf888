"""What is kept of runs that outlive the process that drives them: the run, its attempts, its events.

Times are ISO 8601 texts in UTC, as the runs' own status documents have them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class RunKind(StrEnum):
    """What sort of thing a run is; names and keys are unique within one kind."""

    AGENTRUN = "agentrun"
    WORKFLOW = "workflow"
    PRD = "prd"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessMark:
    """A process by pid, start time and boot, which together never name a stranger."""

    pid: int
    start_ticks: int  #: kernel clock ticks after boot
    boot_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One run. ``version`` grows with every change; who wants to change it names the version that he knows."""

    kind: RunKind = RunKind.AGENTRUN
    namespace: str
    name: str  #: unique within kind and namespace, for ever
    uid: str  #: of this run alone
    manifest: Mapping[str, Any]
    documents: tuple[Mapping[str, Any], ...] = ()  #: what came with the manifest; never a secret value
    profile: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  #: JSON: what else it was started with
    idempotency_key: str = ""  #: unique within kind and namespace; empty for none
    phase: str = ""
    is_final: bool = False
    status: Mapping[str, Any] = field(default_factory=dict)
    owner: ProcessMark | None = None  #: who drives it, or drove it last
    cancel_reason: str = ""  #: why it is to be cancelled; empty while nobody asked
    created_at: str = ""
    updated_at: str = ""
    version: int = 0  #: 0: not yet stored


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRecord:
    """One attempt of a run: a row before its process exists, so that a crash leaves none that is not named."""

    name: str  #: unique within the run
    step: int  #: 1-based; 0 where the run has no steps
    iteration: int | None  #: None outside of loops
    attempt: int
    folder: str
    launches: int = 1  #: how often it was begun; more than once where its process was lost
    process: ProcessMark | None = None  #: None: not yet begun, or nobody could write it down
    started_at: str = ""
    finished_at: str = ""  #: empty while it is not known to be over
    exit_code: int | None = None  #: 128+n for signal n; None where nobody saw it
    reason: str = ""  #: a word for why it failed
    message: str = ""  #: one sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvent:
    """Something that happened to a run."""

    at: str
    kind: str  #: a dotted word, ``attempt.started``
    facts: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0  #: from 1 within the run; 0: not yet stored
