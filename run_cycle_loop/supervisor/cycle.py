"""One cycle, a straight line: what is asked -> what was checked -> what was observed -> what it means."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from run_cycle_loop.model.enums import GuardMode, LoopState, Outcome, Urgency
from run_cycle_loop.model.errors import RunnerError, StateError
from run_cycle_loop.model.findings import GuardFinding
from run_cycle_loop.model.ports import Clock, CycleLog, InFlight, StopToken
from run_cycle_loop.model.records import (
    ArtifactVerdict,
    CheckResult,
    CycleRecord,
    CycleSpec,
    PrerequisiteReport,
    RunningCycle,
    RunResult,
    timestamp,
)
from run_cycle_loop.policies.classification import Verdict, judge_error, judge_run, judge_skipped
from run_cycle_loop.supervisor.board import Board
from run_cycle_loop.supervisor.plan import Plan

_WARNINGS = 20  #: of a session; what is said more often than that says nothing

#: Characters; what a cycle says of itself may be a megabyte, and stands in latest.json too.
_LONGEST_SENTENCE = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """Everything that is known of a cycle once it is over."""

    report: PrerequisiteReport
    verdict: Verdict
    result: RunResult | None = None
    artifact: ArtifactVerdict | None = None
    log_error: str | None = None  #: why the log is missing or incomplete


class CycleRun:
    """Carries one cycle from its checks to its verdict."""

    def __init__(
        self,
        spec: CycleSpec,
        plan: Plan,
        *,
        log: CycleLog,
        flight: InFlight,
        board: Board,
        stop: StopToken,
        clock: Clock,
        goal_check: CheckResult | None,
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._log = log
        self._flight = flight
        self._board = board
        self._stop = stop
        self._clock = clock
        self._goal_check = goal_check  #: what became of reading the goal; None where it could be read

    def carry_out(self) -> Observed:
        """The whole line; never raises for what the cycle does."""
        report = self._check()
        if interrupted := self._interrupted():
            # First: a check that was cut short by the operator has not found anything wrong.
            return Observed(report=report, verdict=interrupted)
        if not report.ok:
            return Observed(report=report, verdict=judge_skipped(report))
        return self._launch(report)

    def _interrupted(self) -> Verdict | None:
        """The verdict where the operator does not want it launched any more."""
        request = self._stop.requested()
        if request is None or request.urgency < Urgency.NOW:
            return None
        return Verdict(outcome=Outcome.INTERRUPTED, reason=f"{request.detail} before it was launched")

    def _check(self) -> PrerequisiteReport:
        checks = [self._goal_check] if self._goal_check else []
        checks += [check.check(self._spec, self._log) for check in self._plan.prerequisites]
        for check in checks:
            word = (
                "ok" if check.ok else "FAILED" if check.required else "warning" if check.guard else "missing (optional)"
            )
            self._log.note(f"check {check.name}: {word}, {check.detail}")
        return PrerequisiteReport(checks=tuple(checks))

    def _launch(self, report: PrerequisiteReport) -> Observed:
        self._log.note(f"command {self._plan.runner.preview(self._spec)}")
        artifacts = self._plan.artifacts
        mark = artifacts.mark() if artifacts else None
        began = self._clock.now()
        try:
            result = self._plan.runner.run(self._spec, self._log, self._flight)
        except RunnerError as error:
            return Observed(report=report, verdict=self._interrupted() or judge_error(error))
        artifact = None
        if artifacts:
            artifact = artifacts.verify(mark, started_at=began, finished_at=self._clock.now())
        return Observed(
            report=report, verdict=judge_run(self._spec, result, artifact), result=result, artifact=artifact
        )


class ShownFlight:
    """An in-flight slot whose launch also shows on the board."""

    def __init__(self, flight: InFlight, board: Board, cycle: RunningCycle) -> None:
        self._flight = flight
        self._board = board
        self._cycle = cycle

    def begin(self, cycle: RunningCycle) -> None:
        """Pass on."""
        self._flight.begin(cycle)

    def read(self) -> RunningCycle | None:
        """Pass on."""
        return self._flight.read()

    def launched(self, leader_pid: int, leader_start_ticks: int | None, output_inodes: tuple[int, ...]) -> None:
        """Pass on, and show the cycle as running (or as the one that the loop still finishes)."""
        self._flight.launched(leader_pid, leader_start_ticks, output_inodes)
        stopping = self._board.snapshot.state is LoopState.STOPPING
        self._board.enter(
            LoopState.STOPPING if stopping else LoopState.RUNNING,
            cycle=replace(
                self._cycle,
                leader_pid=leader_pid,
                leader_start_ticks=leader_start_ticks,
                output_inodes=output_inodes,
            ),
        )


def unbegun_record(spec: CycleSpec, error: StateError, *, at: datetime) -> CycleRecord:
    """What the guards are told of a cycle whose beginning could not be noted; it stands in no history."""
    verdict = Verdict(outcome=Outcome.SKIPPED, reason=str(error))
    return draft_record(spec, Observed(report=PrerequisiteReport(), verdict=verdict), finished_at=at, duration=0.0)


def draft_record(spec: CycleSpec, observed: Observed, *, finished_at: datetime, duration: float) -> CycleRecord:
    """What is kept of a cycle, before the streak and the decision are known."""
    result, artifact = observed.result, observed.artifact
    control = result.control if result else None
    usage = control.get("usage") if control else None
    agent = observed.verdict.report
    limited = observed.verdict.outcome is Outcome.RATE_LIMITED
    tree = result.tree if result else None
    reason = observed.verdict.reason
    if result and result.control_error:
        reason = f"{reason}; {result.control_error}"
    return CycleRecord(
        timestamp=timestamp(finished_at),
        mode=spec.mode,
        goal=spec.goal,
        status=observed.verdict.outcome,
        prerequisites_ok=observed.report.ok,
        return_code=observed.verdict.return_code,
        duration_seconds=round(max(0.0, duration), 6),
        archive_created=artifact.fresh if artifact else None,
        archive_path=str(artifact.path) if artifact and artifact.path else None,
        log_path=spec.log_path,
        log_error=observed.log_error,
        cycle_id=spec.cycle_id,
        number=spec.number,
        started_at=timestamp(spec.started_at),
        finished_at=timestamp(finished_at),
        reason=reason,
        signal=result.signal if result else None,
        failed_checks=tuple(f"{check.name}: {check.detail}" for check in observed.report.failures),
        stderr_tail=result.stderr_tail if result else "",
        output_bytes=result.output_bytes if result else 0,
        leftovers=result.leftovers if result else 0,
        usage=usage if isinstance(usage, dict) else None,
        control=control,
        goal_origin=spec.goal_origin or None,
        agent=spec.agent,
        agent_class=agent.ended if agent else None,
        advice=agent.advice or None if agent else None,
        retry_at=timestamp(agent.retry_at) if agent and agent.retry_at and limited else None,
        permanent=agent.permanent if agent else False,
        guards=tuple(finding.as_dict() for finding in _findings(observed)),
        files_changed=tree.files if tree else None,
        bytes_changed=tree.bytes if tree else None,
        fingerprint=tree.fingerprint if tree else None,
        quarantine=str(tree.quarantine) if tree and tree.quarantine else None,
    )


def _findings(observed: Observed) -> Iterator[GuardFinding]:
    """What the guards around a cycle had to say: the checks among the prerequisites, the caps, the isolation."""
    for check in observed.report.checks:
        if check.guard and not check.ok:
            mode = GuardMode.ENFORCE if check.required else GuardMode.WARN
            yield GuardFinding(guard=check.guard, mode=mode, ok=False, detail=check.detail)
    result = observed.result
    if result and result.tree and result.tree.finding:
        yield result.tree.finding
    told = (result.control or {}).get("warnings") if result else None
    warnings = told if isinstance(told, list) else []
    for warning in warnings[:_WARNINGS]:
        yield _session_finding(str(warning))
    if len(warnings) > _WARNINGS:
        yield _session_finding(f"and {len(warnings) - _WARNINGS} warnings more, which stand in its control payload")


def _session_finding(detail: str) -> GuardFinding:
    return GuardFinding(guard="session", mode=GuardMode.WARN, ok=False, detail=detail)


def redacted(record: CycleRecord, redact: Callable[[str], str], redact_value: Callable[[Any], Any]) -> CycleRecord:
    """The record without secrets, and with sentences of a bounded length."""

    def sentence(text: str) -> str:
        return redact(text)[:_LONGEST_SENTENCE]  # in this order: no half of a secret is left at the cut

    guards = redact_value(record.guards)
    return replace(
        record,
        goal=redact(record.goal),
        mode=redact(record.mode),
        reason=sentence(record.reason),
        stderr_tail=redact(record.stderr_tail),
        failed_checks=tuple(map(redact, record.failed_checks)),
        advice=None if record.advice is None else sentence(record.advice),
        usage=redact_value(record.usage),
        control=redact_value(record.control),
        guards=tuple(finding | {"detail": sentence(str(finding["detail"]))} for finding in guards),
        goal_origin=redact_value(record.goal_origin),
    )
