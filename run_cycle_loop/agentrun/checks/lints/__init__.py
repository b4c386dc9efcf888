"""What nobody refuses and still bites: manifests that are accepted and then hang, lose state, or do something else.

Each lint looks at one run among its objects (``run_lints``), at one object (``object_lints``) or at all that was given
together (``bundle_lints``). What the controller refuses stands in ``rules``.
"""

from collections.abc import Iterator

from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.lints.branches import branch_lints
from run_cycle_loop.agentrun.checks.lints.bundles import bundle_lints
from run_cycle_loop.agentrun.checks.lints.loops import loop_lints
from run_cycle_loop.agentrun.checks.lints.naming import naming_lints
from run_cycle_loop.agentrun.checks.lints.providers import object_lints, provider_lints
from run_cycle_loop.agentrun.checks.lints.texts import text_lints
from run_cycle_loop.agentrun.checks.lints.timing import timing_lints
from run_cycle_loop.agentrun.checks.lints.workloads import workload_lints
from run_cycle_loop.agentrun.checks.subject import Subject

__all__ = ["bundle_lints", "object_lints", "run_lints"]


def run_lints(subject: Subject) -> Iterator[Finding]:
    """Of one run."""
    yield from naming_lints(subject)
    yield from timing_lints(subject)
    yield from workload_lints(subject)
    yield from loop_lints(subject)
    yield from text_lints(subject)
    yield from branch_lints(subject)
    yield from provider_lints(subject)
