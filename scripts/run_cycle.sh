#!/bin/sh
# One cycle, as the loop calls it: run_cycle.sh MODE GOAL. It starts the built-in planner; a coding agent would be
# started here instead, under the same variables (RUN_CYCLE_*).
set -eu

if [ $# -ne 2 ]; then
    echo "usage: run_cycle.sh MODE GOAL" >&2
    exit 2
fi
self=$(readlink -f -- "$0")
root=${self%/*/*}
python=$root/.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}

# The = keeps a goal that begins with a dash a goal.
exec "$python" "$root/scripts/start_agent.py" --mode="$1" --goal="$2" \
    --cap-writes="${RUN_CYCLE_CAP_WRITES:-3}" --assume-yes
