"""The controller's rules at the launch of a step: its implementation, contract and version control, and its image."""

from collections.abc import Iterator

from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.checks.rules.references import source_findings
from run_cycle_loop.agentrun.checks.subject import Subject, shown, step_path, step_words
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.model import Step
from run_cycle_loop.agentrun.rendering.launches import effective_image
from run_cycle_loop.agentrun.rendering.metadata import contract_of
from run_cycle_loop.agentrun.rendering.prompts import implementation_of
from run_cycle_loop.agentrun.rendering.vcs import version_control

_VCS_PATHS = {
    "MissingVcsProvider": "spec.vcsRef.name",
    "MissingRepository": "spec.parameters.repository",
    "VcsPolicyDenied": "spec.parameters.repository",
    "VcsDisabled": "spec.vcsPolicy.mode",
    "VcsCapabilityDenied": "spec.vcsPolicy.mode",
}
_VCS_MEANT = ("VcsDisabled", "VcsProvidersDisabled")
_VCS_CURES = {
    "MissingVcsProvider": "name a VersionControlProvider in spec.vcsRef.name, or set vcsPolicy.required: false",
    "MissingRepository": "add the parameter repository as owner/name",
    "VcsPolicyDenied": "use a repository that the provider's repositoryPolicy allows",
    "VcsDisabled": "set vcsPolicy.mode to read-write or read-only, or vcsPolicy.required to false",
    "VcsCapabilityDenied": "set vcsPolicy.mode to read-only, or allow it in the provider's capabilities",
    "UnsupportedVcsAuth": "use a way to log in that this kind of provider takes",
    "MissingVcsAuth": "name the Secret in spec.auth of the VersionControlProvider",
    "SecretBlocked": "use another Secret for version control",
    "SecretNotAllowed": "add the Secret to spec.security.allowedSecrets of the Agent",
    "VcsAuthUnavailable": "give the provider a login that may write, or set vcsPolicy.mode: read-only",
}


def launch_findings(subject: Subject) -> Iterator[Finding]:
    """Of all steps; what is the same for each stands once."""
    if subject.run.is_template or subject.run.runtime not in ("workflow", "job"):
        return
    seen: set[tuple[str, str, str]] = set()
    steps: tuple[Step | None, ...] = subject.run.steps if subject.run.runtime == "workflow" else (None,)
    for step in steps:
        prefix = "" if step is None else f"{step_words(step)}: "
        for found in (*_of_step(subject, step, prefix), *_version_control(subject, step, prefix)):
            same = (found.reason, found.path, found.message.removeprefix(prefix))
            if same not in seen:
                seen.add(same)
                yield found


def _of_step(subject: Subject, step: Step | None, prefix: str) -> Iterator[Finding]:
    found = implementation_of(subject.run, step, subject.resources, subject.profile)
    has_own = step is not None and (step.implementation is not None or bool(step.implementation_ref))
    if step is not None and has_own and step.implementation is None and step.implementation_ref:
        path = step_path(step, "implementationSpecRef", "name")
        if subject.resources.get("ImplementationSpec", step.implementation_ref) is None:
            name = shown(step.implementation_ref)
            if subject.resources.complete:
                message = f"{prefix}ImplementationSpec {name} not found"
                cure = "apply it before the run, or correct the name"
                yield subject.refusal("MissingImplementation", path, message, cure)
            else:
                message = f"{prefix}ImplementationSpec {name} is not among the files: its text was not checked"
                cure = "give its file with -f as well"
                yield subject.note("ImplementationNotInBundle", path, message, cure)
    if found is None or found.spec is None:
        return
    parameters = subject.run.parameters_of(step) if step else subject.run.parameters
    holder = step_path(step) if step is not None and has_own else "spec"
    path = f"{holder}.implementationSpecRef.name" if found.ref else f"{holder}.implementation.inline"
    if has_own:
        yield from source_findings(subject, found.spec, path, prefix)
    contract = contract_of(found.spec, parameters, subject.profile)
    if contract.refusal is not None:
        at = "spec.parameters" if contract.missing else path
        cure = f"add the parameters {', '.join(contract.missing)}" if contract.missing else "mend the contract"
        yield subject.refusal(contract.refusal.reason, at, prefix + contract.refusal.message, cure)
    yield from _image(subject, step, prefix)


def _image(subject: Subject, step: Step | None, prefix: str) -> Iterator[Finding]:
    """No image at all; told only where everything that could name one is known."""
    is_known = subject.flags.known and (subject.provider or not subject.profile.traits.provider_image)
    image, _ = effective_image(subject.run, step, subject.resources, subject.profile, subject.flags)
    if is_known and not image:
        name = subject.flags.variables(subject.profile)["runner_image"]
        message = f"{prefix}nothing names an image for its pod"
        yield subject.refusal("MissingWorkloadImage", "spec.workload.image", message, f"set {name} on the controller")


def _version_control(subject: Subject, step: Step | None, prefix: str) -> Iterator[Finding]:
    given = version_control(subject.run, step, subject.resources, subject.profile, subject.flags)
    refusal = given.refusal
    if refusal is not None and not (_may_come_with_agent(subject, refusal)):
        path = _VCS_PATHS.get(refusal.reason, "spec.vcsRef.name")
        cure = _VCS_CURES.get(refusal.reason, "mend the VersionControlProvider")
        yield subject.refusal(refusal.reason, path, prefix + refusal.message, cure)
        return
    for one, words in ((given.skipped, "no repository is given to it: "), (given.warning, "")):
        if one is not None and given.provider and one.reason not in _VCS_MEANT:
            path = _VCS_PATHS.get(one.reason, "spec.vcsRef.name")
            told, next_step = f"{prefix}{words}{one.message}", _VCS_CURES.get(one.reason, "use a newer kind of token")
            yield subject.found(Severity.WARNING, one.reason, path, told, next_step, source=Source.CONTROLLER)
    if given.provider and not _is_here(subject, given.provider):
        message = (
            f"VersionControlProvider {shown(given.provider)} is not among the files: what it allows was not checked"
        )
        cure = "give its file with -f as well, or check on the cluster that it is there"
        yield subject.note("VcsProviderNotInBundle", "spec.vcsRef.name", message, cure)


def _is_here(subject: Subject, provider: str) -> bool:
    return subject.resources.complete or subject.resources.get("VersionControlProvider", provider) is not None


def _may_come_with_agent(subject: Subject, refusal: Refusal) -> bool:
    """Whether the agent or the implementation, which are not here, may name the provider."""
    if refusal.reason != "MissingVcsProvider" or subject.resources.complete or subject.run.vcs_ref:
        return False
    run = subject.run
    has_agent = subject.resources.get("Agent", run.agent) is not None
    ref = run.implementation_ref
    return not (has_agent and (not ref or subject.resources.get("ImplementationSpec", ref) is not None))
