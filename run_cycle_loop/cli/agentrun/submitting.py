"""``agentrun submit``: a manifest to a cluster, after everything that can be known before was looked at."""

import json
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from run_cycle_loop.agentrun.checks.findings import Severity
from run_cycle_loop.cli.agentrun.given import bundle_of, files, one_run, renamed, screen, show
from run_cycle_loop.cli.agentrun.looking import duration, followed
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.report import findings as view

if TYPE_CHECKING:
    from run_cycle_loop.agentrun.cluster.preflight import Preflight
    from run_cycle_loop.agentrun.cluster.submit import Plan, Submission


@click.command(cls=SettingsCommand)
@files
@click.option("--run", "which", metavar="NAME", help="Which one of several AgentRuns.")
@click.option("--name", metavar="NAME", help="Send it under another name.")
@click.option("--unique", is_flag=True, help="Send it under its name with a random ending.")
@click.option(
    "--idempotency-key", "key", metavar="KEY", default="", help="Nothing with the same key runs twice. [its content]"
)
@click.option("-w", "--watch", is_flag=True, help="Then follow it until it is over, and leave with what became of it.")
@click.option("--timeout", metavar="DURATION", callback=duration, help="Watch no longer than this; the run goes on.")
@click.option("--nudge", is_flag=True, help="While watching, wake the controller for what is overdue.")
@click.option("--dry-run", is_flag=True, help="Check and try everything on the server; send nothing.")
@click.option(
    "--controller-namespace", metavar="NAME", default="agents", show_default=True, help="Where its controller is."
)
@click.option("--json", "as_json", is_flag=True, help="For scripts, as JSON; with --watch one object a line.")
@options("profile", "namespace", "kubeconfig", "kube_context", "config")
def submit(  # noqa: PLR0913 - what to send, and how
    flags: dict[str, Any],
    *,
    sources: Sequence[str],
    which: str | None,
    name: str | None,
    unique: bool,
    key: str,
    watch: bool,
    timeout: float | None,
    nudge: bool,
    dry_run: bool,
    controller_namespace: str,
    as_json: bool,
) -> int:
    """Check the cluster, then send a run and what it needs to it, once.

    Looked at first: the manifest, the definitions and their rules, the controller's flags and limits, the Agent and
    its prompt, Secrets, claims, names, room, and what you may do there. Dependencies go before the run. The run is
    created and never replaced; what was sent already, by its key, is taken as it is.
    """
    from run_cycle_loop.app.cluster_runs import in_namespace  # noqa: PLC0415 - 0.3 s
    from run_cycle_loop.app.runs import cluster_runs  # noqa: PLC0415

    if name and unique:
        raise click.UsageError("--name and --unique contradict each other; give one of the two")
    settings = settings_for_looking(flags)
    bundle = in_namespace(bundle_of(sources), settings.namespace)
    document, _ = one_run(bundle, which)
    bundle, document = renamed(bundle, document, name, secrets.token_hex(4) if unique else "")
    with ExitStack() as stack:
        place = cluster_runs(settings, stack, sending=True)
        found = place.check(bundle, document, key=key, controller_namespace=controller_namespace)
        if found.errors:
            return _refused(found, as_json=as_json)
        if not as_json:
            _tell(found)
        planned = place.plan(bundle, document, key=key)
        if not as_json:
            _tell_plan(planned)
        if dry_run:
            click.echo(
                json.dumps(planned.as_json()) if as_json else "dry run: the server accepts all of it; nothing was sent"
            )
            return 0
        done = place.submit(planned)
        code = _told(done, as_json=as_json)
        if code or not watch:
            return code
        seen = place.in_namespace_of(done.namespace).watch(done.name, timeout=timeout, nudge=nudge)
        return followed(seen, where=place.where, as_json=as_json)


def _refused(found: "Preflight", *, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(found.as_json(), default=str))
        return 2
    _tell(found)
    click.echo(view.summary(found.findings, checked=f"{found.run} was not sent"))
    if found.proposed_name:
        click.echo(f"a free name is {found.proposed_name}: add --name {found.proposed_name}, or --unique")
    return 2


def _tell(found: "Preflight") -> None:
    width, style = screen()
    loud = [one for one in found.findings if one.severity is not Severity.NOTE]
    show([*view.lines(loud, width=width, style=style)], style)


def _tell_plan(planned: "Plan") -> None:
    width, style = screen()
    for one in planned.dependencies:
        click.echo(f"  {one.action:<7} {one.kind}/{one.name}")
        for change in one.changes:
            for line in style.wrap(f"{change.path}: {change.before} becomes {change.after}", width - 10, most=6):
                click.echo(f"          {line}")


def _told(done: "Submission", *, as_json: bool) -> int:
    from run_cycle_loop.agentrun.cluster.submit import EXIT_CODES  # noqa: PLC0415

    code = EXIT_CODES[done.result]
    if as_json:
        click.echo(json.dumps(done.as_json()))
        return code
    click.echo(f"AgentRun/{done.name} in {done.namespace}: {done.result}{f', {done.message}' if done.message else ''}")
    if done.proposed_name:
        click.echo(f"a free name is {done.proposed_name}: add --name {done.proposed_name}, or --unique")
    if code == 0:
        where = f"--where cluster --namespace {done.namespace}"
        click.echo(f"`run-cycle-loop agentrun watch {done.name} {where}` follows it")
    return code
