"""Loops that end too early, keep nothing, or have a condition that cannot work."""

import re
from collections.abc import Iterator

from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.lints.conditions import look_at
from run_cycle_loop.agentrun.checks.subject import Subject, shown, step_path, step_words, text
from run_cycle_loop.agentrun.model import Loop, LoopCondition, Step
from run_cycle_loop.agentrun.rendering.prompts import implementation_of, is_codex

WRITER = "run-cycle-loop/loop-control-writer"  #: annotation of a run: who writes its Jobs' control annotation
_HAS = "guard it: has(iteration.last.control.{0}) && ..."


def loop_lints(subject: Subject) -> Iterator[Finding]:
    """Of every step that loops; nothing where the runtime ignores loops."""
    if subject.run.runtime != "workflow":
        return
    if not subject.flags.known and next(subject.loops(), None) is not None:
        name = subject.flags.variables(subject.profile)["loops_enabled"]
        message = "controllers have loops turned off until somebody turns them on, and this one was not asked"
        yield subject.note("LoopsMayBeDisabled", "spec.workflow.steps", message, f"check that {name}=true is set on it")
    for step in subject.loops():
        loop = step.loop
        if loop is not None:
            yield from _state(subject, step, loop)
            if loop.condition is not None:
                yield from _condition(subject, step, loop, loop.condition)


def _state(subject: Subject, step: Step, loop: Loop) -> Iterator[Finding]:
    volumes = {volume.name: volume for volume in subject.run.workload_of(step).volumes}
    for number, name in enumerate(loop.state_volumes):
        if name in volumes and volumes[name].read_only:
            message = f"the state volume {name} of {step_words(step)} is readOnly: no iteration can keep anything in it"
            path = f"{step_path(step, 'loop', 'state', 'volumeNames')}[{number}]"
            yield subject.error("StateVolumeReadOnly", path, message, "remove readOnly from the volume")
    mounted = subject.validated_volumes(step)
    if loop.max_iterations > 1 and not any(volume.is_persistent for volume in mounted):
        message = f"no volume of {step_words(step)} outlives an iteration: each begins with nothing but the branch"
        cure = "add a volume of type pvc where iterations shall find what earlier ones left"
        yield subject.note("LoopKeepsNothing", step_path(step, "loop"), message, cure)


def _condition(subject: Subject, step: Step, loop: Loop, condition: LoopCondition) -> Iterator[Finding]:
    path = step_path(step, "loop", "condition")
    yield from _expression(subject, condition, f"{path}.expression")
    if loop.max_iterations == 1:
        message = f"{step_words(step)} loops once: its condition is never evaluated"
        yield subject.warning("ConditionNeverEvaluated", path, message, "raise maxIterations, or remove the condition")
        return
    if not subject.run.annotations.get(WRITER, "").strip():
        ends = "ends after iteration 1" if condition.on_missing == "stop" else "fails after iteration 1"
        message = (
            "a cluster's controller reads the condition's payload from an annotation of the Job, which nothing writes "
            f"by itself: there the loop {ends}; on this machine the file is read"
        )
        cure = f"have the workload annotate its own Job, and say who does it in the run's annotation {WRITER}"
        yield subject.warning("LoopControlHasNoWriter", f"{path}.source", message, cure)
    yield from _told(subject, step, condition)
    persistent = [one.mount_path for one in subject.run.workload_of(step).volumes if one.type == "pvc"]
    if condition.path.startswith("/") and not any(_is_below(condition.path, mount) for mount in persistent):
        message = f"the control file {condition.path} is on no volume of type pvc: it goes with its pod"
        cure = f"put it below one of {', '.join(persistent)}" if persistent else "mount a volume of type pvc above it"
        yield subject.warning("ControlPathNotPersistent", f"{path}.source.path", message, cure)


def _told(subject: Subject, step: Step, condition: LoopCondition) -> Iterator[Finding]:
    """A pod learns of the control file from the prompt alone."""
    chosen = implementation_of(subject.run, step, subject.resources, subject.profile)
    if chosen is None or chosen.spec is None or (subject.provider and not is_codex(subject.provider)):
        return
    if not any(text(chosen.spec.get(field)).strip() for field in ("text", "summary")):
        return
    said = "\n".join(
        (*(text(chosen.spec.get(field)) for field in ("text", "summary")), *subject.run.parameters_of(step).values())
    )
    if condition.path.rpartition("/")[2] not in said:
        message = f"nothing that the agent is told names {condition.path}, and it learns of it nowhere else"
        cure = "say in the implementation's text what to write there, and when"
        path = step_path(step, "loop", "condition", "source", "path")
        yield subject.note("ControlPathNotInPrompt", path, message, cure)


def _is_below(path: str, mount: str) -> bool:
    return path.startswith(f"{mount.rstrip('/')}/")


def _expression(subject: Subject, condition: LoopCondition, path: str) -> Iterator[Finding]:
    if not condition.expression:
        return
    looked = look_at(condition.expression)
    if looked.syntax:
        message = f"the condition does not parse: {looked.syntax}"
        yield subject.error("ConditionSyntax", path, message, "mend it; it is CEL")
        return
    if looked.unknown:
        message = f"the condition names {', '.join(looked.unknown)}, which a loop's condition does not know"
        yield subject.error("ConditionUnknownName", path, message, _known_names(looked.unknown))
        return
    if looked.is_never_boolean:
        message = f"the condition {shown(condition.expression)} gives neither true nor false"
        yield subject.error("ConditionNotBoolean", path, message, "compare it with something")
    if looked.needs_ints:
        fault = re.sub(r"\s*:\s*", ": ", looked.needs_ints)
        message = f"the condition counts with whole numbers, and every number here is a double ({fault})"
        yield subject.error(
            "ConditionNeedsDoubles", path, message, "write 1.0 for 1 where you calculate, or int(...) around the name"
        )
    if looked.unguarded:
        message = f"a control payload without the field {looked.unguarded} fails the loop (LoopConditionError)"
        yield subject.note("ConditionUnguarded", path, message, _HAS.format(looked.unguarded))
    if not looked.reads_control:
        message = (
            "the condition does not look at iteration.last.control, and still needs a payload after each iteration"
        )
        yield subject.warning(
            "ConditionIgnoresControl", path, message, "remove the condition, and set maxIterations alone"
        )


def _known_names(unknown: tuple[str, ...]) -> str:
    known = "iteration.index, iteration.maxIterations, iteration.last.phase and iteration.last.control"
    if any(name.split(".")[0] == "control" for name in unknown):
        return f"write iteration.last.control for control; there are {known}"
    return f"there are {known}, and the standard functions of CEL"
