"""The operator's own check script, in a child as bounded and as contained as a cycle."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from run_cycle_loop.kit import processes
from run_cycle_loop.model.ports import OutputLog
from run_cycle_loop.model.records import CheckResult, CycleSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptCheck:
    """Holds where the script ends by itself with exit code 0; its output goes to the cycle's log."""

    path: Path
    timeout: float  #: seconds
    grace: float  #: seconds between TERM and KILL
    environment: Callable[[CycleSpec], Mapping[str, str]]
    pulse: processes.Pulse | None

    def check(self, spec: CycleSpec, log: OutputLog) -> CheckResult:
        """Run the script to its end, or end it."""
        name = f"script {self.path}"
        try:
            ended = processes.supervise(
                self.argv(),
                self.environment(spec),
                limits=processes.Limits(timeout=self.timeout, grace=self.grace),
                output=log.write,
                pulse=self.pulse,
            )
        except (processes.LaunchError, OSError) as error:
            return CheckResult(name=name, ok=False, detail=str(error))
        detail = self._fault(ended)
        if detail is None:
            return CheckResult(name=name, ok=True, detail="exit code 0")
        last_words = (log.tail("stderr") or log.tail("stdout")).strip().rpartition("\n")[2]
        return CheckResult(name=name, ok=False, detail=f"{detail}: {last_words}" if last_words else detail)

    def argv(self) -> list[str]:
        """The script by itself where it is executable, else with this interpreter where it is Python."""
        path = os.fspath(self.path.absolute())
        if path.endswith(".py") and not os.access(path, os.X_OK):
            return [sys.executable, path]
        return [path]

    def _fault(self, ended: processes.Exit) -> str | None:
        if ended.survivors:
            return "left processes that could not be ended"
        if ended.ended_by is processes.EndedBy.DEADLINE:
            return f"ran past {self.timeout:g} s"
        if ended.ended_by is not processes.EndedBy.ITSELF:
            return "was ended on the operator's word"
        if ended.signal is not None:
            return f"was ended by signal {ended.signal}"
        return f"exit code {ended.exit_code}" if ended.exit_code else None
