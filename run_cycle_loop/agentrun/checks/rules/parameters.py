"""The controller's rules for parameters, of a run and of its steps, and for a run's labels."""

from collections.abc import Iterator, Mapping
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.subject import Subject, mapping, shown
from run_cycle_loop.agentrun.manifests.field_paths import child

MOST = 100  #: parameters of a run, or of a step
LONGEST = 2048  #: bytes of a value


def run_parameters(subject: Subject) -> Iterator[Finding]:
    """Of the run."""
    yield from parameter_findings(subject, subject.run.spec.get("parameters"), "spec.parameters")


def parameter_findings(subject: Subject, value: Any, path: str, prefix: str = "") -> Iterator[Finding]:
    """Of one mapping of parameters; a step's (``prefix`` names it) drop what is no text, without a word."""
    parameters = mapping(value)
    if len(parameters) > MOST:
        message = f"{prefix}{path} has {len(parameters)} entries, more than {MOST}"
        yield subject.refusal("ParametersTooLarge", path, message, "remove some, or put them into a file")
    for key, item in parameters.items():
        at = child(path, key)
        if not subject.profile.traits.prompt_parameter and key.strip().lower() == "prompt":
            message = f"{prefix}{at} is not allowed; it would be the prompt {shown(item)}"
            cure = "put it into the text of the ImplementationSpec, or of an inline implementation"
            yield subject.refusal("ForbiddenParameterKey", at, message, cure)
        if not isinstance(item, str):
            if not prefix:
                message = f"{at} is {shown(item)}, not a text"
                yield subject.refusal("ParameterNotString", at, message, "put it into quotes")
        elif (size := len(item.encode("utf-8", "replace"))) > LONGEST:
            message = f"{prefix}{at} has {size} bytes, more than {LONGEST}"
            cure = "put the text into the ImplementationSpec, or into a file that a volume brings"
            yield subject.refusal("ParameterValueTooLarge", at, message, cure)


def label_findings(subject: Subject) -> Iterator[Finding]:
    """What the controller's policy says about the run's labels."""
    flags, labels = subject.flags, subject.run.labels
    path = "metadata.labels"
    missing = [name for name in flags.labels_required if not labels.get(name)]
    if missing:
        message = f"the labels {', '.join(missing)} are missing, which the controller requires"
        yield subject.refusal("MissingRequiredLabels", path, message, "add them to metadata.labels")
    for key in _matching(labels, flags.labels_denied):
        message = f"the label {key} is blocked by the controller"
        yield subject.refusal("LabelBlocked", child(path, key), message, "remove it")
    if flags.labels_allowed:
        allowed = set(_matching(labels, flags.labels_allowed))
        for key in labels:
            if key not in allowed:
                message = f"the label {key} is not among those that the controller allows"
                cure = f"remove it; allowed is what matches {', '.join(flags.labels_allowed)}"
                yield subject.refusal("LabelNotAllowed", child(path, key), message, cure)


def _matching(labels: Mapping[str, str], globs: tuple[str, ...]) -> Iterator[str]:
    return (key for key in labels if any(is_match(key, glob) for glob in globs))


def is_match(word: str, glob: str) -> bool:
    """Whether a word matches a pattern in which ``*`` stands for anything."""
    first, *others = glob.split("*")
    if not others:
        return word == glob
    if not word.startswith(first) or not word.endswith(others[-1]) or len(word) < len(first) + len(others[-1]):
        return False
    place, end = len(first), len(word) - len(others[-1])
    for part in others[:-1]:
        found = word.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True
