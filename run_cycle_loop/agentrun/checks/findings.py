"""What a check of a manifest has to say: a reason word, where it stands, what is wrong and how to mend it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"  #: the run would be refused, or would not do what the manifest says
    WARNING = "warning"  #: it would run, and something about it bites
    NOTE = "note"  #: it could not be checked here, or is good to know


class Source(StrEnum):
    """Who would complain."""

    API_SERVER = "api-server"  #: admission: ``kubectl apply`` fails
    CONTROLLER = "controller"  #: the run ends as Failed before anything starts
    LINT = "lint"  #: nobody, and it bites later


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that a check found."""

    severity: Severity
    source: Source
    reason: str  #: the controller's own word where it has one, else ours, in the same style
    where: str  #: the object, ``AgentRun/demo``
    path: str  #: inside it, ``spec.workflow.steps[0].loop.maxIterations``; empty for the whole object
    message: str  #: one sentence with the wrong value
    cure: str  #: the next step
    file: str = ""
    line: int = 0  #: 1-based; 0 where there is none

    @property
    def place(self) -> str:
        """``file:line`` as editors take it."""
        return f"{self.file}:{self.line}" if self.line else self.file
