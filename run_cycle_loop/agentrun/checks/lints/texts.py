"""Prompts and placeholders: texts that are overridden, emptied, left as written, or that let secrets in."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.subject import Subject, shown, step_path, text
from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.agentrun.model import AgentRun, Step
from run_cycle_loop.agentrun.rendering.metadata import ALIASES, event_of, template_context
from run_cycle_loop.agentrun.rendering.prompts import Implementation, implementation_of
from run_cycle_loop.agentrun.rendering.templates import placeholders

OVERRIDE = "run-cycle-loop/prompt-override"  #: annotation of a run that has ``parameters.prompt`` on purpose
INTENDED = "intended"
_ENVIRONMENT = re.compile(r"\{\{\s*env\b")


def text_lints(subject: Subject) -> Iterator[Finding]:
    """Of the parameters and of every text that a step carries out."""
    run = subject.run
    steps: tuple[Step | None, ...] = run.steps if run.runtime == "workflow" and run.steps else (None,)
    yield from _parameters(subject, run.parameters, "spec.parameters")
    for one in run.steps:
        yield from _parameters(subject, one.parameters, step_path(one, "parameters"))
    yield from _both(subject, run.spec.get("implementation"), run.implementation_ref, "spec")
    seen: set[Finding] = set()
    for step in steps:
        for found in (*_override(subject, step), *_implementation(subject, step)):
            if found not in seen:
                seen.add(found)
                yield found


def _parameters(subject: Subject, parameters: Mapping[str, str], path: str) -> Iterator[Finding]:
    for key, value in parameters.items():
        at = child(path, key)
        if _ENVIRONMENT.search(value):
            message = (
                f"{at} is {shown(value)}: the pod fills in its environment, secrets included, where the value is used"
            )
            cure = "write the value itself, and pass secrets by spec.secrets"
            yield subject.error("EnvironmentInParameter", at, message, cure)
        elif "{{" in value:
            message = f"{at} is {shown(value)}: its placeholder is filled in by the pod, or vanishes"
            yield subject.warning("TemplateInParameter", at, message, "write the value itself")
    if subject.profile.traits.renders_text:
        for alias, key in ALIASES:
            if key in parameters and not parameters[key].strip() and parameters.get(alias, "").strip():
                message = f"{child(path, key)} is blank and hides {alias}: placeholders with {key} come out empty"
                yield subject.warning("BlankParameter", child(path, key), message, f"remove {key}")


def _both(subject: Subject, implementation: Any, ref: str, path: str) -> Iterator[Finding]:
    if ref and isinstance(implementation, Mapping) and isinstance(implementation.get("inline"), Mapping):
        winner = "the inline one" if subject.profile.traits.renders_text else f"ImplementationSpec {ref}"
        message = f"{path} has both implementationSpecRef and implementation.inline: {winner} is carried out"
        yield subject.warning("ImplementationAmbiguous", f"{path}.implementation", message, "remove one of them")


def _override(subject: Subject, step: Step | None) -> Iterator[Finding]:
    """``parameters.prompt`` takes the place of what the implementation says."""
    run, traits = subject.run, subject.profile.traits
    own = step.parameters.get("prompt", "") if step else ""
    prompt = own or run.parameters.get("prompt", "")
    if not traits.prompt_parameter or not prompt.strip() or run.annotations.get(OVERRIDE) == INTENDED:
        return
    chosen = implementation_of(run, step, subject.resources, subject.profile)
    if chosen is None:
        return
    path = step_path(step, "parameters", "prompt") if step and own else "spec.parameters.prompt"
    message = f"parameters.prompt {shown(prompt)} takes the place of the text of {_words(chosen)}"
    cure = f"remove it, or say that it is meant by the run's annotation {OVERRIDE}: {INTENDED}"
    severity = Severity.ERROR if chosen.ref else Severity.WARNING
    yield subject.found(severity, "PromptOverridesImplementation", path, message, cure)


def _words(chosen: Implementation) -> str:
    return f"ImplementationSpec {chosen.ref}" if chosen.ref else "the inline implementation"


def _implementation(subject: Subject, step: Step | None) -> Iterator[Finding]:
    run = subject.run
    if step is not None:
        yield from _both(subject, _written(run, step).get("implementation"), step.implementation_ref, step_path(step))
    chosen = implementation_of(run, step, subject.resources, subject.profile)
    if chosen is None or chosen.spec is None:
        return
    parameters = run.parameters_of(step) if step else run.parameters
    inline = chosen.place.rpartition(" ")[2]
    where, path = (f"ImplementationSpec/{chosen.ref}", "spec") if chosen.ref else (subject.where, inline)
    has_prompt = subject.profile.traits.prompt_parameter and parameters.get("prompt", "").strip()
    said = [field for field in ("text", "summary") if text(chosen.spec.get(field)).strip()]
    if not said and not has_prompt and not chosen.ref:
        message = f"{path}.text is blank, and there is no summary: the agent would be told nothing"
        yield _finding(subject, Severity.ERROR, "PromptEmpty", where, f"{path}.text", message, "write what it shall do")
    if has_prompt:
        return
    for field in said[:1]:
        at = f"{path}.{field}"
        if subject.profile.traits.renders_text:
            yield from _rendered(subject, chosen.spec, parameters, field, where, at)
        else:
            yield from _literal(subject, chosen.spec, parameters, field, where, at)


def _rendered(
    subject: Subject, spec: Mapping[str, Any], parameters: Mapping[str, str], field: str, where: str, at: str
) -> Iterator[Finding]:
    event = event_of(spec, parameters, subject.profile)
    made = [one for one in (event.text if field == "text" else event.summary).replacements if one.is_braces]
    gone = list(dict.fromkeys(one.token for one in made if one.value is None and one.path))
    if gone:
        message = f"nothing is named {', '.join(gone)}: it vanishes from the prompt"
        cure = "add the parameter, or write the text without {{ }}"
        yield _finding(subject, Severity.ERROR, "TemplateUnresolved", where, at, message, cure)
    if any(not one.path for one in made):
        message = "{{ }} without a name puts all parameters into the prompt, as JSON"
        yield _finding(subject, Severity.WARNING, "TemplateInsertsAll", where, at, message, "name what is meant")


def _literal(
    subject: Subject, spec: Mapping[str, Any], parameters: Mapping[str, str], field: str, where: str, at: str
) -> Iterator[Finding]:
    metadata = event_of(spec, parameters, subject.profile).metadata
    known = template_context(metadata, parameters)
    tokens = [
        token
        for token in dict.fromkeys(placeholders(text(spec.get(field))))
        if token.startswith("{{") or token[2:-1].strip().split(".")[0] in known
    ]
    if tokens:
        message = f"{', '.join(tokens)} stays as written in the prompt: nothing is filled in"
        cure = "write the value itself, or tell the agent where to find it"
        yield _finding(subject, Severity.WARNING, "TemplateLiteral", where, at, message, cure)


def _written(run: AgentRun, step: Step) -> Mapping[str, Any]:
    workflow = run.spec.get("workflow")
    steps = workflow.get("steps") if isinstance(workflow, Mapping) else None
    body = steps[step.index - 1] if isinstance(steps, list) and step.index <= len(steps) else None
    return body if isinstance(body, Mapping) else {}


def _finding(
    subject: Subject, severity: Severity, reason: str, where: str, path: str, message: str, cure: str
) -> Finding:
    if where == subject.where:
        return subject.found(severity, reason, path, message, cure)
    return Finding(
        severity=severity, source=Source.LINT, reason=reason, where=where, path=path, message=message, cure=cure
    )
