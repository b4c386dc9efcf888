"""The controller's rules for a workflow's steps and their loops."""

from collections.abc import Iterator

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.rules.parameters import parameter_findings
from run_cycle_loop.agentrun.checks.subject import Subject, items, mapping, shown, step_path, step_words
from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.agentrun.model import Loop, LoopCondition, Step

_POLICIES = ("stop", "fail")


def workflow_findings(subject: Subject) -> Iterator[Finding]:
    """Of all steps, in their order."""
    if not subject.run.steps:
        message, cure = "the runtime is workflow, and spec.workflow.steps is empty", "add a step with a name"
        yield subject.refusal("MissingWorkflowSteps", "spec.workflow.steps", message, cure)
    seen: dict[str, int] = {}
    written = items(mapping(subject.run.spec.get("workflow")).get("steps"))
    for step, body in zip(subject.run.steps, written, strict=True):
        if not step.name:
            message = f"workflow step {step.index} has no name"
            yield subject.refusal("WorkflowStepMissingName", step_path(step, "name"), message, "give it one")
        elif step.name in seen:
            message = f"workflow steps {seen[step.name]} and {step.index} are both named {step.name}"
            yield subject.refusal("WorkflowStepDuplicate", step_path(step, "name"), message, "rename one of them")
        seen.setdefault(step.name, step.index)
        prefix = f"{step_words(step)}: "
        yield from parameter_findings(subject, mapping(body).get("parameters"), step_path(step, "parameters"), prefix)
        if step.loop is not None:
            yield from _LoopRules(subject, step, step.loop).findings()


class _LoopRules:
    """The rules for one loop."""

    def __init__(self, subject: Subject, step: Step, loop: Loop) -> None:
        self._subject, self._step, self._loop = subject, step, loop
        self._path = step_path(step, "loop")
        self._words = step_words(step)

    def findings(self) -> Iterator[Finding]:
        yield from self._allowed()
        if self._loop.condition is not None:
            yield from self._condition(self._loop.condition)
        yield from self._state()

    def _refusal(self, reason: str, path: str, message: str, cure: str) -> Finding:
        return self._subject.refusal(reason, f"{self._path}{path}", f"{self._words}: {message}", cure)

    def _allowed(self) -> Iterator[Finding]:
        flags, profile = self._subject.flags, self._subject.profile
        variables = flags.variables(profile)
        if flags.known and not flags.loops_enabled:
            cure = f"set {variables['loops_enabled']}=true on the controller, or remove the loop"
            yield self._refusal("WorkflowLoopsDisabled", "", "workflow loops are disabled", cure)
        count = self._loop.max_iterations
        if count < 1:
            message = f"loop.maxIterations is {count}, less than 1"
            yield self._refusal("WorkflowLoopMaxIterationsInvalid", ".maxIterations", message, "write 1 or more")
        elif count > flags.max_iterations:
            message = f"loop.maxIterations is {count}, more than the limit {flags.max_iterations}"
            name = variables["max_iterations"]
            cure = f"write {flags.max_iterations} or less, or raise {name} on the controller"
            found = self._refusal("WorkflowLoopMaxIterationsExceeded", ".maxIterations", message, cure)
            if flags.known:
                yield found
            else:  # the default's limit: this controller's may be higher
                yield self._subject.found(
                    Severity.WARNING, found.reason, found.path, message, cure, source=Source.CONTROLLER
                )

    def _condition(self, condition: LoopCondition) -> Iterator[Finding]:
        if not condition.expression:
            message, cure = (
                "loop.condition has no expression",
                "write one, or remove the condition to loop a fixed number of times",
            )
            yield self._refusal("WorkflowLoopConditionExpressionMissing", ".condition.expression", message, cure)
        if not condition.path.startswith("/"):
            message = f"loop.condition.source.path {shown(condition.path)} does not begin with /"
            cure = f"write the whole path: /workspace/{condition.path.removeprefix('./')}"
            yield self._refusal("WorkflowLoopConditionPathInvalid", ".condition.source.path", message, cure)
        for field, value, reason in (
            ("onMissing", condition.on_missing, "WorkflowLoopConditionOnMissingInvalid"),
            ("onInvalid", condition.on_invalid, "WorkflowLoopConditionOnInvalidInvalid"),
        ):
            if value not in _POLICIES:
                message = f"loop.condition.source.{field} is {shown(value)}, neither stop nor fail"
                yield self._refusal(reason, f".condition.source.{field}", message, "write stop or fail")

    def _state(self) -> Iterator[Finding]:
        loop, path = self._loop, ".state.volumeNames"
        for number, name in enumerate(loop.state_volumes):
            if name in loop.state_volumes[:number]:
                message = f"loop.state.volumeNames names {shown(name)} twice"
                yield self._refusal("WorkflowLoopStateVolumeDuplicate", child(path, number), message, "name it once")
        volumes = {one.name: one for one in self._subject.validated_volumes(self._step)}
        for number, name in enumerate(loop.state_volumes):
            if name not in volumes:
                message = f"loop.state.volumeNames names {shown(name)}, and there is no such volume"
                known = ", ".join(volumes) or "none"
                cure = f"add it to the volumes of the step's workload; the volumes there are: {known}"
                yield self._refusal("WorkflowLoopStateVolumeMissing", child(path, number), message, cure)
        if not loop.state_required:
            return
        if not loop.state_volumes:
            message = "loop.state.required is true, and loop.state.volumeNames is empty"
            cure = "name a volume of type pvc in it"
            yield self._refusal("WorkflowLoopStateVolumeRequired", path, message, cure)
        elif not any(volumes[name].is_persistent for name in loop.state_volumes if name in volumes):
            listed = ", ".join(f"{name} ({volumes[name].type})" for name in loop.state_volumes if name in volumes)
            message = (
                f"loop.state.required is true, and none of its volumes is a pvc with a claimName: {listed or 'none'}"
            )
            cure = "give one of them type: pvc and a claimName"
            yield self._refusal("WorkflowLoopStateVolumeNotPersistent", path, message, cure)
