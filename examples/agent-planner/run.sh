#!/bin/sh
# Two cycles of the built-in planner, what it planned, and what it keeps for the next one.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

run-cycle-loop run --iterations 2 2>/dev/null
run-cycle-loop history
sed -n '1,/^## /p' sandbox/plan.md
