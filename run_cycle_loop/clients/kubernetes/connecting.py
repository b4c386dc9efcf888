"""From what the operator configured to a cluster."""

import os
from collections.abc import Mapping
from pathlib import Path

from run_cycle_loop.clients.kubernetes.api import Cluster, Timeouts
from run_cycle_loop.model.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_USUAL = Timeouts()


def connect(
    *,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    field_manager: str = "run-cycle-loop",
    environ: Mapping[str, str] | None = None,
    service_account: Path = SERVICE_ACCOUNT,
    timeouts: Timeouts = _USUAL,
    alarm: int | None = None,
) -> Cluster:
    """The cluster that a kubeconfig names. Nothing is asked of it yet; close it in the end.

    Args:
        kubeconfig: the file; None: those in ``KUBECONFIG``, or ``~/.kube/config``, or the pod's service account.
        context: in the kubeconfig; None: the current one.
        namespace: the default one; None: that of the context.
        field_manager: whose changes ours are.
        environ: where ``KUBECONFIG`` and ``HOME`` are, and what exec plugins get; None: this process's own.
        service_account: where a pod finds its own.
        timeouts: how long the server is waited for.
        alarm: a descriptor; a call in which it becomes readable is given up, as if nobody had answered.

    Raises:
        ConfigError: there is no configuration, or it is broken, or lightkube is not installed.
    """
    try:
        from run_cycle_loop.clients.kubernetes import opening  # noqa: PLC0415 - 0.3 s, and only for who has a cluster
    except ImportError as error:
        raise ConfigError(
            f"Kubernetes needs lightkube ({error}); install it: pip install 'run-cycle-loop[kubernetes]'"
        ) from error
    return opening.opened(
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace,
        field_manager=field_manager,
        environ=os.environ if environ is None else environ,
        service_account=service_account,
        timeouts=timeouts,
        alarm=alarm,
    )
