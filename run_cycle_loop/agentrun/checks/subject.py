"""What a check looks at: one run among the objects it refers to, for one generation of the controller."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.flags import UNKNOWN, ControllerFlags
from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.agentrun.model import AgentRun, Step, Volume
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Resources

_SHOWN = 80  #: characters of a wrong value


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A run and all that is known around it."""

    run: AgentRun
    resources: Resources
    profile: Profile
    flags: ControllerFlags = UNKNOWN

    @property
    def where(self) -> str:
        """The run as messages call it."""
        return f"AgentRun/{self.run.name}" if self.run.name else "AgentRun"

    @property
    def agent(self) -> Mapping[str, Any]:
        """The agent's ``spec``; empty where it is not here."""
        return self.resources.spec("Agent", self.run.agent)

    @property
    def provider_name(self) -> str:
        """Of the agent's provider; empty where that is not known here."""
        reference = mapping(self.agent.get("providerRef"))
        return text(reference.get("name")).strip()

    @property
    def provider(self) -> Mapping[str, Any]:
        """The provider's ``spec``; empty where it is not here."""
        return self.resources.spec("AgentProvider", self.provider_name)

    def refusal(self, reason: str, path: str, message: str, cure: str) -> Finding:
        """What the controller refuses."""
        return self.found(Severity.ERROR, reason, path, message, cure, source=Source.CONTROLLER)

    def error(self, reason: str, path: str, message: str, cure: str) -> Finding:
        """What nobody refuses, and cannot work."""
        return self.found(Severity.ERROR, reason, path, message, cure)

    def warning(self, reason: str, path: str, message: str, cure: str) -> Finding:
        """What works and bites."""
        return self.found(Severity.WARNING, reason, path, message, cure)

    def note(self, reason: str, path: str, message: str, cure: str) -> Finding:
        """What could not be checked, or is good to know."""
        return self.found(Severity.NOTE, reason, path, message, cure)

    def found(
        self, severity: Severity, reason: str, path: str, message: str, cure: str, *, source: Source = Source.LINT
    ) -> Finding:
        """A finding about the run."""
        return Finding(
            severity=severity, source=source, reason=reason, where=self.where, path=path, message=message, cure=cure
        )

    def loops(self) -> Iterator[Step]:
        """The steps that loop."""
        return (step for step in self.run.steps if step.loop is not None)

    def validated_volumes(self, step: Step) -> tuple[Volume, ...]:
        """The volumes that the controller looks at: the step's, or the run's where it has none. Jobs do otherwise."""
        for workload in (step.workload, self.run.workload):
            if workload is not None and workload.volumes:
                return workload.volumes
        return ()


def step_path(step: Step, *fields: str) -> str:
    """The path of a step, or of a field below it."""
    path = child("spec.workflow.steps", step.index - 1)
    for field in fields:
        path = child(path, field)
    return path


def step_words(step: Step) -> str:
    """A step as the controller calls it in its messages."""
    return f"workflow step {step.name or step.index}"


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    written = repr(value)
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}..."


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str:
    """The value where it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def words(value: Any) -> tuple[str, ...]:
    """The texts of a list that are not blank."""
    return tuple(one.strip() for one in items(value) if isinstance(one, str) and one.strip())
