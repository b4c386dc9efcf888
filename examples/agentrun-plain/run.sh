#!/bin/sh
# Checks the manifest, says what it would do, runs it on this machine, and shows what became of it.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

run-cycle-loop agentrun validate --quiet -f run.yaml
run-cycle-loop agentrun run --unique -f run.yaml
run-cycle-loop agentrun list

# The same as the work of a supervised loop: each cycle is a run of its own.
run-cycle-loop run --runner agentrun --manifest run.yaml --iterations 2 --sleep 0 2>/dev/null
run-cycle-loop history
