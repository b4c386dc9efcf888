"""``python -m run_cycle_loop.start_attempt [agent-runner.json]``."""

import sys

from run_cycle_loop.start_attempt.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
