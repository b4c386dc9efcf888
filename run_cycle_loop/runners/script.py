"""A cycle that is a command: the cycle script, called as ``PATH MODE GOAL``, or whatever stands behind ``--``."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from run_cycle_loop.kit import process_table, processes
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.model.enums import Ending
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.model.findings import TreeVerdict
from run_cycle_loop.model.ports import InFlight, OutputLog, WorkTree
from run_cycle_loop.model.records import CycleSpec, RunResult
from run_cycle_loop.runners import control_file, sandbox
from run_cycle_loop.runners.watched import WatchedPulse


class ScriptRunner:
    """Implements the port ``Runner``."""

    def __init__(
        self,
        command: Sequence[str] | Path,
        *,
        environment: Callable[[CycleSpec], dict[str, str]],
        takes_goal: bool,
        resets: Path | None = None,
        tree: WorkTree | None = None,
        pulse: processes.Pulse | None = None,
    ) -> None:
        self._command = (os.fspath(command.absolute()),) if isinstance(command, Path) else tuple(command)
        self._takes_goal = takes_goal  #: whether mode and goal follow as two more arguments
        self._environment = environment
        self._resets = resets  #: the sandbox that is emptied before each cycle
        self._tree = tree  #: what the cycle works in, measured from outside
        self._pulse = pulse
        self._survivors: tuple[ProcessId, ...] = ()

    def preview(self, spec: CycleSpec) -> list[str]:
        """The argument vector: the command as it stands, or the cycle script with mode and goal."""
        return [*self._command, spec.mode, spec.goal] if self._takes_goal else [*self._command]

    def environment(self, spec: CycleSpec) -> dict[str, str]:
        """What a process of this cycle is started with."""
        return self._environment(spec)

    def run(self, spec: CycleSpec, log: OutputLog, flight: InFlight) -> RunResult:
        """Run the command to its end and to the end of everything it started.

        Raises:
            RunnerError: it could not be started, or processes of an earlier cycle cannot be ended.
        """
        self._refuse_company()
        if self._resets is not None:
            sandbox.reset(self._resets)
        if self._tree is None:
            return self._run(spec, log, flight, self._pulse)
        self._tree.mark(spec)
        watched = WatchedPulse(self._pulse, self._tree) if self._pulse else None
        try:
            result = self._run(spec, log, flight, watched)
        except BaseException:
            self._tree.settle(spec)
            raise
        if watched and watched.found and result.ending is Ending.INTERRUPT:
            log.note(f"write_cap: {watched.found}; the cycle was ended")
            result = replace(result, ending=Ending.GUARD)
        return replace(result, tree=self._settled(spec, log, self._tree))

    def _settled(self, spec: CycleSpec, log: OutputLog, tree: WorkTree) -> TreeVerdict:
        verdict = tree.settle(spec)
        if verdict.finding and not verdict.finding.ok:
            log.note(f"{verdict.finding.guard}: {verdict.finding.detail}")
        return verdict

    def _run(self, spec: CycleSpec, log: OutputLog, flight: InFlight, pulse: processes.Pulse | None) -> RunResult:
        try:
            control_file.prepare(spec.control_file)
            ended = processes.supervise(
                self.preview(spec),
                self.environment(spec),
                limits=processes.Limits(timeout=spec.timeout, idle_timeout=spec.idle_timeout, grace=spec.grace),
                output=log.write,
                pulse=pulse,
                launched=lambda child: flight.launched(child.pid, child.start_ticks, child.pipe_inodes),
            )
        except processes.LaunchError as error:
            raise RunnerError(str(error), exit_code=error.exit_code) from error
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            detail = f"{error.strerror or error}{where}"
            raise RunnerError(f"the cycle could not be started: {detail}; see the log") from error
        self._survivors = ended.survivors
        control, control_error = control_file.take(spec.control_file)
        return RunResult(
            ending=Ending(ended.ended_by.value),
            exit_code=ended.exit_code,
            signal=ended.signal,
            duration=ended.duration,
            stderr_tail=log.tail("stderr"),
            output_bytes=ended.output_bytes,
            leftovers=ended.leftovers,
            survivors=len(ended.survivors),
            control=control,
            control_error=control_error,
        )

    def _refuse_company(self) -> None:
        """Never start a second cycle beside the remains of one that could not be ended."""
        self._survivors = tuple(process for process in self._survivors if process_table.is_alive(process))
        if self._survivors:
            pids = ", ".join(str(process.pid) for process in self._survivors)
            raise RunnerError(f"processes of an earlier cycle cannot be ended (pid {pids}); see what they wait for")
