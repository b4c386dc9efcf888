#!/bin/sh
# Runs the nightly work twice, as two nights of cron would, and looks at what happened.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:$PWD/../../scripts

run-cycle-loop run --iterations 1 --sleep 0 2>/dev/null
run-cycle-loop run --iterations 1 --sleep 0 2>/dev/null
run-cycle-loop history
run-cycle-loop logs latest
