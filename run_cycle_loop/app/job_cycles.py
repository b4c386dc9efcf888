"""A cycle as a plain Kubernetes Job, put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run_cycle_loop.app.cycle import Cycle
from run_cycle_loop.clients.kubernetes.connecting import connect
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.config.files import read_text
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.runners.cycle_end import CycleEnd
from run_cycle_loop.runners.job import clear_jobs, run_job
from run_cycle_loop.runners.job_following import Following
from run_cycle_loop.runners.job_manifest import Wanted, job_manifest
from run_cycle_loop.runners.job_result import cycle_end
from run_cycle_loop.runners.marks import NOBODY

_STARTING = 300.0  #: seconds for a pod that cannot start
_PATIENCE = 60.0  #: seconds for one question to a cluster that does not answer


def run_as_job(cycle: Cycle) -> CycleEnd:
    """Run one cycle as a Job.

    Raises:
        ConfigError: the Job cannot be made of what is set.
        KubernetesError: the cluster refuses it, or does not answer.
        RunnerError: something else is in its way.
        Stopped: an end was asked for before anything was made.
    """
    settings, stops, clock = cycle.settings, cycle.stops, SystemClock()
    made_of = wanted(settings)
    with connect(
        kubeconfig=settings.kubeconfig,
        context=settings.kube_context,
        namespace=settings.namespace,
        environ=cycle.environ,
        alarm=stops.fileno(),
    ) as cluster:
        manifest = job_manifest(made_of, marks=cycle.marks, told=cycle.told, default_namespace=cluster.namespace)
        clear_jobs(
            PatientCluster(cluster, wait=stops.wait, budget=patience(settings)),
            cycle.marks,
            manifest["metadata"]["namespace"],
            clock=clock,
            wait=stops.wait,
            say=cycle.say,
        )
        how = Following(
            output=cycle.output,
            say=cycle.say,
            starting=starting(settings),
            ending=cycle.ending,
            patience=patience(settings),
        )
        return cycle_end(run_job(cluster, manifest, how, clock=clock, wait=stops.wait, hurry=stops.hurry))


def check_job(settings: Settings) -> None:
    """See that a Job can be made of the settings; no cluster is asked.

    Raises:
        ConfigError: it cannot.
    """
    job_manifest(wanted(settings), marks=NOBODY, told={}, default_namespace="default")


def starting(settings: Settings) -> float:
    """Seconds for a pod that cannot start: so few that the reason is told, and not only that the time was over."""
    return _short_of_timeout(settings, _STARTING, 0.7)


def patience(settings: Settings) -> float:
    """Seconds for one question to a cluster that does not answer; as few, and for the same reason."""
    return _short_of_timeout(settings, _PATIENCE, 0.5)


def _short_of_timeout(settings: Settings, longest: float, share: float) -> float:
    if settings.timeout is None:
        return longest
    return min(longest, max(1.0, (settings.timeout - settings.grace) * share))


def wanted(settings: Settings) -> Wanted:
    """What a Job is made of.

    Raises:
        ConfigError: the template cannot be read.
    """
    return Wanted(
        image=settings.image,
        command=settings.command,
        template=None if settings.job_template is None else _template(settings.job_template),
        namespace=settings.namespace,
        timeout=settings.timeout,
        grace=settings.grace,
    )


def _template(path: Path) -> Mapping[str, Any]:
    try:
        import yaml  # noqa: PLC0415 - an extra, and only for who has a template
    except ImportError as error:
        raise ConfigError(
            f"a Job template needs PyYAML ({error}); install it: pip install 'run-cycle-loop[yaml]'"
        ) from error
    try:
        found = [one for one in yaml.safe_load_all(read_text(path)) if one is not None]
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"the Job template {path} cannot be read: {said:.300}; give a Job as YAML") from error
    if len(found) != 1 or not isinstance(found[0], dict):
        raise ConfigError(f"the Job template {path} holds {len(found)} documents; give exactly one, a Job or a Pod")
    return found[0]
