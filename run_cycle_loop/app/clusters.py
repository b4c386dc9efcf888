"""The way to the cluster that the settings name."""

from collections.abc import Callable
from contextlib import ExitStack

from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.patient import PatientCluster
from run_cycle_loop.config.settings import Settings

Wait = Callable[[float], bool]


def connected(
    settings: Settings, stack: ExitStack, wait: Wait, alarm: int | None = None, budget: float = 60.0
) -> PatientCluster:
    """A connection that forgives what passes by itself; it is closed with the stack.

    Args:
        settings: which kubeconfig, context and namespace.
        stack: who closes it.
        wait: pauses for so many seconds; true where it was asked to stop.
        alarm: a descriptor that is readable when a signal has come, so that no call makes deaf.
        budget: seconds that one call may be tried for.

    Raises:
        ConfigError: there is no way to a cluster.
    """
    from run_cycle_loop.clients.kubernetes.connecting import connect  # noqa: PLC0415 - 0.3 s

    cluster = connect(
        kubeconfig=settings.kubeconfig, context=settings.kube_context, namespace=settings.namespace, alarm=alarm
    )
    close = getattr(cluster, "close", None)
    if close is not None:
        stack.callback(close)
    return PatientCluster(cluster, wait=wait, budget=budget)


def profile_of(settings: Settings, cluster: Cluster | None = None) -> Profile:
    """The profile that is set; ``auto`` asks the cluster."""
    if settings.profile != "auto":
        return Profile(settings.profile)
    from run_cycle_loop.agentrun.cluster.detect import detect  # noqa: PLC0415 - only for ``auto``

    with ExitStack() as stack:
        asked = cluster or connected(settings, stack, _impatient)
        return detect(asked, settings.namespace or "agents").profile


def _impatient(seconds: float) -> bool:
    """Waits for nothing: a question of the moment is answered now or not at all."""
    del seconds
    return True
