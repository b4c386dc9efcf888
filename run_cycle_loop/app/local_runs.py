"""The AgentRuns of this machine, as the commands see them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from run_cycle_loop.agentrun.cluster.cancel import Cancellation, CancelResult
from run_cycle_loop.agentrun.flags import LOCAL
from run_cycle_loop.agentrun.lifecycle.status import Phase, RunStatus
from run_cycle_loop.agentrun.local import view
from run_cycle_loop.agentrun.local.machine import Machine, Transition
from run_cycle_loop.agentrun.local.printed import printed
from run_cycle_loop.agentrun.local.runs import is_driven, known_run, request_cancel, resume, run_locally
from run_cycle_loop.agentrun.looking.attempts import Attempt
from run_cycle_loop.agentrun.looking.outcomes import Result
from run_cycle_loop.agentrun.looking.output import Choice, Piece
from run_cycle_loop.agentrun.looking.progress import Progress, ended
from run_cycle_loop.agentrun.looking.rows import RunRow
from run_cycle_loop.agentrun.looking.verify import Verification, judge
from run_cycle_loop.agentrun.model import AgentRun
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.app.cycle import CycleStops
from run_cycle_loop.app.launching import launch
from run_cycle_loop.app.plan import TOLD, TOLD_TOO, told_by_variables
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.decisions import StopRequest
from run_cycle_loop.model.enums import StopReason, Urgency
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.ports import Waited
from run_cycle_loop.model.runs import RunKind, RunRecord
from run_cycle_loop.stores.runs import FILE_NAME, SqliteRunStore

Report = Callable[[Transition], None]
_PAUSE = 0.5  #: seconds between two looks at the run store
_TICK = 10.0  #: seconds after which progress is told again, though only the time has passed


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalRuns:
    """What can be done with runs here."""

    settings: Settings
    stops: CycleStops
    clock: SystemClock
    store: SqliteRunStore

    @classmethod
    def of(cls, settings: Settings, stops: CycleStops, *, is_to_write: bool = False) -> Self:
        """The runs below the state directory.

        Raises:
            ConfigError: nothing has run there yet, and nothing is going to.
            StateError: the run store cannot be opened.
        """
        path = settings.state_dir / FILE_NAME
        if not is_to_write and not os.path.lexists(path):
            raise ConfigError(
                f"nothing has run on this machine yet: {path} does not exist; for runs of a cluster add --where cluster"
            )
        return cls(settings=settings, stops=stops, clock=SystemClock(), store=SqliteRunStore(path, _warn))

    @property
    def where(self) -> str:
        """For people."""
        return "on this machine"

    @property
    def namespace(self) -> str:
        """Where runs are looked for."""
        return self.settings.namespace or "agents"

    def in_namespace_of(self, namespace: str) -> "LocalRuns":
        """The same for runs of another namespace."""
        return replace(self, settings=replace(self.settings, namespace=namespace))

    def run(
        self, run: AgentRun, resources: Resources, *, secret_folders: Mapping[str, Path], report: Report
    ) -> RunStatus:
        """Carry a run out; one that is there already and not over is gone on with."""
        machine = self._machine(report, secret_folders)
        known = self.store.find(RunKind.AGENTRUN, run.namespace, name=run.name)
        if known is not None and not known.is_final and known.manifest.get("spec") == run.body.get("spec"):
            return resume(run.namespace, run.name, flags=LOCAL, machine=machine)
        return run_locally(
            run,
            resources,
            profile=Profile(self.settings.profile),
            flags=LOCAL,
            strict_cluster=self.settings.strict_cluster,
            machine=machine,
        )

    def resume(self, name: str, *, secret_folders: Mapping[str, Path], report: Report) -> RunStatus:
        """Go on with a run whose engine is gone."""
        return resume(self.namespace, name, flags=LOCAL, machine=self._machine(report, secret_folders))

    def look(self, name: str) -> Progress:
        """How far a run is."""
        return self._seen(known_run(self._machine(), self.namespace, name))

    def watch(self, name: str, *, timeout: float | None, nudge: bool) -> Iterator[Progress]:
        """How far it is, whenever that has changed; the last one has a result."""
        del nudge  # an engine here has its own clock
        until = None if timeout is None else self.clock.monotonic() + timeout
        version, told_at = -1, 0.0
        while True:
            record = known_run(self._machine(), self.namespace, name)
            now = self.clock.monotonic()
            if record.version != version or now - told_at >= _TICK:
                version, told_at = record.version, now
                yield self._seen(record)
            if record.is_final:
                return
            late = until is not None and now >= until
            if late or self.stops.wait(_PAUSE):
                yield ended(self._seen(record), Result.TIMED_OUT if late else Result.STOPPED)
                return

    def rows(self, *, everywhere: bool) -> tuple[RunRow, ...]:
        """All runs, the newest first."""
        now = self.clock.now()
        return tuple(
            view.row(record, now, is_driven=self._is_driven(record))
            for record in self.store.runs(RunKind.AGENTRUN)
            if everywhere or record.namespace == self.namespace
        )

    def logs(self, name: str, choice: Choice, *, follow: bool, every: bool, tail: int | None) -> Iterator[Piece]:
        """What the attempts print."""
        machine = self._machine()

        def rows() -> tuple[Sequence[Attempt], bool]:
            record = known_run(machine, self.namespace, name)
            return self._seen(record).attempts, record.is_final

        return printed(rows, choice, follow=follow, every=every, tail=tail, wait=self.stops.wait)

    def verify(self, name: str, *, ask_pods: bool) -> Verification:
        """Whether each attempt had the system prompt that was meant."""
        del ask_pods  # the files are here
        record = known_run(self._machine(), self.namespace, name)
        return judge(view.evidence(record, self.store.attempts(record)))

    def cancel(self, name: str, *, message: str, delete: bool, drop_finalizer: bool) -> Cancellation:
        """End a run so that it stays ended."""
        if delete or drop_finalizer:
            raise ConfigError("runs of this machine are kept: leave out --delete")
        machine = self._machine()
        before = known_run(machine, self.namespace, name)
        if before.is_final:
            return _cancellation(before, CancelResult.ALREADY_FINAL, f"it is {before.phase} already; nothing was done")
        record = request_cancel(self.namespace, name, message, flags=LOCAL, machine=machine)
        while not record.is_final and not self.stops.wait(_PAUSE):
            record = known_run(machine, self.namespace, name)
        if not record.is_final:
            told = "it is asked to end; its engine has not done so yet"
            return replace(_cancellation(before, CancelResult.CANCELLED, told), is_settled=False)
        if record.phase != Phase.CANCELLED:
            told = f"it was {record.phase} before it could be cancelled"
            return _cancellation(record, CancelResult.ALREADY_FINAL, told)
        return _cancellation(before, CancelResult.CANCELLED, f"it is {record.phase}")

    def _seen(self, record: RunRecord) -> Progress:
        return view.seen(record, self.store.attempts(record), self.clock.now(), is_driven=self._is_driven(record))

    def _is_driven(self, record: RunRecord) -> bool:
        return record.is_final or is_driven(self._machine(), record.namespace, record.name)

    def _machine(self, report: Report | None = None, secret_folders: Mapping[str, Path] | None = None) -> Machine:
        settings = self.settings
        told = told_by_variables(settings, *TOLD, *TOLD_TOO, "state_dir")
        agent = {} if settings.agent == "auto" else {"AGENT": settings.agent}
        variables = {f"RUN_CYCLE_{name}": value for name, value in {**told, **agent}.items()}
        return Machine(
            store=self.store,
            state=settings.state_dir.absolute(),
            launch=launch,
            clock=self.clock,
            stop=_Stop(self.stops),
            environ={**os.environ, **variables},
            grace=settings.grace,
            isolate=settings.isolate,
            secret_folders=secret_folders or {},
            report=report or _nobody,
        )


class _Stop:
    """Implements the port ``StopToken`` over the signals of a command."""

    def __init__(self, stops: CycleStops) -> None:
        self._stops = stops

    def requested(self) -> StopRequest | None:
        """A signal ends the run."""
        if not self._stops.wait(0):
            return None
        return StopRequest(reason=StopReason.SIGNAL, urgency=Urgency.NOW, detail="stopped by a signal")

    def wait(self, seconds: float) -> Waited:
        """Wait until the time is up, or a signal comes."""
        return Waited.STOP if self._stops.wait(seconds) else Waited.ELAPSED

    def reload_requested(self) -> bool:
        """There is nothing to reload."""
        return False


def _nobody(_happened: Transition) -> None:
    """Nobody listens."""


def _warn(sentence: str) -> None:
    import click  # noqa: PLC0415 - only for a damaged store

    click.echo(f"run-cycle-loop: warning: {sentence}", err=True)


def _cancellation(record: RunRecord, result: CancelResult, message: str) -> Cancellation:
    return Cancellation(
        name=record.name, namespace=record.namespace, result=result, phase=record.phase, message=message
    )
