#!/bin/sh
# Three cycles, each with the goal that the file holds when it starts.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

echo "Fix the failing test." >goal.txt
printf '%s\n' "Remove the dead code." "Write the release notes." >backlog.txt
run-cycle-loop run --iterations 3 --sleep 0 --mode stabilize --goal-file goal.txt \
    --cycle-script ./cycle.sh --archive-glob off 2>/dev/null
for number in 1 2 3; do
    run-cycle-loop logs "$number" | grep '^mode'
done
