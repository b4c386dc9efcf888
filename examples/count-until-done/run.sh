#!/bin/sh
# Runs cycles until one of them says that there is nothing left to do.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

# --iterations is the belt to the braces: a cycle that never says "done" ends here.
run-cycle-loop run --iterations 10 --sleep 0 --while 'iteration.last.control.continue' -- ./step.sh 2>/dev/null
run-cycle-loop history
run-cycle-loop status
