"""``python -m run_cycle_loop`` is the command ``run-cycle-loop``."""

from run_cycle_loop.cli.main import entry

entry()
