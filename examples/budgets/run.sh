#!/bin/sh
# A loop without end that its budget ends, and how the budgets stand then.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

run-cycle-loop run 2>/dev/null || echo "exit code $?"
run-cycle-loop history
run-cycle-loop budget
