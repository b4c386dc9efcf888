"""The manifest that every cycle of a loop of AgentRuns is made of: read, and checked before anything starts."""

import sys
from collections.abc import Iterable
from dataclasses import replace

from run_cycle_loop.agentrun.checks.findings import Finding, Severity
from run_cycle_loop.agentrun.checks.validation import validate, validate_for_here
from run_cycle_loop.agentrun.flags import LOCAL, UNKNOWN
from run_cycle_loop.agentrun.manifests.documents import LARGEST, Bundle, Document, read_bundle
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.app.attempt_agents import agent_warning
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.runners.agentrun import run_of_cycle
from run_cycle_loop.runners.marks import NOBODY

_SHOWN = 3  #: findings in one sentence


def read_manifest(settings: Settings) -> tuple[Bundle, Document]:
    """What is in the manifest, and the one AgentRun of it.

    Raises:
        ConfigError: it cannot be read, or there is not exactly one.
    """
    path = str(settings.manifest)
    bundle = read_bundle([path], stdin=lambda: sys.stdin.buffer.read(LARGEST + 1))
    if settings.namespace is not None:
        bundle = Bundle(documents=tuple(_moved(one, settings.namespace) for one in bundle.documents))
    if len(bundle.runs) != 1:
        names = ", ".join(one.name or f"the one in line {one.line}" for one in bundle.runs)
        told = f"{len(bundle.runs)} AgentRuns ({names})" if bundle.runs else "no AgentRun"
        raise ConfigError(f"the manifest {path} holds {told}, and a cycle is exactly one; give a file with that alone")
    return bundle, bundle.runs[0]


def findings_of(settings: Settings, bundle: Bundle) -> tuple[Finding, ...]:
    """What is wrong with it, as far as it can be known without a cluster; nothing is said where that is to be asked
    which profile counts.
    """
    if settings.profile == "auto":
        return ()
    if settings.where == "local":
        return validate_for_here(bundle, profile=Profile(settings.profile), flags=LOCAL)
    return validate(bundle, profile=Profile(settings.profile), flags=UNKNOWN)


def check_manifest(settings: Settings) -> None:
    """See that cycles can be made of the manifest.

    Raises:
        ConfigError: they cannot; the sentence names the first findings.
    """
    bundle, document = read_manifest(settings)
    run_of_cycle(document.body, NOBODY)
    refuse_errors(findings_of(settings, bundle), f"the manifest {settings.manifest}", _validate(settings))
    if settings.where == "local":
        agent_warning(read_run(document.body), bundle, settings)


def refuse_errors(findings: Iterable[Finding], what: str, how_to_see_all: str) -> None:
    """Go on only where nothing would be refused.

    Raises:
        ConfigError: something would.
    """
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if not errors:
        return
    first = "; ".join(told(one) for one in errors[:_SHOWN])
    more = f"; {how_to_see_all} shows all {len(errors)}" if len(errors) > _SHOWN else ""
    raise ConfigError(f"{what} cannot be run: {first}{more}")


def told(finding: Finding) -> str:
    """A finding in one line."""
    place = f"{finding.place} " if finding.file else ""
    where = f"{finding.where} {finding.path}".rstrip()
    return f"{place}{finding.reason}: {where}: {finding.message}; {finding.cure}"


def _validate(settings: Settings) -> str:
    return f"run-cycle-loop agentrun validate -f {settings.manifest} --profile {settings.profile}"


def _moved(one: Document, namespace: str) -> Document:
    metadata = one.body.get("metadata")
    given = metadata if isinstance(metadata, dict) else {}
    return replace(one, body={**one.body, "metadata": {**given, "namespace": namespace}}, namespace=namespace)
