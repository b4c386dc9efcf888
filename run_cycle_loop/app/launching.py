"""How the engine starts an attempt of an AgentRun of this machine: a runner of its own, which outlives the engine."""

import sys

from run_cycle_loop.agentrun.local.machine import AttemptPlan


def launch(plan: AttemptPlan) -> tuple[str, ...]:
    """The command line of an attempt's runner."""
    return (sys.executable, "-P", "-m", "run_cycle_loop.start_attempt", str(plan.spec))
