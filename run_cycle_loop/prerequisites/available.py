"""Python modules and commands that a cycle needs."""

import importlib
import importlib.machinery
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from run_cycle_loop.model.ports import OutputLog
from run_cycle_loop.model.records import CheckResult, CycleSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleCheck:
    """Whether a Python module can be found; nothing of it is run."""

    module: str
    required: bool

    def check(self, _spec: CycleSpec, _log: OutputLog) -> CheckResult:
        """Look for the module with this interpreter."""
        found = _find(self.module)
        detail = "found" if found else f"module {self.module!r} is not installed; pip install it"
        return CheckResult(name=f"module {self.module}", ok=found, detail=detail, required=self.required)


def _find(dotted: str) -> bool:
    importlib.invalidate_caches()  # it may have been installed since the last cycle
    top, *rest = dotted.split(".")
    try:
        spec = importlib.util.find_spec(top)
        for part in rest:
            # find_spec("a.b") would import a; the finder alone only looks.
            if spec is None or spec.submodule_search_locations is None:
                return False
            spec = importlib.machinery.PathFinder.find_spec(part, spec.submodule_search_locations)
    except (ImportError, ValueError):
        return False
    return spec is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandCheck:
    """Whether a command stands on the cycle's own PATH."""

    command: str
    required: bool
    path: Callable[[CycleSpec], str | None]

    def check(self, spec: CycleSpec, _log: OutputLog) -> CheckResult:
        """Look for the command."""
        found = shutil.which(self.command, path=self.path(spec))
        detail = found or f"command {self.command!r} is not on PATH; install it, or name it by its path"
        return CheckResult(name=f"command {self.command}", ok=found is not None, detail=detail, required=self.required)
