#!/bin/sh
# Works through a list of goals, and shows which cycle worked on which.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

run-cycle-loop run 2>/dev/null || [ $? -eq 13 ] # all goals are reached
for number in 1 2 3 4 5 6; do
    run-cycle-loop logs "$number" | grep '^goal'
done
run-cycle-loop status | head -n 3
