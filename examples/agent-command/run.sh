#!/bin/sh
# A command of your own as the agent: first without consent, then with it.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

run-cycle-loop run 2>/dev/null || echo "exit code $?"
run-cycle-loop consent grant --until 1h --max-cycles 2 --reason "the example"
run-cycle-loop run 2>/dev/null
run-cycle-loop history
run-cycle-loop logs latest | grep '^Agent\|^Summary'
cat sandbox/done.txt
