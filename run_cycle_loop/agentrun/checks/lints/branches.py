"""Repositories and branches that a runner refuses, or that a run should not write to."""

import re
from collections.abc import Iterator, Mapping

from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.subject import Subject, shown, step_path
from run_cycle_loop.agentrun.manifests.field_paths import child
from run_cycle_loop.agentrun.rendering.metadata import ALIASES, event_of

_REPOSITORY = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_BRANCH = re.compile(r"[A-Za-z0-9._/-]+")
_SHARED = ("main", "master")


def branch_lints(subject: Subject) -> Iterator[Finding]:
    """Of the run's parameters, and of steps that bring their own."""
    run = subject.run
    yield from _of(subject, run.parameters, "spec.parameters")
    for step in run.steps:
        yield from _of(subject, step.parameters, step_path(step, "parameters"))
    metadata = event_of({}, run.parameters, subject.profile).metadata
    head, base = metadata.get("head", ""), metadata.get("base", "")
    writes = run.vcs_mode == "read-write" and bool(run.vcs_ref or run.vcs_required)
    if head and run.vcs_mode == "read-write" and (head == base or head in _SHARED):
        message = f"the run writes to {shown(head)}, the branch that others start from"
        path = child("spec.parameters", _key(run.parameters, "head"))
        yield subject.warning("HeadIsBase", path, message, "name a branch of its own: codex/...")
    elif (
        writes
        and not head
        and not any(event_of({}, step.parameters, subject.profile).metadata.get("head") for step in run.steps)
    ):
        message = f"no parameter names a head branch: the run writes to the provider's default, or to codex/{run.name}"
        yield subject.note("HeadBranchDefault", "spec.parameters", message, "add the parameter head: codex/...")


def _of(subject: Subject, parameters: Mapping[str, str], path: str) -> Iterator[Finding]:
    metadata = event_of({}, parameters, subject.profile).metadata
    repository = metadata.get("repository", "")
    if repository and (not _REPOSITORY.fullmatch(repository) or repository.strip("./").count("..")):
        at = child(path, _key(parameters, "repository"))
        message = f"the runner takes owner/name for a repository, and not {shown(repository)}"
        yield subject.warning("RepositoryUnsafe", at, message, "write it as owner/name")
    for key in ("base", "head"):
        branch = metadata.get(key, "")
        if branch and not _is_branch(branch):
            at = child(path, _key(parameters, key))
            message = f"{shown(branch)} is no name of a branch that a runner takes"
            cure = "use letters, digits and . _ - /, without .., and no / at an end"
            yield subject.error("BranchUnsafe", at, message, cure)


def _is_branch(name: str) -> bool:
    return (
        _BRANCH.fullmatch(name) is not None
        and ".." not in name
        and not name.startswith(("/", "-"))
        and not name.endswith(("/", ".lock"))
    )


def _key(parameters: Mapping[str, str], key: str) -> str:
    """The parameter that gives it: its own name, or another that it has."""
    others = (alias for alias, target in ALIASES if target == key)
    return next((one for one in (key, *others) if parameters.get(one, "").strip()), key)
