"""``start-cycle``: what the loop starts for each cycle that is an AgentRun or a Job; nobody calls it by hand."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from run_cycle_loop.cli.run import RunCommand
from run_cycle_loop.config.options import options
from run_cycle_loop.config.sources import resolve

#: Told to the cycle as they are: a goal that the loop took from a list is no setting of this process.
_GOAL = frozenset(f"RUN_CYCLE_{name}" for name in ("GOAL", "GOAL_FILE", "GOALS", "GOAL_COMMAND"))


_HEEDED = (
    *("runner", "manifest", "where", "profile", "strict_cluster", "image", "job_template"),
    *("namespace", "kubeconfig", "kube_context", "timeout", "grace", "agent", "state_dir", "log_dir", "config"),
)


@click.command("start-cycle", cls=RunCommand)
@options(*_HEEDED)
@click.pass_context
def start_cycle(ctx: click.Context, flags: dict[str, Any]) -> int:
    """Run one cycle as an AgentRun or as a Kubernetes Job.

    This is what `run --runner agentrun` and `run --runner job` start for each cycle; call those instead.
    """
    from run_cycle_loop.app.cycles import run_cycle  # noqa: PLC0415 - a usage error need not load it

    settings = resolve(
        flags, _without_goal(os.environ), Path.cwd(), ctx.meta.get(RunCommand.__module__, ()), cycle_files=False
    ).settings
    return run_cycle(settings, dict(os.environ))


def _without_goal(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in _GOAL}
