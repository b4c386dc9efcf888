"""What is known when a run is looked at: the moment, its attempts as Jobs, and why a next one cannot be made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from run_cycle_loop.agentrun.lifecycle.control import MISSING, Control


class JobState(StrEnum):
    """What a Job, or an attempt on this machine, is doing."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservedJob:
    """What was seen of one attempt."""

    state: JobState
    uid: str = ""
    started_at: str = ""  #: the Job's own times; empty where it has none
    finished_at: str = ""
    reason: str = ""  #: why it failed, in the Job's words
    message: str = ""
    is_retryable: bool = True  #: false where another attempt would meet the same: a login refused, a quota used up
    control: Control = MISSING  #: what it left for the loop's condition
    missing_config_maps: tuple[str, ...] = ()  #: what it mounts and is not there


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a step's next attempt cannot be made."""

    reason: str
    message: str
    condition: str = "Failed"  #: the type of the condition that says so


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What is known when a pass begins."""

    now: datetime
    jobs: Mapping[str, ObservedJob] = field(default_factory=dict)  #: by name; what is not here does not exist
    refusals: Mapping[int, Refusal] = field(default_factory=dict)  #: by a step's index
