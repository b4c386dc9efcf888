"""What the controller refuses, in its order, each with its own reason word.

What belongs here can be told from the objects alone. How to make a run, and what no controller looks at (``lints``),
does not.
"""

from collections.abc import Iterator

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.rules.launch import launch_findings
from run_cycle_loop.agentrun.checks.rules.objects import object_findings
from run_cycle_loop.agentrun.checks.rules.parameters import label_findings, run_parameters
from run_cycle_loop.agentrun.checks.rules.references import reference_findings
from run_cycle_loop.agentrun.checks.rules.workflow import workflow_findings
from run_cycle_loop.agentrun.checks.subject import Subject
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import AgentRun
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Resources

__all__ = ["controller_findings", "first_refusal", "object_findings"]


def controller_findings(
    run: AgentRun, resources: Resources, profile: Profile, flags: ControllerFlags
) -> tuple[Finding, ...]:
    """Everything that the controller would refuse of a run, at its acceptance and at the launch of its steps."""
    subject = Subject(run=run, resources=resources, profile=profile, flags=flags)
    return (*_acceptance(subject), *launch_findings(subject))


def first_refusal(run: AgentRun, resources: Resources, profile: Profile, flags: ControllerFlags) -> Refusal | None:
    """Why the controller would reject the run before anything starts: the first reason in its order, or None."""
    subject = Subject(run=run, resources=resources, profile=profile, flags=flags)
    for found in _acceptance(subject):
        if found.severity is Severity.ERROR and found.source is Source.CONTROLLER:
            return Refusal(reason=found.reason, message=found.message, condition="InvalidSpec")
    return None


def _acceptance(subject: Subject) -> Iterator[Finding]:
    """In the controller's order. A template is never started, and so never refused."""
    if subject.run.is_template:
        return
    if not subject.run.runtime:
        message, cure = "spec.runtime.type is missing", "add spec.runtime.type: workflow"
        yield subject.refusal("MissingRuntime", "spec.runtime.type", message, cure)
    yield from run_parameters(subject)
    yield from label_findings(subject)
    if subject.run.runtime == "workflow":
        yield from workflow_findings(subject)
    yield from reference_findings(subject)
