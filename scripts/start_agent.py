#!/usr/bin/env python3
"""Starts the agent of one cycle, after consent: the built-in planner or a coding agent; inside the loop and by hand."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The package beside this script is the one that is meant, installed or not.
sys.path.insert(0, str(ROOT))

from run_cycle_loop.start_agent.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], root=ROOT))
