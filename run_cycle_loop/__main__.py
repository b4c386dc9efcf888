"""``python -m run_cycle_loop`` is the command ``run-cycle-loop``."""

import sys

from run_cycle_loop.cli.main import main

sys.exit(main())
