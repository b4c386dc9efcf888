"""A cycle as an AgentRun, put together: on a cluster, or on this machine."""

from collections.abc import Iterable

from run_cycle_loop.agentrun.checks.findings import Finding, Severity
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document
from run_cycle_loop.app.cycle import Cycle
from run_cycle_loop.app.manifests import findings_of, read_manifest, refuse_errors, told
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.runners.agentrun import Body, RunResult, run_agentrun
from run_cycle_loop.runners.cycle_end import CycleEnd


def run_as_agentrun(cycle: Cycle) -> CycleEnd:
    """Run one cycle as an AgentRun.

    Raises:
        ConfigError: the manifest is none that could start.
        KubernetesError: the cluster refuses it, or does not answer.
        RunnerError: something else is in its way.
        StateError: the run of this machine cannot be stored.
        Stopped: an end was asked for before anything was made.
    """
    bundle, document = read_manifest(cycle.settings)
    if cycle.settings.where == "local":
        from run_cycle_loop.app.local_cycles import on_this_machine  # noqa: PLC0415 - one of the two is needed

        _heed(cycle, findings_of(cycle.settings, bundle))
        return on_this_machine(cycle, bundle, document)
    return _on_cluster(cycle, bundle, document)


#: Errors that are over by themselves once something else has ended: the next cycle may be let in.
_PASSING = frozenset({"QueueLimit", "ClaimInUse", "DefinitionNotEstablished"})


def _heed(cycle: Cycle, findings: Iterable[Finding]) -> None:
    """Say what was found, and go on only where nothing would be refused.

    Raises:
        ConfigError: something would, until a person has changed it.
        RunnerError: something would for now.
    """
    findings = tuple(findings)
    for one in findings:
        if one.severity is not Severity.NOTE:
            cycle.say(f"{one.severity}: {told(one)}")
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if errors and all(one.reason in _PASSING for one in errors):
        raise RunnerError(told(errors[0]))
    refuse_errors(findings, f"the manifest {cycle.settings.manifest}", "the cycle's log")


def _on_cluster(cycle: Cycle, bundle: Bundle, document: Document) -> CycleEnd:
    from run_cycle_loop.agentrun.cluster.preflight import preflight  # noqa: PLC0415 - only for who has a cluster
    from run_cycle_loop.app.clusters import profile_of  # noqa: PLC0415
    from run_cycle_loop.app.job_cycles import patience, starting  # noqa: PLC0415
    from run_cycle_loop.clients.kubernetes.connecting import connect  # noqa: PLC0415
    from run_cycle_loop.kit.clock import SystemClock  # noqa: PLC0415
    from run_cycle_loop.runners.agentrun_cluster import Place, carry_out, clear_runs, of_cycle  # noqa: PLC0415
    from run_cycle_loop.runners.job_following import Following  # noqa: PLC0415

    settings, stops = cycle.settings, cycle.stops
    how = Following(output=cycle.output, say=cycle.say, starting=starting(settings), ending=cycle.ending)
    with connect(
        kubeconfig=settings.kubeconfig,
        context=settings.kube_context,
        namespace=document.namespace,
        environ=cycle.environ,
        alarm=stops.fileno(),
    ) as cluster:
        place = Place(
            cluster=cluster, clock=SystemClock(), wait=stops.wait, hurry=stops.hurry, patience=patience(settings)
        )

        def sent(run: Body) -> RunResult:
            whole, mine = of_cycle(bundle, document, run)
            patient = place.patient()
            found = preflight(
                patient, whole, mine, profile=profile_of(settings, patient), clock=place.clock, key=cycle.marks.cycle
            )
            _heed(cycle, found.findings)
            return carry_out(place, whole, mine, how)

        return run_agentrun(
            document.body,
            cycle.marks,
            clear=lambda: clear_runs(place, cycle.marks, document.namespace, say=cycle.say),
            carry_out=sent,
        )
