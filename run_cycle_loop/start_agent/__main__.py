"""``python -m run_cycle_loop.start_agent``."""

import sys

from run_cycle_loop.start_agent.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
