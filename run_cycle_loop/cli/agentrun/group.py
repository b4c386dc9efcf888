"""The group ``agentrun`` and its commands by name."""

import click

from run_cycle_loop.cli.lazy import LazyGroup

_COMMANDS = {
    "validate": ("agentrun.manifests.validate", "Check manifests, without a cluster."),
    "explain": ("agentrun.manifests.explain", "Say what a run would do: prompt, image, volumes, loop, Jobs."),
    "render": ("agentrun.manifests.render", "Print the payloads that the agent would be given."),
    "create": ("agentrun.creating.create", "Write a manifest from flags."),
    "run": ("agentrun.running.run", "Run a manifest on this machine."),
    "submit": ("agentrun.submitting.submit", "Check the cluster, then send a manifest to it."),
    "watch": ("agentrun.looking.watch", "Follow a run until it is over."),
    "status": ("agentrun.looking.status", "Show how far a run is."),
    "logs": ("agentrun.looking.logs", "Print or follow what the attempts of a run print."),
    "list": ("agentrun.looking.list_runs", "List the runs."),
    "verify": ("agentrun.looking.verify", "Check that each iteration had the system prompt that was meant."),
    "cancel": ("agentrun.looking.cancel", "End a run so that it stays ended."),
    "flags": ("agentrun.looking.flags", "Show the flags of the cluster's controller."),
}

_HELP = """Check, explain, run and watch AgentRuns, on this machine or on a cluster.

\b
run-cycle-loop agentrun validate -f run.yaml      what is wrong with it
run-cycle-loop agentrun explain -f run.yaml       what it would do
run-cycle-loop agentrun run -f run.yaml           do it here
run-cycle-loop agentrun submit -f run.yaml -w     do it on a cluster, and watch
run-cycle-loop agentrun status NAME               how far it is
"""


@click.group(cls=LazyGroup, commands_by_name=_COMMANDS, help=_HELP)
def agentrun() -> None:
    """Every command of AgentRuns hangs below this one."""
