"""Names that become labels and Jobs: too long, cut, or the same for two things."""

from collections.abc import Iterator

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.subject import Subject, shown, step_path


def naming_lints(subject: Subject) -> Iterator[Finding]:
    """Of the run's own name, of its steps', and of the objects that become labels."""
    yield from _run_name(subject)
    if subject.run.runtime == "workflow":
        yield from _step_names(subject)
    for path, name in (
        ("spec.agentRef.name", subject.run.agent),
        ("spec.implementationSpecRef.name", subject.run.implementation_ref),
    ):
        if name and not names.is_label_value(names.label_value(name)):
            yield _illegal(subject, path, name)


def _run_name(subject: Subject) -> Iterator[Finding]:
    run, path = subject.run, "metadata.name"
    if not run.name:
        return
    if len(run.name) > names.NAME_LIMIT:
        message = f"{shown(run.name)} has {len(run.name)} characters, and becomes a label of at most {names.NAME_LIMIT}"
        cure = f"shorten it; up to {names.NAME_LIMIT} are legal, and up to 39 keep the names of Jobs readable"
        yield subject.error("NameTooLong", path, message, cure)
        return
    if run.runtime != "workflow":
        return
    for step in run.steps:
        suffix = names.attempt_suffix(step.index, step.iteration(1), 1)
        if len(f"{run.name}-{suffix}") > names.NAME_LIMIT:
            name = names.job_name(run.name, step.index, step.iteration(1), 1)
            message = f"the name has {len(run.name)} characters: its Jobs get a hash for their end, as {name}"
            cure = f"shorten it to {names.NAME_LIMIT - len(suffix) - 1} characters to see step and attempt there"
            yield subject.note("JobNamesHashed", path, message, cure)
            return


def _step_names(subject: Subject) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for step in subject.run.steps:
        if not step.name:
            continue
        label, path = names.label_value(step.name), step_path(step, "name")
        if not names.is_label_value(label):
            yield _illegal(subject, path, step.name)
        elif label == "unknown" and step.name.lower() != "unknown":
            message = f"the step {shown(step.name)} has the label unknown: nothing of its name fits into one"
            yield subject.warning("StepLabelUnknown", path, message, "name it with letters or digits")
        elif seen.get(label, step.name) != step.name:
            message = f"the steps {shown(seen[label])} and {shown(step.name)} have the same label, {label}"
            yield subject.note("StepLabelShared", path, message, "rename one to tell their Jobs apart by label")
        seen.setdefault(label, step.name)


def _illegal(subject: Subject, path: str, name: str) -> Finding:
    label = names.label_value(name)
    message = (
        f"{shown(name)} is cut to the label {label}, which no label may be: its Job is never made, and the run hangs"
    )
    return subject.error("LabelInvalid", path, message, f"shorten it to {names.NAME_LIMIT} characters")
