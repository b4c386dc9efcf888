#!/bin/sh
# One cycle, as the loop calls it: run_cycle.sh MODE GOAL. What is started, and how, is said by the loop's variables
# (RUN_CYCLE_AGENT and others); without them it is the built-in planner.
set -eu

if [ $# -ne 2 ]; then
    echo "usage: run_cycle.sh MODE GOAL" >&2
    exit 2
fi
self=$(readlink -f -- "$0")
root=${self%/*/*}
python=$root/.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}

# A cycle has nobody to ask: a coding agent needs a grant of consent, which is looked for.
export RUN_CYCLE_ASSUME_YES="${RUN_CYCLE_ASSUME_YES:-true}"
exec "$python" "$root/scripts/start_agent.py" --cycle "$1" "$2"
