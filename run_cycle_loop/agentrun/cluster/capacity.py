"""Whether a controller would let one more run in: how many there are, against what its flags allow."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.looking.objects import Object, created_at, part, seconds_between, text, uid_of
from run_cycle_loop.agentrun.model import AgentRun, read_run, whole

_QUEUED = frozenset({"pending", "queued", "progressing", "inprogress"})
_NEARLY = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """How many there are; None where nobody could count."""

    running_agent: int
    running_namespace: int
    running_repository: int
    running_cluster: int | None
    queued_namespace: int
    queued_repository: int
    queued_cluster: int | None
    recent_namespace: int  #: made within the controller's rate window
    recent_cluster: int | None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def count(
    run: AgentRun, here: Sequence[Object], everywhere: Sequence[Object] | None, flags: ControllerFlags, now: datetime
) -> Capacity:
    """Count runs as the controller does.

    Args:
        run: The one that is to be submitted; it does not count itself.
        here: All runs of its namespace.
        everywhere: All of the cluster; None where they may not be listed.
        flags: For the length of the rate window.
        now: The moment.
    """
    here = [one for one in here if uid_of(one) != run.uid or not run.uid]
    repository = run.parameters.get("repository", "").lower()
    mine = [one for one in here if text(one, "spec", "parameters", "repository").lower() == repository and repository]

    def recent(items: Iterable[Object]) -> int:
        ages = (seconds_between(created_at(one), now) for one in items)
        return sum(age is not None and age <= flags.rate_window for age in ages)

    return Capacity(
        running_agent=_running(one for one in here if read_run(one).agent == run.agent),
        running_namespace=_running(here),
        running_repository=_running(mine),
        running_cluster=None if everywhere is None else _running(everywhere),
        queued_namespace=_queued(here),
        queued_repository=_queued(mine),
        queued_cluster=None if everywhere is None else _queued(everywhere),
        recent_namespace=recent(here),
        recent_cluster=None if everywhere is None else recent(everywhere),
    )


def capacity_findings(run: AgentRun, counted: Capacity, flags: ControllerFlags) -> tuple[Finding, ...]:
    """What is full. A run that has to wait for room is not woken when there is some, so this is said before."""
    limits = (
        ("ConcurrencyLimit", "running of this agent", counted.running_agent, flags.concurrency_agent),
        ("ConcurrencyLimit", "running of this repository", counted.running_repository, _of_repository(run, flags)),
        ("ConcurrencyLimit", "running in this namespace", counted.running_namespace, flags.concurrency_namespace),
        ("ConcurrencyLimit", "running in the cluster", counted.running_cluster, flags.concurrency_cluster),
        ("QueueLimit", "waiting in this namespace", counted.queued_namespace, flags.queue_namespace),
        ("QueueLimit", "waiting for this repository", counted.queued_repository, flags.queue_repository),
        ("QueueLimit", "waiting in the cluster", counted.queued_cluster, flags.queue_cluster),
        ("RateLimit", "made lately in this namespace", counted.recent_namespace, flags.rate_namespace),
        ("RateLimit", "made lately in the cluster", counted.recent_cluster, flags.rate_cluster),
    )
    return tuple(
        finding
        for reason, what, number, limit in limits
        if number is not None and limit > 0 and (finding := _finding(run, reason, what, number, limit, flags))
    )


def _finding(run: AgentRun, reason: str, what: str, number: int, limit: int, flags: ControllerFlags) -> Finding | None:
    by = "the controller's limit" if flags.known else "the controller's default, its own flags are not known"
    if number < limit:
        near = number >= limit * _NEARLY and reason != "RateLimit"
        told = f"{number} runs are {what}, and {limit} is {by}"
        return _said(run, Severity.NOTE, reason, told, "submit with care") if near else None
    severity = Severity.ERROR if flags.known and reason == "QueueLimit" else Severity.WARNING
    told = f"{number} runs are {what}, and {limit} is {by}: it would wait as Blocked, and nothing wakes it by itself"
    cures = {
        "ConcurrencyLimit": "wait until one ends; or submit, and watch with --nudge",
        "QueueLimit": "wait until the queue is shorter: one more only makes it longer",
        "RateLimit": f"wait for {flags.rate_window} s",
    }
    return _said(run, severity, reason, told, cures[reason])


def _said(run: AgentRun, severity: Severity, reason: str, message: str, cure: str) -> Finding:
    where = f"AgentRun/{run.name}"
    return Finding(
        severity=severity, source=Source.CONTROLLER, reason=reason, where=where, path="", message=message, cure=cure
    )


def _of_repository(run: AgentRun, flags: ControllerFlags) -> int:
    if not flags.repository_concurrency_enabled:
        return 0
    own = flags.repository_concurrency_overrides.get(run.parameters.get("repository", ""))
    return flags.repository_concurrency if own is None else whole(own)


def _running(items: Iterable[Object]) -> int:
    return sum(part(one, "status", "phase") == "Running" for one in items)


def _queued(items: Iterable[Object]) -> int:
    return sum(text(one, "status", "phase").lower() in _QUEUED for one in items)
